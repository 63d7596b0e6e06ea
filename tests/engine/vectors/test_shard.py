from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.errors import NewerShardError, RecipeMismatchError, ShardError
from engine.records import Fingerprint, Vectors
from engine.vectors import quantizer
from engine.vectors.quantizer import Storage
from engine.vectors.shard import VERSION, Shard, write_shard
from engine.vectors.storage import LocalStorage

DIM = 24
FILES = ("header.json", "segments.faiss", "clips.i8")


def unit(rng: np.random.Generator, n: int) -> Vectors:
    vectors = rng.standard_normal((n, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fingerprint(embeddings: Vectors, n_clips: int = 2) -> Fingerprint:
    return Fingerprint(
        embeddings=embeddings,
        clip_embeddings=embeddings[:n_clips],
        segment_hop_s=0.5,
        segment_s=1.0,
        duration_s=len(embeddings) * 0.5 + 0.5,
        recipe_id="recipe",
    )


def search(
    shard: Shard,
    queries: Vectors,
    k: int,
    alive: NDArray[np.bool_] | None = None,
    nprobe: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows and cosines of the nearest vectors, nearest first."""
    rows = shard.candidates(queries, k, alive, nprobe=nprobe)
    cosines = shard.cosines(queries, rows)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(cosines, order, axis=1)


@pytest.fixture
def vectors(rng: np.random.Generator) -> Vectors:
    return unit(rng, 50)


@pytest.fixture
def written(tmp_path: Path, vectors: Vectors) -> Path:
    """Folder of a shard of two recordings."""
    recordings = [fingerprint(vectors[:30]), fingerprint(vectors[30:], 1)]
    name = write_shard(LocalStorage(tmp_path), recordings).name
    return tmp_path / name


def edit_header(shard: Path, **changes: Any) -> None:
    path = shard / "header.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def kept(vectors: Vectors) -> Vectors:
    """Vectors as a shard keeps them."""
    return quantizer.decode(quantizer.encode(vectors))


def brute_force(queries: Vectors, stored: Vectors) -> tuple[np.ndarray, np.ndarray]:
    """Rows by falling cosine, and the cosines."""
    cosines = queries @ stored.T
    rows = np.argsort(-cosines, axis=1)
    return rows, np.take_along_axis(cosines, rows, axis=1)


def test_shard_vectors_equal_the_decoded_codes(written: Path, vectors: Vectors) -> None:
    shard = Shard(written)
    assert shard.n_segments == 50
    assert shard.segment_hop_s == 0.5
    np.testing.assert_array_equal(shard.vectors(0, 50), kept(vectors))
    np.testing.assert_array_equal(shard.vectors(28, 4), kept(vectors[28:32]))
    np.testing.assert_array_equal(shard.vectors(48, 4), kept(vectors[48:]))
    np.testing.assert_array_equal(
        shard.clips(), kept(np.concatenate([vectors[:2], vectors[30:31]]))
    )
    np.testing.assert_array_equal(shard.clips(2, 1), kept(vectors[30:31]))


def test_shard_vectors_read_are_copies(written: Path, vectors: Vectors) -> None:
    shard = Shard(written)
    shard.vectors(0, 50)[:] = 0
    np.testing.assert_array_equal(shard.vectors(0, 50), kept(vectors))


def test_write_shard_counts_its_bytes(tmp_path: Path, vectors: Vectors) -> None:
    shards = LocalStorage(tmp_path / "new" / "folder")
    written = write_shard(shards, [fingerprint(vectors)])
    files = list(shards.path(written.name).iterdir())
    assert {file.name for file in files} == {*FILES, "tracks.jsonl"}
    assert written.n_bytes == sum(file.stat().st_size for file in files)


def test_write_shard_returns_the_rows_of_each_recording(tmp_path: Path, vectors: Vectors) -> None:
    recordings = [fingerprint(vectors[:30]), fingerprint(vectors[30:31], 1), fingerprint(vectors)]
    written = write_shard(LocalStorage(tmp_path), recordings)
    assert written.rows == ((0, 30, 0, 2), (30, 1, 2, 1), (31, 50, 3, 2))
    assert (written.recipe_id, written.n_segments, written.n_clips) == ("recipe", 81, 5)
    shard = Shard(tmp_path / written.name)
    for rows, one in zip(written.rows, recordings, strict=True):
        found = shard.vectors(rows.first_row, rows.n_segments)
        np.testing.assert_array_equal(found, kept(one.embeddings))
        found = shard.clips(rows.first_clip, rows.n_clips)
        np.testing.assert_array_equal(found, kept(one.clip_embeddings))


@pytest.mark.parametrize("k", [1, 5, 50])
def test_search_equals_brute_force(
    written: Path, vectors: Vectors, rng: np.random.Generator, k: int
) -> None:
    queries = unit(rng, 20)
    rows, cosines = search(Shard(written), queries, k)
    expected_rows, expected_cosines = brute_force(queries, kept(vectors))
    assert rows.shape == cosines.shape == (20, k)
    np.testing.assert_array_equal(rows, expected_rows[:, :k])
    np.testing.assert_allclose(cosines, expected_cosines[:, :k], atol=1e-6)


@pytest.mark.parametrize("n_alive", [0, 1, 7, 8, 9, 49])
def test_search_finds_only_what_is_alive(
    written: Path, vectors: Vectors, rng: np.random.Generator, n_alive: int
) -> None:
    alive = np.zeros(50, bool)
    alive[rng.permutation(50)[:n_alive]] = True
    queries = unit(rng, 10)
    rows, cosines = search(Shard(written), queries, 50, alive)
    expected_rows, expected_cosines = brute_force(queries, kept(vectors[alive]))
    assert (rows[:, n_alive:] == -1).all()
    np.testing.assert_array_equal(rows[:, :n_alive], np.flatnonzero(alive)[expected_rows])
    np.testing.assert_allclose(cosines[:, :n_alive], expected_cosines, atol=1e-6)


def test_search_for_more_than_all_rows_pads_with_no_row(written: Path, vectors: Vectors) -> None:
    rows, _ = search(Shard(written), vectors[:3], 60)
    assert (rows[:, :50] >= 0).all()
    assert (rows[:, 50:] == -1).all()


def test_search_takes_strided_queries(written: Path, vectors: Vectors) -> None:
    rows, _ = search(Shard(written), vectors[::-2], 1)
    assert rows[:, 0].tolist() == list(range(49, 0, -2))


def test_require_recipe_another_one_is_refused(written: Path) -> None:
    shard = Shard(written)
    shard.require_recipe("recipe")
    with pytest.raises(RecipeMismatchError) as caught:
        shard.require_recipe("other")
    assert (caught.value.expected, caught.value.found) == ("other", "recipe")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("file", FILES)
def test_open_truncated_file_is_refused(written: Path, file: str, share: float) -> None:
    content = (written / file).read_bytes()
    (written / file).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ShardError):
        Shard(written)


@pytest.mark.parametrize("n_bytes", range(0, 140, 7))
def test_open_file_that_ends_in_its_header_is_refused(written: Path, n_bytes: int) -> None:
    content = (written / "segments.faiss").read_bytes()
    (written / "segments.faiss").write_bytes(content[:n_bytes])
    with pytest.raises(ShardError):
        Shard(written)


@pytest.mark.parametrize("file", FILES)
def test_open_missing_file_is_refused(written: Path, file: str) -> None:
    (written / file).unlink()
    with pytest.raises(ShardError):
        Shard(written)


@pytest.mark.parametrize("file", FILES)
def test_open_garbage_file_is_refused(written: Path, file: str) -> None:
    (written / file).write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(ShardError):
        Shard(written)


def test_open_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="header"):
        Shard(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": "another shard"}, "not an astound shard"),
        ({"version": 2}, "version 2, .* new catalog"),
        ({"kind": "round"}, "round"),
        ({"version": None}, "version"),
        ({"n_segments": 51}, "states"),
        ({"n_clips": 4}, "states"),
        ({"dim": 25}, "states"),
    ],
)
def test_open_header_that_does_not_fit_is_refused(
    written: Path, changes: dict[str, Any], reason: str
) -> None:
    edit_header(written, **changes)
    with pytest.raises(ShardError, match=reason):
        Shard(written)


def test_open_newer_shard_is_not_a_damaged_shard(written: Path) -> None:
    edit_header(written, version=VERSION + 1)
    with pytest.raises(NewerShardError, match="update astound") as caught:
        Shard(written)
    assert not isinstance(caught.value, ShardError)


@pytest.mark.parametrize("header", ["[]", "5", '"astound shard"', "{}", "null"])
def test_open_header_that_is_no_object_of_a_shard_is_refused(written: Path, header: str) -> None:
    (written / "header.json").write_text(header)
    with pytest.raises(ShardError, match="not an astound shard"):
        Shard(written)


@pytest.mark.parametrize("key", ["recipe_id", "n_segments", "n_clips", "dim", "kind"])
def test_open_header_that_lacks_an_entry_is_refused(written: Path, key: str) -> None:
    header = json.loads((written / "header.json").read_text())
    del header[key]
    (written / "header.json").write_text(json.dumps(header))
    with pytest.raises(ShardError):
        Shard(written).require_recipe("recipe")


def test_open_damaged_size_is_refused(written: Path) -> None:
    content = bytearray((written / "segments.faiss").read_bytes())
    content[77] ^= 0x80
    (written / "segments.faiss").write_bytes(content)
    with pytest.raises(ShardError):
        Shard(written)


def test_open_damaged_size_allocates_nothing(written: Path) -> None:
    content = (written / "segments.faiss").read_bytes()
    header = json.loads((written / "header.json").read_text())
    size = struct.pack("<Q", header["n_segments"] * header["dim"])
    assert content.count(size) == 1
    (written / "segments.faiss").write_bytes(content.replace(size, struct.pack("<Q", 1 << 32)))
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ShardError):
        Shard(written)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 1 << 20


@pytest.mark.parametrize("file", ["segments.faiss", "clips.i8"])
def test_damage_detects_one_flipped_bit(written: Path, file: str) -> None:
    shard = Shard(written)
    assert shard.damage() == []
    content = bytearray((written / file).read_bytes())
    content[-3] ^= 1
    (written / file).write_bytes(content)
    (line,) = Shard(written).damage()
    assert file in line


def test_sweep_keeps_a_known_shard_intact(tmp_path: Path, vectors: Vectors) -> None:
    shards = LocalStorage(tmp_path)
    known, orphan = (write_shard(shards, [fingerprint(vectors)]).name for _ in range(2))
    assert shards.sweep([known]) == [orphan]
    assert Shard(shards.path(known)).damage() == []


@pytest.mark.parametrize(("owner", "name"), [("os", "fsync"), ("pathlib.Path", "rename")])
def test_write_shard_error_before_the_end_leaves_nothing(
    tmp_path: Path, vectors: Vectors, monkeypatch: pytest.MonkeyPatch, owner: str, name: str
) -> None:
    shards = LocalStorage(tmp_path)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"{owner}.{name}", crash)
        with pytest.raises(KeyboardInterrupt):
            write_shard(shards, [fingerprint(vectors)])
    assert list(tmp_path.iterdir()) == []


def test_write_shard_two_of_the_same_do_not_collide(tmp_path: Path, vectors: Vectors) -> None:
    shards = LocalStorage(tmp_path)
    names = {write_shard(shards, [fingerprint(vectors)]).name for _ in range(3)}
    assert sorted(names) == shards.names()


# -- large shards ----------------------------------------------------------------------------

N_LARGE = 2000
SILENT = slice(700, 705)


@pytest.fixture(scope="module")
def large() -> Vectors:
    """Vectors in groups, as music's are, some of them silent."""
    rng = np.random.default_rng(8)
    centres = unit(rng, 40).repeat(N_LARGE // 40, axis=0)
    vectors = centres + 0.1 * rng.standard_normal((N_LARGE, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[SILENT] = 0
    return vectors


@pytest.fixture(scope="module", params=["full", "codes"])
def trained_shard(
    request: pytest.FixtureRequest, large: Vectors, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    shards = LocalStorage(tmp_path_factory.mktemp(request.param))
    storage: Storage = request.param
    trained = quantizer.train(large[:1000], N_LARGE, storage)
    written = write_shard(shards, (fingerprint(part) for part in np.split(large, 10)), trained)
    assert trained.ntotal == 0
    return shards.path(written.name)


def test_large_shard_finds_nearly_what_brute_force_does(
    trained_shard: Path, large: Vectors
) -> None:
    rng = np.random.default_rng(9)
    chosen = rng.permutation(N_LARGE)[:50]
    chosen = chosen[large[chosen].any(axis=1)]
    queries = large[chosen] + 0.02 * rng.standard_normal((len(chosen), DIM)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    shard = Shard(trained_shard)
    rows, cosines = search(shard, queries, 10)
    expected, _ = brute_force(queries, large)
    found = [len(np.intersect1d(*pair)) for pair in zip(rows, expected[:, :10], strict=True)]
    assert np.mean(found) > (9 if shard.kind == "full" else 4)
    assert (np.diff(cosines, axis=1) <= 0).all()
    for query, near, told in zip(queries, rows, cosines, strict=True):
        stored = np.concatenate([shard.vectors(int(row), 1) for row in near])
        np.testing.assert_allclose(stored @ query, told, atol=1e-5)


def test_large_shard_keeps_vectors_and_silence(trained_shard: Path, large: Vectors) -> None:
    shard = Shard(trained_shard)
    stored = shard.vectors(0, N_LARGE)
    assert not stored[SILENT].any()
    if shard.kind == "full":
        np.testing.assert_array_equal(stored, kept(large))
    else:
        audible = large.any(axis=1)
        assert (stored * large).sum(axis=1)[audible].mean() > 0.9
        np.testing.assert_allclose(np.linalg.norm(stored[audible], axis=1), 1, atol=1e-5)


def test_large_shard_finds_only_what_is_alive(trained_shard: Path, large: Vectors) -> None:
    alive = np.zeros(N_LARGE, bool)
    alive[::7] = True
    rows, _ = search(Shard(trained_shard), large[:30], 40, alive, nprobe=1000)
    assert (rows[rows >= 0] % 7 == 0).all()
    assert (rows >= 0).any(axis=1).all()


def test_large_shard_finds_more_with_more_probes(trained_shard: Path, large: Vectors) -> None:
    shard = Shard(trained_shard)
    few, _ = search(shard, large[:30], 400, nprobe=1)
    many, _ = search(shard, large[:30], 400, nprobe=16)
    assert (few >= 0).sum() < (many >= 0).sum()


def test_trained_index_of_a_shard_fills_another(trained_shard: Path, large: Vectors) -> None:
    shard = Shard(trained_shard)
    trained = shard.read_trained()
    assert trained is not None
    written = write_shard(LocalStorage(trained_shard.parent), [fingerprint(large[:300])], trained)
    again = Shard(trained_shard.parent / written.name)
    assert (again.kind, again.n_segments) == (shard.kind, 300)


@pytest.mark.parametrize("file", ["segments.faiss", "segments.i8", "silence.bits", "clips.i8"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_large_shard_truncated_is_refused(
    trained_shard: Path, tmp_path: Path, file: str, share: float
) -> None:
    copy = shutil.copytree(trained_shard, tmp_path / "copy")
    if not (copy / file).exists():
        pytest.skip("a shard of this kind has no such file")
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ShardError):
        Shard(copy)


def test_rescoring_in_blocks_gives_the_same_cosines(
    trained_shard: Path, large: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = Shard(trained_shard)
    rows, cosines = search(shard, large[:20], 10)
    monkeypatch.setattr("engine.vectors.shard._BLOCK_QUERIES", 3)
    again = search(shard, large[:20], 10)
    np.testing.assert_array_equal(rows, again[0])
    np.testing.assert_allclose(cosines, again[1], atol=1e-6)


# -- full disks ------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.5, 0.999])
def test_write_shard_that_does_not_fit_raises_and_leaves_nothing(
    tmp_path: Path, vectors: Vectors, share: float
) -> None:
    shards = LocalStorage(tmp_path)
    whole = write_shard(shards, [fingerprint(vectors)])
    n_bytes = (shards.path(whole.name) / "segments.faiss").stat().st_size
    code = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from engine.vectors.storage import LocalStorage
from tests.engine.vectors.test_shard import fingerprint, write_shard
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
write_shard(LocalStorage(Path(sys.argv[1])), [fingerprint(np.load(sys.argv[3]))])
"""
    np.save(tmp_path / "vectors.npy", vectors)
    limit = str(int(n_bytes * share))
    arguments = [sys.executable, "-c", code, str(tmp_path), limit, str(tmp_path / "vectors.npy")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.run(
        arguments,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert process.returncode == 1
    assert "File too large" in process.stderr.splitlines()[-1]
    assert shards.names() == [whole.name]
