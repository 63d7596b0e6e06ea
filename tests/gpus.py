"""GPUs for tests: one that FAISS finds, and one that is the CPU."""

from __future__ import annotations

from typing import Any

import faiss
import pytest

from engine.vectors.gpu import Gpu, find_gpu


class OnCpu(Gpu):
    """FAISS's own flat indexes of the CPU in place of those of a GPU, as precise as those."""

    def __init__(self, usable_bytes: int = 1 << 30) -> None:
        super().__init__()
        self._usable_bytes = usable_bytes

    def flat_index(self, dim: int, *, half_precision: bool = False) -> Any:
        if not half_precision:
            return faiss.IndexFlatIP(dim)
        kind = faiss.ScalarQuantizer.QT_fp16
        return faiss.IndexScalarQuantizer(dim, kind, faiss.METRIC_INNER_PRODUCT)

    def usable_bytes(self) -> int:
        return self._usable_bytes


def gpu(kind: str) -> Gpu:
    """Give the GPU, or the CPU in its place."""
    if kind == "cpu":
        return OnCpu()
    found = find_gpu("auto")
    if found is None:
        pytest.skip("FAISS finds no GPU")
    return found


BOTH = pytest.mark.parametrize("kind", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
"""Run a test on the CPU in place of a GPU, and on a GPU where one is asked for."""
