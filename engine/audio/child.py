"""Child processes that decode files, with limits on memory and processor time.

A child is a plain ``python -m engine.audio.worker`` that talks over its pipes: one JSON line for
each message, followed by raw samples where it announces some. So a script that uses it needs no
``if __name__ == "__main__"``, and a decoder that crashes takes down nothing but itself. This module
imports no decoder: it starts a child while torch loads.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO, Any, cast

import numpy as np

from engine.audio.report import ReadReport
from engine.config import n_threads
from engine.errors import AudioError
from engine.records import Content, Tags, Waveform
from engine.validation import to_record

_LONGEST_WAIT_S = 30.0  # in case one thread reads many files at a time


class Decoder:
    """One child process; it starts with the first request, and again after a crash."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._path = ""

    def start(self) -> None:
        """Start the child unless it runs."""
        if self._child is not None and self._child.poll() is not None:
            self.close()
        if self._child is None:
            self._child = _start()

    def inspect(self, path: str) -> tuple[Content, Tags]:
        """Read what identifies a file.

        Parameters
        ----------
        path : str

        Returns
        -------
        content : Content
        tags : Tags

        Raises
        ------
        AudioError
        """
        self._send(path, {"inspect": os.path.abspath(path)})
        answer = self._receive()
        return to_record(Content, answer["content"]), to_record(Tags, answer["tags"])

    def measure(self, path: str) -> float | None:
        """Return the seconds of sound that a file's headers state; None if they do not.

        Raises
        ------
        AudioError
            The file contains no sound that can be decoded.
        """
        self._send(path, {"measure": os.path.abspath(path)})
        duration_s: float | None = self._receive()["duration_s"]
        return duration_s

    def blocks(
        self, path: str, sample_rate: int, report: ReadReport | None = None, **options: Any
    ) -> Iterator[Waveform]:
        """Decode a file.

        Parameters
        ----------
        path : str
        sample_rate : int
            Hz of the blocks.
        report : ReadReport, optional
            Complete after the last block.
        options
            start_s, end_s and stream of :func:`engine.audio.decode.blocks`.

        Yields
        ------
        float32 array of shape (n_samples,)
            Must be used up before the next request.

        Raises
        ------
        AudioError
        """
        request = {"decode": os.path.abspath(path), "sample_rate": sample_rate} | options
        self._send(path, request)
        while n_samples := (answer := self._receive())["n_samples"]:
            block: Waveform = np.empty(n_samples, np.float32)
            if self._answers().readinto(block.data.cast("B")) < block.nbytes:
                raise self._crashed()
            yield block
        if report is not None:
            report.warnings += answer["warnings"]
            report.cut_off = answer["cut_off"]

    def close(self) -> None:
        """End the child."""
        if self._child:
            child, self._child = self._child, None
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(BrokenPipeError):  # a request that was never sent
                    _pipe(pipe).close()

    def _send(self, path: str, message: dict[str, Any]) -> None:
        self._path = path
        self.start()
        assert self._child is not None
        try:
            pipe = _pipe(self._child.stdin)
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()
        except BrokenPipeError as error:
            raise self._crashed() from error

    def _receive(self) -> dict[str, Any]:
        line = self._answers().readline()
        if not line.endswith(b"\n"):
            raise self._crashed()
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise AudioError(self._path, message["error"])
        return message

    def _answers(self) -> io.BufferedIOBase:
        assert self._child is not None
        return _pipe(self._child.stdout)

    def _crashed(self) -> AudioError:
        assert self._child is not None
        with contextlib.suppress(subprocess.TimeoutExpired):  # its pipe may close before it ends
            self._child.wait(1.0)
        code = self._child.returncode
        self.close()
        if code == -getattr(signal, "SIGXCPU", 0):
            return AudioError(self._path, "decoding it takes more processor time than is allowed")
        return AudioError(self._path, "the decoder crashed on it")


# -- decoders for all threads ------------------------------------------------------------------


class SharedDecoders:
    """Decoders for any number of threads, kept for later files.

    Parameters
    ----------
    n_decoders : int
        Decoders that are kept. While as many are decoding, a thread waits for one; those of
        recordings of more than a block do not count, because they may take hours.
    """

    def __init__(self, n_decoders: int) -> None:
        self.n_decoders = n_decoders
        self._idle: list[Decoder] = []
        self._counted: set[Decoder] = set()
        self._changed = threading.Condition()

    def prepare(self) -> None:
        """Start a decoder in the background, for a file that will be read soon."""
        with self._changed:
            if not self._idle:
                self._idle.append(Decoder())
            self._idle[-1].start()

    def blocks(self, *arguments: Any, **options: Any) -> Iterator[Waveform]:
        """Decode a file as :meth:`Decoder.blocks` does."""
        with self.borrowed() as decoder:
            for number, block in enumerate(decoder.blocks(*arguments, **options)):
                if number == 1:
                    self._stop_counting(decoder)
                yield block

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[Decoder]:
        """Take a decoder, and put it back afterwards."""
        decoder = self._take()
        try:
            yield decoder
        except AudioError:  # answered, or crashed and closed
            raise
        except BaseException:  # the rest of its answer is still to come
            decoder.close()
            raise
        finally:
            self._put_back(decoder)

    def close(self) -> None:
        """End the children of the decoders that are not borrowed."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Decoder:
        with self._changed:
            self._changed.wait_for(self._has_place, _LONGEST_WAIT_S)
            decoder = self._idle.pop() if self._idle else Decoder()
            self._counted.add(decoder)
        return decoder

    def _has_place(self) -> bool:
        return len(self._counted) < self.n_decoders

    def _stop_counting(self, decoder: Decoder) -> None:
        with self._changed:
            self._counted.discard(decoder)
            self._changed.notify()

    def _put_back(self, decoder: Decoder) -> None:
        with self._changed:
            self._counted.discard(decoder)
            is_kept = len(self._idle) < self.n_decoders
            if is_kept:
                self._idle.append(decoder)
            self._changed.notify()
        if not is_kept:
            decoder.close()


_shared = SharedDecoders(2 * n_threads())


def prepare() -> None:
    """Start a decoder of this process in the background, for a file that will be read soon."""
    _shared.prepare()


def blocks(path: str, sample_rate: int, report: ReadReport, **options: Any) -> Iterator[Waveform]:
    """Decode a file in a child process, as :meth:`Decoder.blocks` does."""
    return _shared.blocks(path, sample_rate, report, **options)


def measure(path: str) -> float | None:
    """Read the length of a file in a child process, as :meth:`Decoder.measure` does."""
    with _shared.borrowed() as decoder:
        return decoder.measure(path)


@atexit.register
def _close() -> None:
    _shared.close()


def _forget() -> None:
    """Make a new pool in a forked process: the pipes belong to its parent."""
    global _shared
    _shared = SharedDecoders(_shared.n_decoders)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _start() -> subprocess.Popen[bytes]:
    # The paths of this process; "" is the current folder, which -P keeps out otherwise.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "engine.audio.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


def _pipe(pipe: IO[bytes] | None) -> io.BufferedIOBase:
    return cast(io.BufferedIOBase, pipe)  # what Popen returns for pipes, though typed more loosely
