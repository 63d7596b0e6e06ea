"""GPUs for tests: one that FAISS finds, and one that is the CPU."""

from __future__ import annotations

from typing import Any

import faiss
import pytest

from engine.vectors.gpu import Gpu, find


class OnCpu(Gpu):
    """FAISS's own flat indexes of the CPU in place of those of a GPU, as precise as those."""

    def __init__(self, room_bytes: int = 1 << 30) -> None:
        super().__init__()
        self._room_bytes = room_bytes

    def flat(self, dim: int, *, halved: bool = False) -> Any:
        if not halved:
            return faiss.IndexFlatIP(dim)
        kind = faiss.ScalarQuantizer.QT_fp16
        return faiss.IndexScalarQuantizer(dim, kind, faiss.METRIC_INNER_PRODUCT)

    def room_bytes(self) -> int:
        return self._room_bytes


def gpu(kind: str) -> Gpu:
    """Give the GPU, or the CPU in its place."""
    if kind == "cpu":
        return OnCpu()
    found = find("auto")
    if found is None:
        pytest.skip("FAISS finds no GPU")
    return found


BOTH = pytest.mark.parametrize("kind", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
"""Run a test on the CPU in place of a GPU, and on a GPU where one is asked for."""
