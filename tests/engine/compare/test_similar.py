from __future__ import annotations

import numpy as np
import pytest

from engine.compare import similar
from engine.compare.similar import ClipIndex
from engine.errors import SilentAudioError
from engine.records import Vectors

DIM = 8


def _clips(rng: np.random.Generator, n: int) -> Vectors:
    rows = rng.standard_normal((n, DIM)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture
def tracks(rng: np.random.Generator) -> dict[int, Vectors]:
    """Tracks of several lengths; some clips of 5 and all of 7 are silent."""
    made = {track_id: _clips(rng, n) for track_id, n in ((3, 4), (4, 1), (5, 6), (7, 2), (9, 3))}
    made[5][[0, 3]] = 0
    made[7][:] = 0
    return made


def _oracle(one: Vectors, other: Vectors) -> float:
    """The score as it is defined, clip by clip."""
    heard = [[clip for clip in clips if any(clip)] for clips in (one, other)]
    if not heard[1]:
        return -1.0
    shorter, longer = sorted(heard, key=len)
    best = [max(float(a @ b) for b in longer) for a in shorter]
    if len(shorter) == len(longer):
        best += [max(float(a @ b) for a in shorter) for b in longer]
    return float(np.mean(best))


@pytest.mark.parametrize("block", [1, 5, 1000])
@pytest.mark.parametrize("n_clips", [1, 3, 4, 20])
def test_scores_are_those_of_the_definition(
    tracks: dict[int, Vectors],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    block: int,
    n_clips: int,
) -> None:
    monkeypatch.setattr(similar, "_BLOCK_CLIPS", block)
    query = _clips(rng, n_clips)
    query[1:2] = 0
    scores = ClipIndex(list(tracks), tracks.__getitem__).scores(query)
    assert scores == pytest.approx([_oracle(query, clips) for clips in tracks.values()], abs=1e-6)


def test_score_does_not_depend_on_whose_question_it_is(tracks: dict[int, Vectors]) -> None:
    index = ClipIndex([3, 4, 5, 9], tracks.__getitem__)
    table = np.array([index.scores(tracks[track_id]) for track_id in index.track_ids])
    assert table == pytest.approx(table.T, abs=1e-6)
    assert np.diag(table) == pytest.approx(np.ones(4), abs=1e-6)


def test_part_of_a_track_scores_as_high_as_the_whole(tracks: dict[int, Vectors]) -> None:
    (score,) = ClipIndex([5], tracks.__getitem__).scores(tracks[5][2:5])
    assert score == pytest.approx(1.0)


def test_silent_query_is_refused_by_name(tracks: dict[int, Vectors]) -> None:
    with pytest.raises(SilentAudioError, match=r"quiet\.wav"):
        ClipIndex([3], tracks.__getitem__).scores(tracks[7], "quiet.wav")


def test_empty_catalog_has_no_scores(tracks: dict[int, Vectors]) -> None:
    assert ClipIndex([], tracks.__getitem__).scores(tracks[3]).shape == (0,)
    assert ClipIndex([7], tracks.__getitem__).scores(tracks[3]).tolist() == [-1.0]
