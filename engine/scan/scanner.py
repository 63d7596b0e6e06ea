"""Find the passages of a recording of any length, clip by clip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from engine.records import Candidate
from engine.scan.timeline import TimelineBuilder
from engine.search.clips import Clip
from engine.search.searcher import Searcher


class Scanner:
    """Scans a recording, and returns each passage some time after it has ended.

    Parameters
    ----------
    searcher : Searcher
    max_gap_s : float
        Longest gap between two parts of one passage.
    min_confidence : float
        Least confidence of a passage.
    best_only : bool
        Whether to leave out passages whose music another track explains better.
    on_found : callable, optional
        Called with all candidates of each clip, accepted or not; their times are those of the
        recording.
    """

    def __init__(
        self,
        searcher: Searcher,
        max_gap_s: float,
        min_confidence: float,
        *,
        best_only: bool = True,
        on_found: Callable[[list[Candidate]], None] = lambda found: None,
    ) -> None:
        self.searcher, self.min_confidence, self.on_found = searcher, min_confidence, on_found
        self.timeline = TimelineBuilder(searcher.context.tracks, max_gap_s, best_only=best_only)
        self.position_s = 0.0

    def scan(self, clips: Iterable[Clip]) -> Iterator[Candidate]:
        """Scan a recording to its end.

        Parameters
        ----------
        clips : iterable of Clip
            As :meth:`Searcher.clips` yields them; they may come as they are recorded.

        Yields
        ------
        Candidate
            Its times are those of the recording.
        """
        least = min(self.min_confidence, self.searcher.calibration.min_confidence)
        for clip in clips:
            found = [one.later(clip.start_s) for one in self.searcher.passages(clip)]
            self.on_found(found)
            self.position_s = clip.end_s
            accepted = self.searcher.calibration.accepted(found, least)
            yield from self._accepted(self.timeline.add(accepted, clip.end_s))
        yield from self._accepted(self.timeline.finish())

    def _accepted(self, passages: Iterable[Candidate]) -> list[Candidate]:
        return self.searcher.calibration.accepted(passages, self.min_confidence)
