from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astound.storage import DATABASE_FILE
from benchmarks.queries.distractors import TRACK_SEGMENTS, Distractors
from benchmarks.runs.corpus import Corpus
from engine.store.store import Store
from tests.benchmarks.conftest import OTHER_SEGMENTS, synthetic_tracks


def test_more_tracks_begin_with_the_same_ones(corpus: Corpus, distractors: Distractors) -> None:
    few, more = (synthetic_tracks(corpus, distractors, n * TRACK_SEGMENTS + 9) for n in (1, 3))
    assert (few.n_tracks, more.n_tracks) == (1, 3)
    (one,), (many,) = few.batches(), more.batches()
    assert [track.path for track in many.tracks][:1] == [track.path for track in one.tracks]
    np.testing.assert_array_equal(one.read(0).embeddings, many.read(0).embeddings)
    assert not np.array_equal(many.read(0).embeddings, many.read(1).embeddings)


def test_tracks_have_as_many_clips_as_real_ones(
    corpus: Corpus, distractors: Distractors, two_catalogs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.queries.synthetic.TRACK_SEGMENTS", OTHER_SEGMENTS)
    (batch,) = synthetic_tracks(corpus, distractors, OTHER_SEGMENTS).batches()
    clips = batch.read(0).clip_embeddings
    np.testing.assert_allclose(np.linalg.norm(clips, axis=1), 1, atol=1e-5)
    with Store.open(two_catalogs / "others" / DATABASE_FILE) as store:
        real = {one.n_clips for one in store.placements() if one.n_segments == OTHER_SEGMENTS}
    assert real == {batch.tracks[0].n_clips} == {len(clips)}
