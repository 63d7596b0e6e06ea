from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from astound.results import result_object, timeline_object, to_match, to_matches, to_similar_tracks
from engine.records import Candidate, Entry, QueryResult, Timeline, Track

TRACK = Track(
    id=12, path="/music/a.ogg", title="Rain", artist="Ada", album=None, isrc=None,
    duration_s=60.0, content_hash="ab", n_segments=119,
    added_at=datetime(2025, 1, 2, tzinfo=UTC), metadata={},
)  # fmt: skip
CANDIDATE = Candidate(
    track_id=12, offset_s=50.0, votes=9, evidence=0.5, score=0.9, coverage=1.0,
    query_start_s=1.0, query_end_s=6.0, speed=1.1, also=(20.0,),
)  # fmt: skip


@pytest.mark.parametrize("start_s", [0.0, 3.0])
def test_times_of_a_match_are_those_of_the_whole_clip(start_s: float) -> None:
    match = to_match(1, CANDIDATE, TRACK, start_s)
    assert (match.query_start_s, match.query_end_s) == (1.0 + start_s, 6.0 + start_s)
    assert match.reference_start_s == pytest.approx(50.0 + 1.1 * 1.0)
    assert match.offset_s + match.speed * match.query_start_s == pytest.approx(51.1)
    assert match.also_at_s == pytest.approx((21.1,))


def test_match_lies_within_its_track() -> None:
    before = Candidate(**vars(CANDIDATE) | {"offset_s": -2.0, "also": (-9.0,)})
    after = Candidate(**vars(CANDIDATE) | {"offset_s": 57.0})
    early, late = (to_match(1, candidate, TRACK, 0.0) for candidate in (before, after))
    assert (early.reference_start_s, early.also_at_s) == (0.0, (0.0,))
    assert late.reference_end_s == TRACK.duration_s


def test_no_number_is_negative_zero() -> None:
    candidate = Candidate(**vars(CANDIDATE) | {"offset_s": -1e-9, "pitch": -1e-9})
    match = to_match(1, candidate, TRACK, 0.0)
    assert [str(match.offset_s), str(match.pitch)] == ["0.0", "0.0"]


class OneTrack:
    """A store that has only :data:`TRACK` left."""

    def tracks(self, ids: list[int]) -> list[Track]:
        return [TRACK] if TRACK.id in ids else []


def test_deleted_tracks_are_left_out_of_matches() -> None:
    store: Any = OneTrack()
    deleted = Candidate(**vars(CANDIDATE) | {"track_id": 13})
    assert to_matches([deleted, CANDIDATE], store, 0.0)[0].track_id == 12
    assert len(to_matches([deleted], store, 0.0)) == 0


def test_similar_tracks_are_ranked_without_deleted_ones() -> None:
    store: Any = OneTrack()
    (similar,) = to_similar_tracks([(13, 0.9), (12, 0.123456)], store)
    assert (similar.rank, similar.track_id, similar.title) == (1, 12, "Rain")
    assert similar.clip_score == 0.1235


def test_error_is_in_the_object_of_a_result_only_if_there_is_one() -> None:
    error = {"code": "unreadable_audio", "message": "empty"}
    bad = QueryResult(query="caf\udce9.wav", status="error", error=error)
    assert result_object(bad)["error"] == error
    assert result_object(bad)["query"] == "caf\\udce9.wav"
    assert "error" not in result_object(QueryResult(query="a.wav", status="no_match"))


def test_timeline_object_counts_entries_and_has_gaps() -> None:
    entry = Entry(
        track_id=1, path="a", title=None, artist=None, query_start_s=10.0, query_end_s=30.0,
        reference_start_s=0.0, reference_end_s=20.0, offset_s=-10.0, score=0.9, confidence=1.0,
        speed=1.0,
    )  # fmt: skip
    made = timeline_object(Timeline(recording="a.wav", duration_s=30.0, entries=(entry,)))
    assert (made["status"], made["n_entries"]) == ("done", 1)
    assert made["gaps"] == [{"start_s": 0.0, "end_s": 10.0}]


def test_results_need_neither_rich_nor_torch() -> None:
    code = "import sys, astound.results; print(*{'rich', 'torch', 'faiss'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"\n"
