from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor

from engine.errors import ConfigError
from engine.model.supervised import as_targets, default_loss, mixup, spec_augment
from engine.recipe import ASTConfig
from tests.encoders import TINY_AST

ONE_OF_THREE = dataclasses.replace(TINY_AST, num_classes=3, multi_label=False)
ANY_OF_THREE = dataclasses.replace(TINY_AST, num_classes=3, multi_label=True)


def _seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


# -- mixup -----------------------------------------------------------------------------------


def _partner_and_weight(mixed: Tensor, one: int) -> tuple[int, float]:
    """Which waveform stands beside its own in a row that was mixed from one-hot waveforms."""
    (beside,) = [other for other in mixed.nonzero()[:, 0].tolist() if other != one]
    return beside, float(mixed[one])


def test_mixup_mixes_two_of_the_batch_and_their_targets_alike() -> None:
    waveforms, targets = torch.eye(40), 2 * torch.eye(40)
    mixed, mixed_targets = mixup(waveforms, targets, _seeded(), prob=1.0)
    n_mixed = 0
    for one, row in enumerate(mixed):
        if row[one] == 1:  # its own partner
            continue
        other, weight = _partner_and_weight(row, one)
        expected = weight * waveforms[one] + (1 - weight) * waveforms[other]
        torch.testing.assert_close(row, expected)
        torch.testing.assert_close(mixed_targets[one], 2 * expected)
        n_mixed += 1
    assert n_mixed > 30


def test_mixup_weights_follow_the_published_distribution() -> None:
    n = 2000
    mixed, _ = mixup(torch.eye(n), torch.zeros(n, 1), _seeded(), prob=1.0)
    weights = mixed.diagonal()
    weights = weights[weights < 1]
    assert float(weights.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(weights.std()) == pytest.approx(np.sqrt(1 / 84), abs=0.005)  # of Beta(10, 10)


@pytest.mark.parametrize("prob", [0.0, 0.5, 1.0])
def test_mixup_leaves_the_rest_as_it_was(prob: float) -> None:
    n = 2000
    mixed, _ = mixup(torch.eye(n), torch.zeros(n, 1), _seeded(), prob)
    untouched = (mixed == torch.eye(n)).all(dim=1)
    assert float(untouched.float().mean()) == pytest.approx(1 - prob, abs=0.04)


def test_mixup_does_not_change_what_it_is_given() -> None:
    waveforms, targets = torch.eye(5), torch.eye(5)
    mixup(waveforms, targets, _seeded(), prob=1.0)
    assert torch.equal(waveforms, torch.eye(5))
    assert torch.equal(targets, torch.eye(5))


def test_mixup_invalid_probability_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"prob=1.5: must be in"):
        mixup(torch.eye(2), torch.eye(2), _seeded(), prob=1.5)


# -- masks -----------------------------------------------------------------------------------


def _hidden_by_loop(one: Tensor) -> tuple[list[int], list[int]]:
    """Frames and bands of which nothing is left."""
    frames = [i for i in range(one.shape[0]) if not one[i].any()]
    bands = [i for i in range(one.shape[1]) if not one[:, i].any()]
    return frames, bands


def test_spec_augment_hides_one_range_of_each_and_nothing_else() -> None:
    features = torch.rand(200, 30, 20) + 1
    masked = spec_augment(features, _seeded(), freq_mask=5, time_mask=8)
    lengths = []
    for before, after in zip(features, masked, strict=True):
        frames, bands = _hidden_by_loop(after)
        for hidden in (frames, bands):
            assert hidden == list(range(hidden[0], hidden[0] + len(hidden))) if hidden else True
        expected = before.clone()
        expected[frames] = 0
        expected[:, bands] = 0
        assert torch.equal(after, expected)
        lengths.append((len(frames), len(bands)))
    assert {n for n, _ in lengths} == set(range(9))
    assert {n for _, n in lengths} == set(range(6))


def test_spec_augment_reaches_both_ends() -> None:
    masked = spec_augment(torch.ones(300, 30, 20), _seeded(), freq_mask=5, time_mask=8)
    hidden_frames = (masked == 0).all(dim=2)
    hidden_bands = (masked == 0).all(dim=1)
    assert hidden_frames[:, [0, -1]].any(dim=0).all()
    assert hidden_bands[:, [0, -1]].any(dim=0).all()


def test_spec_augment_of_nothing_changes_nothing() -> None:
    features = torch.randn(3, 30, 20)
    assert torch.equal(spec_augment(features, _seeded(), 0, 0), features)


@pytest.mark.parametrize(("masks", "key"), [((21, 5), "freq_mask"), ((5, -1), "time_mask")])
def test_spec_augment_refuses_masks_that_do_not_fit(masks: tuple[int, int], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}=-?\d+: must be from 0 to \d+"):
        spec_augment(torch.zeros(1, 30, 20), _seeded(), *masks)


@pytest.mark.parametrize(
    "augment",
    [
        lambda generator: mixup(torch.eye(8), torch.eye(8), generator)[0],
        lambda generator: spec_augment(torch.ones(8, 30, 20), generator, 5, 8),
    ],
    ids=["mixup", "spec_augment"],
)
def test_seed_determines_all_random_numbers(augment: Callable[[Generator], Tensor]) -> None:
    torch.manual_seed(1)
    first = augment(_seeded(3))
    torch.manual_seed(2)
    assert torch.equal(first, augment(_seeded(3)))
    assert not torch.equal(first, augment(_seeded(4)))


# -- targets and loss ------------------------------------------------------------------------


@pytest.mark.parametrize("config", [ONE_OF_THREE, ANY_OF_THREE], ids=["one", "any"])
@pytest.mark.parametrize(
    "targets",
    [
        [2, 0],
        np.array([2, 0]),
        torch.tensor([2, 0], dtype=torch.uint8),
        [[0, 0, 1], [1, 0, 0]],
        np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]),
        torch.tensor([[False, False, True], [True, False, False]]),
    ],
)
def test_as_targets_takes_indices_and_one_hot(config: ASTConfig, targets: ArrayLike) -> None:
    made = as_targets(targets, config)
    assert made.dtype == torch.float32
    assert made.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_as_targets_takes_several_classes_where_they_are_independent() -> None:
    assert as_targets([[1, 0, 1]], ANY_OF_THREE).tolist() == [[1, 0, 1]]
    with pytest.raises(ConfigError, match="each row must sum to 1"):
        as_targets([[1, 0, 1]], ONE_OF_THREE)


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ([3], "=3: must be from 0 to 2"),
        ([-1], "=-1: must be from 0 to 2"),
        ([0.5], r"shape=\(1,\): must be"),
        (1, r"shape=\(\): must be"),
        ([[0, 1]], r"shape=\(1, 2\): must be .* or \(n, 3\) for probabilities"),
        ([[0, 2, 0]], r"must be in \[0, 1\]"),
        ([[0, float("nan"), 0]], r"must be in \[0, 1\]"),
        ([[1, 0, 0], [1, 0]], "must be numbers of one shape"),
        (["dog"], "must be numbers of one shape"),
    ],
)
def test_as_targets_other_values_are_refused(targets: ArrayLike, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"targets.*{reason}"):
        as_targets(targets, ANY_OF_THREE)


def test_as_targets_needs_classes() -> None:
    with pytest.raises(ConfigError, match="must be positive to learn from targets"):
        as_targets([0], TINY_AST)


def test_default_loss_of_independent_classes_is_that_of_each() -> None:
    logits, targets = torch.randn(4, 3, generator=_seeded()), as_targets([2, 0, 1, 1], ANY_OF_THREE)
    chances = 1 / (1 + (-logits).exp())
    expected = -(targets * chances.log() + (1 - targets) * (1 - chances).log()).mean()
    torch.testing.assert_close(default_loss(ANY_OF_THREE)(logits, targets), expected)


def test_default_loss_of_one_class_is_that_of_the_right_one() -> None:
    logits = torch.randn(4, 3, generator=_seeded())
    chances = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    expected = -sum(chances[i, right].log() for i, right in enumerate([2, 0, 1, 1])) / 4
    loss = default_loss(ONE_OF_THREE)(logits, as_targets([2, 0, 1, 1], ONE_OF_THREE))
    torch.testing.assert_close(loss, expected)
