"""Measure how well a model retrieves music it was not trained on."""

from __future__ import annotations

import dataclasses
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import IndexConfig
from engine.device import has_fast_bfloat16
from engine.model import spectrogram
from engine.model.network import AST
from engine.recipe import Recipe
from engine.records import Vectors
from training.augment.config import AugmentConfig
from training.augment.rng import Rng
from training.dataset import PairSampler

DURATIONS_S = (1.0, 2.0, 5.0)
N_QUERIES = 128  # of each duration and degradation
SEED = 20_210_719
_CATALOG_S = 120.0  # of each held-out track in the catalog
_DISTRACTOR_S = 60.0  # of each other track
_N_DISTRACTORS = 96
_BATCH_SIZE = 512
_N_QUERY_HOPS = 2  # per hop of the catalog

_NOISY = dataclasses.replace(AugmentConfig.disabled(), noise_prob=1.0)
DEGRADATIONS = {
    "noise0": dataclasses.replace(_NOISY, snr_db=(0.0, 0.0)),
    "noise-5": dataclasses.replace(_NOISY, snr_db=(-5.0, -5.0)),
    "room0": dataclasses.replace(
        _NOISY,
        snr_db=(0.0, 0.0),
        room_prob=1.0,
        band_prob=1.0,
        low_hz=(300.0, 300.0),
        high_hz=(3400.0, 3400.0),
        slope_db=(48.0, 48.0),
    ),
    "speed+4": dataclasses.replace(AugmentConfig.disabled(), speed_prob=1.0, speed=(1.04, 1.04)),
}


@torch.inference_mode()
def retrieval_hit_rates(
    model: AST, held_out: PairSampler, distractors: PairSampler, recipe: Recipe
) -> dict[str, float]:
    """Search degraded clips of held-out tracks in a catalog of these tracks and others.

    Every position is scored with the mean cosine along it, so that the result depends on the model
    only. The clips are the same in every call.

    Parameters
    ----------
    model : AST
    held_out : PairSampler
        Over tracks that are not trained on.
    distractors : PairSampler
        Over the other tracks of the catalog; only those in the pool of `held_out` are used.
    recipe : Recipe

    Returns
    -------
    dict of float
        Share of queries whose best track is right, for each degradation and duration, and their
        "mean".
    """
    model.eval()
    catalog, track_of = _catalog(model, held_out, distractors, recipe)
    # Queries come from the part of each track that is in the catalog.
    known = held_out.music.truncate(int(_CATALOG_S * recipe.spectrogram.sample_rate))
    rates = {}
    for name, config in DEGRADATIONS.items():
        sampler = dataclasses.replace(held_out, music=known, config=config)
        for duration_s in DURATIONS_S:
            rates[f"{name} {duration_s:g}s"] = _hit_rate(
                model, sampler, catalog, track_of, duration_s, recipe
            )
    model.train()
    return rates | {"mean": float(np.mean(list(rates.values())))}


def embed(model: AST, waveforms: Tensor, hop_s: float, recipe: Recipe) -> Tensor:
    """Embed all segments of waveforms of equal length.

    Parameters
    ----------
    model : AST
    waveforms : float32 tensor of shape (n, n_samples)
    hop_s : float
        Distance of the segments in seconds.
    recipe : Recipe

    Returns
    -------
    float32 tensor of shape (n, n_segments, dim)
        Zeros where a segment is silent.
    """
    settings = recipe.spectrogram
    hop = settings.frames_per_hop(hop_s)
    mel = spectrogram.log_mel(waveforms, settings)
    raw = torch.cat([spectrogram.segments(one, hop, settings) for one in mel])
    kind = raw.device.type
    with torch.autocast(kind, torch.bfloat16, enabled=has_fast_bfloat16(kind)):
        parts = [
            model.embed(spectrogram.normalise(part, settings)) for part in raw.split(_BATCH_SIZE)
        ]
    audible = ~spectrogram.silent(raw, settings)
    return (torch.cat(parts) * audible[:, None]).view(len(waveforms), -1, parts[0].shape[1])


def best_tracks(
    queries: Tensor | Vectors,
    catalog: Tensor | Vectors,
    track_of: Tensor | NDArray[np.int64],
    n_phases: int,
) -> Tensor:
    """Find the track with the highest mean cosine along a query, over all positions in a catalog.

    Parameters
    ----------
    queries : float32 tensor or array of shape (n_queries, n_segments, dim)
        With `n_phases` segments per hop of the catalog.
    catalog : float32 tensor or array of shape (n_stored, dim)
        The segments of all tracks, concatenated.
    track_of : int64 tensor or array of shape (n_stored,)
        Track of each stored segment.
    n_phases : int

    Returns
    -------
    int64 tensor of shape (n_queries,)
    """
    segments, stored, tracks = map(torch.as_tensor, (queries, catalog, track_of))
    phases = (segments[:, first::n_phases] for first in range(min(n_phases, segments.shape[1])))
    scores = reduce(torch.maximum, (_scores(phase, stored, tracks) for phase in phases))
    return tracks[scores.argmax(dim=1)]


def _catalog(
    model: AST, held_out: PairSampler, distractors: PairSampler, recipe: Recipe
) -> tuple[Tensor, Tensor]:
    rate, device = recipe.spectrogram.sample_rate, next(model.parameters()).device
    others = distractors.tracks[distractors.tracks < len(held_out.music)]
    stride = max(len(others) // _N_DISTRACTORS, 1)
    lengths_s = [(track, _CATALOG_S) for track in held_out.tracks]
    lengths_s += [(track, _DISTRACTOR_S) for track in others[::stride]]
    parts, track_of = [], []
    for track, length_s in lengths_s:
        waveform = held_out.music.recording(int(track))[: int(length_s * rate)]
        if len(waveform) >= recipe.spectrogram.samples_per_segment:
            batch = torch.from_numpy(waveform)[None].to(device)
            parts.append(embed(model, batch, IndexConfig().segment_hop_s, recipe)[0])
            track_of.append(torch.full((len(parts[-1]),), int(track), device=device))
    return torch.cat(parts), torch.cat(track_of)


def _hit_rate(
    model: AST,
    sampler: PairSampler,
    catalog: Tensor,
    track_of: Tensor,
    duration_s: float,
    recipe: Recipe,
) -> float:
    n_samples = int(duration_s * recipe.spectrogram.sample_rate)
    if n_samples < recipe.spectrogram.samples_per_segment:
        return 0.0
    rng = Rng((SEED, int(duration_s * 1000)), catalog.device)
    hop_s = IndexConfig().segment_hop_s / _N_QUERY_HOPS
    pairs = sampler.draw(rng, N_QUERIES, n_samples)
    queries = embed(model, pairs.degraded, hop_s, recipe)
    best = best_tracks(queries, catalog, track_of, _N_QUERY_HOPS)
    return float((best == pairs.tracks).float().mean())


def _scores(queries: Tensor, catalog: Tensor, track_of: Tensor) -> Tensor:
    """Mean cosine at every position, (n_queries, n_stored); -inf where two tracks overlap it."""
    n_segments = queries.shape[1]
    cosines = (queries.flatten(0, 1) @ catalog.T).unflatten(0, queries.shape[:2])
    total = torch.zeros(len(queries), len(catalog), device=catalog.device)
    for k in range(n_segments):
        total += cosines[:, k].roll(-k, dims=1)
    straddles = track_of != track_of.roll(1 - n_segments)
    return (total / n_segments).masked_fill(straddles, -torch.inf)
