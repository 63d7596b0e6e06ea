"""Scan a recording of any length, block by block, for the tracks in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.audio.decode import Waveform
from engine.config import ScanConfig, require
from engine.records import Candidate, Fingerprint, Vectors
from engine.scan.buffer import AudioBuffer
from engine.scan.records import HISTORY_S, WINDOW_S, Floats, Line, TrackSpan, WindowMatch
from engine.scan.timeline import TrackFollowers
from engine.search.candidates import find_candidates
from engine.search.context import SearchContext
from engine.search.searcher import Searcher
from engine.search.speeds import TILTED_WEIGHT

# Of the windows in which no track is found, one of this many is searched at another speed.
_PROBE_EVERY = 2
# A speed is tried first in this many windows after it was last found.
_N_KEPT = 8
_MAX_COMPARED = 256


class Scanner:
    """Scans a recording, and returns each track some time after it has ended.

    Windows are searched with the settings of `config`. Their confidences come from the calibration
    of the searcher, which was fitted for queries; `ScanConfig.min_confidence` makes up for that.

    Parameters
    ----------
    searcher : Searcher
        Its search and alignment settings are not used.
    config : ScanConfig

    Raises
    ------
    ConfigError
        `config.max_gap_s` is longer than the audio in memory allows.
    """

    def __init__(self, searcher: Searcher, config: ScanConfig) -> None:
        max_gap_s = HISTORY_S - 2 * WINDOW_S
        is_kept = config.max_gap_s <= max_gap_s
        require(is_kept, "max_gap_s", config.max_gap_s, f"must be at most {max_gap_s:g}")
        self.searcher, self.config = searcher, config
        context = replace(searcher.context, search=config.search, alignment=config.alignment)
        hop_s = searcher.fingerprinter.hop_within(
            config.search.query_hop_s, context.reference_hop_s
        )
        self.context = context
        self.buffer = AudioBuffer(searcher.fingerprinter, hop_s, WINDOW_S)
        self.followers = TrackFollowers(_Tracer(self.buffer, context), config)
        self._n_pieces = 0
        self._speed, self._n_unsure = 1.0, 0

    @property
    def position_s(self) -> float:
        """Seconds of the recording received so far."""
        return self.buffer.position_s

    @property
    def n_held(self) -> int:
        """Number of values in memory, which does not grow with the recording."""
        return self.buffer.n_held + self.followers.n_held

    def active(self) -> list[TrackSpan]:
        """Return the tracks that have not ended, best first."""
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
            At the fingerprinter's sample rate, of any size; they may come as they are recorded.
        on_progress : callable, optional
            Called every few seconds of the recording with the seconds received so far.

        Yields
        ------
        TrackSpan
            Each some time after it has ended.
        """
        n_samples = round(self.buffer.piece_s * self.searcher.fingerprinter.sample_rate)
        for block in blocks:
            for first in range(0, len(block), n_samples):
                yield from self.extend(block[first : first + n_samples])
                on_progress(self.position_s)
        yield from self.finish()

    def extend(self, block: Waveform) -> Iterator[TrackSpan]:
        """Scan the next block, and yield the tracks that have ended."""
        self.buffer.append(block)
        yield from self._advance()

    def finish(self) -> Iterator[TrackSpan]:
        """Yield the remaining tracks at the end of the recording."""
        self.buffer.end()
        yield from self._advance()
        yield from self.followers.finish()

    def _advance(self) -> Iterator[TrackSpan]:
        """Search the windows that have become complete; each overlaps the last by half."""
        piece_s = self.buffer.piece_s
        while self._n_pieces < self.buffer.n_pieces:
            for number in (2 * self._n_pieces - 1, 2 * self._n_pieces):
                start_s = number / 2 * piece_s
                if number >= 0 and not (number % 2 and self._is_explained(start_s)):
                    matches = self._search(start_s, number)
                    position_s = min(start_s + piece_s, self.position_s)
                    yield from self.followers.update(matches, position_s)
            self._n_pieces += 1
            self.buffer.discard(self._n_pieces * piece_s - HISTORY_S)

    # -- windows ---------------------------------------------------------------------------------

    def _is_explained(self, start_s: float) -> bool:
        """Whether a track that was found before sounds in a window."""
        return any(span.end_s >= start_s for span in self.followers.active())

    def _search(self, start_s: float, number: int) -> list[WindowMatch]:
        """Search a window at the speed of the last ones, its own speed, or another one."""
        matches: list[WindowMatch] = []
        for speed in self._speeds(start_s, number):
            matches += self._matches(start_s, speed)
            min_confidence = self.searcher.calibration.min_confidence
            if any(match.confidence >= min_confidence for match in matches):
                self._speed, self._n_unsure = speed, 0
                return matches
        self._n_unsure += 1
        return matches

    def _speeds(self, start_s: float, number: int) -> Iterable[float]:
        """Choose the speeds to try in a window; now and then the next of `search.speeds`."""
        speeds = [self._speed, 1.0] if self._n_unsure < _N_KEPT else [1.0]
        turn, rest = divmod(number, _PROBE_EVERY)
        others = self.config.search.speeds
        if others and not rest and not self._is_explained(start_s):
            speeds.append(self.buffer.nearest_speed(others[turn % len(others)]))
        return dict.fromkeys(speeds)

    def _matches(self, start_s: float, speed: float) -> list[WindowMatch]:
        fingerprint = self.buffer.window(start_s, speed)
        if fingerprint is None:
            return []
        context = self.context
        if speed != 1.0:
            alignment = replace(context.alignment, tilted_weight=TILTED_WEIGHT)
            context = replace(context, alignment=alignment)
        candidates = find_candidates(fingerprint, context)[: self.config.candidates_per_window]
        return [self._match(one, fingerprint, start_s, speed) for one in candidates]

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
        weighted = replace(
            candidate,
            evidence=candidate.evidence * weight,
            margin=candidate.margin * weight,
            others=candidate.others * weight,
            resampled=speed,
        )
        confidence = self.searcher.calibration.confidence(weighted, fingerprint.audible_s)
        return WindowMatch(line=line, confidence=confidence)


class _Tracer:
    """Compares the audio of a buffer with tracks; a :class:`engine.scan.records.LineTracer`."""

    def __init__(self, buffer: AudioBuffer, context: SearchContext) -> None:
        self.buffer, self.tracks = buffer, context.tracks

    @property
    def hop_s(self) -> float:
        return self.buffer.hop_s

    def trace(self, line: Line, start_s: float, end_s: float) -> tuple[Floats, Floats]:
        middles_s, embeddings = self.buffer.segments(start_s, end_s, line.resampled)
        audible = embeddings.any(axis=1)
        at = self._positions(line, middles_s)
        cosines = np.full(len(at), -1.0)
        for beside in (np.floor(at), np.ceil(at)):
            inside, stored = self._stored(line.track_id, beside)
            products = (embeddings[inside] * stored).sum(axis=1)
            cosines[inside] = np.maximum(cosines[inside], products)
        return middles_s, np.where(audible, cosines, np.nan)

    def track_similarity(self, line: Line, other: Line, start_s: float, end_s: float) -> float:
        n_compared = int(np.clip((end_s - start_s) / self.tracks.hop_s, 1, _MAX_COMPARED))
        times_s = np.linspace(start_s, end_s, n_compared + 2)[1:-1]
        (inside_first, first), (inside_second, second) = (
            self._stored(one.track_id, np.rint(self._positions(one, times_s)))
            for one in (line, other)
        )
        inside_both = inside_first & inside_second
        if not inside_both.any():
            return 0.0
        pairs = first[inside_both[inside_first]], second[inside_both[inside_second]]
        return float((pairs[0] * pairs[1]).sum(axis=1).mean())

    def _positions(self, line: Line, middles_s: Floats) -> Floats:
        """Positions in the track, whole or not, of the segments with these middles."""
        starts_s = line.reference_s + line.speed * (middles_s - line.time_s)
        return np.asarray((starts_s - self.buffer.segment_s / 2) / self.tracks.hop_s)

    def _stored(self, track_id: int, at: Floats) -> tuple[NDArray[np.bool_], Vectors]:
        """Return which whole positions lie in a track, and its vectors at those."""
        inside = (at >= 0) & (at < self.tracks.n_positions(track_id))
        positions = at[inside].astype(np.int64)
        if not len(positions):
            return inside, np.zeros((0, 1), np.float32)
        first, last = int(positions.min()), int(positions.max()) + 1
        return inside, self.tracks.vectors(track_id, first, last)[positions - first]
