"""What a scan seems to find in the audio of which a whole clip has not come yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from engine.errors import SilentAudioError
from engine.records import Candidate, Waveform
from engine.scan.timeline import TimelineBuilder
from engine.search.clips import CLIP_S, Clip
from engine.search.searcher import Searcher

PREVIEW_S = 24.0
"""Length of the pieces that are searched."""

# Four times that of a scan: a fourth of the work, and a place to about a tenth of a second.
_HOP_S = 0.5


class Preview:
    """Searches pieces of a recording as they are read, at the speed of the tracks only.

    Parameters
    ----------
    searcher : Searcher
    max_gap_s, min_confidence : float
        As those of the scan.
    on_found : callable
        Called after each piece with the passages of the last few minutes, as far as they are known;
        their times are those of the recording.
    """

    def __init__(
        self,
        searcher: Searcher,
        max_gap_s: float,
        min_confidence: float,
        on_found: Callable[[list[Candidate]], None],
    ) -> None:
        self._searcher, self._min_confidence = searcher, min_confidence
        self._on_found = on_found
        self._timeline = TimelineBuilder(searcher.context.tracks, max_gap_s, best_only=True)
        self._ended: list[Candidate] = []
        self._hop_s = searcher.fingerprinter.hop_within(_HOP_S, searcher.context.reference_hop_s)

    def watch(self, blocks: Iterable[Waveform]) -> Iterator[Waveform]:
        """Yield shorter blocks; each piece is searched before the block that completes it."""
        rate = self._searcher.fingerprinter.sample_rate
        n_piece, first, held = round(PREVIEW_S * rate), 0, np.zeros(0, np.float32)
        for block in blocks:
            rest = block
            while len(rest):
                taken, rest = np.split(rest, [n_piece - len(held)])
                held = np.concatenate([held, taken])
                if len(held) == n_piece:
                    self._search(held, first / rate)
                    first, held = first + n_piece, held[:0]
                yield taken

    def _search(self, piece: Waveform, start_s: float) -> None:
        end_s = start_s + PREVIEW_S
        self._ended += self._timeline.add(self._passages(piece, start_s), end_s)
        self._ended = [one for one in self._ended if one.query_end_s > end_s - 2 * CLIP_S]
        self._on_found([*self._ended, *self._timeline.open])

    def _passages(self, piece: Waveform, start_s: float) -> list[Candidate]:
        try:
            made = self._searcher.fingerprinter.fingerprint([piece], self._hop_s)
        except SilentAudioError:
            return []
        clip = Clip(start_s=start_s, fingerprint=made, waveform=np.zeros(0, np.float32))
        found = [one.later(start_s) for one in self._searcher.passages(clip)]
        return self._searcher.calibration.accepted(found, self._min_confidence)
