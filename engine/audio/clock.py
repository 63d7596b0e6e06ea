"""Place decoded frames on the clock of their container, which is the clock that players show.

Time stamps are rounded, jitter, or are plainly wrong. A jump is believed if the frames after it
confirm it for a while: those of one packet are counted from its one time stamp.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

Frame = TypeVar("Frame")

TOLERANCE_S = 0.1
"""Smaller deviations are ignored: the default of FFmpeg's own compensation (min_hard_comp)."""
MAX_GAP_S = 3600.0
"""Longer gaps are taken for a change of the clock, and not filled with silence."""
MAX_OVERLAP_S = 1.0
"""Longer steps back are taken for a change of the clock, and no samples are dropped."""
CONFIRMED_S = 0.5
"""Frames after a jump that have to agree with it, in seconds."""
MAX_LAST_GAP_S = 10.0
"""Longer gaps shortly before the end, which nothing confirms, are not believed."""
_MIN_START_S = 0.01


@dataclass(frozen=True)
class Timed(Generic[Frame]):
    """A frame, when it begins by its time stamp, and how long it is.

    Parameters
    ----------
    frame : object
    time_s : float or None
        On the container's clock; None if it has no time stamp.
    duration_s : float
    """

    frame: Frame
    time_s: float | None
    duration_s: float


class Placed(NamedTuple, Generic[Frame]):
    """A frame, its run, and the jump before it.

    Parameters
    ----------
    frame : object
    run : int
        Frames of one run follow each other without a jump.
    jump_s : float
        Of the first frame of a run: seconds of silence before it if positive, seconds by which it
        overlaps what came before if negative. 0 for all other frames.
    """

    frame: Frame
    run: int
    jump_s: float


def place(frames: Iterable[Timed[Frame]], stream_start_s: float | None) -> Iterator[Placed[Frame]]:
    """Find the gaps and overlaps between frames.

    Parameters
    ----------
    frames : iterable of Timed
    stream_start_s : float or None
        When the stream begins on the container's clock, by its header.

    Yields
    ------
    Placed
        All frames, in their order.
    """
    clock = _Clock(stream_start_s)
    held: list[Timed[Frame]] = []  # the frames since a jump that is not confirmed yet
    for timed in frames:
        if held and not _follows(held, timed):
            yield from clock.take(held, confirmed=False)
            held = []
        if not held and clock.is_on_time(timed):
            yield from clock.take([timed], confirmed=True)
            continue
        held.append(timed)
        if sum(one.duration_s for one in held) >= CONFIRMED_S:
            yield from clock.take(held, confirmed=True)
            held = []
    yield from clock.take(held, confirmed=clock.confirms_last(held))


def _follows(held: list[Timed[Frame]], timed: Timed[Frame]) -> bool:
    """Decide whether a frame follows the held ones by its time stamp; it may have none."""
    first_s = held[0].time_s
    if timed.time_s is None or first_s is None:
        return True
    due_s = first_s + sum(one.duration_s for one in held)
    return abs(timed.time_s - due_s) <= TOLERANCE_S


class _Clock:
    """The time at which the next frame is due."""

    def __init__(self, stream_start_s: float | None) -> None:
        self._stream_start_s = stream_start_s
        self._due_s: float | None = None  # None before the first frame
        self.run = 0

    def is_on_time(self, timed: Timed[Frame]) -> bool:
        if timed.time_s is None:
            return True
        start_s = self._due_s if self._due_s is not None else self._stream_start_s or 0.0
        return abs(timed.time_s - start_s) <= TOLERANCE_S

    def confirms_last(self, last: list[Timed[Frame]]) -> bool:
        """Decide whether a jump before the last frames counts, which no later frames confirm."""
        if self._due_s is None or not last or last[0].time_s is None:
            return True
        return len(last) > 1 and last[0].time_s - self._due_s <= MAX_LAST_GAP_S

    def take(self, frames: list[Timed[Frame]], *, confirmed: bool) -> Iterator[Placed[Frame]]:
        """Place consecutive frames; a jump before the first one is ignored unless confirmed."""
        for i, timed in enumerate(frames):
            jump_s = self._jump_s(timed) if confirmed and i == 0 else 0.0
            self._due_s = (self._due_s or 0.0) + timed.duration_s
            if jump_s:
                self.run += 1
            yield Placed(timed.frame, self.run, jump_s)

    def _jump_s(self, timed: Timed[Frame]) -> float:
        """Set the clock by a frame; return the silence before it."""
        is_first = self._due_s is None
        time_s = timed.time_s
        if is_first:
            jump_s = self._start_s(timed)
            self._due_s = jump_s if time_s is None else time_s
            return jump_s if _MIN_START_S <= jump_s <= MAX_GAP_S else 0.0
        if time_s is None or self._due_s is None or self.is_on_time(timed):
            return 0.0
        jump_s = time_s - self._due_s
        self._due_s = time_s
        return jump_s if -MAX_OVERLAP_S <= jump_s <= MAX_GAP_S else 0.0

    def _start_s(self, timed: Timed[Frame]) -> float:
        """When the first frame begins: as its stream does, unless it begins much later."""
        if timed.time_s is None:
            return self._stream_start_s or 0.0
        if self._stream_start_s is not None and self.is_on_time(timed):
            return self._stream_start_s
        return timed.time_s
