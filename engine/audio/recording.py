"""A file as one recording: all its parts, at one sample rate, on the clock that players show."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import BinaryIO

import av.error
import numpy as np

from engine.audio.container import inspect
from engine.audio.ffmpeg import Run, SoundStream, open_stream
from engine.audio.gain import LEAST_FINE, QUIET, quiet_gain
from engine.audio.mix import mix, without_bad_samples
from engine.audio.report import ReadReport
from engine.audio.resample import resampled
from engine.audio.view import Part, View
from engine.errors import AudioError
from engine.records import Waveform

MAX_DURATION_S = 100 * 3600.0
"""What lies behind is left out: a few kilobytes may decode to years of silence."""

# A file may be this much shorter than its header states, because encoders pad and round.
_TOLERATED_LOSS = 0.02
_TOLERATED_LOSS_S = 1.0
_SILENCE_BLOCK_S = 60.0


class Recording:
    """A file that can be decoded again from its beginning.

    Parameters
    ----------
    file : binary file
        Seekable.
    path : path-like
        For errors.
    sample_rate : int
        Hz of the blocks.
    stream : int, optional
        Which of the sound streams, from 1; the default one by default.

    Raises
    ------
    AudioError
        The file is empty.
    """

    def __init__(
        self,
        file: BinaryIO,
        path: str | os.PathLike[str],
        sample_rate: int,
        stream: int | None = None,
    ) -> None:
        self._file, self._path, self._stream = file, path, stream
        self.sample_rate = sample_rate
        self._parts = inspect(file)
        if self._parts[0].end == 0:
            raise AudioError(path, "empty file")
        self.is_fine = False

    def blocks(self, report: ReadReport) -> Iterator[Waveform]:
        """Decode the whole file.

        Parameters
        ----------
        report : ReadReport
            Complete after the last block.

        Yields
        ------
        float32 array of shape (n_samples,)

        Raises
        ------
        AudioError
            There is no sound that can be decoded.
        FFmpegError
            The file cannot be opened.
        """
        n_samples = 0
        failure: Exception | None = None
        for part in self._parts:
            try:
                for block in self._part_blocks(part, report):
                    n_samples += len(block)
                    yield block
                    if n_samples >= MAX_DURATION_S * self.sample_rate:
                        report.warn(f"only its first {MAX_DURATION_S / 3600:g} hours were read")
                        return
            except (AudioError, av.error.FFmpegError) as error:
                failure = failure or error
        if failure and not n_samples:
            raise failure
        if failure:
            report.warn("a part of it could not be decoded")

    def _part_blocks(self, part: Part, report: ReadReport) -> Iterator[Waveform]:
        """Decode one part; AudioError or FFmpegError if it has no sound."""
        view = View(self._file, part)
        no_sound = part.problem if part.is_cut_off and part.problem else "no sound in it"
        try:
            with open_stream(view, part, self._path, self._stream) as sound:
                self.is_fine |= sound.is_fine
                n_samples = 0
                for block in _watched(self._joined(sound, report), sound, report):
                    n_samples += len(block)
                    yield block
                _note_end(part, sound, n_samples / self.sample_rate, report)
        except av.error.FFmpegError as error:
            if part.is_cut_off:
                raise AudioError(self._path, no_sound) from error
            raise
        if not n_samples:
            raise AudioError(self._path, no_sound)

    def _joined(self, sound: SoundStream, report: ReadReport) -> Iterator[Waveform]:
        """Join the runs of a stream, with silence in the gaps."""
        n_to_drop = 0
        for run in sound.runs():
            n_to_drop -= round(run.jump_s * self.sample_rate)
            yield from _silence(-n_to_drop, self.sample_rate)
            n_to_drop = max(n_to_drop, 0)
            mono = _mixed(run, report)
            for block in resampled(mono, run.sample_rate, self.sample_rate):
                kept = block[n_to_drop:]
                n_to_drop -= len(block) - len(kept)
                if len(kept):
                    yield kept


def _mixed(run: Run, report: ReadReport) -> Iterator[Waveform]:
    for channels in run.blocks:
        good, n_bad = without_bad_samples(channels)
        if n_bad:
            report.warn("samples that are not finite numbers were replaced by 0")
        yield mix(good, run.sample_rate)


def _silence(n_samples: int, sample_rate: int) -> Iterator[Waveform]:
    n_block = round(_SILENCE_BLOCK_S * sample_rate)
    for start in range(0, n_samples, n_block):
        yield np.zeros(min(n_block, n_samples - start), np.float32)


def _watched(
    blocks: Iterable[Waveform], sound: SoundStream, report: ReadReport
) -> Iterator[Waveform]:
    """Pass blocks on; warn if all of them are silent and the file has other streams."""
    peak = 0.0
    try:
        for block in blocks:
            peak = max(peak, _peak(block))
            yield block
    finally:  # also if no more than a part is read
        if peak < LEAST_FINE and sound.others:
            others = ", ".join(sound.others)
            report.warn(f"sound stream {sound.name} is silent; choose another one: {others}")


def _note_end(part: Part, sound: SoundStream, duration_s: float, report: ReadReport) -> None:
    """Warn if a part ends before its header says, or packets are damaged."""
    if part.problem:
        report.warn(part.problem)
    stated_s = sound.stated_end_s if part.states_duration else 0.0
    found_s = max(duration_s, sound.others_end_s)
    if part.is_cut_off:
        report.cut_off = part.problem
    elif found_s < stated_s * (1 - _TOLERATED_LOSS) - _TOLERATED_LOSS_S:
        report.cut_off = f"cut off: its header states {stated_s:.1f} s, {found_s:.1f} s are there"
        report.warn(report.cut_off)
    if sound.n_damaged and not report.cut_off:
        report.warn(f"damaged packets were left out: {sound.n_damaged}")


# -- the part that is asked for, and its level -------------------------------------------------


def amplified(
    recording: Recording, start_s: float, end_s: float | None, report: ReadReport
) -> Iterator[Waveform]:
    """Decode a part of a recording; amplify it by :func:`quiet_gain`.

    A recording that begins with a minute of near silence is decoded twice, the first time to find
    its peak.

    Parameters
    ----------
    recording : Recording
    start_s, end_s : float
        The part, in seconds; to the end if `end_s` is None.
    report : ReadReport

    Yields
    ------
    float32 array of shape (n_samples,)
    """

    def part(notes: ReadReport) -> Iterator[Waveform]:
        return _between(recording.blocks(notes), recording.sample_rate, start_s, end_s)

    decoded = part(report)
    first = next(decoded, None)
    if first is None:
        return
    gain = 1.0
    if _peak(first) < QUIET:
        peak = 0.0
        for block in part(ReadReport()):
            peak = max(peak, _peak(block))
            if peak >= QUIET:
                break
        gain = quiet_gain(peak, is_fine=recording.is_fine)
    for block in chain([first], decoded):
        yield block if gain == 1.0 else block * np.float32(gain)


def _peak(block: Waveform) -> float:
    return float(np.abs(block).max(initial=0.0))


def _between(
    blocks: Iterable[Waveform], sample_rate: int, start_s: float, end_s: float | None
) -> Iterator[Waveform]:
    """Drop the samples before `start_s` and stop at `end_s`."""
    first = round(start_s * sample_rate)
    last = None if end_s is None else round(end_s * sample_rate)
    position = 0
    for block in blocks:
        low = max(first - position, 0)
        high = len(block) if last is None else min(last - position, len(block))
        if low < high:
            yield block[low:high]
        position += len(block)
        if last is not None and position >= last:
            return
