"""Scan a recording of any length, piece by piece, for the tracks in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.audio.decode import Waveform
from engine.config import ScanConfig
from engine.records import Candidate, Fingerprint, Vectors
from engine.scan.buffer import AudioBuffer
from engine.scan.records import Line, TrackSpan, WindowMatch
from engine.scan.timeline import TrackFollowers
from engine.search.candidates import find_candidates
from engine.search.searcher import Searcher
from engine.search.speeds import TILTED_WEIGHT

Floats = NDArray[np.float64]

# Number of unsure windows after which the last speed found is no longer tried first.
_N_LASTING = 8
_MAX_COMPARED = 256


class Scanner:
    """Finds the tracks in a recording and yields each one after it has ended.

    Parameters
    ----------
    searcher : Searcher
        Its search and alignment settings are replaced by those of `config`.
    config : ScanConfig
    """

    def __init__(self, searcher: Searcher, config: ScanConfig) -> None:
        self.searcher, self.config = searcher, config
        hop_s = searcher.fingerprinter.hop_within(
            config.search.query_hop_s, searcher.context.reference_hop_s
        )
        self._context = replace(searcher.context, search=config.search, alignment=config.alignment)
        self.buffer = AudioBuffer(searcher.fingerprinter, hop_s, config.window_s)
        self.followers = TrackFollowers(_Tracer(self.buffer, searcher), config)
        self._n_pieces = 0
        self._speed, self._n_unsure = 1.0, 0

    @property
    def position_s(self) -> float:
        """Seconds of the recording received so far."""
        return self.buffer.position_s

    @property
    def n_held(self) -> int:
        """Numbers and followers in memory; bounded, however long the recording is."""
        return self.buffer.n_held + self.followers.n_held

    def active(self) -> list[TrackSpan]:
        """Return the tracks that have not ended yet, best first."""
        return self.followers.active()

    def scan(
        self,
        blocks: Iterable[Waveform],
        on_progress: Callable[[float], None] = lambda position_s: None,
    ) -> Iterator[TrackSpan]:
        """Scan a recording to its end.

        Parameters
        ----------
        blocks : iterable of float32 arrays of shape (n_samples,)
            At the fingerprinter's sample rate, of any length; a live source may produce them.
        on_progress : callable, optional
            Called every few seconds with the seconds scanned so far.

        Yields
        ------
        TrackSpan
            Each one some time after it has ended.
        """
        n_samples = round(self.buffer.piece_s * self.searcher.fingerprinter.sample_rate)
        for block in blocks:
            for first in range(0, len(block), n_samples):
                yield from self.extend(block[first : first + n_samples])
                on_progress(self.position_s)
        yield from self.finish()

    def extend(self, block: Waveform) -> Iterator[TrackSpan]:
        """Append a block; yield the tracks that have ended."""
        self.buffer.extend(block)
        yield from self._advance()

    def finish(self) -> Iterator[TrackSpan]:
        """End the recording; yield the remaining tracks."""
        self.buffer.end()
        yield from self._advance()
        yield from self.followers.finish()

    def _advance(self) -> Iterator[TrackSpan]:
        """Search the windows that are complete; each overlaps the previous one by half."""
        while self._n_pieces < self.buffer.n_pieces:
            for number in (2 * self._n_pieces - 1, 2 * self._n_pieces):
                start_s = number / 2 * self.buffer.piece_s
                if number >= 0 and not (number % 2 and self._explained(start_s)):
                    matches = self._search(start_s, number)
                    position_s = min(start_s + self.buffer.piece_s, self.position_s)
                    yield from self.followers.follow(matches, position_s)
            self._n_pieces += 1
            self.buffer.drop(self._n_pieces * self.buffer.piece_s - self.config.history_s)

    # -- windows ---------------------------------------------------------------------------------

    def _explained(self, start_s: float) -> bool:
        """Whether a track found earlier continues into the window."""
        return any(one.end_s >= start_s for one in self.followers.active())

    def _search(self, start_s: float, number: int) -> list[WindowMatch]:
        """Search a window at the last speed found, at speed 1, and now and then at another."""
        matches: list[WindowMatch] = []
        for speed in self._speeds(start_s, number):
            matches += self._matches(start_s, speed)
            if any(one.confidence >= self.searcher.calibration.min_confidence for one in matches):
                self._speed, self._n_unsure = speed, 0
                return matches
        self._n_unsure += 1
        return matches

    def _speeds(self, start_s: float, number: int) -> Iterable[float]:
        """Return the speeds to try in a window; some windows probe one more."""
        lasting = self._n_unsure < _N_LASTING
        speeds = [self._speed, 1.0] if lasting else [1.0]
        turn, rest = divmod(number, self.config.probe_every)
        others = self.config.search.speeds
        if others and not rest and not self._explained(start_s):
            speeds.append(self.buffer.speed(others[turn % len(others)]))
        return dict.fromkeys(speeds)

    def _matches(self, start_s: float, speed: float) -> list[WindowMatch]:
        fingerprint = self.buffer.window(start_s, speed)
        if fingerprint is None:
            return []
        played = speed != 1.0
        context = self._context
        if played:
            alignment = replace(context.alignment, tilted_weight=TILTED_WEIGHT)
            context = replace(context, alignment=alignment)
        found = find_candidates(fingerprint, context)
        first = found[: self.config.candidates_per_window]
        return [self._match(one, fingerprint, start_s, speed) for one in first]

    def _match(
        self, candidate: Candidate, fingerprint: Fingerprint, start_s: float, speed: float
    ) -> WindowMatch:
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
        return WindowMatch(line=line, confidence=confidence)


class _Tracer:
    """Compares the recording with the tracks; see :class:`engine.scan.records.LineTracer`."""

    def __init__(self, buffer: AudioBuffer, searcher: Searcher) -> None:
        self.buffer, self.index = buffer, searcher.context.index
        self.reference_hop_s = searcher.context.reference_hop_s

    @property
    def hop_s(self) -> float:
        return self.buffer.hop_s

    def trace(self, line: Line, start_s: float, end_s: float) -> tuple[Floats, Floats]:
        middles_s, embeddings = self.buffer.segments(start_s, end_s, line.resampled)
        audible = embeddings.any(axis=1)
        at = self._positions(line, middles_s)
        cosines = np.full(len(at), -1.0)
        for near in (np.floor(at), np.ceil(at)):
            inside, stored = self._stored(line.track_id, near)
            found = (embeddings[inside] * stored).sum(axis=1)
            cosines[inside] = np.maximum(cosines[inside], found)
        return middles_s, np.where(audible, cosines, np.nan)

    def track_similarity(self, one: Line, other: Line, start_s: float, end_s: float) -> float:
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
        """Fractional positions of the track's segments that have the same middles."""
        starts_s = line.reference_s + line.speed * (middles_s - line.time_s)
        return np.asarray((starts_s - self.buffer.segment_s / 2) / self.reference_hop_s)

    def _stored(self, track_id: int, near: Floats) -> tuple[NDArray[np.bool_], Vectors]:
        """Return a mask of the positions inside the track, and the vectors stored there."""
        inside = (near >= 0) & (near < self.index.n_positions(track_id))
        at = near[inside].astype(np.int64)
        if not len(at):
            return inside, np.zeros((0, 1), np.float32)
        first = int(at.min())
        return inside, self.index.vectors(track_id, first, int(at.max()) + 1)[at - first]
