from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.audio.resample import change_speed
from engine.audio.tempo import change_tempo
from engine.config import SearchConfig
from engine.model.fingerprinter import Fingerprinter
from engine.records import Candidate, Fingerprint
from engine.search.candidates import find_candidates
from engine.search.clips import Clip
from engine.search.context import SearchContext
from engine.search.line import Line, LineTracer
from engine.search.speeds import SpeedSearch
from engine.vectors.index import Index
from engine.vectors.shard import write_shard
from engine.vectors.storage import LocalStorage
from tests.audio_files import Waveform, cached_tune

RATE = 8000
HOP_S = 0.5
SEEDS = (0, 4, 6, 3)
TUNE_S = 8.0
SEARCH = SearchConfig()


@pytest.fixture(scope="module")
def speed_search(tmp_path_factory: pytest.TempPathFactory) -> SpeedSearch:
    """Over an index of four tunes, with ids 1 to 4. Random weights confuse tunes and speeds."""
    shards = LocalStorage(tmp_path_factory.mktemp("shards"))
    fingerprinter = Fingerprinter.load(device="cpu")
    prints = [fingerprinter.fingerprint([cached_tune(s, TUNE_S)], HOP_S) for s in SEEDS]
    placements = write_shard(shards, prints).placements(range(1, len(prints) + 1))
    index = Index(shards, placements, fingerprinter.recipe.recipe_id)
    context = SearchContext(index=index, reference_hop_s=HOP_S, search=SEARCH)
    return SpeedSearch(fingerprinter, context)


def at_own_speed(speed_search: SpeedSearch, waveform: Waveform) -> list[Candidate]:
    fingerprint = speed_search.fingerprinter.fingerprint([waveform], SEARCH.query_hop_s)
    return find_candidates(fingerprint, speed_search.context)


def with_settings(speed_search: SpeedSearch, **settings: Any) -> SpeedSearch:
    context = replace(speed_search.context, search=replace(SEARCH, **settings))
    return replace(speed_search, context=context)


def sped(track: int, speed: float, start_s: float = 2.0, end_s: float = 7.0) -> Waveform:
    part = cached_tune(SEEDS[track - 1], TUNE_S)[round(start_s * RATE) : round(end_s * RATE)]
    return change_speed(part, RATE, speed)


@pytest.mark.parametrize("track", [1, 2])
@pytest.mark.parametrize("semitones", [-6.0, -3.0, -1.0, 1.0, 3.0, 6.0])
def test_changed_speed_is_found_with_the_times_of_the_query(
    speed_search: SpeedSearch, track: int, semitones: float
) -> None:
    speed = 2 ** (semitones / 12)
    waveform = sped(track, speed)
    plain = at_own_speed(speed_search, waveform)
    best = speed_search.extend(plain, waveform)[0]
    assert best.track_id == track
    assert best.evidence > 1.2 * plain[0].evidence
    assert best.speed == pytest.approx(speed, rel=0.01)
    assert best.resampled == pytest.approx(1 / speed, rel=0.01)
    assert best.offset_s == pytest.approx(2.0, abs=0.08)
    assert best.query_start_s == pytest.approx(0.0, abs=0.3)
    assert best.query_end_s == pytest.approx(5.0 / speed, abs=0.3)
    assert best.query_end_s <= len(waveform) / RATE


@pytest.mark.parametrize("semitones", [-1.4, 0.85, 2.6])
def test_speed_between_the_steps_is_measured_with_the_pitch(
    speed_search: SpeedSearch, semitones: float
) -> None:
    waveform = sped(1, 2 ** (semitones / 12))
    best = speed_search.extend(at_own_speed(speed_search, waveform), waveform)[0]
    assert best.track_id == 1
    assert best.pitch == pytest.approx(semitones, abs=0.07)
    assert best.speed == pytest.approx(2 ** (best.pitch / 12))
    assert best.resampled == pytest.approx(1 / best.speed)
    middle_s = (best.query_start_s + best.query_end_s) / 2
    played_s = 2.0 + middle_s * 2 ** (semitones / 12)
    assert best.offset_s + best.speed * middle_s == pytest.approx(played_s, abs=0.1)


def test_extended_candidates_are_one_per_track_with_margins_over_all(
    speed_search: SpeedSearch,
) -> None:
    waveform = sped(1, 2 ** (1 / 12))
    found = speed_search.extend(at_own_speed(speed_search, waveform), waveform)
    assert len({one.track_id for one in found}) == len(found) == 4
    assert all(a.evidence >= b.evidence for a, b in itertools.pairwise(found))
    assert found[0].margin == pytest.approx(found[0].evidence - found[1].evidence)
    assert found[1].margin == pytest.approx(found[1].evidence - found[0].evidence)


def test_evidence_at_another_speed_counts_less(speed_search: SpeedSearch) -> None:
    waveform = sped(1, 2 ** (1 / 12))
    full = with_settings(speed_search, resampled_weight=1.0)
    less, more = (one.extend([], waveform)[0].evidence for one in (speed_search, full))
    assert less == pytest.approx(SEARCH.resampled_weight * more)


def test_query_at_its_own_speed_stays_first(speed_search: SpeedSearch) -> None:
    waveform = sped(2, 1.0)
    plain = at_own_speed(speed_search, waveform)
    best = speed_search.extend(plain, waveform)[0]
    assert (best.track_id, best.speed, best.resampled) == (2, 1.0, 1.0)
    assert best.evidence == plain[0].evidence


def test_query_of_one_segment_can_be_played_faster(speed_search: SpeedSearch) -> None:
    n_samples = round(speed_search.fingerprinter.segment_s * speed_search.fingerprinter.sample_rate)
    waveform = sped(1, 2 ** (-2 / 12))[:n_samples]
    best = speed_search.extend([], waveform)[0]
    assert best.query_end_s <= n_samples / RATE


def test_only_the_beginning_is_played_at_other_speeds(speed_search: SpeedSearch) -> None:
    short = with_settings(speed_search, speeds_s=3.0)
    best = short.extend([], sped(1, 2 ** (1 / 12)))[0]
    assert best.track_id == 1
    assert 2.5 < best.query_end_s <= 3.0


def test_no_other_speeds_add_nothing(speed_search: SpeedSearch) -> None:
    off = with_settings(speed_search, speeds=())
    waveform = sped(1, 2 ** (1 / 12))
    plain = at_own_speed(speed_search, waveform)
    assert off.extend(plain, waveform) == plain


@pytest.mark.parametrize("reference_hop_s", [0.125, 0.25, 0.5])
@pytest.mark.parametrize("length_s", [1.2, 3.0, 5.0])
def test_catalog_may_have_any_hop(
    tmp_path: Path, speed_search: SpeedSearch, reference_hop_s: float, length_s: float
) -> None:
    shards, fingerprinter = LocalStorage(tmp_path), speed_search.fingerprinter
    prints = [fingerprinter.fingerprint([cached_tune(SEEDS[0], TUNE_S)], reference_hop_s)]
    placements = write_shard(shards, prints).placements([1])
    index = Index(shards, placements, fingerprinter.recipe_id)
    context = replace(speed_search.context, index=index, reference_hop_s=reference_hop_s)
    found = replace(speed_search, context=context).extend(
        [], sped(1, 2 ** (2 / 12), end_s=2.0 + length_s)
    )
    assert [one.track_id for one in found] == [1]


def test_silent_query_adds_nothing(speed_search: SpeedSearch) -> None:
    assert speed_search.extend([], np.zeros(2 * RATE, np.float32)) == []


def test_speed_is_chosen_by_what_follows_a_long_silence(speed_search: SpeedSearch) -> None:
    waveform = sped(1, 2 ** (1 / 12))
    late = np.concatenate([np.zeros(21 * RATE, np.float32), waveform])
    best = speed_search.extend([], late)[0]
    assert best.track_id == 1
    assert best.resampled == pytest.approx(2 ** (-1 / 12), rel=0.01)


def test_speed_is_chosen_by_few_segments_of_the_first_seconds(
    speed_search: SpeedSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round keeps half of the speeds and fingerprints what lies between their segments."""
    calls: list[tuple[float, float]] = []
    fingerprint = speed_search.fingerprinter.fingerprint

    def recording_calls(blocks: list[Waveform], hop_s: float) -> Fingerprint:
        calls.append((sum(len(block) for block in blocks) / RATE, hop_s))
        return fingerprint(blocks, hop_s)

    waveform = np.tile(sped(1, 2 ** (1 / 12)), 6)[: 28 * RATE]
    monkeypatch.setattr(speed_search.fingerprinter, "fingerprint", recording_calls)
    speed_search.extend([], waveform)
    lengths_s, hops_s = (np.array(of_calls) for of_calls in zip(*calls, strict=True))
    first_s = np.array([20 / speed for speed in SEARCH.speeds])
    assert len(first_s) == 14
    assert hops_s[:25].tolist() == [4.0] * 14 + [4.0] * 7 + [2.0] * 4
    assert sorted(lengths_s[:14]) == pytest.approx(sorted(first_s), abs=0.01)
    assert all(np.isclose(one, first_s - 2.0, atol=0.01).any() for one in lengths_s[14:21])
    assert np.isclose(lengths_s[27], [28 / speed for speed in SEARCH.speeds], atol=0.01).any()


# -- small changes of speed ------------------------------------------------------------------------


def passage(
    speed_search: SpeedSearch, waveform: Waveform, speed: float = 1.0, score: float = 0.9
) -> Candidate:
    """The straight or tilted line of track 1 from its second 2 on."""
    best = at_own_speed(speed_search, waveform)[0]
    assert best.track_id == 1
    middle_s = len(waveform) / RATE / 2
    return replace(
        best,
        speed=speed,
        offset_s=best.offset_s + (best.speed - speed) * middle_s,
        query_start_s=0.0,
        query_end_s=2 * middle_s,
        score=score,
    )


def clip(speed_search: SpeedSearch, waveform: Waveform) -> Clip:
    made = speed_search.fingerprinter.fingerprint([waveform], 2 * SEARCH.query_hop_s)
    return Clip(start_s=0.0, fingerprint=made, waveform=waveform)


@pytest.mark.parametrize("speed", [0.944, 0.97, 0.985, 1.015, 1.03, 1.058])
@pytest.mark.parametrize("said", [1.0, None])
def test_small_change_of_speed_is_measured_with_the_pitch(
    speed_search: SpeedSearch, speed: float, said: float | None
) -> None:
    waveform = sped(1, speed)
    found = passage(speed_search, waveform, speed=said or speed * 1.01)
    tuned = speed_search.tune(found, clip(speed_search, waveform))
    assert tuned.speed == pytest.approx(speed, rel=0.005)
    assert tuned.pitch == pytest.approx(12 * np.log2(speed), abs=0.08)
    assert tuned.offset_s == pytest.approx(2.0, abs=0.05)
    assert (tuned.track_id, tuned.confidence) == (found.track_id, found.confidence)
    assert tuned.query_end_s == pytest.approx(len(waveform) / RATE, abs=0.2)


def test_passage_is_tuned_where_it_lies_in_a_recording(speed_search: SpeedSearch) -> None:
    waveform = sped(1, 1.02)
    before = cached_tune(9, TUNE_S)[: 6 * RATE]
    found = passage(speed_search, waveform)
    later = speed_search.tune(
        found.later(6.0), clip(speed_search, np.concatenate([before, waveform]))
    )
    assert later.speed == pytest.approx(1.02, rel=0.005)
    assert later.offset_s + 6 * later.speed == pytest.approx(2.0, abs=0.1)
    assert later.query_start_s == pytest.approx(6.0, abs=0.3)
    assert later.score == pytest.approx(
        speed_search.tune(found, clip(speed_search, waveform)).score, abs=0.02
    )


def test_passage_at_its_own_speed_is_not_tuned_in_noise(speed_search: SpeedSearch) -> None:
    part = sped(1, 1.0)
    noise = np.random.default_rng(1).normal(0, float(np.abs(part).mean()), len(part))
    waveform = (part + noise).astype(np.float32)
    found = passage(speed_search, waveform)
    assert speed_search.tune(found, clip(speed_search, waveform)) is found


@pytest.mark.parametrize(("tempo", "tolerance"), [(0.7, 0.008), (1.4, 0.012)])
def test_changed_tempo_is_measured_at_the_tempo_of_the_track(
    speed_search: SpeedSearch, tempo: float, tolerance: float
) -> None:
    waveform = change_tempo(sped(1, 1.0, 0.0, 8.0), RATE, tempo)
    found = passage(speed_search, sped(1, 1.0, 0.0, 8.0))
    line = replace(found, speed=tempo * 1.02, offset_s=0.0, query_end_s=8.0 / tempo)
    tuned = speed_search.tune(line, clip(speed_search, waveform))
    assert tuned.speed == pytest.approx(tempo, rel=tolerance)
    assert tuned.pitch == 0.0
    assert tuned.offset_s + tuned.speed * 4.0 / tempo == pytest.approx(4.0, abs=0.05)


@pytest.mark.parametrize(("tempo", "tolerance", "within_s"), [(0.8, 0.06, 0.08), (1.2, 0.02, 0.05)])
def test_tempo_of_a_short_passage_is_found_although_its_line_is_straight(
    speed_search: SpeedSearch, tempo: float, tolerance: float, within_s: float
) -> None:
    """A slow passage has few stored segments of its track, so its tempo is less precise."""
    end_s = 2.0 + 3.0 * tempo
    waveform = change_tempo(sped(1, 1.0, 2.0, end_s), RATE, tempo)
    found = passage(speed_search, sped(1, 1.0))
    straight = replace(found, offset_s=(2.0 + end_s) / 2 - 1.5, query_end_s=3.0, score=0.95)
    tuned = speed_search.tune(straight, clip(speed_search, waveform))
    assert tuned.speed == pytest.approx(tempo, rel=tolerance)
    assert tuned.offset_s == pytest.approx(2.0, abs=within_s)
    assert tuned.offset_s + tuned.speed * 3.0 == pytest.approx(end_s, abs=within_s)


@pytest.mark.parametrize("score", [0.95, 0.985])
def test_short_passage_at_its_own_tempo_is_not_tuned(
    speed_search: SpeedSearch, score: float
) -> None:
    waveform = sped(1, 1.0, 2.0, 5.0)
    found = passage(speed_search, waveform, score=score)
    assert speed_search.tune(found, clip(speed_search, waveform)) is found


def test_tempo_is_measured_where_segments_contain_nothing_else(
    speed_search: SpeedSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = cached_tune(9, TUNE_S)
    waveform = np.concatenate([beside[: 3 * RATE], sped(1, 1.0, 2.0, 4.5), beside[-3 * RATE :]])
    found = replace(passage(speed_search, sped(1, 1.0)), score=0.95)
    within = replace(found, offset_s=-1.0, query_start_s=3.0, query_end_s=5.5)
    spans_s = []

    def fit(tracer: LineTracer, line: Line, first: int, last: int) -> tuple[Line, float]:
        middles_s = tracer.middles_s[first:last]
        half_s = tracer.query.segment_s / 2
        # The part that is tuned begins a second before the passage.
        spans_s.append((middles_s[0] - half_s + 2.0, middles_s[-1] + half_s + 2.0))
        return line, 0.1

    monkeypatch.setattr(LineTracer, "fit_stored", fit)
    assert speed_search.tune(within, clip(speed_search, waveform)) is within
    ((start_s, end_s),) = spans_s
    assert 3.0 <= start_s < 3.0 + 0.07
    assert 5.5 - 0.07 < end_s <= 5.5


@pytest.mark.parametrize(("error", "is_other"), [(0.07, True), (0.11, False)])
def test_tempo_of_a_short_passage_differs_by_more_than_its_error(
    speed_search: SpeedSearch, monkeypatch: pytest.MonkeyPatch, error: float, is_other: bool
) -> None:
    waveform = change_tempo(sped(1, 1.0, 2.0, 5.6), RATE, 1.2)
    found = passage(speed_search, sped(1, 1.0))
    straight = replace(found, offset_s=2.3, query_end_s=3.0, score=0.95)
    measured = SpeedSearch._at_tempo

    def with_error(*args: Any) -> tuple[Candidate, float]:
        return measured(*args)[0], error

    monkeypatch.setattr(SpeedSearch, "_at_tempo", with_error)
    tuned = speed_search.tune(straight, clip(speed_search, waveform))
    assert (tuned.speed != 1.0) == is_other


def test_tempo_of_a_short_passage_in_noise_is_not_tested(speed_search: SpeedSearch) -> None:
    waveform = change_tempo(sped(1, 1.0, 2.0, 4.4), RATE, 0.8)
    found = passage(speed_search, sped(1, 1.0))
    straight = replace(found, offset_s=1.7, query_end_s=3.0, score=0.89)
    assert speed_search.tune(straight, clip(speed_search, waveform)) is straight


def test_other_tempo_is_measured_however_well_it_agrees(speed_search: SpeedSearch) -> None:
    waveform = change_tempo(sped(1, 1.0, 0.0, 8.0), RATE, 1.2)
    found = passage(speed_search, sped(1, 1.0, 0.0, 8.0), score=0.99)
    tilted = replace(found, speed=1.22, offset_s=0.0, query_end_s=6.6)
    tuned = speed_search.tune(tilted, clip(speed_search, waveform))
    assert tuned.speed == pytest.approx(1.2, rel=0.006)


def test_tempo_of_a_passage_of_one_segment_can_be_measured(speed_search: SpeedSearch) -> None:
    waveform = sped(1, 1.0, 2.0, 3.0)  # less than a segment at the tempo of the track
    line = passage(speed_search, sped(1, 1.0))
    line = replace(line, speed=0.6, offset_s=2.0, query_end_s=1.0)
    assert speed_search.tune(line, clip(speed_search, waveform)).track_id == 1


def test_small_change_of_the_tempo_is_not_one_of_the_pitch(speed_search: SpeedSearch) -> None:
    waveform = sped(1, 1.02)  # its pitch says so, but the line says 6 % faster
    found = passage(speed_search, waveform, speed=1.06)
    assert speed_search.tune(found, clip(speed_search, waveform)) is found


def test_exact_long_and_silent_passages_are_not_tuned(speed_search: SpeedSearch) -> None:
    waveform = sped(1, 1.02)
    found, whole = passage(speed_search, waveform), clip(speed_search, waveform)
    exact, long = replace(found, score=0.99), replace(found, query_end_s=30.0)
    for one in (exact, long):
        assert speed_search.tune(one, whole) is one
    assert speed_search.tune(found, replace(whole, waveform=np.zeros_like(waveform))) is found
    assert with_settings(speed_search, speeds=()).tune(found, whole) is found
