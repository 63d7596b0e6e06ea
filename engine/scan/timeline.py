"""Windows of a long recording to what sounds in it, and from when to when.

What a window resembles seeds a thread (:mod:`engine.scan.follower`) or speaks for one. What several
threads explain is told once: a track agrees with itself on other lines, and with its copies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from engine.config import ScanConfig
from engine.scan.follower import BESIDE_S, Thread
from engine.scan.records import Appearance, Listener, Sighting

# Lines of one track that are followed at a time: music of loops agrees with itself on many.
_MAX_LINES = 3
# Tracks that agree this well with each other along two lines hold the same music there; unrelated
# ones reach 0.3.
_SAME_MUSIC = 0.5


class Threads:
    """Follows what windows resemble until it ends.

    It never needs to know whether the recording goes on, and holds what has not ended yet only.

    Parameters
    ----------
    listener : Listener
    config : ScanConfig
    """

    def __init__(self, listener: Listener, config: ScanConfig) -> None:
        self.listener, self.config = listener, config
        self._open: list[Thread] = []
        self._ended: list[Appearance] = []
        self._told: list[Appearance] = []

    @property
    def n_held(self) -> int:
        """How many threads and appearances are held."""
        return len(self._open) + len(self._ended) + len(self._told)

    def sounding(self) -> list[Appearance]:
        """Tell what sounds at the moment, as far as it is known, best first."""
        found = (thread.appearance() for thread in self._open)
        return sorted(filter(self._accepts, found), key=lambda one: -one.gain)

    def follow(self, sightings: Iterable[Sighting], heard_s: float) -> list[Appearance]:
        """Take in what the next window resembles, and tell what has ended.

        Parameters
        ----------
        sightings : iterable of Sighting
        heard_s : float
            How far the recording is heard; never less than the time before.

        Returns
        -------
        list of Appearance
            Each is told once, some time after it has ended, by when it begins.
        """
        for sighting in sightings:
            self._take(sighting, heard_s)
        for thread in self._open:
            thread.extend(heard_s)
        for thread in [one for one in self._open if one.has_ended]:
            self._open.remove(thread)
            self._end(thread)
        return self._settled(heard_s)

    def finish(self) -> list[Appearance]:
        """Tell what is left when the recording is over."""
        for thread in self._open:
            self._end(thread)
        self._open = []
        return self._settled(float("inf"))

    def _take(self, sighting: Sighting, heard_s: float) -> None:
        """Count a window for the thread it lies on, or begin one."""
        if sighting.confidence < self.config.least_confidence:
            return
        same = [one for one in self._open if one.line.track_id == sighting.line.track_id]
        nearest = min(same, key=lambda one: one.distance(sighting.line), default=None)
        if nearest is not None and nearest.distance(sighting.line) <= 1:
            nearest.absorb(sighting)
            return
        thread = Thread(sighting, self.listener, self.config, heard_s)
        thread.extend(heard_s)
        self._open.append(thread)
        if len(same) >= _MAX_LINES:
            self._open.remove(min([*same, thread], key=lambda one: one.gain))

    # -- which are told ------------------------------------------------------------------------

    def _accepts(self, one: Appearance) -> bool:
        likely = abs(one.speed - 1) <= self.config.max_speed_change
        return likely and one.gain > 0 and one.confidence >= self.config.min_confidence

    def _end(self, thread: Thread) -> None:
        if thread.gain <= 0:
            return
        thread.trim()
        ended = thread.appearance()
        for other in list(self._ended):
            if (joined := self._joined(other, ended)) is not None:
                self._ended.remove(other)
                ended = joined
        self._ended.append(ended)

    def _joined(self, one: Appearance, other: Appearance) -> Appearance | None:
        """Make one of two that go on where the other ended, None if they do not."""
        first, second = sorted((one, other), key=lambda a: (a.start_s, a.end_s))
        apart_s = second.start_s - first.end_s
        beside_s = abs(first.line.at(second.start_s) - second.reference_start_s)
        if one.track_id != other.track_id or apart_s > self.config.max_gap_s:
            return None
        if beside_s > BESIDE_S * (1 + max(apart_s, 0) / self.config.max_gap_s):
            return None
        last = max(one, other, key=lambda a: a.end_s)
        lengths = [max(a.end_s - a.start_s, 1e-9) for a in (one, other)]
        return replace(
            first,
            end_s=last.end_s,
            reference_end_s=last.reference_end_s,
            score=float(np.average([one.score, other.score], weights=lengths)),
            confidence=1 - (1 - one.confidence) * (1 - other.confidence),
            gain=one.gain + other.gain if apart_s >= 0 else max(one.gain, other.gain),
        )

    def _settled(self, heard_s: float) -> list[Appearance]:
        """Take out what nothing that sounds can change any more; the best explanations of it."""
        settled = [one for one in self._ended if self._is_settled(one, heard_s)]
        self._ended = [one for one in self._ended if one not in settled]
        told: list[Appearance] = []
        for one in sorted(filter(self._accepts, settled), key=lambda one: -one.gain):
            better = [other for other in self._ended if other.gain >= one.gain]
            others = [*self._told, *told, *filter(self._accepts, better)]
            if not any(self._is_echo(one, other) for other in others):
                told.append(one)
        self._told = [
            one for one in (*self._told, *told) if one.end_s > heard_s - self.config.history_s
        ]
        return sorted(told, key=lambda one: one.start_s)

    def _is_settled(self, one: Appearance, heard_s: float) -> bool:
        """Whether nothing that sounds can explain it better, or go on where it ends."""
        rivals = [thread.appearance() for thread in self._open]
        return heard_s - one.end_s > self.config.max_gap_s + self.config.window_s and not any(
            self._same_music(one, rival) or self._joined(one, rival) for rival in rivals
        )

    def _is_echo(self, one: Appearance, other: Appearance) -> bool:
        """Whether another explains most of it: on another line of a track, or in a copy of it."""
        covered = one.shared_s(other) / max(one.end_s - one.start_s, 1e-9)
        return covered > 0.5 and self._same_music(one, other)

    def _same_music(self, one: Appearance, other: Appearance) -> bool:
        start_s, end_s = max(one.start_s, other.start_s), min(one.end_s, other.end_s)
        if end_s <= start_s:
            return False
        if one.track_id == other.track_id:
            return True
        return self.listener.likeness(one.line, other.line, start_s, end_s) >= _SAME_MUSIC
