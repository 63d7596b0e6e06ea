"""One track followed through a recording, segment by segment to both sides of a first window.

A run is extended for as long as recording and track agree, as runs are extended from seeds in
sequences of genes: by a sum that may fall so far below its best and no farther (Altschul et al.
1997). Windows only have to find a track once; where it begins and ends is decided by segments.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.config import ScanConfig
from engine.scan.records import Appearance, Floats, Line, Listener, Sighting

# How far beside its thread's line a window may lie, and by how much more a second away from it
# while no other window has told the speed.
BESIDE_S = 0.5
_SPEED_DOUBT = 0.1
# A line is fitted to windows that count the less the longer ago they were, for a disc jockey turns
# the speed; what the surest says of the speed by itself counts as much as windows with so many
# seconds squared between them.
_FORGETTING = 0.9
_SPEED_PRIOR_S2 = 11.0
# After so many windows a thread's beginning is not looked for again.
_N_SETTLING = 4
# At its edges, where one track fades into another, it must have this share of its mean: about what
# it has where both are equally loud.
_SHARE_AT_EDGE = 0.75
_MAX_TRIM_S = 24.0


class Thread:
    """A line that is followed to both sides of the window that seeded it.

    Parameters
    ----------
    seed : Sighting
        The window.
    listener : Listener
    config : ScanConfig
    heard_s : float
        How far the recording is heard.
    """

    def __init__(
        self, seed: Sighting, listener: Listener, config: ScanConfig, heard_s: float
    ) -> None:
        self.listener, self.config = listener, config
        self.seed_s = self.traced_s = min(seed.line.time_s, heard_s)
        self.fit = _Fit(seed)
        self.after = _Run(self.seed_s, config)
        self.has_ended = False
        self.end_s, self.end_line = self.seed_s, seed.line
        self.doubt, self.n_windows = 1.0, 0
        self.absorb(seed)

    @property
    def gain(self) -> float:
        """What its segments have above agreement, added up."""
        return self.before.gain + self.after.gain

    def distance(self, line: Line) -> float:
        """How far a window lies beside the thread, 1 for as far as may be."""
        apart_s = abs(line.time_s - self.fit.last_s)
        allowed_s = BESIDE_S + apart_s * _SPEED_DOUBT / (1 + self.fit.spread_s)
        return abs(line.reference_s - self.line.at(line.time_s)) / allowed_s

    def absorb(self, sighting: Sighting) -> None:
        """Let a window speak for the thread; what it shares with the last one counts once."""
        self.n_windows += 1
        apart_s = abs(sighting.line.time_s - self.fit.last_s)
        new = min(apart_s / self.config.window_s, 1.0) if self.n_windows > 1 else 1.0
        self.doubt *= (1 - sighting.confidence) ** new
        self.line = self.fit.through(sighting)
        if self.n_windows <= _N_SETTLING:
            self._begin()

    def _begin(self) -> None:
        """Look for the beginning, as far back as anything is remembered."""
        self.before = _Run(self.seed_s, self.config)
        end_s = self.seed_s
        while not self.before.has_ended:
            start_s = end_s - self.config.window_s
            middles_s, cosines = self.listener.trace(self.line, start_s, end_s)
            if not len(middles_s):
                break
            self.before.grow(middles_s[::-1] - self.listener.hop_s / 2, cosines[::-1])
            end_s = start_s
        edge_s = self.before.edge_s
        last_s = min(edge_s + _MAX_TRIM_S, self.seed_s)
        _, cosines = self.listener.trace(self.line, edge_s, last_s)
        typical = self.after.score if self.after.n else self.before.score
        self.start_s = edge_s + _n_fading(cosines, typical) * self.listener.hop_s
        self.start_reference_s = self.line.at(self.start_s)

    def extend(self, heard_s: float) -> None:
        """Follow the line through what was heard since the last time."""
        middles_s, cosines = self.listener.trace(self.line, self.traced_s, heard_s)
        if self.after.grow(middles_s + self.listener.hop_s / 2, cosines):
            self.end_s, self.end_line = self.after.edge_s, self.line
        self.traced_s = heard_s
        self.has_ended = self.after.has_ended or heard_s - self.after.edge_s > self.config.max_gap_s

    def trim(self) -> None:
        """Take off both ends what is fading."""
        if self.n_windows <= _N_SETTLING:
            self._begin()  # now that more is known of how well it agrees
        edge_s = self.after.edge_s
        first_s = max(edge_s - _MAX_TRIM_S, self.fit.last_s)
        _, cosines = self.listener.trace(self.end_line, first_s, edge_s)
        fading_s = _n_fading(cosines[::-1], self.score) * self.listener.hop_s
        self.end_s = max(edge_s - fading_s, self.start_s)

    @property
    def score(self) -> float:
        """Mean cosine so far."""
        n = self.before.n + self.after.n
        return (self.before.cosines + self.after.cosines) / max(n, 1)

    def appearance(self) -> Appearance:
        """Tell what is known of it so far."""
        return Appearance(
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
    """Count the segments to leave out at an edge, whose cosines come first."""
    losses = np.cumsum(np.nan_to_num(_SHARE_AT_EDGE * typical - cosines), dtype=np.float64)
    return int(losses.argmax()) + 1 if len(losses) and losses.max() > 0 else 0


class _Run:
    """Segments that agree, from a moment on to one side, up to where their sum is best.

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
        """Take in the next segments; tell whether the run has become longer.

        Parameters
        ----------
        edges_s : float64 array of shape (n_segments,)
            Their far sides, going away from where the run began.
        cosines : float64 array of shape (n_segments,)
            NaN for silence, which speaks neither for nor against it.
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
    """The line through windows, by weighted least squares that forget."""

    def __init__(self, seed: Sighting) -> None:
        self.seed = self.surest = seed
        self.first_s = self.last_s = seed.line.time_s
        self.sums = np.zeros(5)

    @property
    def spread_s(self) -> float:
        """Seconds between the first and the last window."""
        return self.last_s - self.first_s

    def through(self, sighting: Sighting) -> Line:
        """Add a window and give the line through all of them."""
        seed, line = self.seed.line, sighting.line
        t, r = line.time_s - seed.time_s, line.reference_s - seed.reference_s
        self.sums = self.sums * _FORGETTING + np.array([1.0, t, r, t * t, t * r])
        self.last_s = line.time_s
        self.surest = max(self.surest, sighting, key=lambda one: one.confidence)
        weight, sum_t, sum_r, sum_tt, sum_tr = self.sums
        rise = sum_tr - sum_t * sum_r / weight + _SPEED_PRIOR_S2 * self.surest.line.speed
        return replace(
            seed,
            time_s=seed.time_s + float(sum_t / weight),
            reference_s=seed.reference_s + float(sum_r / weight),
            speed=float(rise / (sum_tt - sum_t**2 / weight + _SPEED_PRIOR_S2)),
        )
