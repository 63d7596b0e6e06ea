from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.audio.resample import change_speed
from engine.config import AlignConfig, SearchConfig
from engine.model.fingerprinter import Fingerprinter
from engine.records import Candidate, Vectors, Waveform
from engine.search.alignment import remove_mean
from engine.search.calibration import Calibration
from engine.search.clips import Clip
from engine.search.context import SearchContext
from engine.search.explainer import Explainer
from engine.search.explanation import decide
from engine.search.searcher import Searcher
from engine.vectors.index import Index
from engine.vectors.shard import write_shard
from engine.vectors.storage import LocalStorage
from tests.audio_files import cached_tune
from tests.catalogs import Spectra
from tests.engine.search.synthetic import (
    HOP_S,
    SEGMENT_S,
    TICK_S,
    embeddings_at,
    normalised,
    query_of,
    unit,
)
from tests.engine.search.test_alignment_properties import indexed

RATE = 8000
TUNES = (0, 4, 6)  # that the tiny encoder tells apart
SILENCE = np.zeros(0, np.float32)
BY_EVIDENCE = Calibration(recipe_id="recipe", weights=(0.0, 5.0, *[0.0] * 7), min_confidence=0.5)
"""Half sure at an evidence of 1."""


@pytest.fixture
def tracks(rng: np.random.Generator) -> dict[int, Vectors]:
    made = {5: unit(rng, 120), 6: unit(rng, 90), 7: unit(rng, 160), 8: unit(rng, 60)}
    made[9] = np.zeros((40, made[5].shape[1]), np.float32)
    return made


def explainer(
    folder: Path, tracks: dict[int, Vectors], query: Vectors, calibration: Calibration
) -> Explainer:
    context = SearchContext(
        index=indexed(folder, list(tracks.items())),
        reference_hop_s=HOP_S,
        search=SearchConfig(query_hop_s=TICK_S, k=20, speeds=()),
        alignment=AlignConfig(),
    )
    searcher = Searcher(fingerprinter=Spectra(), calibration=calibration, context=context)
    return explained_by(searcher, Clip(start_s=0.0, fingerprint=query_of(query), waveform=SILENCE))


def explained_by(searcher: Searcher, clip: Clip) -> Explainer:
    """The explainer of one clip."""
    found = searcher.passages(clip)
    return Explainer(searcher, clip, searcher.calibration.accepted(found), found)


def two_parts(tracks: dict[int, Vectors], rng: np.random.Generator) -> Vectors:
    """6 s of track 5 from 12 s on, then 2.5 s of track 7 from 31 s on."""
    first = embeddings_at(tracks[5], 12.0 + np.arange(48) * TICK_S, rng, 0.3)
    second = embeddings_at(tracks[7], 31.0 + np.arange(20) * TICK_S, rng, 0.3)
    return np.concatenate([first, second])


def without(explained: Explainer, track_id: int) -> Explainer:
    """Leave out a track's candidates, as if the query had not found it."""
    answer, found = (
        [one for one in some if one.track_id != track_id]
        for some in (explained.answer, explained.found)
    )
    return replace(explained, answer=answer, found=found)


# -- the candidates --------------------------------------------------------------------------


def test_candidates_are_those_of_the_searcher(
    tmp_path: Path, tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    explained = explainer(tmp_path, tracks, two_parts(tracks, rng), BY_EVIDENCE)
    expected = explained.searcher.passages(explained.clip)
    assert explained.candidates == expected
    assert explained.best == expected[0]
    assert [explained.rank(one) for one in expected] == list(range(1, len(expected) + 1))


def test_best_is_the_most_confident_though_another_has_more_evidence(
    tmp_path: Path, tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    """A calibration by which evidence counts against a candidate."""
    by_lack = replace(BY_EVIDENCE, weights=(0.0, -0.5, *[0.0] * 7))
    explained = explainer(tmp_path, tracks, two_parts(tracks, rng), by_lack)
    first, *others = explained.candidates
    assert max(one.evidence for one in others) > first.evidence
    assert first.confidence > max(one.confidence for one in others)
    assert explained.best == first
    none = replace(by_lack, min_confidence=1.1)
    without_match = replace(
        explained, searcher=replace(explained.searcher, calibration=none), answer=[]
    )
    assert without_match.best == without_match.candidates[0]


def test_answer_comes_first_in_its_own_order(
    tmp_path: Path, tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    explained = explainer(tmp_path, tracks, two_parts(tracks, rng), BY_EVIDENCE)
    answer = [one for one in explained.found if one.track_id in (5, 7)][::-1]
    never = replace(BY_EVIDENCE, min_confidence=1.1)
    searcher = replace(explained.searcher, calibration=never)
    reordered = replace(explained, answer=answer, searcher=searcher)
    assert [one.track_id for one in answer] == [7, 5]
    assert reordered.candidates[:2] == answer
    assert {one.track_id for one in reordered.candidates[2:]} <= {6, 8}
    assert [reordered.rank(one) for one in reordered.candidates] == list(
        range(1, len(reordered.candidates) + 1)
    )
    unlisted = replace(answer[0], confidence=0.0, evidence=0.0)
    assert reordered.rank(unlisted) == len(reordered.candidates) + 1


def test_query_that_resembles_nothing_has_no_best(
    tmp_path: Path, tracks: dict[int, Vectors]
) -> None:
    silent = np.zeros((20, tracks[5].shape[1]), np.float32)
    explained = explainer(tmp_path, tracks, silent, BY_EVIDENCE)
    assert explained.best is None
    assert explained.decision(explained.best).rule == "no_neighbours"
    assert explained.in_track(5) is None


def test_decision_is_that_of_the_calibration(
    tmp_path: Path, tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    explained = explainer(tmp_path, tracks, two_parts(tracks, rng), BY_EVIDENCE)
    for candidate in explained.candidates:
        expected = decide(candidate, BY_EVIDENCE, BY_EVIDENCE.min_confidence)
        assert explained.decision(candidate) == expected


# -- one track -------------------------------------------------------------------------------


def sums_of_diagonals(query: Vectors, track: Vectors) -> dict[int, float]:
    """Sum of all cosines on each diagonal, by its offset in ticks: a loop over all pairs."""
    step = round(HOP_S / TICK_S)
    cosines = query @ track.T
    sums: dict[int, float] = {}
    for i in range(len(query)):
        for position in range(len(track)):
            ticks = position * step - i
            sums[ticks] = sums.get(ticks, 0.0) + float(cosines[i, position])
    return sums


def test_in_track_finds_the_line_of_a_track_that_is_no_candidate(
    tmp_path: Path, tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = two_parts(tracks, rng)
    explained = without(explainer(tmp_path, tracks, query, BY_EVIDENCE), 7)
    assert explained.candidates[0].track_id == 5
    in_track = explained.in_track(7)
    assert in_track is not None
    assert in_track.track_id == 7
    sums = sums_of_diagonals(remove_mean(explained.fingerprint), tracks[7])
    best_ticks = max(sums, key=sums.__getitem__)
    assert in_track.offset_s == pytest.approx(best_ticks * TICK_S, abs=TICK_S)
    assert in_track.offset_s == pytest.approx(31.0 - 48 * TICK_S, abs=0.1)
    assert in_track.margin == pytest.approx(
        in_track.evidence - explained.candidates[0].evidence, abs=1e-6
    )
    assert explained.rank(in_track) == len(explained.candidates) + 1


def test_in_track_of_a_candidate_is_at_least_as_good(
    tmp_path: Path, tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    explained = explainer(tmp_path, tracks, two_parts(tracks, rng), BY_EVIDENCE)
    for candidate in explained.candidates:
        in_track = explained.in_track(candidate.track_id)
        assert in_track is not None
        assert in_track.evidence >= candidate.evidence
    first = explained.in_track(5)
    assert first is not None
    assert (first.track_id, explained.rank(first)) == (5, 1)
    assert first.offset_s == pytest.approx(12.0, abs=0.1)


def test_in_track_scores_more_than_the_diagonal_with_most_votes(
    tmp_path: Path, tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    """Four segments from 50 s on are exact; all of those from 10 s on agree a little."""
    music = unit(rng, 21)
    query = embeddings_at(music, np.arange(80) * TICK_S, rng)
    tracks[7][20:40] = normalised(0.6 * music[:20] + 0.8 * unit(rng, 20))
    tracks[7][100:104] = music[:4]
    explained = without(explainer(tmp_path, tracks, query, BY_EVIDENCE), 7)
    in_track = explained.in_track(7)
    assert in_track is not None
    assert in_track.offset_s == pytest.approx(10.0, abs=0.1)


def test_in_track_is_the_first_passage_of_the_answer(
    tmp_path: Path, tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    explained = explainer(tmp_path, tracks, two_parts(tracks, rng), BY_EVIDENCE)
    best = explained.candidates[0]
    second = replace(best, evidence=2 * best.evidence, query_start_s=7.0)
    assert replace(explained, answer=[best, second]).in_track(5) == best


# -- ends --------------------------------------------------------------------------------------


def test_ends_are_found_beside_the_passages_of_the_answer(
    tmp_path: Path, tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    explained = explainer(tmp_path, tracks, two_parts(tracks, rng), BY_EVIDENCE)
    first = next(one for one in explained.found if one.track_id == 5)
    second = next(one for one in explained.found if one.track_id == 7)
    first, second = replace(first, query_end_s=6.0), replace(second, query_start_s=6.0)
    both = replace(explained, answer=[second, first])
    start, end = both.ends(first)
    assert (start.reason, end.reason, end.rank) == ("clip", "passage", 1)
    start, end = both.ends(second)
    assert (start.reason, start.rank, end.reason) == ("passage", 2, "clip")
    alone = replace(explained, answer=[first])
    assert [end.reason for end in alone.ends(first)] == ["clip", "disagreement"]


def test_silent_track_has_no_candidate(
    tmp_path: Path, tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    explained = explainer(tmp_path, tracks, two_parts(tracks, rng), BY_EVIDENCE)
    assert explained.in_track(9) is None


# -- along a line ----------------------------------------------------------------------------


def test_detail_counts_neighbours_in_the_whole_catalog(
    tmp_path: Path, tracks: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = two_parts(tracks, rng)
    explained = explainer(tmp_path, tracks, query, BY_EVIDENCE)
    best = explained.candidates[0]
    detail = explained.alignment_detail(best, start_s=2.0)
    assert detail.query_s == pytest.approx(2.0 + np.arange(68) * TICK_S)
    assert detail.reference_s == pytest.approx(12.0 + np.arange(68) * TICK_S, abs=0.1)
    assert detail.agrees[:48].mean() > 0.9
    assert not detail.agrees[50:].any()
    # The 20 nearest segments of each, in all tracks, by brute force.
    centred = remove_mean(explained.fingerprint)
    owners = np.concatenate([np.full(len(one), track) for track, one in tracks.items()])
    index = explained.searcher.context.index
    stored = np.concatenate([index.vectors(one, 0, len(tracks[one])) for one in tracks])
    nearest = np.argsort(-centred @ stored.T, axis=1)[:, :20]
    assert detail.n_neighbours.tolist() == (owners[nearest] == 5).sum(axis=1).tolist()


@pytest.fixture(scope="module")
def of_tunes(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """Searches three tunes, with ids 1 to 3, and is never sure."""
    shards = LocalStorage(tmp_path_factory.mktemp("shards"))
    fingerprinter = Fingerprinter.load(tiny_model, "cpu")
    prints = [fingerprinter.fingerprint([cached_tune(one, 8.0)], HOP_S) for one in TUNES]
    placements = write_shard(shards, prints).placements(range(1, len(prints) + 1))
    index = Index(shards, placements, fingerprinter.recipe_id)
    never_sure = replace(BY_EVIDENCE, min_confidence=1.1)
    # Random weights distinguish tunes at few speeds only.
    search = SearchConfig(speeds=(2 ** (-1 / 12), 2 ** (1 / 12)))
    context = SearchContext(index=index, reference_hop_s=HOP_S, search=search)
    return Searcher(fingerprinter=fingerprinter, calibration=never_sure, context=context)


def faster_part(speed: float) -> Waveform:
    return change_speed(cached_tune(TUNES[0], 8.0)[2 * RATE : 7 * RATE], RATE, speed)


def test_detail_of_a_line_at_another_speed_is_that_of_the_query_as_played(
    of_tunes: Searcher,
) -> None:
    speed = 2 ** (1 / 12)
    waveform = faster_part(speed)
    explained = explained_by(of_tunes, of_tunes.clip([waveform], "clip"))
    best = explained.best
    assert best is not None
    assert best.track_id == 1
    assert best.resampled == pytest.approx(1 / speed, rel=0.005)
    detail = explained.alignment_detail(best)
    assert detail.agrees.mean() > 0.9
    assert detail.query_s[-1] < len(waveform) / RATE
    assert detail.reference_s[-1] == pytest.approx(
        best.offset_s + best.speed * detail.query_s[-1], abs=SEGMENT_S * 0.1
    )
    at_own_speed = explained.alignment_detail(replace(best, resampled=1.0))
    assert np.nanmean(at_own_speed.similarity) < np.nanmean(detail.similarity) - 0.02
    assert {"encode", "search", "align"} <= of_tunes.context.stopwatch.timings_ms.keys()


def test_in_track_tries_other_speeds(of_tunes: Searcher) -> None:
    waveform = faster_part(2 ** (1 / 12))
    explained = explained_by(of_tunes, of_tunes.clip([waveform], "clip"))
    in_track = without(explained, 1).in_track(1)
    assert isinstance(in_track, Candidate)
    assert in_track.resampled == pytest.approx(2 ** (-1 / 12), rel=0.005)
    assert in_track.offset_s == pytest.approx(2.0, abs=0.1)
