"""Follow one track through a recording, segment by segment, to both sides of a first window.

The track is followed for as long as recording and track agree: until the sum of what the cosines
exceed a threshold by has fallen too far below its maximum, as sequence alignments are extended from
seeds (Altschul et al. 1997). A window only has to match the track once; its start and end are
found by segments.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.config import ScanConfig
from engine.scan.records import WINDOW_S, Floats, Line, LineTracer, TrackSpan, WindowMatch

# Greatest distance of a window to the line of its follower, and its growth for each second to the
# last window while the speed rests on a single one.
MAX_DISTANCE_S = 0.5
_SPEED_DOUBT = 0.1
# Factor by which the weight of a window falls with each later one, for a disc jockey changes the
# speed; weight of the surest window's own speed, in seconds squared between windows.
_DECAY = 0.9
_SPEED_PRIOR_S2 = 11.0
# After this many windows the start is not searched again.
_N_START_WINDOWS = 4
# Fall of the sum below its maximum that ends a track: six seconds or more of something else.
_MAX_DROP = 6.0
# Segments at the edges of a track must reach this share of its mean cosine, which is about what
# two tracks of equal loudness reach while one fades into the other.
_EDGE_SHARE = 0.75
_MAX_TRIM_S = 24.0


class TrackFollower:
    """Follows a track to both sides of the window it was found in.

    Parameters
    ----------
    seed : WindowMatch
        The first window.
    tracer : LineTracer
    config : ScanConfig
    position_s : float
        Seconds of the recording received so far.
    """

    def __init__(
        self, seed: WindowMatch, tracer: LineTracer, config: ScanConfig, position_s: float
    ) -> None:
        self.tracer, self.config = tracer, config
        self.seed_s = self.traced_s = min(seed.line.time_s, position_s)
        self.fit = _LineFit(seed)
        self.after = _Run(self.seed_s, config.min_cosine)
        self.has_ended = False
        self.end_s, self.end_line = self.seed_s, seed.line
        self.doubt, self.n_windows = 1.0, 0
        self.update(seed)

    @property
    def gain(self) -> float:
        """Sum of what the cosines exceed the threshold by."""
        return self.before.gain + self.after.gain

    @property
    def score(self) -> float:
        """Mean cosine so far."""
        n_segments = self.before.n_segments + self.after.n_segments
        return (self.before.sum_cosines + self.after.sum_cosines) / max(n_segments, 1)

    def distance(self, line: Line) -> float:
        """Distance of a window to the line, in units of the greatest that is accepted."""
        apart_s = abs(line.time_s - self.fit.last_s)
        max_distance_s = MAX_DISTANCE_S + apart_s * _SPEED_DOUBT / (1 + self.fit.spread_s)
        return abs(line.reference_s - self.line.at(line.time_s)) / max_distance_s

    def update(self, match: WindowMatch) -> None:
        """Add a window; the part that overlaps the last one adds no confidence."""
        self.n_windows += 1
        apart_s = abs(match.line.time_s - self.fit.last_s)
        new_share = min(apart_s / WINDOW_S, 1.0) if self.n_windows > 1 else 1.0
        self.doubt *= (1 - match.confidence) ** new_share
        self.line = self.fit.add(match)
        if self.n_windows <= _N_START_WINDOWS:
            self._find_start()

    def _find_start(self) -> None:
        """Follow the line back from the seed, as far as audio is in memory."""
        self.before = _Run(self.seed_s, self.config.min_cosine)
        end_s = self.seed_s
        while not self.before.has_ended:
            start_s = end_s - WINDOW_S
            middles_s, cosines = self.tracer.trace(self.line, start_s, end_s)
            if not len(middles_s):
                break
            self.before.extend(middles_s[::-1] - self.tracer.hop_s / 2, cosines[::-1])
            end_s = start_s
        edge_s = self.before.edge_s
        last_s = min(edge_s + _MAX_TRIM_S, self.seed_s)
        _, cosines = self.tracer.trace(self.line, edge_s, last_s)
        typical = self.after.score if self.after.n_segments else self.before.score
        self.start_s = edge_s + _n_fading(cosines, typical) * self.tracer.hop_s
        self.start_reference_s = self.line.at(self.start_s)

    def extend(self, position_s: float) -> None:
        """Follow the line through the audio received since the last call."""
        middles_s, cosines = self.tracer.trace(self.line, self.traced_s, position_s)
        if self.after.extend(middles_s + self.tracer.hop_s / 2, cosines):
            self.end_s, self.end_line = self.after.edge_s, self.line
        self.traced_s = position_s
        is_over = position_s - self.after.edge_s > self.config.max_gap_s
        self.has_ended = self.after.has_ended or is_over

    def trim(self) -> None:
        """Remove fading segments at both ends."""
        if self.n_windows <= _N_START_WINDOWS:
            self._find_start()  # the mean cosine is known better now
        edge_s = self.after.edge_s
        first_s = max(edge_s - _MAX_TRIM_S, self.fit.last_s)
        _, cosines = self.tracer.trace(self.end_line, first_s, edge_s)
        fading_s = _n_fading(cosines[::-1], self.score) * self.tracer.hop_s
        self.end_s = max(edge_s - fading_s, self.start_s)

    def span(self) -> TrackSpan:
        """Return the stretch of the track so far."""
        return TrackSpan(
            track_id=self.line.track_id,
            start_s=self.start_s,
            end_s=self.end_s,
            reference_start_s=self.start_reference_s,
            reference_end_s=self.end_line.at(self.end_s),
            score=self.score,
            confidence=1 - self.doubt,
            gain=self.gain,
        )


def _n_fading(cosines: Floats, typical: float) -> int:
    """Count the segments to remove at an edge, where `cosines` begin."""
    losses = np.cumsum(np.nan_to_num(_EDGE_SHARE * typical - cosines), dtype=np.float64)
    return int(losses.argmax()) + 1 if len(losses) and losses.max() > 0 else 0


class _Run:
    """Segments to one side of a moment, up to where the sum of their excess is greatest.

    Parameters
    ----------
    edge_s : float
        The moment; later the far side of the last segment.
    min_cosine : float
        The excess of a segment is its cosine less this.
    """

    def __init__(self, edge_s: float, min_cosine: float) -> None:
        self.edge_s, self.min_cosine = edge_s, min_cosine
        self.gain, self.drop = 0.0, 0.0
        self.n_segments, self.sum_cosines = 0, 0.0
        # Of the segments beyond the edge, which belong to the run if it gets longer.
        self._n_pending, self._sum_pending = 0, 0.0
        self.has_ended = False

    @property
    def score(self) -> float:
        """Mean cosine."""
        return self.sum_cosines / max(self.n_segments, 1)

    def extend(self, edges_s: Floats, cosines: Floats) -> bool:
        """Add the next segments, and return whether the run has become longer.

        Parameters
        ----------
        edges_s : float64 array of shape (n_segments,)
            Their far sides, in the direction away from where the run began.
        cosines : float64 array of shape (n_segments,)
            NaN for silence, whose excess is 0.
        """
        if self.has_ended or not len(cosines):
            return False
        totals = np.cumsum(np.nan_to_num(cosines - self.min_cosine)) - self.drop
        drops = np.maximum.accumulate(np.maximum(totals, 0)) - totals
        self.has_ended = bool((drops > _MAX_DROP).any())
        n_before_end = int(np.argmax(drops > _MAX_DROP)) if self.has_ended else len(totals)
        n_best = int(np.argmax(totals[:n_before_end])) + 1 if n_before_end else 0
        is_longer = n_best > 0 and totals[n_best - 1] > 0
        if is_longer:
            self._add_pending(cosines[:n_best])
            self.edge_s = float(edges_s[n_best - 1])
            self.gain += float(totals[n_best - 1])
            self.n_segments += self._n_pending
            self.sum_cosines += self._sum_pending
            self._n_pending, self._sum_pending = 0, 0.0
        self._add_pending(cosines[n_best:] if is_longer else cosines)
        self.drop = float(drops[-1])
        return is_longer

    def _add_pending(self, cosines: Floats) -> None:
        self._n_pending += int(np.isfinite(cosines).sum())
        self._sum_pending += float(np.nansum(cosines))


class _LineFit:
    """Line through windows, by least squares with weights that decay."""

    def __init__(self, seed: WindowMatch) -> None:
        self.seed = self.surest = seed
        self.first_s = self.last_s = seed.line.time_s
        self.sums = np.zeros(5)

    @property
    def spread_s(self) -> float:
        """Seconds between the first and the last window."""
        return self.last_s - self.first_s

    def add(self, match: WindowMatch) -> Line:
        """Add a window, and return the line through all of them."""
        seed, line = self.seed.line, match.line
        t, r = line.time_s - seed.time_s, line.reference_s - seed.reference_s
        self.sums = self.sums * _DECAY + np.array([1.0, t, r, t * t, t * r])
        self.last_s = line.time_s
        self.surest = max(self.surest, match, key=lambda one: one.confidence)
        weight, sum_t, sum_r, sum_tt, sum_tr = self.sums
        rise = sum_tr - sum_t * sum_r / weight + _SPEED_PRIOR_S2 * self.surest.line.speed
        return replace(
            seed,
            time_s=seed.time_s + float(sum_t / weight),
            reference_s=seed.reference_s + float(sum_r / weight),
            speed=float(rise / (sum_tt - sum_t**2 / weight + _SPEED_PRIOR_S2)),
        )
