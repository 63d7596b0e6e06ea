"""Answer a query: from audio blocks to candidates with confidences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from engine.audio.decode import Waveform
from engine.errors import AudioError
from engine.protocol import AudioFingerprinter
from engine.records import Candidate, Fingerprint
from engine.search.calibration import Calibration
from engine.search.candidates import find_candidates
from engine.search.clips import Clip, fingerprint_clips
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

UNCALIBRATED = "confidences are uncalibrated: the calibration was fitted for other search settings"


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
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what limits the answers of this searcher."""
        search, alignment = self.context.search, self.context.alignment
        is_fitted = self.calibration.is_fitted_for(search, alignment)
        return () if is_fitted else (UNCALIBRATED,)

    def clips(self, blocks: Iterable[Waveform], name: str) -> Iterator[Clip]:
        """Cut a recording into clips that overlap, and fingerprint them as they come.

        Parameters
        ----------
        blocks : iterable of float32 arrays of shape (n_samples,)
            At the fingerprinter's sample rate.
        name : str
            Name of the recording in error messages.

        Yields
        ------
        Clip
            Without those that are silent.

        Raises
        ------
        AudioTooShortError
            The recording is shorter than a segment.
        """
        stopwatch = self.context.stopwatch
        decoded = stopwatch.watch("decode", blocks)
        return fingerprint_clips(decoded, self.fingerprinter, self.query_hop_s, name, stopwatch)

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

        What no passage explains is searched at other speeds. A clip without any passage is searched
        with more neighbours first, if the index compares it with a part of the segments only.

        Parameters
        ----------
        clip : Clip

        Returns
        -------
        list of Candidate
            The most confident first. Times are those of the clip.
        """
        finder = PassageFinder(clip.fingerprint, self.context, self.calibration)
        found = finder.find()
        if not finder.accepted(found) and self._may_have_missed:
            found = ranked([*self._fallback_search(clip.fingerprint), *found])
        for start_s, end_s in finder.unexplained_s(found):
            if end_s - start_s >= _MIN_SPEED_SEARCH_S or not finder.accepted(found):
                found = ranked([*found, *self._at_other_speeds(clip, start_s, end_s)])
        return found

    def accepted(
        self, found: Iterable[Candidate], min_confidence: float | None = None
    ) -> list[Candidate]:
        """Select the candidates from a confidence on; the calibrated threshold by default."""
        least = self.calibration.min_confidence if min_confidence is None else min_confidence
        return [one for one in found if one.confidence >= least]

    @property
    def _may_have_missed(self) -> bool:
        return self.context.index.is_approximate and self.context.search.n_fallback_neighbours > 0

    def _at_other_speeds(self, clip: Clip, start_s: float, end_s: float) -> Iterator[Candidate]:
        """Search a stretch of a clip at other speeds, a piece at a time."""
        rate = self.fingerprinter.sample_rate
        length_s = self.context.search.speeds_s
        speed_search = SpeedSearch(self.fingerprinter, self.context)
        n_pieces = max(math.ceil((end_s - start_s) / length_s - 0.1), 1)
        for piece_s in np.linspace(start_s, end_s, n_pieces + 1)[:-1].tolist():
            first, last = (
                round(piece_s * rate),
                round((piece_s + (end_s - start_s) / n_pieces) * rate),
            )
            piece = clip.waveform[first:last]
            try:
                query = self.fingerprinter.fingerprint([piece], self.query_hop_s)
            except AudioError:
                continue
            plain = find_candidates(query, self.context)
            for one in speed_search.extend(plain, piece):
                judged = self.judged(one, query.audible_s)
                if one.resampled != 1.0 and self.accepted([judged]):
                    judged = speed_search.follow(judged, piece)
                yield judged.later(piece_s)

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
