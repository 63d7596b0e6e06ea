"""What windows of a long recording resemble, and what is made of it: lines, sightings, appearances.

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
    """How a track runs beside a recording.

    Parameters
    ----------
    track_id : int
    time_s, reference_s : float
        A moment of the recording, and where in the track it lies.
    speed : float
        Seconds of the track in one of the recording.
    resampled : float
        How many times as fast the recording had to be played to agree.
    """

    track_id: int
    time_s: float
    reference_s: float
    speed: float = 1.0
    resampled: float = 1.0

    def at(self, time_s: float) -> float:
        """Where in the track a moment of the recording lies, in seconds."""
        return self.reference_s + self.speed * (time_s - self.time_s)


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What a window resembles.

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
class Appearance:
    """A track that sounds in a recording.

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
        Probability in [0, 1] that not all windows that say so are wrong.
    gain : float
        What the segments have above agreement, added up: the better of two explanations has more.
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
        """Seconds of the track in one of the recording."""
        length_s = max(self.end_s - self.start_s, 1e-9)
        return (self.reference_end_s - self.reference_start_s) / length_s

    @property
    def line(self) -> Line:
        """How the track runs beside the recording, from its beginning on."""
        return Line(
            track_id=self.track_id,
            time_s=self.start_s,
            reference_s=self.reference_start_s,
            speed=self.speed,
        )

    def shared_s(self, other: Appearance) -> float:
        """Seconds of the recording in which both sound."""
        return min(self.end_s, other.end_s) - max(self.start_s, other.start_s)


class Listener(Protocol):
    """What remembers the last minute of a recording and can look into the tracks."""

    @property
    def hop_s(self) -> float:
        """Seconds between segments of the recording."""

    def trace(self, line: Line, start_s: float, end_s: float) -> tuple[Floats, Floats]:
        """Compare recording and track along a line.

        Returns
        -------
        middles_s : float64 array of shape (n_segments,)
            Middles, rising, of the segments that lie in start_s <= middle < end_s and are still
            remembered.
        cosines : float64 array of shape (n_segments,)
            NaN where the recording is silent, -1 outside of the track.
        """

    def likeness(self, one: Line, other: Line, start_s: float, end_s: float) -> float:
        """Mean cosine of two tracks with each other along their lines."""
