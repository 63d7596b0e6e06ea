"""Recordings whose fingerprints are smooth in time, put together from stretches of sound.

A sound is a float32 array of shape (n_ticks, dim), random and independent of other sounds. A
segment is the weighted mean of the ticks in it, so that those beside each other are alike, and one
over a cut mixes both sides.
"""

from __future__ import annotations

import numpy as np

from engine.records import Fingerprint, Vectors

TICK_S = 0.125
HOP_S = 0.5
SEGMENT_S = 1.0
DIM = 64

_N_TICKS = round(SEGMENT_S / TICK_S)


def sound(seed: int, length_s: float) -> Vectors:
    """Make sound of a length, which is rounded to ticks."""
    shape = round(length_s / TICK_S), DIM
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def stretch(ticks: Vectors, start_s: float, end_s: float | None = None) -> Vectors:
    """Cut a stretch out of a sound."""
    return ticks[round(start_s / TICK_S) : None if end_s is None else round(end_s / TICK_S)]


def at_speed(ticks: Vectors, speed: float) -> Vectors:
    """Play a sound faster."""
    places = np.arange(0, len(ticks) - 1, speed)
    lower, share = places.astype(int), (places % 1)[:, None]
    return np.asarray((1 - share) * ticks[lower] + share * ticks[lower + 1], np.float32)


def fingerprint(
    *sounds: Vectors, noise: float = 0.0, seed: int = 0, hop_s: float = HOP_S
) -> Fingerprint:
    """Fingerprint sounds that follow one another, with noise in each segment."""
    ticks = np.concatenate(sounds)
    windows = np.lib.stride_tricks.sliding_window_view(ticks, _N_TICKS, axis=0)
    weights = np.hanning(_N_TICKS + 2)[1:-1]
    clean = _unit(windows[:: round(hop_s / TICK_S)] @ weights)
    random = _unit(np.random.default_rng(seed).standard_normal(clean.shape))
    embeddings = np.where(clean.any(axis=1, keepdims=True), _unit(clean + noise * random), 0)
    embeddings = embeddings.astype(np.float32)
    return Fingerprint(
        embeddings=embeddings,
        clip_embeddings=embeddings[:1],
        segment_hop_s=hop_s,
        segment_s=SEGMENT_S,
        duration_s=len(ticks) * TICK_S,
        recipe_id="r",
    )


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))
