"""Cut a recording of any length into clips that overlap, and fingerprint each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from engine.audio.decode import Waveform
from engine.errors import SilentAudioError
from engine.protocol import AudioFingerprinter
from engine.records import Fingerprint
from engine.search.context import Stopwatch

CLIP_S = 128.0
"""Length of a clip: what is in memory of a recording."""

OVERLAP_S = 16.0
"""Length of what a clip shares with the next one; a shorter passage is whole in one of them."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A stretch of a recording.

    Parameters
    ----------
    start_s : float
        Where in the recording it begins.
    fingerprint : Fingerprint
    waveform : float32 array of shape (n_samples,)
        At the fingerprinter's sample rate; empty if only the fingerprint was sent.
    """

    start_s: float
    fingerprint: Fingerprint
    waveform: Waveform

    @property
    def end_s(self) -> float:
        """Where in the recording it ends."""
        return self.start_s + self.fingerprint.duration_s


def fingerprint_clips(
    blocks: Iterable[Waveform],
    fingerprinter: AudioFingerprinter,
    hop_s: float,
    name: str,
    stopwatch: Stopwatch,
) -> Iterator[Clip]:
    """Cut a recording into clips and fingerprint them, one at a time.

    Parameters
    ----------
    blocks : iterable of float32 arrays of shape (n_samples,)
        At the fingerprinter's sample rate, of any size.
    fingerprinter : AudioFingerprinter
    hop_s : float
        Distance of the segments in seconds; clips begin at multiples of it.
    name : str
        Name of the recording in error messages.
    stopwatch : Stopwatch
        Measures the step "encode".

    Yields
    ------
    Clip
        Without those that are silent.

    Raises
    ------
    AudioTooShortError
        The recording is shorter than a segment.
    """
    rate = fingerprinter.sample_rate
    for start_s, waveform in _cut(blocks, rate, hop_s):
        with stopwatch.step("encode"):
            try:
                made = fingerprinter.fingerprint([waveform], hop_s, name)
            except SilentAudioError:
                continue
        yield Clip(start_s=start_s, fingerprint=made, waveform=waveform)


def _cut(blocks: Iterable[Waveform], rate: int, hop_s: float) -> Iterator[tuple[float, Waveform]]:
    """Yield clips with their starts; the last one is what remains."""
    n_samples = round(CLIP_S * rate)
    n_step = round(round((CLIP_S - OVERLAP_S) / hop_s) * hop_s * rate)
    first, held = 0, np.zeros(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) > n_samples:
            yield first / rate, held[:n_samples]
            first, held = first + n_step, held[n_step:]
    yield first / rate, held
