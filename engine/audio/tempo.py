"""Change the tempo of a waveform, but not its pitch."""

from __future__ import annotations

from fractions import Fraction

import av
import av.error
import av.filter
import numpy as np

from engine.records import Waveform

TEMPO_RANGE = (0.5, 2.0)
"""Least and greatest factor of :func:`change_tempo`."""


def change_tempo(waveform: Waveform, sample_rate: int, factor: float) -> Waveform:
    """Make a mono waveform faster or slower at the same pitch, with FFmpeg's `atempo`.

    It overlaps and adds similar stretches (WSOLA: Verhelst and Roelands 1993).

    Parameters
    ----------
    waveform : float32 array of shape (n_samples,)
    sample_rate : int
        Hz.
    factor : float
        In :data:`TEMPO_RANGE`; 2 halves the length.

    Returns
    -------
    float32 array of about n_samples / factor
    """
    graph = av.filter.Graph()
    source = graph.add_abuffer(
        sample_rate=sample_rate, format="flt", layout="mono", time_base=Fraction(1, sample_rate)
    )
    graph.link_nodes(source, graph.add("atempo", f"{factor:.9f}"), graph.add("abuffersink"))
    graph.configure()
    samples = np.ascontiguousarray(waveform[None], np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = sample_rate, 0, Fraction(1, sample_rate)
    graph.push(frame)
    graph.push(None)
    parts = []
    while True:
        try:
            parts.append(graph.pull().to_ndarray()[0])
        except (av.error.EOFError, av.error.BlockingIOError):
            return np.concatenate(parts)
