"""Waveforms of tracks, for drawing them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from astound.catalog import Catalog
from astound.service.schemas import MAX_BINS, RefusedError
from engine.audio import child
from engine.audio.peaks import coarser, peaks
from engine.audio.report import ReadReport
from engine.records import Waveform

_RATE_HZ = 8000
_N_FINE = 2 * MAX_BINS
_N_KEPT = 256  # of 4 bytes for each fine bin


class Waveforms:
    """Outlines of the tracks of a catalog; the latest ones are kept in memory.

    Parameters
    ----------
    catalog : Catalog
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._outline = lru_cache(_N_KEPT)(self._decode)
        self._closing = threading.Event()

    def peaks(self, track_id: int, n_bins: int) -> tuple[list[float], float]:
        """Return the outline of a track.

        Parameters
        ----------
        track_id : int
        n_bins : int
            From 1 to `MAX_BINS`.

        Returns
        -------
        peaks : list of float
            The largest absolute sample of each of `n_bins` equal parts, as a share of the largest
            one of all.
        duration_s : float
            Of the track.

        Raises
        ------
        TrackNotFoundError
        TrackFileError
            The file is gone, or is not what was added.
        AudioError
            The file cannot be decoded.
        """
        path = self._catalog.audio_file(track_id)
        track = self._catalog.track(track_id)
        fine = self._outline(path, track.content_hash, track.duration_s)
        return [round(float(one), 3) for one in coarser(fine, n_bins)], track.duration_s

    def close(self) -> None:
        """Give up what is being decoded."""
        self._closing.set()

    def _decode(self, path: Path, content_hash: str, duration_s: float) -> NDArray[np.float32]:
        """Decode a file; its content, which a path may lose, is for the memory only."""
        n_samples = max(round(duration_s * _RATE_HZ), _N_FINE)
        outline = peaks(self._blocks(path), n_samples, _N_FINE)
        return outline / np.float32(outline.max() or 1.0)

    def _blocks(self, path: Path) -> Iterator[Waveform]:
        for block in child.blocks(str(path), _RATE_HZ, ReadReport()):
            if self._closing.is_set():
                raise RefusedError(503, "not_ready", "the service is ending")
            yield block
