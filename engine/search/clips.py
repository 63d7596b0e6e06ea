"""Cut a recording of any length into clips that overlap, and fingerprint each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from engine.errors import AudioTooShortError, SilentAudioError
from engine.protocol import AudioFingerprinter
from engine.records import Fingerprint, Waveform
from engine.search.context import Stopwatch

CLIP_S = 128.0
"""Length of a clip: what is in memory of a recording."""

OVERLAP_S = 16.0
"""Length of what a clip shares with the next one; a shorter passage is whole in one of them."""

SHORT_S = 12.0
"""Up to this length, a clip is searched by few of its segments first."""


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


def every(fingerprint: Fingerprint, step: int) -> Fingerprint:
    """Return a fingerprint with every `step`-th of its segments."""
    embeddings = fingerprint.embeddings[::step]
    return replace(
        fingerprint, embeddings=embeddings, segment_hop_s=step * fingerprint.segment_hop_s
    )


def refined(
    coarse: Fingerprint, waveform: Waveform, fingerprinter: AudioFingerprinter
) -> Fingerprint:
    """Halve the distance of a recording's segments.

    Parameters
    ----------
    coarse : Fingerprint
    waveform : float32 array of shape (n_samples,)
        What it was made from.
    fingerprinter : AudioFingerprinter
        It must support the smaller hop.

    Returns
    -------
    Fingerprint
        With the clip-level embeddings of `coarse`.
    """
    hop_s, rate = coarse.segment_hop_s / 2, fingerprinter.sample_rate
    rest = waveform[round(hop_s * rate) :]
    n_between = math.floor((len(rest) / rate - coarse.segment_s) / (2 * hop_s) + 1e-6) + 1
    n_segments = len(coarse.embeddings) + max(n_between, 0)
    embeddings = np.zeros((n_segments, coarse.embeddings.shape[1]), np.float32)
    embeddings[::2] = coarse.embeddings
    with suppress(AudioTooShortError, SilentAudioError):
        embeddings[1::2] = fingerprinter.fingerprint([rest], 2 * hop_s).embeddings
    return replace(coarse, embeddings=embeddings, segment_hop_s=hop_s)


def fingerprint_clips(
    blocks: Iterable[Waveform],
    fingerprinter: AudioFingerprinter,
    hop_s: float,
    name: str,
    stopwatch: Stopwatch,
    short_hop_s: float | None = None,
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
    short_hop_s : float, optional
        Distance of the segments of clips of at most SHORT_S; `hop_s` by default.

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
                is_short = len(waveform) <= SHORT_S * rate
                own_hop_s = (is_short and short_hop_s) or hop_s
                made = fingerprinter.fingerprint([waveform], own_hop_s, name)
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
