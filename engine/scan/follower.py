"""Follow one track through a recording, segment by segment, to both sides of a first window.

A run is extended while recording and track agree, as alignments of genes are extended from seeds:
until the running sum falls more than a fixed drop below its maximum (Altschul et al. 1997). Windows
have to match a track only once; segments determine where it starts and ends.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.config import ScanConfig
from engine.scan.records import Floats, Line, LineTracer, TrackSpan, WindowMatch

# Allowed distance of a window from a follower's line in seconds, and its growth per second of time
# between them while the speed rests on a single window.
BESIDE_S = 0.5
_SPEED_DOUBT = 0.1
# The line is a least-squares fit whose weights decay with age, because a disc jockey changes the
# speed. The speed of the most confident window enters as a prior of this variance (s²).
_DECAY = 0.9
_SPEED_PRIOR_S2 = 11.0
# Number of windows after which the start is not searched again.
_N_SETTLING = 4
# Share of the mean cosine required at an edge where tracks fade into each other: about the value
# at which both are equally loud.
_SHARE_AT_EDGE = 0.75
_MAX_TRIM_S = 24.0


class TrackFollower:
    """A line, followed to both sides of the window that seeded it.

    Parameters
    ----------
    seed : WindowMatch
        The first window.
    tracer : LineTracer
    config : ScanConfig
    position_s : float
        End of the audio received so far.
    """

    def __init__(
        self, seed: WindowMatch, tracer: LineTracer, config: ScanConfig, position_s: float
    ) -> None:
        self.tracer, self.config = tracer, config
        self.seed_s = self.traced_s = min(seed.line.time_s, position_s)
        self.fit = _Fit(seed)
        self.after = _Run(self.seed_s, config)
        self.has_ended = False
        self.end_s, self.end_line = self.seed_s, seed.line
        self.doubt, self.n_windows = 1.0, 0
        self.update(seed)

    @property
    def gain(self) -> float:
        """Sum of the cosines of its segments above the agreement threshold."""
        return self.before.gain + self.after.gain

    def distance(self, line: Line) -> float:
        """Distance of a window from the line, relative to the allowed distance."""
        apart_s = abs(line.time_s - self.fit.last_s)
        allowed_s = BESIDE_S + apart_s * _SPEED_DOUBT / (1 + self.fit.spread_s)
        return abs(line.reference_s - self.line.at(line.time_s)) / allowed_s

    def update(self, match: WindowMatch) -> None:
        """Add a window; its overlap with the previous one counts once."""
        self.n_windows += 1
        apart_s = abs(match.line.time_s - self.fit.last_s)
        new = min(apart_s / self.config.window_s, 1.0) if self.n_windows > 1 else 1.0
        self.doubt *= (1 - match.confidence) ** new
        self.line = self.fit.through(match)
        if self.n_windows <= _N_SETTLING:
            self._begin()

    def _begin(self) -> None:
        """Search the start, as far back as the buffer reaches."""
        self.before = _Run(self.seed_s, self.config)
        end_s = self.seed_s
        while not self.before.has_ended:
            start_s = end_s - self.config.window_s
            middles_s, cosines = self.tracer.trace(self.line, start_s, end_s)
            if not len(middles_s):
                break
            self.before.grow(middles_s[::-1] - self.tracer.hop_s / 2, cosines[::-1])
            end_s = start_s
        edge_s = self.before.edge_s
        last_s = min(edge_s + _MAX_TRIM_S, self.seed_s)
        _, cosines = self.tracer.trace(self.line, edge_s, last_s)
        typical = self.after.score if self.after.n else self.before.score
        self.start_s = edge_s + _n_fading(cosines, typical) * self.tracer.hop_s
        self.start_reference_s = self.line.at(self.start_s)

    def extend(self, position_s: float) -> None:
        """Follow the line through the audio received since the last call."""
        middles_s, cosines = self.tracer.trace(self.line, self.traced_s, position_s)
        if self.after.grow(middles_s + self.tracer.hop_s / 2, cosines):
            self.end_s, self.end_line = self.after.edge_s, self.line
        self.traced_s = position_s
        gap_s = position_s - self.after.edge_s
        self.has_ended = self.after.has_ended or gap_s > self.config.max_gap_s

    def trim(self) -> None:
        """Cut fading segments off both ends."""
        if self.n_windows <= _N_SETTLING:
            self._begin()  # the mean cosine has changed since
        edge_s = self.after.edge_s
        first_s = max(edge_s - _MAX_TRIM_S, self.fit.last_s)
        _, cosines = self.tracer.trace(self.end_line, first_s, edge_s)
        fading_s = _n_fading(cosines[::-1], self.score) * self.tracer.hop_s
        self.end_s = max(edge_s - fading_s, self.start_s)

    @property
    def score(self) -> float:
        """Mean cosine of all segments so far."""
        n = self.before.n + self.after.n
        return (self.before.cosines + self.after.cosines) / max(n, 1)

    def span(self) -> TrackSpan:
        """Return the span followed so far."""
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
    """Count the segments to cut at an edge; `cosines` start there."""
    losses = np.cumsum(np.nan_to_num(_SHARE_AT_EDGE * typical - cosines), dtype=np.float64)
    return int(losses.argmax()) + 1 if len(losses) and losses.max() > 0 else 0


class _Run:
    """Agreeing segments on one side of a moment, up to the maximum of their sum.

    Parameters
    ----------
    edge_s : float
        The moment.
    config : ScanConfig
    """

    def __init__(self, edge_s: float, config: ScanConfig) -> None:
        self.edge_s, self.agreement, self.max_drop = edge_s, config.agreement, config.max_drop
        self.gain, self.drop = 0.0, 0.0
        self.n, self.cosines = 0, 0.0
        self._n_more, self._cosines_more = 0, 0.0
        self.has_ended = False

    @property
    def score(self) -> float:
        """Mean cosine."""
        return self.cosines / max(self.n, 1)

    def grow(self, edges_s: Floats, cosines: Floats) -> bool:
        """Add segments; return whether the run has become longer.

        Parameters
        ----------
        edges_s : float64 array of shape (n_segments,)
            Far edges of the segments, in the direction of the run.
        cosines : float64 array of shape (n_segments,)
            NaN for silence, which is neutral.
        """
        if self.has_ended or not len(cosines):
            return False
        totals = np.cumsum(np.nan_to_num(cosines - self.agreement)) - self.drop
        drops = np.maximum.accumulate(np.maximum(totals, 0)) - totals
        self.has_ended = bool((drops > self.max_drop).any())
        n_alive = int(np.argmax(drops > self.max_drop)) if self.has_ended else len(totals)
        best = int(np.argmax(totals[:n_alive])) + 1 if n_alive else 0
        longer = best > 0 and totals[best - 1] > 0
        if longer:
            self._count(cosines[:best])
            self.edge_s, self.gain = float(edges_s[best - 1]), self.gain + float(totals[best - 1])
            self.n, self.cosines = self.n + self._n_more, self.cosines + self._cosines_more
            self._n_more, self._cosines_more = 0, 0.0
        self._count(cosines[best:] if longer else cosines)
        self.drop = float(drops[-1])
        return longer

    def _count(self, cosines: Floats) -> None:
        self._n_more += int(np.isfinite(cosines).sum())
        self._cosines_more += float(np.nansum(cosines))


class _Fit:
    """Line through windows by recursive least squares with exponential forgetting."""

    def __init__(self, seed: WindowMatch) -> None:
        self.seed = self.surest = seed
        self.first_s = self.last_s = seed.line.time_s
        self.sums = np.zeros(5)

    @property
    def spread_s(self) -> float:
        """Seconds between the first and the last window."""
        return self.last_s - self.first_s

    def through(self, match: WindowMatch) -> Line:
        """Add a window and return the fitted line."""
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
