from __future__ import annotations

from typing import Any

import pytest

from engine.errors import ConfigError
from training.config import AugmentConfig, TrainConfig


@pytest.mark.parametrize(
    "key",
    [
        *("n_pairs_at_once", "n_steps", "n_clips", "n_clip_pairs", "n_held_out"),
        *("checkpoint_every_s", "validate_every", "temperature", "learning_rate"),
    ],
)
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_train_config_wants_positive_numbers(key: str, value: float) -> None:
    values: dict[str, Any] = {key: value}
    with pytest.raises(ConfigError, match=f"{key}=.*positive"):
        TrainConfig(**values)


@pytest.mark.parametrize(
    "values",
    [{"n_pairs": 1}, {"seed": -1}, {"cooldown_share": 1.5}, {"loss": "cosine"}],
    ids=str,
)
def test_train_config_senseless_value_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^invalid {next(iter(values))}="):
        TrainConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"room_share": 1.1},
        {"noise_share": -0.1},
        {"snr_db": (5.0, 0.0)},
        {"noise_kinds": (0.5, 0.5, 0.5, 0.5)},
        {"room_s": (0.01, 0.02)},
    ],
    ids=str,
)
def test_augment_config_senseless_value_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^invalid {next(iter(values))}="):
        AugmentConfig(**values)


def test_unharmed_has_no_share_left() -> None:
    config = AugmentConfig.unharmed()
    shares = {key: value for key, value in vars(config).items() if key.endswith("_share")}
    assert len(shares) > 10
    assert not any(shares.values())
