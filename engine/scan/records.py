"""Records of a scan: lines, the matches of windows, and spans of tracks.

They are handed between :mod:`engine.scan.scanner`, :mod:`engine.scan.follower` and
:mod:`engine.scan.timeline`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Track time as a linear function of recording time.

    Parameters
    ----------
    track_id : int
    time_s, reference_s : float
        A moment of the recording, and the matching position in the track.
    speed : float
        Track seconds per second of the recording.
    resampled : float
        Playback speed of the recording at which it matched.
    """

    track_id: int
    time_s: float
    reference_s: float
    speed: float = 1.0
    resampled: float = 1.0

    def at(self, time_s: float) -> float:
        """Position in the track, in seconds, at a moment of the recording."""
        return self.reference_s + self.speed * (time_s - self.time_s)


@dataclass(frozen=True, kw_only=True)
class WindowMatch:
    """A track that a window matches.

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
    """A stretch of a recording that contains a track.

    Parameters
    ----------
    track_id : int
    start_s, end_s : float
        In the recording.
    reference_start_s, reference_end_s : float
        In the track.
    score : float
        Mean cosine of the segments beside each other, in [-1, 1].
    confidence : float
        Probability in [0, 1] that at least one of the matching windows is right.
    gain : float
        Sum of the cosines above the agreement threshold; the better of two explanations has more.
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
        """Track seconds per second of the recording."""
        length_s = max(self.end_s - self.start_s, 1e-9)
        return (self.reference_end_s - self.reference_start_s) / length_s

    @property
    def line(self) -> Line:
        """Line through the start and the end of the span."""
        return Line(
            track_id=self.track_id,
            time_s=self.start_s,
            reference_s=self.reference_start_s,
            speed=self.speed,
        )

    def shared_s(self, other: TrackSpan) -> float:
        """Seconds of the recording that both spans cover."""
        return min(self.end_s, other.end_s) - max(self.start_s, other.start_s)


class LineTracer(Protocol):
    """Compares the buffered part of a recording with tracks along lines."""

    @property
    def hop_s(self) -> float:
        """Seconds between segments of the recording."""

    def trace(self, line: Line, start_s: float, end_s: float) -> tuple[Floats, Floats]:
        """Compare recording and track along a line.

        Returns
        -------
        middles_s : float64 array of shape (n_segments,)
            Middles, in ascending order, of the buffered segments with start_s <= middle < end_s.
        cosines : float64 array of shape (n_segments,)
            NaN where the recording is silent, -1 outside of the track.
        """

    def track_similarity(self, one: Line, other: Line, start_s: float, end_s: float) -> float:
        """Mean cosine of two tracks with each other along their lines."""
