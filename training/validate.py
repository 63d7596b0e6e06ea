"""How well a model in training retrieves music it has not been trained on."""

from __future__ import annotations

import dataclasses
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import IndexConfig
from engine.model import spectrogram
from engine.model.network import AST
from engine.recipe import Recipe
from engine.records import Vectors
from training.augment.rng import Chance
from training.config import AugmentConfig
from training.dataset import PairSampler

DURATIONS_S = (1.0, 2.0, 5.0)
N_QUERIES = 128  # of each duration and degradation
SEED = 20_210_719
_CATALOG_S = 120.0
_DISTRACTOR_S = 60.0
_N_DISTRACTORS = 96
_BATCH_SIZE = 512
_N_QUERY_HOPS = 2  # in one hop of the catalog

_NOISY = dataclasses.replace(AugmentConfig.unharmed(), noise_share=1.0)
DEGRADATIONS = {
    "noise0": dataclasses.replace(_NOISY, snr_db=(0.0, 0.0)),
    "noise-5": dataclasses.replace(_NOISY, snr_db=(-5.0, -5.0)),
    "room0": dataclasses.replace(
        _NOISY,
        snr_db=(0.0, 0.0),
        room_share=1.0,
        band_share=1.0,
        low_hz=(300.0, 300.0),
        high_hz=(3400.0, 3400.0),
        slope_db=(48.0, 48.0),
    ),
    "speed+4": dataclasses.replace(AugmentConfig.unharmed(), speed_share=1.0, speed=(1.04, 1.04)),
}


@torch.inference_mode()
def retrieve(
    model: AST, held_out: PairSampler, distractors: PairSampler, recipe: Recipe
) -> dict[str, float]:
    """Ask for degraded clips of held-out tracks in a catalog of them and of others.

    Every possible place is scored with the mean cosine along it, so that nothing but the model
    decides. The same clips are asked for every time.

    Parameters
    ----------
    model : AST
    held_out : PairSampler
        Over tracks that are in no training batch.
    distractors : PairSampler
        Over the others.
    recipe : Recipe

    Returns
    -------
    dict of float
        Share of right tracks for each degradation and duration, and their "mean".
    """
    model.eval()
    catalog, track_of = _catalog(model, held_out, distractors, recipe)
    # Only what is in the catalog can be found there.
    known = held_out.music.beginnings(int(_CATALOG_S * recipe.spectrogram.sample_rate))
    found = {}
    for name, config in DEGRADATIONS.items():
        asked = dataclasses.replace(held_out, music=known, config=config)
        for duration_s in DURATIONS_S:
            found[f"{name} {duration_s:g}s"] = _hit_rate(
                model, asked, catalog, track_of, duration_s, recipe
            )
    model.train()
    return found | {"mean": float(np.mean(list(found.values())))}


def embed(model: AST, waveforms: Tensor, hop_s: float, recipe: Recipe) -> Tensor:
    """Embed every segment of equally long waveforms.

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
    with torch.autocast(raw.device.type, torch.bfloat16):
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
    """Lay queries at every place of a catalog, and tell the track of the best.

    The best place is that with the highest mean cosine along it.

    Parameters
    ----------
    queries : float32 tensor or array of shape (n_queries, n_segments, dim)
        `n_phases` segments in every hop of the catalog.
    catalog : float32 tensor or array of shape (n_stored, dim)
        The segments of all tracks, one track behind the other.
    track_of : int64 tensor or array of shape (n_stored,)
    n_phases : int

    Returns
    -------
    int64 tensor of shape (n_queries,)
    """
    asked, stored, owners = map(torch.as_tensor, (queries, catalog, track_of))
    phases = (asked[:, first::n_phases] for first in range(min(n_phases, asked.shape[1])))
    scores = reduce(torch.maximum, (_scores(phase, stored, owners) for phase in phases))
    return owners[scores.argmax(dim=1)]


def _catalog(
    model: AST, held_out: PairSampler, distractors: PairSampler, recipe: Recipe
) -> tuple[Tensor, Tensor]:
    rate, device = recipe.spectrogram.sample_rate, next(model.parameters()).device
    stride = max(len(distractors.tracks) // _N_DISTRACTORS, 1)
    wanted = [(track, _CATALOG_S) for track in held_out.tracks]
    wanted += [(track, _DISTRACTOR_S) for track in distractors.tracks[::stride]]
    parts, track_of = [], []
    for track, longest_s in wanted:
        waveform = held_out.music.recording(int(track))[: int(longest_s * rate)]
        if len(waveform) >= recipe.spectrogram.samples_per_segment:
            sound = torch.from_numpy(waveform)[None].to(device)
            parts.append(embed(model, sound, IndexConfig().segment_hop_s, recipe)[0])
            track_of.append(torch.full((len(parts[-1]),), int(track), device=device))
    return torch.cat(parts), torch.cat(track_of)


def _hit_rate(
    model: AST,
    asked: PairSampler,
    catalog: Tensor,
    track_of: Tensor,
    duration_s: float,
    recipe: Recipe,
) -> float:
    n_samples = int(duration_s * recipe.spectrogram.sample_rate)
    if n_samples < recipe.spectrogram.samples_per_segment:
        return 0.0
    chance = Chance((SEED, int(duration_s * 1000)), catalog.device)
    hop_s = IndexConfig().segment_hop_s / _N_QUERY_HOPS
    pairs = asked.draw(chance, N_QUERIES, n_samples)
    queries = embed(model, pairs.degraded, hop_s, recipe)
    best = best_tracks(queries, catalog, track_of, _N_QUERY_HOPS)
    return float((best == pairs.tracks).float().mean())


def _scores(queries: Tensor, catalog: Tensor, track_of: Tensor) -> Tensor:
    """Mean cosine at every place, (n_queries, n_stored); -inf where another track begins in it."""
    n_segments = queries.shape[1]
    cosines = (queries.flatten(0, 1) @ catalog.T).unflatten(0, queries.shape[:2])
    total = torch.zeros(len(queries), len(catalog), device=catalog.device)
    for k in range(n_segments):
        total += cosines[:, k].roll(-k, dims=1)
    straddles = track_of != track_of.roll(1 - n_segments)
    return (total / n_segments).masked_fill(straddles, -torch.inf)
