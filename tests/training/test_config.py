from __future__ import annotations

from typing import Any

import pytest

from engine.errors import ConfigError
from training.augment.config import AugmentConfig
from training.config import TrainConfig


@pytest.mark.parametrize(
    "key",
    [
        *("n_pairs_per_chunk", "n_steps", "n_clips", "n_clip_pairs", "n_held_out"),
        *("checkpoint_every_s", "validate_every", "temperature", "learning_rate"),
        "max_minutes",
    ],
)
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_train_config_number_that_is_not_positive_is_refused(key: str, value: float) -> None:
    values: dict[str, Any] = {key: value}
    with pytest.raises(ConfigError, match=f"{key}=.*positive"):
        TrainConfig(**values)


@pytest.mark.parametrize(
    "values",
    [{"n_pairs": 1}, {"seed": -1}, {"cooldown_fraction": 1.5}, {"loss": "cosine"}],
    ids=str,
)
def test_train_config_invalid_value_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^invalid {next(iter(values))}="):
        TrainConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"room_prob": 1.1},
        {"noise_prob": -0.1},
        {"snr_db": (5.0, 0.0)},
        {"noise_kind_probs": (0.5, 0.5, 0.5, 0.5)},
        {"room_s": (0.01, 0.02)},
        {"composed_minutes": 0.0},
        {"composed_minutes": float("nan")},
        {"attack_s": (0.0, 0.1)},
        {"release_s": (-1.0, 0.1)},
    ],
    ids=str,
)
def test_augment_config_invalid_value_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^invalid {next(iter(values))}="):
        AugmentConfig(**values)


def test_disabled_config_has_no_probability_left() -> None:
    config = AugmentConfig.disabled()
    probs = {key: value for key, value in vars(config).items() if key.endswith("_prob")}
    assert len(probs) > 10
    assert not any(probs.values())
