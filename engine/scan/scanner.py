"""A recording of any length, heard piece by piece, to what sounds in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.audio.decode import Waveform
from engine.config import ScanConfig
from engine.records import Candidate, Fingerprint, Vectors
from engine.scan.buffer import Hearing
from engine.scan.records import Appearance, Line, Sighting
from engine.scan.timeline import Threads
from engine.search.candidates import find_candidates
from engine.search.searcher import Searcher
from engine.search.speeds import TILTED_WEIGHT

Floats = NDArray[np.float64]

# Windows for which another speed is tried first after it was last found.
_N_LASTING = 8
_MAX_COMPARED = 256


class Scanner:
    """Hears a recording and tells what sounds in it, as soon as it is over.

    Parameters
    ----------
    searcher : Searcher
        Its search and alignment are not used; those of `config` are.
    config : ScanConfig
    """

    def __init__(self, searcher: Searcher, config: ScanConfig) -> None:
        self.searcher, self.config = searcher, config
        hop_s = searcher.fingerprinter.hop_within(
            config.search.query_hop_s, searcher.context.reference_hop_s
        )
        self._context = replace(searcher.context, search=config.search, alignment=config.alignment)
        self.hearing = Hearing(searcher.fingerprinter, hop_s, config.window_s)
        self.threads = Threads(_Ear(self.hearing, searcher), config)
        self._n_pieces = 0
        self._speed, self._n_unsure = 1.0, 0

    @property
    def heard_s(self) -> float:
        """Seconds of the recording so far."""
        return self.hearing.heard_s

    @property
    def n_held(self) -> int:
        """Numbers and threads that are held; it does not grow with the recording."""
        return self.hearing.n_held + self.threads.n_held

    def sounding(self) -> list[Appearance]:
        """Tell what sounds at the moment and has not ended yet, best first."""
        return self.threads.sounding()

    def scan(
        self,
        blocks: Iterable[Waveform],
        on_progress: Callable[[float], None] = lambda heard_s: None,
    ) -> Iterator[Appearance]:
        """Hear a recording to its end.

        Parameters
        ----------
        blocks : iterable of float32 arrays of shape (n_samples,)
            At the fingerprinter's sample rate, of any size; they may come as they are recorded.
        on_progress : callable, optional
            Told every few seconds how many have been heard.

        Yields
        ------
        Appearance
            Each some time after it has ended.
        """
        n_samples = round(self.hearing.piece_s * self.searcher.fingerprinter.sample_rate)
        for block in blocks:
            for first in range(0, len(block), n_samples):
                yield from self.hear(block[first : first + n_samples])
                on_progress(self.heard_s)
        yield from self.finish()

    def hear(self, block: Waveform) -> Iterator[Appearance]:
        """Take in the next block, and tell what has ended."""
        self.hearing.hear(block)
        yield from self._advance()

    def finish(self) -> Iterator[Appearance]:
        """Tell what is left when the recording is over."""
        self.hearing.end()
        yield from self._advance()
        yield from self.threads.finish()

    def _advance(self) -> Iterator[Appearance]:
        """Look at the windows that have become complete, each overlapping the last by half."""
        while self._n_pieces < self.hearing.n_pieces:
            for number in (2 * self._n_pieces - 1, 2 * self._n_pieces):
                start_s = number / 2 * self.hearing.piece_s
                if number >= 0 and not (number % 2 and self._explained(start_s)):
                    seen = self._look(start_s, number)
                    heard_s = min(start_s + self.hearing.piece_s, self.heard_s)
                    yield from self.threads.follow(seen, heard_s)
            self._n_pieces += 1
            self.hearing.forget(self._n_pieces * self.hearing.piece_s - self.config.history_s)

    # -- windows ---------------------------------------------------------------------------------

    def _explained(self, start_s: float) -> bool:
        """Whether something that was found before sounds on in a window."""
        return any(one.end_s >= start_s for one in self.threads.sounding())

    def _look(self, start_s: float, number: int) -> list[Sighting]:
        """Find what a window resembles: at the speed of the last ones, as it is, at another."""
        seen: list[Sighting] = []
        for speed in self._speeds(start_s, number):
            seen += self._sightings(start_s, speed)
            if any(one.confidence >= self.searcher.calibration.min_confidence for one in seen):
                self._speed, self._n_unsure = speed, 0
                return seen
        self._n_unsure += 1
        return seen

    def _speeds(self, start_s: float, number: int) -> Iterable[float]:
        """Give the speeds to try in a window; now and then one that was not found lately."""
        lasting = self._n_unsure < _N_LASTING
        speeds = [self._speed, 1.0] if lasting else [1.0]
        turn, rest = divmod(number, self.config.probe_every)
        others = self.config.search.speeds
        if others and not rest and not self._explained(start_s):
            speeds.append(self.hearing.speed(others[turn % len(others)]))
        return dict.fromkeys(speeds)

    def _sightings(self, start_s: float, speed: float) -> list[Sighting]:
        fingerprint = self.hearing.window(start_s, speed)
        if fingerprint is None:
            return []
        played = speed != 1.0
        context = self._context
        if played:
            alignment = replace(context.alignment, tilted_weight=TILTED_WEIGHT)
            context = replace(context, alignment=alignment)
        found = find_candidates(fingerprint, context)
        first = found[: self.config.n_sighted]
        return [self._sighting(one, fingerprint, start_s, speed) for one in first]

    def _sighting(
        self, candidate: Candidate, fingerprint: Fingerprint, start_s: float, speed: float
    ) -> Sighting:
        middle_s = fingerprint.duration_s / 2
        line = Line(
            track_id=candidate.track_id,
            time_s=start_s + middle_s * speed,
            reference_s=candidate.offset_s + candidate.speed * middle_s,
            speed=candidate.speed / speed,
            resampled=speed,
        )
        weight = self.config.search.resampled_weight if speed != 1.0 else 1.0
        weighed = replace(
            candidate,
            evidence=candidate.evidence * weight,
            margin=candidate.margin * weight,
            others=candidate.others * weight,
            resampled=speed,
        )
        confidence = self.searcher.calibration.confidence(weighed, fingerprint.audible_s)
        return Sighting(line=line, confidence=confidence)


class _Ear:
    """Compares what was heard with the tracks; see :class:`engine.scan.records.Listener`."""

    def __init__(self, hearing: Hearing, searcher: Searcher) -> None:
        self.hearing, self.index = hearing, searcher.context.index
        self.reference_hop_s = searcher.context.reference_hop_s

    @property
    def hop_s(self) -> float:
        return self.hearing.hop_s

    def trace(self, line: Line, start_s: float, end_s: float) -> tuple[Floats, Floats]:
        middles_s, embeddings = self.hearing.segments(start_s, end_s, line.resampled)
        audible = embeddings.any(axis=1)
        at = self._positions(line, middles_s)
        cosines = np.full(len(at), -1.0)
        for near in (np.floor(at), np.ceil(at)):
            inside, stored = self._stored(line.track_id, near)
            found = (embeddings[inside] * stored).sum(axis=1)
            cosines[inside] = np.maximum(cosines[inside], found)
        return middles_s, np.where(audible, cosines, np.nan)

    def likeness(self, one: Line, other: Line, start_s: float, end_s: float) -> float:
        n = int(np.clip((end_s - start_s) / self.reference_hop_s, 1, _MAX_COMPARED))
        times_s = np.linspace(start_s, end_s, n + 2)[1:-1]
        nears = [np.rint(self._positions(line, times_s)) for line in (one, other)]
        (is_one, first), (is_other, second) = (
            self._stored(line.track_id, near)
            for line, near in zip((one, other), nears, strict=True)
        )
        both = is_one & is_other
        if not both.any():
            return 0.0
        return float((first[both[is_one]] * second[both[is_other]]).sum(axis=1).mean())

    def _positions(self, line: Line, middles_s: Floats) -> Floats:
        """Positions, whole or not, of the track's segments with the same middles."""
        starts_s = line.reference_s + line.speed * (middles_s - line.time_s)
        return np.asarray((starts_s - self.hearing.segment_s / 2) / self.reference_hop_s)

    def _stored(self, track_id: int, near: Floats) -> tuple[NDArray[np.bool_], Vectors]:
        """Say which positions a track has, and read its vectors at them."""
        inside = (near >= 0) & (near < self.index.n_positions(track_id))
        at = near[inside].astype(np.int64)
        if not len(at):
            return inside, np.zeros((0, 1), np.float32)
        first = int(at.min())
        return inside, self.index.vectors(track_id, first, int(at.max()) + 1)[at - first]
