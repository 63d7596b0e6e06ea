from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from engine.model.encoder import Encoder
from engine.model.fingerprinter import Fingerprinter
from engine.model.network import AST
from engine.model.weights import load_weights
from engine.recipe import ASTConfig, Recipe, SpectrogramConfig
from tests.audio_files import cached_tune
from tests.training.sounds import RECIPE, only, pool_of, sampler_of, tone
from training import validate
from training.augment.noise import NoiseMixer
from training.dataset import PairSampler
from training.validate import DEGRADATIONS, DURATIONS_S, best_tracks, retrieval_hit_rates

HISS = pool_of(0.1 * np.random.default_rng(0).standard_normal(16000))
TONES_HZ = 400.0 * 1.17 ** np.arange(12)
LONG = Recipe(spectrogram=SpectrogramConfig(hop_length=200), encoder=RECIPE.encoder)


class Oracle(AST):
    """Knows tones from each other, be they off by some per cent."""

    def __init__(self) -> None:
        super().__init__(ASTConfig(**dataclasses.asdict(RECIPE.encoder)))

    def embed(self, features: Tensor) -> Tensor:
        loudest = features.float().mean(dim=1).argmax(dim=1, keepdim=True)
        bands = torch.arange(features.shape[2])
        return normalize(torch.exp(-((bands - loudest) ** 2) / 8.0), dim=1)


class Dice(Oracle):
    """Knows nothing."""

    def embed(self, features: Tensor) -> Tensor:
        return normalize(torch.randn(len(features), 16), dim=1)


@pytest.fixture(autouse=True)
def few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "N_QUERIES", 12)
    torch.manual_seed(0)


def samplers(*waveforms: np.ndarray) -> tuple[PairSampler, PairSampler]:
    """Half of the tracks held out, the others distractors."""
    pool, n = pool_of(*waveforms), len(waveforms)
    noises = NoiseMixer(HISS, HISS, HISS)
    whole = sampler_of(pool, only(), noise=noises)
    held_out, rest = (
        dataclasses.replace(whole, tracks=tracks) for tracks in np.split(np.arange(n), 2)
    )
    return held_out, rest


def all_tones() -> tuple[PairSampler, PairSampler]:
    return samplers(*(tone(hz, 8.0) for hz in TONES_HZ))


def test_oracle_finds_everything() -> None:
    rates = retrieval_hit_rates(Oracle(), *all_tones(), RECIPE)
    assert len(rates) == len(DEGRADATIONS) * len(DURATIONS_S) + 1
    assert set(rates.values()) == {1.0}


def test_random_embeddings_reach_chance_level() -> None:
    assert retrieval_hit_rates(Dice(), *all_tones(), RECIPE)["mean"] == pytest.approx(
        1 / 12, abs=0.07
    )


def test_queries_shorter_than_a_segment_find_nothing() -> None:
    rates = retrieval_hit_rates(Oracle(), *all_tones(), LONG)
    for key, rate in rates.items():
        if key != "mean":
            assert rate == (0.0 if key.endswith(" 1s") else 1.0), key


def test_queries_come_from_the_catalog_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every track ends with the same tone, which tells nothing."""
    monkeypatch.setattr(validate, "_CATALOG_S", 8.0)
    monkeypatch.setattr(validate, "_DISTRACTOR_S", 8.0)
    common = tone(3800.0, 20.0)
    waveforms = [np.concatenate([tone(hz, 8.0), common]) for hz in TONES_HZ]
    assert retrieval_hit_rates(Oracle(), *samplers(*waveforms), RECIPE)["mean"] == 1.0


def test_queries_are_the_same_each_time_and_the_model_stays_in_training_mode() -> None:
    model = AST(RECIPE.encoder).train()
    tunes = samplers(*(cached_tune(seed, 6.0) for seed in range(6)))
    first = retrieval_hit_rates(model, *tunes, RECIPE)
    torch.manual_seed(5)
    assert retrieval_hit_rates(model, *tunes, RECIPE) == first
    assert model.training
    assert isinstance(model, nn.Module)


def test_embeddings_are_those_of_the_fingerprinter(tiny_model: Path) -> None:
    network, clip_head, recipe, _, _ = load_weights(tiny_model)
    encoder = Encoder(network, clip_head, recipe, "cpu")
    tune = cached_tune(1, 6.0).copy()
    tune[16000:32000] = 0
    expected = Fingerprinter(encoder).fingerprint([tune], 0.5).embeddings
    with torch.inference_mode():
        (found,) = validate.embed(network, torch.from_numpy(tune)[None], 0.5, encoder.recipe)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert not expected.any(axis=1).all()
    assert found.any(dim=1).tolist() == expected.any(axis=1).tolist()


# -- every place -------------------------------------------------------------------------------


def _stored(lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Make up segments of tracks 0, 1, ..."""
    drawn = torch.randn(sum(lengths), 16, generator=torch.Generator().manual_seed(7))
    return normalize(drawn, dim=1), torch.arange(len(lengths)).repeat_interleave(
        torch.tensor(lengths)
    )


@pytest.mark.parametrize("n_segments", [1, 2, 5, 8])
def test_best_tracks_are_what_trying_every_place_finds(n_segments: int) -> None:
    catalog, track_of = _stored((9, 4, 12))
    queries = torch.randn(20, n_segments, 16, generator=torch.Generator().manual_seed(8))
    best = best_tracks(queries, catalog, track_of, 2)
    for query, found in zip(queries, best, strict=True):
        tried = {}
        for phase in range(min(2, n_segments)):
            own = query[phase::2]
            for place in range(len(track_of) - len(own) + 1):
                there = slice(place, place + len(own))
                if len(set(track_of[there].tolist())) == 1:
                    tried[phase, place] = float((own * catalog[there]).sum(dim=1).mean())
        _, place = max(tried, key=lambda one: tried[one])
        assert found == track_of[place]


def test_query_is_never_laid_across_two_tracks() -> None:
    catalog, track_of = _stored((6, 6))
    assert best_tracks(catalog[None, 6:9], catalog, track_of, 1) == 1
    across = validate._scores(catalog[None, 4:8], catalog, track_of)[0]
    assert across[[3, 4, 5, 9, 10, 11]].isneginf().all()
    assert across[[0, 1, 2, 6, 7, 8]].isfinite().all()


@pytest.mark.parametrize("phase", range(4))
def test_any_phase_of_a_query_may_fall_on_stored_segments(phase: int) -> None:
    catalog, track_of = (one.numpy() for one in _stored((9, 4, 12)))
    query = np.tile(catalog[:1], (12, 1))
    query[phase::4] = catalog[14:17]
    assert best_tracks(query[None], catalog, track_of, 4) == 2
