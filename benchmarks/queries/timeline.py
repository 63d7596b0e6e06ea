"""Recordings made of stretches of others, with the ground truth of every stretch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.queries.datasets import RATE, Waveform

CUT_S = 0.01
"""Fade of a hard cut, which keeps it from clicking."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of a recording that comes from a track.

    Parameters
    ----------
    track : str
        Path of the track, or any name of it.
    query_start_s, query_end_s : float
        Its position in the recording; the border of a fade is its middle.
    reference_start_s : float
        Its start in the track.
    speed : float
        Seconds of the track per second of the recording.
    recording : int
        Index of the recording, if there are several.
    also_at_s : tuple of float
        Other starts in the track whose samples are nearly the same.
    """

    track: str
    query_start_s: float
    query_end_s: float
    reference_start_s: float
    speed: float = 1.0
    recording: int = 0
    also_at_s: tuple[float, ...] = ()

    @property
    def length_s(self) -> float:
        """Its length in the recording."""
        return self.query_end_s - self.query_start_s

    def reference_at(self, query_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the times in the track that sound at times of the recording."""
        return self.reference_start_s + self.speed * (query_s - self.query_start_s)


class Timeline:
    """A recording that grows at its end.

    Attributes
    ----------
    waveform : float32 array of shape (n_samples,) at RATE
    pieces : list of Piece
        The stretches that come from a track, by start.
    """

    def __init__(self) -> None:
        self.waveform: Waveform = np.zeros(0, np.float32)
        self.pieces: list[Piece] = []
        self._ends_in_piece = False

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
        return len(self.waveform) / RATE

    def append(
        self,
        waveform: Waveform,
        track: str | None = None,
        reference_start_s: float = 0.0,
        *,
        speed: float = 1.0,
        fade_s: float = CUT_S,
    ) -> None:
        """Fade the end into another stretch.

        Parameters
        ----------
        waveform : float32 array of shape (n_samples,) at RATE
        track : str, optional
            The track it comes from; it is not a piece without one.
        reference_start_s, speed : float
            Its position in the track, and seconds of the track per second of it.
        fade_s : float
            Length of the fade, in which both sound.
        """
        n_fade = min(round(fade_s * RATE), len(self.waveform), len(waveform))
        half_s = n_fade / RATE / 2
        border_s = self.duration_s - half_s
        self.waveform = _faded(self.waveform, waveform, n_fade)
        if self._ends_in_piece:
            self.pieces[-1] = replace(self.pieces[-1], query_end_s=border_s)
        self._ends_in_piece = track is not None
        if track is not None:
            piece = Piece(
                track=track,
                query_start_s=border_s,
                query_end_s=self.duration_s,
                reference_start_s=reference_start_s + half_s * speed,
                speed=speed,
            )
            self.pieces.append(piece)


def _faded(first: Waveform, second: Waveform, n_fade: int) -> Waveform:
    """Join two waveforms whose powers sum to the same in the fade."""
    ramp = np.sin(np.linspace(0, np.pi / 2, n_fade)).astype(np.float32)
    both = first[len(first) - n_fade :] * ramp[::-1] + second[:n_fade] * ramp
    return np.concatenate([first[: len(first) - n_fade], both, second[n_fade:]])
