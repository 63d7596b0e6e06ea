"""The GPU that FAISS uses, if there is one: for training, for filling lists and for searching.

FAISS has no GPU class for codes of 4 bits. What needs comparing with many vectors at once is flat
there instead: the centroids while they are trained, the lists that vectors go to, and all stored
vectors of a search (see :mod:`engine.vectors.shelf`).
"""

from __future__ import annotations

import logging
import threading
from functools import cached_property
from typing import Any

import faiss

MAX_FOUND = 2048
"""Neighbours of one vector that a GPU finds at most."""

# The rest is for the encoder, and for what FAISS computes on the way.
_SHARE = 0.8
_DEVICE = 0

log = logging.getLogger(__name__)


class Gpu:
    """The first GPU.

    FAISS lets one thread at a time use it: hold `lock` while using what :meth:`flat` makes.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._faiss: Any = faiss  # builds for the CPU alone lack what is asked of it here

    @cached_property
    def _resources(self) -> Any:
        return self._faiss.StandardGpuResources()

    def flat(self, dim: int, *, halved: bool = False) -> Any:  # a faiss.Index
        """Make an empty index on the GPU that compares with every vector, by inner product.

        Parameters
        ----------
        dim : int
        halved : bool
            Keep vectors in half precision: a cosine is off by 0.001 at most, and by 0.0001 nearly
            always.
        """
        config = self._faiss.GpuIndexFlatConfig()
        config.device, config.useFloat16 = _DEVICE, halved
        return self._faiss.GpuIndexFlatIP(self._resources, dim, config)

    def room_bytes(self) -> int:
        """Tell how much of its memory stored vectors may take, as it is now."""
        import torch

        n_free, _ = torch.cuda.mem_get_info(_DEVICE)
        return int(n_free * _SHARE)


def find(device: str) -> Gpu | None:
    """Find the GPU for a device.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}

    Returns
    -------
    Gpu or None
        None for "cpu", and where FAISS has none; with "cuda" a warning is logged then.
    """
    if device == "cpu":
        return None
    if faiss.get_num_gpus() > 0 and _is_seen_by_torch():
        return Gpu()
    if device == "cuda":
        log.warning(
            "FAISS finds no GPU, so vectors are trained and searched on the CPU; for a GPU install "
            "'astound[gpu]' in an environment without faiss-cpu"
        )
    return None


def _is_seen_by_torch() -> bool:
    import torch

    return torch.cuda.is_available()
