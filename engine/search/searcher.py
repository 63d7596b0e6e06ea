"""Answer a query: from audio blocks to candidates with confidences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from engine.protocol import AudioFingerprinter
from engine.records import Candidate, Fingerprint, Waveform
from engine.search.calibration import Calibration
from engine.search.candidates import find_candidates
from engine.search.clips import SHORT_S, Clip, every, fingerprint_clips, refined
from engine.search.context import SearchContext
from engine.search.passages import PassageFinder, ranked
from engine.search.speeds import SpeedSearch

# Of the fallback search: rows compared exactly and diagonals rescored, for each voting neighbour;
# lists searched.
_FALLBACK_RESCORED = 4
_FALLBACK_DIAGONALS = 2
_FALLBACK_PROBES = 256
# Shortest stretch of a partly known clip that is searched at other speeds.
_MIN_SPEED_SEARCH_S = 10.0
# Least confidence of a clip that few segments are enough for.
_SURE = 0.99

UNCALIBRATED = "confidences are uncalibrated: the calibration was fitted for other search settings"
EMPTY = "the catalog is empty; add music to it first"
CATALOG_WARNINGS = frozenset({UNCALIBRATED, EMPTY})
"""Warnings that hold for all answers of a searcher."""


@dataclass(frozen=True, kw_only=True)
class Searcher:
    """Answer queries with the candidates of an index and their confidences.

    Parameters
    ----------
    fingerprinter : AudioFingerprinter
    calibration : Calibration
    context : SearchContext
        Its stopwatch serves one thread at a time.
    """

    fingerprinter: AudioFingerprinter
    calibration: Calibration
    context: SearchContext

    @property
    def query_hop_s(self) -> float:
        """Distance of a query's segments in seconds."""
        hop_s, reference_hop_s = self.context.search.query_hop_s, self.context.reference_hop_s
        return self.fingerprinter.hop_within(hop_s, reference_hop_s)

    @property
    def short_hop_s(self) -> float:
        """Distance of the segments that a short clip is searched by first, in seconds."""
        hop_s, reference_hop_s = 2 * self.query_hop_s, self.context.reference_hop_s
        is_supported = self.fingerprinter.hop_within(hop_s, reference_hop_s) == hop_s
        return hop_s if is_supported and hop_s < reference_hop_s else self.query_hop_s

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what limits the answers of this searcher."""
        search, alignment = self.context.search, self.context.alignment
        is_fitted = self.calibration.is_fitted_for(search, alignment)
        is_empty = self.context.index.n_segments == 0
        holds = {UNCALIBRATED: not is_fitted, EMPTY: is_empty}
        return tuple(warning for warning, is_so in holds.items() if is_so)

    def clips(self, blocks: Iterable[Waveform], name: str) -> Iterator[Clip]:
        """Fingerprint clips of a recording; see :func:`engine.search.clips.fingerprint_clips`."""
        stopwatch = self.context.stopwatch
        decoded = stopwatch.watch("decode", blocks)
        return fingerprint_clips(
            decoded, self.fingerprinter, self.query_hop_s, name, stopwatch, self.short_hop_s
        )

    def clip(self, blocks: Iterable[Waveform], name: str) -> Clip:
        """Fingerprint a recording as one clip.

        Raises
        ------
        AudioError
            The recording cannot be read, is silent or too short.
        """
        stopwatch = self.context.stopwatch
        waveform = np.concatenate([np.zeros(0, np.float32), *stopwatch.watch("decode", blocks)])
        with stopwatch.step("encode"):
            made = self.fingerprinter.fingerprint([waveform], self.query_hop_s, name)
        return Clip(start_s=0.0, fingerprint=made, waveform=waveform)

    def passages(self, clip: Clip) -> list[Candidate]:
        """Find the passages that a clip shares with the tracks, and what else it may come from.

        What no passage explains is searched at other speeds, if the clip has a waveform. A clip
        without any passage is searched with more neighbours first, if the index compares it with a
        part of the segments only.

        Parameters
        ----------
        clip : Clip

        Returns
        -------
        list of Candidate
            The most confident first. Times are those of the clip.
        """
        few = self._with_few_segments(clip)
        searched = None if few is None else self._search_by_few(few)
        if few is not None and searched is not None:
            clip, (finder, found) = few, searched
        else:
            clip = self._with_all_segments(clip)
            finder = PassageFinder(clip.fingerprint, self.context, self.calibration)
            found = finder.find()
        if not self.calibration.accepted(found) and self._may_have_missed:
            found = ranked([*self._fallback_search(clip.fingerprint), *found])
        if not len(clip.waveform):
            return found
        found = [self._tuned(one, clip) for one in found]
        for rest in finder.unexplained(found):
            start_s, end_s = finder.span_s(rest)
            if end_s - start_s >= _MIN_SPEED_SEARCH_S or not self.calibration.accepted(found):
                found = ranked([*found, *self._at_other_speeds(clip.waveform, finder, rest)])
        return found

    def _with_few_segments(self, clip: Clip) -> Clip | None:
        """Return a short clip with every other segment; None if it is long."""
        fingerprint = clip.fingerprint
        if fingerprint.duration_s > SHORT_S or self.short_hop_s == self.query_hop_s:
            return None
        step = 2 if fingerprint.segment_hop_s == self.query_hop_s else 1
        return replace(clip, fingerprint=every(fingerprint, step))

    def _with_all_segments(self, clip: Clip) -> Clip:
        if clip.fingerprint.segment_hop_s <= self.query_hop_s or not len(clip.waveform):
            return clip
        with self.context.stopwatch.step("encode"):
            made = refined(clip.fingerprint, clip.waveform, self.fingerprinter)
        return replace(clip, fingerprint=made)

    def _search_by_few(self, clip: Clip) -> tuple[PassageFinder, list[Candidate]] | None:
        """Search a clip by few of its segments; return nothing if it takes more to answer it."""
        finder = PassageFinder(clip.fingerprint, self.context, self.calibration)
        if self._is_open(finder.whole[:1]):
            return None
        found = finder.find()
        is_open = self._is_open(found, unexplained=bool(finder.unexplained(found)))
        return None if is_open else (finder, found)

    def _is_open(self, found: Iterable[Candidate], *, unexplained: bool = False) -> bool:
        """Whether more segments might change which candidates are matches, or where they lie."""
        accepted = self.calibration.accepted(found)
        is_plain = (one.speed == 1.0 and not one.also for one in accepted)
        least_sure = min((one.confidence for one in accepted), default=0.0)
        return unexplained or least_sure < _SURE or not all(is_plain)

    def _tuned(self, candidate: Candidate, clip: Clip) -> Candidate:
        is_sure = bool(self.calibration.accepted([candidate]))
        return self._speed_search.tune(candidate, clip) if is_sure else candidate

    @property
    def _speed_search(self) -> SpeedSearch:
        return SpeedSearch(self.fingerprinter, self.context)

    @property
    def _may_have_missed(self) -> bool:
        return self.context.index.is_approximate and self.context.search.n_fallback_neighbours > 0

    def _at_other_speeds(
        self, whole: Waveform, finder: PassageFinder, stretch: tuple[int, int]
    ) -> Iterator[Candidate]:
        """Search a stretch of a clip at other speeds, a piece at a time."""
        rate = self.fingerprinter.sample_rate
        start_s, end_s = finder.span_s(stretch)
        n_pieces = max(math.ceil((end_s - start_s) / self.context.search.speeds_s - 0.1), 1)
        speed_search = self._speed_search
        for piece in pairwise(np.linspace(*stretch, n_pieces + 1).round().astype(int).tolist()):
            start_s, end_s = finder.span_s(piece)
            waveform = whole[round(start_s * rate) : round(end_s * rate)]
            yield from finder.judged(piece)
            plain = [one.later(-start_s) for one in finder.candidates(piece)]
            for one in speed_search.extend(plain, waveform):
                if one.resampled == 1.0:  # judged already
                    continue
                judged = self.judged(one, finder.cut(*piece).audible_s)
                if self.calibration.accepted([judged]):
                    judged = speed_search.follow(judged, waveform)
                yield judged.later(start_s)

    def judged(self, candidate: Candidate, audible_s: float) -> Candidate:
        """Return a candidate with its confidence, for this many audible seconds of its query."""
        confidence = self.calibration.confidence(candidate, audible_s)
        return replace(candidate, confidence=confidence, audible_s=audible_s)

    def _fallback_search(self, fingerprint: Fingerprint) -> Iterator[Candidate]:
        """Search with many more neighbours than usual.

        In millions of segments, the right ones of a noisy query may not be among the nearest;
        docs/measurements.md#search.
        """
        search, alignment = self.context.search, self.context.alignment
        n_neighbours = search.n_fallback_neighbours
        context = replace(
            self.context,
            n_voting_neighbours=n_neighbours,
            search=replace(
                search,
                n_rescored=_FALLBACK_RESCORED * n_neighbours,
                nprobe=search.nprobe or _FALLBACK_PROBES,
            ),
            alignment=replace(alignment, max_candidates=_FALLBACK_DIAGONALS * n_neighbours),
        )
        for one in find_candidates(fingerprint, context):
            yield self.judged(one, fingerprint.audible_s)
