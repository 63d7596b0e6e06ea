"""From a clip to candidates with confidences: everything a catalog is asked goes through here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from engine.audio.decode import Waveform
from engine.config import AlignConfig, SearchConfig
from engine.protocol import AudioFingerprinter
from engine.records import Candidate, Fingerprint
from engine.search import candidates
from engine.search.calibration import Calibration
from engine.search.candidates import Stopwatch
from engine.search.speeds import Variants
from engine.vectors.index import Index

# Of a second, deeper search: for each neighbour that votes.
_DEEP_RESCORED = 4
_DEEP_CANDIDATES = 2
_DEEP_PROBES = 256


@dataclass(frozen=True, kw_only=True)
class Searcher:
    """An index with all it takes to ask it.

    Parameters
    ----------
    fingerprinter : AudioFingerprinter
    index : Index
    reference_hop_s : float
        Distance of the stored segments.
    calibration : Calibration
    search : SearchConfig
    alignment : AlignConfig
    """

    fingerprinter: AudioFingerprinter
    index: Index
    reference_hop_s: float
    calibration: Calibration
    search: SearchConfig = field(default_factory=SearchConfig)
    alignment: AlignConfig = field(default_factory=AlignConfig)

    @property
    def query_hop_s(self) -> float:
        """Distance of a query's segments."""
        return self.fingerprinter.hop_within(self.search.query_hop_s, self.reference_hop_s)

    def listen(
        self, blocks: Iterable[Waveform], name: str, stopwatch: Stopwatch
    ) -> tuple[Fingerprint, Waveform]:
        """Fingerprint a query, and keep as much of its beginning as other speeds look at.

        Parameters
        ----------
        blocks : iterable of float32 arrays of shape (n_samples,)
            At the fingerprinter's sample rate.
        name : str
            What errors call the query.
        stopwatch : Stopwatch
            Is told the time of the steps "decode" and "encode".

        Returns
        -------
        fingerprint : Fingerprint
        beginning : float32 array of shape (n_samples,)

        Raises
        ------
        AudioError
            It cannot be read, is silent or too short.
        """
        beginning: list[Waveform] = []
        n_samples = round(self.search.speeds_s * self.fingerprinter.sample_rate)
        with stopwatch.step("encode"):
            fingerprint = self.fingerprinter.fingerprint(
                stopwatch.watch("decode", _noted(blocks, beginning, n_samples)),
                self.query_hop_s,
                name,
            )
        return fingerprint, np.concatenate(beginning or [np.zeros(0, np.float32)])

    def candidates(
        self, fingerprint: Fingerprint, beginning: Waveform, stopwatch: Stopwatch
    ) -> list[Candidate]:
        """Find the tracks a query may come from; played at other speeds if none is sure.

        Parameters
        ----------
        fingerprint : Fingerprint
        beginning : float32 array of shape (n_samples,)
            As :meth:`listen` gives them.
        stopwatch : Stopwatch
            Is told the time of the steps "encode", "search" and "align".

        Returns
        -------
        list of Candidate
            One for each track, best first.
        """
        settings = (self.index, self.reference_hop_s, self.search, self.alignment, stopwatch)
        found = candidates.find(fingerprint, *settings)
        if self.sure(found[:1], fingerprint.heard_s, self.calibration.min_confidence):
            return found
        if self.index.has_lists and self.search.n_deep:
            found = self._deep(fingerprint, stopwatch)
        return Variants(self.fingerprinter, *settings).widen(found, beginning)

    def _deep(self, fingerprint: Fingerprint, stopwatch: Stopwatch) -> list[Candidate]:
        """Look for what lies deep among the many that millions of segments are near to.

        Of 50 five-second clips from a room, 32 were found among ten million segments; with this
        39, and 45 among a hundred thousand.
        """
        n_voters = self.search.n_deep
        search = replace(
            self.search,
            n_voters=n_voters,
            n_rescored=_DEEP_RESCORED * n_voters,
            n_probe=self.search.n_probe or _DEEP_PROBES,
        )
        alignment = replace(self.alignment, max_candidates=_DEEP_CANDIDATES * n_voters)
        hop_s = self.reference_hop_s
        return candidates.find(fingerprint, self.index, hop_s, search, alignment, stopwatch)

    def sure(
        self, candidates: Sequence[Candidate], heard_s: float, threshold: float
    ) -> list[tuple[Candidate, float]]:
        """Keep the candidates above a threshold, with their confidences."""
        return [
            (candidate, confidence)
            for candidate in candidates
            if (confidence := self.calibration.confidence(candidate, heard_s)) >= threshold
        ]


def _noted(
    blocks: Iterable[Waveform], beginning: list[Waveform], n_samples: int
) -> Iterator[Waveform]:
    """Pass blocks on, and note the first samples in a list."""
    for block in blocks:
        if n_samples > 0:  # even an empty view would keep its block in memory
            beginning.append(block[:n_samples])
            n_samples -= len(block)
        yield block
