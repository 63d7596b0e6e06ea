from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.compare.clusters import clusters
from engine.compare.duplicates import DuplicateFinder
from engine.config import DedupConfig
from engine.errors import ConfigError
from engine.records import Duplicate, Fingerprint, Vectors
from engine.vectors.index import Index
from engine.vectors.shard import write_shard
from engine.vectors.storage import LocalStorage
from tests.engine.compare.test_clusters import copies_of

DIM = 32
HOP_S = 0.5
SEGMENT_S = 0.9
N = 100
"""Segments of most tracks."""


def _music(seed: int, n: int = N) -> Vectors:
    return _unit(np.random.default_rng(seed).standard_normal((n, DIM)))


def _unit(rows: Any) -> Vectors:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-9), np.float32)


def _noisy(vectors: Vectors, cosine: float, seed: int = 99) -> Vectors:
    """Vectors with this cosine to others."""
    other = np.random.default_rng(seed).standard_normal(vectors.shape)
    other -= (other * vectors).sum(axis=1, keepdims=True) * vectors
    sine = np.sqrt(1 - cosine**2)
    return np.asarray(cosine * vectors + sine * _unit(other), np.float32)


def _faster(vectors: Vectors, speed: float) -> Vectors:
    """Vectors as of music played faster: between two stored ones, a mixture of them."""
    at = np.arange(0, len(vectors) - 1, speed)
    first, share = at.astype(int), (at % 1)[:, None]
    return _unit((1 - share) * vectors[first] + share * vectors[first + 1])


def _smooth(seed: int, n: int = N) -> Vectors:
    """Music whose neighbouring segments resemble each other, as overlapping ones do."""
    raw = np.random.default_rng(seed).standard_normal((n + 2, DIM))
    return _unit(raw[:-2] + 2 * raw[1:-1] + raw[2:])


def _finder(folder: Path, tracks: Mapping[int, Vectors], **config: Any) -> DuplicateFinder:
    fingerprints = [
        Fingerprint(
            embeddings=vectors,
            clip_embeddings=vectors[:1],
            segment_hop_s=HOP_S,
            segment_s=SEGMENT_S,
            duration_s=0,
            recipe_id="r",
        )
        for vectors in tracks.values()
    ]
    shards = LocalStorage(folder)
    placements = write_shard(shards, fingerprints).placements(tracks)
    return DuplicateFinder(
        index=Index(shards, placements, "r"),
        segment_hop_s=HOP_S,
        segment_s=SEGMENT_S,
        durations_s={track_id: _length_s(vectors) for track_id, vectors in tracks.items()},
        config=DedupConfig(**config),
    )


def _length_s(vectors: Vectors) -> float:
    return (len(vectors) - 1) * HOP_S + SEGMENT_S


def _found(finder: DuplicateFinder) -> dict[tuple[int, int], Duplicate]:
    found = list(finder.find(lambda n_done, n_all: None))
    by_pair = {(one.first_id, one.second_id): one for one in found}
    assert len(by_pair) == len(found), "a pair is found twice"
    return by_pair


@pytest.mark.parametrize("full_only", [False, True])
def test_copies_are_full_duplicates_and_other_music_is_none(
    tmp_path: Path, full_only: bool
) -> None:
    music = _music(1)
    tracks = {
        2: music,
        5: _music(2),
        6: _noisy(music, 0.9),
        9: _noisy(music, 0.87)[4:],
        11: _music(3),
    }
    found = _found(_finder(tmp_path, tracks, full_only=full_only))
    kinds = {pair: one.kind for pair, one in found.items()}
    assert kinds == dict.fromkeys([(2, 6), (2, 9), (6, 9)], "full")
    (passage,) = found[2, 9].passages
    starts_s = passage.query_start_s, passage.reference_start_s
    assert starts_s == pytest.approx((4 * HOP_S, 0), abs=0.02)
    assert found[2, 9].first_share == pytest.approx(0.96, abs=0.01)
    assert found[2, 9].second_share == pytest.approx(1.0, abs=0.01)


def test_slower_copy_is_full(tmp_path: Path) -> None:
    music = _smooth(1, 200)
    found = _found(_finder(tmp_path, {1: music, 2: _faster(music, 0.98), 3: _smooth(2, 200)}))
    assert [one.kind for one in found.values()] == ["full"]
    assert found[1, 2].passages[0].speed == pytest.approx(1 / 0.98, abs=0.005)


def test_music_beyond_the_change_of_speed_is_none(tmp_path: Path) -> None:
    music = _smooth(1, 200)
    tracks = {1: music, 2: _faster(music, 0.96)}
    assert not _found(_finder(tmp_path, tracks, max_speed_change=0.02))


def test_other_mix_is_a_version_and_never_full(tmp_path: Path) -> None:
    music = _music(1)
    tracks = {1: music, 2: _noisy(music, 0.79)}
    (found,) = _found(_finder(tmp_path, tracks)).values()
    assert found.kind == "version"
    assert found.first_share == pytest.approx(1.0, abs=1e-3)
    assert clusters([found], copies_of({1: 50.0, 2: 50.0})) == []
    assert not _found(_finder(tmp_path, tracks, full_only=True))


def test_medley_is_a_duplicate_of_its_sources_in_part(tmp_path: Path) -> None:
    first, second = _music(1), _music(2)
    medley = np.concatenate([first[10:40], _music(4, 20), second[50:80]])
    found = _found(_finder(tmp_path, {1: first, 2: second, 3: medley, 4: _music(5)}))
    assert {pair: one.kind for pair, one in found.items()} == {(1, 3): "part", (2, 3): "part"}
    (passage,) = found[2, 3].passages
    spans = passage.query_start_s, passage.query_end_s, passage.reference_start_s
    assert spans == pytest.approx((25.0, 79 * HOP_S + SEGMENT_S, 25.0), abs=0.6)
    assert found[2, 3].first_share == pytest.approx(0.3, abs=0.02)
    assert found[2, 3].second_share == pytest.approx(0.375, abs=0.02)


def test_passage_shorter_than_min_length_is_none(tmp_path: Path) -> None:
    music = _music(1)
    tracks = {1: music, 2: np.concatenate([_music(2, 60), music[20:36]])}
    assert not _found(_finder(tmp_path, tracks, min_length_s=12.0))
    assert _found(_finder(tmp_path, tracks, min_length_s=8.0))


def test_shorter_passages_of_a_duplicate_are_found_too(tmp_path: Path) -> None:
    music = _music(1)
    edit = np.concatenate([music[70:84], _music(2, 8), music[20:60]])  # 7 s and 20 s of it
    found = _found(_finder(tmp_path, {1: music, 2: edit}))
    starts_s = [one.query_start_s for one in found[1, 2].passages]
    assert starts_s == pytest.approx([20 * HOP_S, 70 * HOP_S], abs=0.6)


def test_silence_at_the_ends_and_inside_does_not_count(tmp_path: Path) -> None:
    music = _music(1)
    music[40:60] = 0
    silence = np.zeros((30, DIM), np.float32)
    tracks = {1: music, 2: np.concatenate([silence, music, silence])}
    (found,) = _found(_finder(tmp_path, tracks)).values()
    assert found.kind == "full"
    assert (found.first_share, found.second_share) == pytest.approx((1.0, 1.0), abs=1e-3)


def test_copy_of_a_loop_is_found(tmp_path: Path) -> None:
    turn = _music(1, 10)
    loop, copy = (np.concatenate([one] * 12) for one in (turn, _noisy(turn, 0.95)))
    tracks = {1: loop, 2: copy, 3: _music(2)}
    found = _found(_finder(tmp_path, tracks))
    assert {pair: one.kind for pair, one in found.items()} == {(1, 2): "full"}


def test_progress_counts_all_tracks(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    finder = _finder(tmp_path, {1: _music(1), 2: _music(2), 3: _music(3, 1)})
    list(finder.find(lambda n_done, n_all: calls.append((n_done, n_all))))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_invalid_settings_are_refused() -> None:
    for bad in ({"min_length_s": 0.0}, {"min_length_s": -1.0}, {"max_speed_change": 1.0}):
        with pytest.raises(ConfigError):
            DedupConfig(**bad)  # type: ignore[arg-type]


def test_copy_with_most_that_is_audible_is_kept(tmp_path: Path) -> None:
    whole = _music(1)
    padded = np.concatenate([0 * whole[:60], whole[:92]])
    finder = _finder(tmp_path, {3: padded, 5: whole})
    found = list(finder.find(lambda n_done, n_all: None))
    assert [pair.kind for pair in found] == ["full"]
    audible_s = finder.audible_s(found)
    assert audible_s == {3: 46.0, 5: 50.0}
    (cluster,) = clusters(found, copies_of(audible_s))
    assert (cluster.keeper_id, cluster.reason) == (5, "50.0 s of sound")
