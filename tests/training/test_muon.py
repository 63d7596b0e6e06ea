from __future__ import annotations

from typing import Any

import pytest
import torch

from training.muon import Float32Muon

SETTINGS: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}


@pytest.mark.parametrize("shape", [(12, 12), (24, 8), (8, 24)])
def test_steps_are_those_of_torch_but_for_rounding(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    own, other = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = Float32Muon([own], **SETTINGS), torch.optim.Muon([other], **SETTINGS)
    for _ in range(3):
        gradient = torch.randn(shape, generator=generator)
        for parameter, optimizer in zip((own, other), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    moved = (own.detach() - start).norm()
    assert float(moved) > 0.1
    assert float((own.detach() - other.detach()).norm() / moved) < 0.03
    first, second = (one.state_dict()["state"] for one in optimizers)
    assert first[0].keys() == second[0].keys()
    torch.testing.assert_close(first[0]["momentum_buffer"], second[0]["momentum_buffer"])


def test_closure_and_parameters_without_gradient() -> None:
    parameters = [torch.nn.Parameter(torch.ones(3, 3)) for _ in range(2)]
    optimizer = Float32Muon(parameters, **SETTINGS)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = parameters[0].square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).detach() == 9.0
    assert torch.equal(parameters[1], torch.ones(3, 3))
    assert not torch.equal(parameters[0], torch.ones(3, 3))
