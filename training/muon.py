"""Muon in float32, for processors that are slow with bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Float32Muon(torch.optim.Muon):
    """torch's Muon with Newton-Schulz iterations in float32 instead of bfloat16.

    Takes ``adjust_lr_fn="match_rms_adamw"`` for granted, and Nesterov's momentum. The state is that
    of torch's Muon.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average, momentum = state["momentum_buffer"], group["momentum"]
        average.lerp_(gradient, 1 - momentum)
        update = gradient.lerp(average, momentum)
        rate = group["lr"]
        parameter.mul_(1 - rate * group["weight_decay"])
        length = 0.2 * max(parameter.shape) ** 0.5
        parameter.sub_(_orthogonal(update, group), alpha=rate * length)


def _orthogonal(matrix: Tensor, group: dict[str, Any]) -> Tensor:
    """Set the singular values of a matrix to about 1."""
    a, b, c = group["ns_coefficients"]
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x
