from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

import astound
from astound.catalog import Catalog
from engine.audio.resample import change_speed
from engine.config import AlignConfig, IngestConfig, SearchConfig
from engine.errors import AudioError, ConfigError, TrackNotFoundError
from tests.audio_files import Waveform, cached_tune, write_wav

RATE = 8000
SEEDS = (0, 4, 6, 3)  # tunes that the tiny encoder tells apart
TUNE_S = 8.0

Run = Callable[..., Result]


def clip(number: int, start_s: float = 2.0, duration_s: float = 4.0) -> Waveform:
    first = round(start_s * RATE)
    return cached_tune(SEEDS[number], TUNE_S)[first : first + round(duration_s * RATE)]


@pytest.fixture(scope="module")
def filled_catalog(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of four tunes, 0.wav to 3.wav with ids 1 to 4; not to be changed."""
    folder = tmp_path_factory.mktemp("filled_catalog")
    (folder / "music").mkdir()
    for number, seed in enumerate(SEEDS):
        path = folder / "music" / f"{number}.wav"
        write_wav(path, cached_tune(seed, TUNE_S), RATE)
    with astound.open(folder / "catalog", model=tiny_model, device="cpu") as catalog:
        for number in range(len(SEEDS)):
            catalog.add(folder / "music" / f"{number}.wav", config=IngestConfig(n_jobs=1))
    return folder


@pytest.fixture(scope="module")
def catalog(filled_catalog: Path, tiny_model: Path) -> Iterator[Catalog]:
    with astound.open(
        filled_catalog / "catalog", model=tiny_model, device="cpu", create=False
    ) as opened:
        yield opened


def test_match_is_explained_as_the_query_answers_it(catalog: Catalog) -> None:
    answer, answered = catalog.explain(clip(1), RATE), catalog.query(clip(1), RATE)
    assert answer.match
    assert answer.match == answered.best
    assert (answer.decision.accepted, answer.decision.rule) == (True, "accepted")
    assert answer.decision.confidence == pytest.approx(answer.match.confidence, abs=1e-4)
    assert answer.examined
    assert answer.examined.candidate == answer.nearest[0]
    assert answer.examined.detail.agrees.all()
    assert answer.examined.detail.similarity[::4] == pytest.approx(1.0, abs=0.01)
    assert answer.examined.detail.votes[::4].all()
    assert {"encode", "search", "align"} <= answer.timings_ms.keys()


def three_pieces() -> Waveform:
    """Two pieces of one tune, and then one of another."""
    return np.concatenate([clip(1, 4.0, 2.8), clip(1, 1.3, 3.2), clip(2, 2.0, 4.0)])


def test_passages_are_the_matches_of_the_query_in_its_order(catalog: Catalog) -> None:
    answer, answered = catalog.explain(three_pieces(), RATE), catalog.query(three_pieces(), RATE)
    assert len(answered.matches) == 3
    assert tuple(one.candidate.match for one in answer.passages) == answered.matches
    nearest = [one.match for one in answer.nearest]
    assert nearest[:3] == list(answered.matches)
    assert [one.rank for one in nearest] == list(range(1, len(nearest) + 1))
    assert all(one.decision.accepted for one in answer.passages)


def test_ends_agree_with_the_times_of_their_passages(catalog: Catalog) -> None:
    """The tiny encoder finds borders to about a second."""
    later = np.concatenate([np.zeros(RATE, np.float32), three_pieces()])
    answer = catalog.explain(later, RATE, start_s=1.0)
    reasons = []
    for one in answer.passages:
        match, trace = one.candidate.match, one.trace
        borders = (
            (one.start, match.query_start_s, match.reference_start_s, 1.0, 0.0),
            (one.end, match.query_end_s, match.reference_end_s, len(later) / RATE, TUNE_S),
        )
        for end, clip_s, track_s, clip_edge_s, track_edge_s in borders:
            reasons.append(end.reason)
            assert (end.reason == "clip") == (abs(clip_s - clip_edge_s) < 0.5)
            if end.reason == "track":
                assert track_s == pytest.approx(track_edge_s, abs=1.0)
            if end.reason == "passage":
                assert end.rank
                other = answer.passages[end.rank - 1]
                assert other is not one
                assert other.trace.start_s - 1.0 < clip_s < other.trace.end_s + 1.0
        assert trace.start_s == pytest.approx(match.query_start_s, abs=2e-3)
        assert trace.reference_s == pytest.approx(
            match.offset_s + match.speed * trace.query_s, abs=2e-3
        )
        assert np.nanmean(trace.similarity[trace.inside]) > trace.min_similarity
    assert reasons.count("clip") == 2
    assert "passage" in reasons


def test_every_passage_is_on_a_plane(catalog: Catalog) -> None:
    answer = catalog.explain(three_pieces(), RATE)
    drawn = [one for plane in answer.planes for one in plane.passages]
    assert sorted(one.candidate.match.rank for one in drawn) == [1, 2, 3]
    for plane in answer.planes:
        cosines = plane.cosines
        assert cosines.values.shape == (len(cosines.query_s), len(cosines.reference_s))
        assert len({one.candidate.match.track_id for one in plane.passages}) == 1


def test_requested_track_has_a_plane_beside_the_answer(catalog: Catalog) -> None:
    answer = catalog.explain(three_pieces(), RATE, track=1)
    assert answer.examined
    assert [plane.passages[0].candidate.match.track_id for plane in answer.planes][-1] == 1
    assert answer.planes[-1].passages == answer.examined.passages


def test_examined_track_has_a_detail_along_each_passage(catalog: Catalog) -> None:
    answer = catalog.explain(three_pieces(), RATE, track=2)
    assert answer.examined
    passages, details = answer.examined.passages, answer.examined.details
    assert len(passages) == len(details) == 2
    for passage, detail in zip(passages, details, strict=True):
        inside = (detail.query_s > passage.trace.start_s) & (
            detail.query_s < passage.trace.end_s - 1.0
        )
        assert detail.agrees[inside].mean() > 0.8


def test_long_clip_is_explained_as_the_query_answers_it(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The query cuts it into clips, and joins what it finds in them."""
    monkeypatch.setattr("engine.search.clips.CLIP_S", 5.0)
    monkeypatch.setattr("engine.search.clips.OVERLAP_S", 2.0)
    long = np.concatenate([clip(1, 0.5, 7.0), clip(2, 0.5, 6.0)])
    answer, answered = catalog.explain(long, RATE), catalog.query(long, RATE)
    assert len(answered.matches) > 1
    shown = tuple(one.candidate.match for one in answer.passages)
    assert shown[: len(answered.matches)] == answered.matches


def test_nearest_are_the_candidates_by_evidence(catalog: Catalog) -> None:
    answer = catalog.explain(clip(1), RATE)
    assert [one.match.rank for one in answer.nearest] == [1, 2, 3, 4]
    assert {one.match.track_id for one in answer.nearest} == {1, 2, 3, 4}
    evidence = [one.evidence for one in answer.nearest]
    assert evidence == sorted(evidence, reverse=True)


def test_unknown_clip_is_refused_for_lack_of_evidence(catalog: Catalog) -> None:
    answer = catalog.explain(cached_tune(98, 4.0), RATE)
    assert (answer.match, answer.decision.accepted) == (None, False)
    assert answer.decision.rule == answer.decision.costs[0].rule == "evidence"
    assert answer.decision.costs[0].found == pytest.approx(answer.nearest[0].evidence, abs=1e-4)


def test_part_counts_from_the_beginning_of_the_clip(catalog: Catalog) -> None:
    whole = clip(1, 1.0, 6.0)
    answer = catalog.explain(whole, RATE, start_s=2.0, end_s=5.0)
    assert answer.examined
    match, detail = answer.examined.candidate.match, answer.examined.detail
    assert match.offset_s == pytest.approx(1.0, abs=0.05)
    assert detail.query_s[0] == pytest.approx(2.0)
    assert detail.reference_s == pytest.approx(1.0 + detail.query_s, abs=0.05)
    middle = len(detail.votes_near.counts) // 2
    assert detail.votes_near.offsets_s[middle] == pytest.approx(match.offset_s, abs=1e-3)
    assert detail.votes_near.counts[middle] > 2


@pytest.mark.parametrize("track", [None, 2])
def test_clip_at_another_speed_is_followed_as_it_was_played(
    catalog: Catalog, track: int | None
) -> None:
    slower = change_speed(clip(1, 2.0, 5.5), RATE, 2 ** (-3 / 12))
    answer = catalog.explain(slower, RATE, track=track)
    assert answer.examined
    match, detail = answer.examined.candidate.match, answer.examined.detail
    assert match.track_id == 2
    assert match.pitch == pytest.approx(-3.0, abs=0.1)
    assert match.tempo == match.speed == pytest.approx(2 ** (-3 / 12), rel=0.01)
    assert detail.agrees.mean() > 0.9
    assert detail.query_s[-1] < len(slower) / RATE
    assert detail.reference_s[-1] == pytest.approx(
        match.offset_s + match.speed * detail.query_s[-1], abs=0.1
    )


def test_believed_track_is_looked_into_though_another_is_the_answer(catalog: Catalog) -> None:
    """The query names the track of the shorter part."""
    both = np.concatenate([clip(1, 2.0, 4.0), clip(2, 1.5, 2.5)])
    search = SearchConfig(k=2, speeds=())
    alignment = AlignConfig(max_candidates=2)
    answer = catalog.explain(both, RATE, track=3, search=search, alignment=alignment)
    assert answer.nearest[0].match.track_id != 3
    assert answer.examined
    match = answer.examined.candidate.match
    assert match.track_id == 3
    assert match.offset_s == pytest.approx(1.5 - 4.0, abs=0.1)
    assert answer.examined.detail.similarity[-8:].max() > 0.95


def test_believed_track_that_is_the_answer_is_told_as_the_answer(catalog: Catalog) -> None:
    by_itself, asked = catalog.explain(clip(1), RATE), catalog.explain(clip(1), RATE, track=2)
    assert asked.examined
    assert by_itself.examined
    assert asked.examined.candidate == by_itself.examined.candidate
    assert asked.examined.decision == by_itself.examined.decision


def test_unknown_track_and_bad_part_are_refused(catalog: Catalog) -> None:
    with pytest.raises(TrackNotFoundError):
        catalog.explain(clip(1), RATE, track=77)
    with pytest.raises(ConfigError, match=r"invalid end_s=2\.0: must be more than start_s, 3\.0"):
        catalog.explain(clip(1), RATE, start_s=3.0, end_s=2.0)


def test_unreadable_clip_is_an_error(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"not audio")
    with pytest.raises(AudioError):
        catalog.explain(tmp_path / "broken.wav")
