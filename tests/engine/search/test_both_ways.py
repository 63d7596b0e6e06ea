"""Each of two recordings of the same music is found in the other, at the mirrored place."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from engine.audio.resample import change_speed
from engine.config import SearchConfig
from engine.model.fingerprinter import Fingerprinter
from engine.records import Candidate
from engine.search.candidates import find_candidates
from engine.search.context import SearchContext
from engine.search.speeds import SpeedSearch
from engine.vectors.index import Index
from engine.vectors.shard import write_shard
from engine.vectors.storage import LocalStorage
from tests.audio_files import Waveform, cached_tune

RATE = 8000
HOP_S = 0.5
SEEDS = (0, 4, 6)  # tunes that the tiny encoder tells apart
LENGTH_S = 10.0
# Random weights distinguish tunes at few speeds only.
SEARCH = SearchConfig(speeds=(2 ** (-1 / 12), 2 ** (1 / 12)))


@pytest.fixture(scope="module")
def fingerprinter(tiny_model: Path) -> Fingerprinter:
    return Fingerprinter.load(tiny_model, "cpu")


def part(start_s: float, end_s: float, speed: float = 1.0) -> Waveform:
    piece = cached_tune(SEEDS[0], LENGTH_S)[round(start_s * RATE) : round(end_s * RATE)]
    return piece if speed == 1.0 else change_speed(piece, RATE, speed)


def found_in(
    reference: Waveform, query: Waveform, fingerprinter: Fingerprinter, folder: Path
) -> Candidate:
    """Find a query in a recording, which has the id 1, among other music."""
    tracks = [reference, *(cached_tune(seed, LENGTH_S) for seed in SEEDS[1:])]
    prints = [fingerprinter.fingerprint([one], HOP_S) for one in tracks]
    shards = LocalStorage(folder)
    placements = write_shard(shards, prints).placements(range(1, len(prints) + 1))
    index = Index(shards, placements, fingerprinter.recipe_id)
    context = SearchContext(index=index, reference_hop_s=HOP_S, search=SEARCH)
    fingerprint = fingerprinter.fingerprint([query], SEARCH.query_hop_s)
    at_own_speed = find_candidates(fingerprint, context)
    best = SpeedSearch(fingerprinter, context).extend(at_own_speed, query)[0]
    assert best.track_id == 1
    return best


@pytest.mark.parametrize("begins_s", [0.5, 2.0])
def test_offsets_of_the_two_directions_are_opposite(
    fingerprinter: Fingerprinter, tmp_path: Path, begins_s: float
) -> None:
    first, second = part(0.0, 8.0), part(begins_s, 10.0)
    ahead = found_in(second, first, fingerprinter, tmp_path)
    back = found_in(first, second, fingerprinter, tmp_path)
    assert ahead.offset_s == pytest.approx(-begins_s, abs=0.05)
    assert back.offset_s == pytest.approx(-ahead.offset_s, abs=0.05)
    assert ahead.speed == back.speed == 1.0
    assert ahead.pitch == back.pitch == 0.0


@pytest.mark.parametrize("semitones", [1.0, -1.0])
def test_speeds_and_pitches_of_the_two_directions_are_opposite(
    fingerprinter: Fingerprinter, tmp_path: Path, semitones: float
) -> None:
    speed = 2 ** (semitones / 12)
    first, second = part(1.0, 9.0), part(2.0, 9.0, speed)
    ahead = found_in(second, first, fingerprinter, tmp_path)
    back = found_in(first, second, fingerprinter, tmp_path)
    assert back.speed == pytest.approx(speed, rel=0.01)
    assert ahead.speed * back.speed == pytest.approx(1.0, rel=0.02)
    assert back.pitch == pytest.approx(semitones, abs=0.2)
    assert ahead.pitch == pytest.approx(-semitones, abs=0.2)
    assert back.offset_s == pytest.approx(1.0, abs=0.15)
    assert back.offset_s == pytest.approx(-ahead.offset_s / ahead.speed, abs=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("semitones", [-1.4, 0.75])
def test_pitch_between_the_steps_is_measured(tmp_path: Path, semitones: float) -> None:
    """With the shipped encoder: random weights do not measure pitch."""
    changed = part(2.0, 9.0, 2 ** (semitones / 12))
    best = found_in(part(1.0, 9.0), changed, Fingerprinter.load(device="cpu"), tmp_path)
    step = -12 * math.log2(best.resampled)
    assert abs(best.pitch - semitones) < min(abs(step - semitones), 0.2)
