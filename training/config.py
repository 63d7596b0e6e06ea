"""Settings of a training run, each with its default; they are stored in the training record."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.errors import ConfigError
from training.augment.config import AugmentConfig

LOSSES = ("nt_xent", "triplet", "decoupled")
OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one training run.

    Parameters
    ----------
    n_pairs : int
        Pairs of views in a batch, each of another track while there are enough tracks.
    n_pairs_per_chunk : int
        If smaller than `n_pairs`, the gradient of the batch is computed in chunks, with one more
        forward pass and the memory of one chunk (Gao et al. 2021, arXiv 2101.06983).
    gradient_checkpointing : bool
        Compute activations again in the backward pass instead of storing them.
    compiled : bool
        Compile the network with `torch.compile`, which takes minutes at the start.
    n_steps, n_warmup_steps : int
        Length of the run, and of the rise of the learning rate.
    max_minutes : float or None
        Time limit of decoding and the encoder's training. The learning rate falls at the end of
        the time if that comes before the end of `n_steps`.
    cooldown_fraction : float
        Fraction of the run, at its end, in which the learning rate falls. A run can be extended
        until then with the same result as if it had been longer from the start.
    optimizer : {"adamw", "muon"}
        See :func:`training.learner.optimizers`.
    learning_rate, weight_decay, max_grad_norm : float
        Settings of either optimizer; gradients are clipped to `max_grad_norm`.
    loss : {"nt_xent", "triplet", "decoupled"}
        See :mod:`training.loss`.
    temperature, margin : float
        Of NT-Xent and the decoupled loss; of the triplet loss.
    n_clips, n_clip_steps, n_clip_pairs, clip_learning_rate : int, int, int, float
        Training of the clip head on the finished encoder: number of pairs of clips, steps, pairs
        in a batch, and the initial learning rate.
    n_held_out : int
        Tracks that are kept out of training for validation.
    checkpoint_every_s, validate_every : float, int
        Seconds between two checkpoints, steps between two validations.
    seed : int
    augment : AugmentConfig
    """

    n_pairs: int = 128
    n_pairs_per_chunk: int = 512
    gradient_checkpointing: bool = False
    compiled: bool = False
    n_steps: int = 6000
    n_warmup_steps: int = 200
    max_minutes: float | None = None
    cooldown_fraction: float = 0.4
    optimizer: str = "muon"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    loss: str = "nt_xent"
    temperature: float = 0.05
    margin: float = 0.5
    n_clips: int = 4000
    n_clip_steps: int = 1500
    n_clip_pairs: int = 256
    clip_learning_rate: float = 1e-3
    n_held_out: int = 32
    checkpoint_every_s: float = 300.0
    validate_every: int = 500
    seed: int = 0
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        for key in (
            *("n_pairs_per_chunk", "n_steps", "n_clips", "n_clip_pairs", "n_held_out"),
            *("checkpoint_every_s", "validate_every", "temperature", "learning_rate"),
            "max_minutes",
        ):
            if (value := getattr(self, key)) is not None and not value > 0:
                raise ConfigError.invalid(key, value, "must be positive")
        if self.n_pairs < 2:
            raise ConfigError.invalid("n_pairs", self.n_pairs, "must be at least 2")
        if self.seed < 0:
            raise ConfigError.invalid("seed", self.seed, "must be 0 or more")
        if not 0 <= self.cooldown_fraction <= 1:
            raise ConfigError.invalid(
                "cooldown_fraction", self.cooldown_fraction, "must be in [0, 1]"
            )
        for key, known in {"loss": LOSSES, "optimizer": OPTIMIZERS}.items():
            if (value := getattr(self, key)) not in known:
                raise ConfigError.invalid(key, value, f"must be one of {', '.join(known)}")
