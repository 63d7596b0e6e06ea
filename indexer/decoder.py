"""Decode files in a child process while the parent encodes.

A child is a plain ``python -m indexer.decoder`` that communicates over its pipes: each message is
a line of JSON, and a message with a number of samples is followed by raw float32 samples. So a
script that ingests needs no ``if __name__ == "__main__"``, and a crash of the decoder loses one
file only.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO, Any, cast

import numpy as np

from engine.audio import decode
from engine.audio.decode import Waveform
from engine.audio.tags import read_tags
from engine.errors import AstoundError, AudioError
from engine.records import Tags


class Decoder:
    """One child process.

    Parameters
    ----------
    sample_rate : int
        Sample rate of the waveforms in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._child: subprocess.Popen[bytes] | None = None
        self._path = ""

    def open(self, path: str) -> tuple[str, Tags]:
        """Open a file.

        Parameters
        ----------
        path : str

        Returns
        -------
        content_hash : str
            SHA-256 of the bytes of the file, hex.
        tags : Tags

        Raises
        ------
        AudioError
        """
        self._path = path
        self._send({"path": path, "sample_rate": self.sample_rate})
        answer = self._receive()
        return answer["content_hash"], Tags(**answer["tags"])

    def skip(self) -> None:
        """Do not decode the open file."""
        self._send({"decode": False})

    def blocks(self) -> Iterator[Waveform]:
        """Decode the open file.

        Yields
        ------
        float32 array of shape (n_samples,)

        Raises
        ------
        AudioError
        """
        self._send({"decode": True})
        while n_samples := self._receive()["n_samples"]:
            block: Waveform = np.empty(n_samples, np.float32)
            if self._output().readinto(block.data.cast("B")) < block.nbytes:
                raise self._crashed()
            yield block

    def close(self) -> None:
        """Kill the child."""
        if self._child:
            child, self._child = self._child, None
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(BrokenPipeError):  # an unsent request
                    _pipe(pipe).close()

    def _send(self, message: dict[str, Any]) -> None:
        if self._child is None:
            self._child = _start()
        try:
            _write(_pipe(self._child.stdin), message)
        except BrokenPipeError as error:
            raise self._crashed() from error

    def _receive(self) -> dict[str, Any]:
        line = self._output().readline()
        if not line.endswith(b"\n"):
            raise self._crashed()
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise AudioError(self._path, message["error"])
        return message

    def _output(self) -> io.BufferedIOBase:
        assert self._child is not None
        return _pipe(self._child.stdout)

    def _crashed(self) -> AudioError:
        self.close()
        return AudioError(self._path, "the decoder crashed on it")


def _start() -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-m", "indexer.decoder"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


def _pipe(pipe: IO[bytes] | None) -> io.BufferedIOBase:
    return cast(io.BufferedIOBase, pipe)  # the type Popen has for pipes is wider


def _write(
    pipe: io.BufferedIOBase | IO[bytes], message: dict[str, Any], samples: bytes = b""
) -> None:
    pipe.write(json.dumps(message).encode() + b"\n" + samples)
    pipe.flush()


# -- in the child ------------------------------------------------------------------------------


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    for line in requests:
        request = json.loads(line)
        try:
            _decode(request["path"], request["sample_rate"], requests, answers)
        except AstoundError as error:
            reason = error.reason if isinstance(error, AudioError) else str(error)
            _write(answers, {"error": reason})
        except OSError as error:
            _write(answers, {"error": error.strerror or str(error)})


def _decode(path: str, sample_rate: int, requests: IO[bytes], answers: IO[bytes]) -> None:
    with open(path, "rb") as file:
        content_hash = hashlib.file_digest(file, "sha256").hexdigest()
    _write(answers, {"content_hash": content_hash, "tags": asdict(read_tags(path))})
    if not json.loads(requests.readline())["decode"]:
        return
    for block in decode.blocks(path, sample_rate):
        _write(answers, {"n_samples": len(block)}, block.astype(np.float32).tobytes())
    _write(answers, {"n_samples": 0})


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
