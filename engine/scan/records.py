"""Records that the scanner, the track followers and the timeline pass to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WINDOW_S = 8.0
"""Length of a window; each overlaps the next by half."""

HISTORY_S = 64.0
"""Seconds of audio and results in memory: how far before its first window a track can begin."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Alignment of a track with a recording.

    Parameters
    ----------
    track_id : int
    time_s, reference_s : float
        A moment of the recording, and the moment of the track that sounds then.
    speed : float
        Reference seconds per second of the recording.
    resampled : float
        Factor of the playback speed at which recording and track agree.
    """

    track_id: int
    time_s: float
    reference_s: float
    speed: float = 1.0
    resampled: float = 1.0

    def at(self, time_s: float) -> float:
        """Return the time in the track at a time of the recording, in seconds."""
        return self.reference_s + self.speed * (time_s - self.time_s)


@dataclass(frozen=True, kw_only=True)
class WindowMatch:
    """A candidate of one window.

    Parameters
    ----------
    line : Line
        Through the middle of the window.
    confidence : float
        Calibrated probability in [0, 1] that it is right.
    """

    line: Line
    confidence: float


@dataclass(frozen=True, kw_only=True)
class TrackSpan:
    """A stretch of a recording in which a track sounds.

    Parameters
    ----------
    track_id : int
    start_s, end_s : float
        In the recording.
    reference_start_s, reference_end_s : float
        In the track.
    score : float
        Mean cosine of the aligned segments, in [-1, 1].
    confidence : float
        Probability in [0, 1] that at least one of its windows is right.
    gain : float
        Sum of what the cosines exceed `ScanConfig.min_cosine` by: the better of two explanations
        has more.
    """

    track_id: int
    start_s: float
    end_s: float
    reference_start_s: float
    reference_end_s: float
    score: float
    confidence: float
    gain: float

    @property
    def speed(self) -> float:
        """Reference seconds per second of the recording."""
        length_s = max(self.end_s - self.start_s, 1e-9)
        return (self.reference_end_s - self.reference_start_s) / length_s

    @property
    def line(self) -> Line:
        """Alignment of the track with the recording, through its start."""
        return Line(
            track_id=self.track_id,
            time_s=self.start_s,
            reference_s=self.reference_start_s,
            speed=self.speed,
        )

    def shared_s(self, other: TrackSpan) -> float:
        """Seconds of the recording in which both sound; negative if they are apart."""
        return min(self.end_s, other.end_s) - max(self.start_s, other.start_s)


class LineTracer(Protocol):
    """Compares the recent part of a recording with tracks, and tracks with each other."""

    @property
    def hop_s(self) -> float:
        """Distance of the recording's segments in seconds."""

    def trace(self, line: Line, start_s: float, end_s: float) -> tuple[Floats, Floats]:
        """Compute the cosines of recording and track along a line.

        Returns
        -------
        middles_s : float64 array of shape (n_segments,), rising
            Middles of the segments in start_s <= middle < end_s that are still in memory.
        cosines : float64 array of shape (n_segments,)
            NaN where the recording is silent, -1 outside of the track.
        """

    def track_similarity(self, line: Line, other: Line, start_s: float, end_s: float) -> float:
        """Compute the mean cosine of two tracks along their lines."""
