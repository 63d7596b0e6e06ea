"""Answer a query: from audio blocks to candidates with confidences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.audio.decode import Waveform
from engine.protocol import AudioFingerprinter
from engine.records import Candidate, Fingerprint
from engine.search.calibration import Calibration
from engine.search.candidates import find_candidates
from engine.search.context import SearchContext
from engine.search.speeds import SpeedSearch

# Of the fallback search: rows compared exactly and diagonals rescored, for each voting neighbour;
# lists searched.
_FALLBACK_RESCORED = 4
_FALLBACK_DIAGONALS = 2
_FALLBACK_PROBES = 256

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

    def fingerprint_query(
        self, blocks: Iterable[Waveform], name: str
    ) -> tuple[Fingerprint, Waveform]:
        """Fingerprint a query, and keep the beginning that is searched at other speeds.

        Parameters
        ----------
        blocks : iterable of float32 arrays of shape (n_samples,)
            At the fingerprinter's sample rate.
        name : str
            Name of the query in error messages.

        Returns
        -------
        fingerprint : Fingerprint
        beginning : float32 array of shape (n_samples,)

        Raises
        ------
        AudioError
            The query cannot be read, is silent or too short.
        """
        beginning: list[Waveform] = []
        n_samples = round(self.context.search.speeds_s * self.fingerprinter.sample_rate)
        stopwatch = self.context.stopwatch
        with stopwatch.step("encode"):
            fingerprint = self.fingerprinter.fingerprint(
                stopwatch.watch("decode", _keep_beginning(blocks, beginning, n_samples)),
                self.query_hop_s,
                name,
            )
        return fingerprint, np.concatenate(beginning or [np.zeros(0, np.float32)])

    def candidates(self, fingerprint: Fingerprint, beginning: Waveform) -> list[Candidate]:
        """Find the tracks a query may come from.

        A query without a sure candidate is searched again with more neighbours, if the index
        compares it with a part of the segments only, and at other speeds.

        Parameters
        ----------
        fingerprint : Fingerprint
        beginning : float32 array of shape (n_samples,)
            As :meth:`fingerprint_query` returns them.

        Returns
        -------
        list of Candidate
            One for each track, most evidence first.
        """
        candidates = find_candidates(fingerprint, self.context)
        min_confidence = self.calibration.min_confidence
        if self.above_threshold(candidates[:1], fingerprint.audible_s, min_confidence):
            return candidates
        if self.context.index.is_approximate and self.context.search.n_fallback_neighbours:
            candidates = self._fallback_search(fingerprint)
        return SpeedSearch(self.fingerprinter, self.context).extend(candidates, beginning)

    def _fallback_search(self, fingerprint: Fingerprint) -> list[Candidate]:
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
        return find_candidates(fingerprint, context)

    def above_threshold(
        self, candidates: Sequence[Candidate], audible_s: float, min_confidence: float
    ) -> list[tuple[Candidate, float]]:
        """Select the candidates from a confidence on, each with its confidence.

        Parameters
        ----------
        candidates : sequence of Candidate
        audible_s : float
            Audible seconds of the query.
        min_confidence : float

        Returns
        -------
        list of (Candidate, float)
            In the order of `candidates`.
        """
        return [
            (candidate, confidence)
            for candidate in candidates
            if (confidence := self.calibration.confidence(candidate, audible_s)) >= min_confidence
        ]


def _keep_beginning(
    blocks: Iterable[Waveform], beginning: list[Waveform], n_samples: int
) -> Iterator[Waveform]:
    """Yield the blocks, and append their first samples to a list."""
    for block in blocks:
        if n_samples > 0:  # even an empty view would keep its block in memory
            beginning.append(block[:n_samples])
            n_samples -= len(block)
        yield block
