from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ShardError
from engine.vectors.quantizer import Codes
from engine.vectors.vector_file import VectorFile

N_ROWS, DIM = 500, 6


@pytest.fixture(scope="module")
def codes() -> Codes:
    return np.random.default_rng(0).integers(-127, 128, (N_ROWS, DIM), dtype=np.int8)


@pytest.fixture(scope="module")
def path(codes: Codes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("vectors") / "rows.i8"
    codes.tofile(file)
    return file


@given(rows=st.lists(st.integers(0, N_ROWS - 1)))
def test_read_rows_returns_what_was_written(rows: list[int], codes: Codes, path: Path) -> None:
    wanted = np.unique(np.array(rows, np.int64))
    picked = VectorFile(path, N_ROWS, DIM).read_rows(wanted)
    np.testing.assert_array_equal(picked, codes[wanted])


@pytest.mark.parametrize(("first", "last"), [(0, N_ROWS), (3, 4), (7, 7), (499, 500)])
def test_read_returns_consecutive_rows(first: int, last: int, codes: Codes, path: Path) -> None:
    stretch = VectorFile(path, N_ROWS, DIM).read(first, last)
    np.testing.assert_array_equal(stretch, codes[first:last])


def test_reads_from_several_threads_are_independent(codes: Codes, path: Path) -> None:
    file = VectorFile(path, N_ROWS, DIM)
    rows = [np.arange(first, N_ROWS, 41) for first in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for wanted, picked in zip(rows, pool.map(file.read_rows, rows), strict=True):
            np.testing.assert_array_equal(picked, codes[wanted])


def test_file_of_another_size_is_refused(path: Path) -> None:
    with pytest.raises(ShardError, match="has 3000 bytes, but the header states 3006"):
        VectorFile(path, N_ROWS + 1, DIM)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="cannot be read"):
        VectorFile(tmp_path / "none.i8", N_ROWS, DIM)


def test_file_truncated_while_open_is_an_error(codes: Codes, tmp_path: Path) -> None:
    path = tmp_path / "rows.i8"
    codes.tofile(path)
    file = VectorFile(path, N_ROWS, DIM)
    with path.open("r+b") as shortened:
        shortened.truncate(DIM)
    with pytest.raises(ShardError, match="truncated"):
        file.read(0, 2)


def test_file_is_closed_with_its_object(path: Path) -> None:
    def n_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = n_open()
    files = [VectorFile(path, N_ROWS, DIM) for _ in range(10)]
    assert n_open() == before + 10
    del files
    assert n_open() == before
