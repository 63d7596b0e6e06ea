"""The process that decodes files for :mod:`engine.audio.child`; it ends when its pipes close."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from engine.audio import decode
from engine.audio.content import read_duration, read_sound
from engine.audio.report import ReadReport
from engine.audio.tags import read_tags
from engine.errors import AstoundError, AudioError
from engine.records import Content

MAX_MEMORY_BYTES = 3 << 29
"""Address space of a child."""

_MEMORY_FOR_TAGS_BYTES = 256 << 20  # beside what it has already

# Processor time for one file: enough for an hour of any codec on a slow machine, and more for
# larger files.
_CPU_S = 120
_CPU_S_PER_MB = 30
_CPU_S_FOR_TAGS = 30


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    for line in requests:
        request = json.loads(line)
        try:
            if path := request.pop("inspect", None):
                _inspect(path, answers)
            elif path := request.pop("measure", None):
                _measure(path, answers)
            else:
                _decode(request.pop("decode"), answers, **request)
        except AstoundError as error:
            reason = error.reason if isinstance(error, AudioError) else str(error)
            _write(answers, {"error": reason})
        except OSError as error:
            _write(answers, {"error": error.strerror or str(error)})


def _write(pipe: IO[bytes], message: dict[str, Any], samples: bytes = b"") -> None:
    pipe.write(json.dumps(message).encode() + b"\n" + samples)
    pipe.flush()


def _inspect(path: str, answers: IO[bytes]) -> None:
    _limit_processor_time(_allowed_s(path))
    with open(path, "rb") as file:
        file_hash = hashlib.file_digest(file, "sha256").hexdigest()
    content_hash, sound = read_sound(path) or (file_hash, None)
    content = Content(content_hash=content_hash, file_hash=file_hash, sound=sound)
    _limit_processor_time(_CPU_S_FOR_TAGS)
    with _little_memory(_MEMORY_FOR_TAGS_BYTES):
        tags = read_tags(path)
    _write(answers, {"content": asdict(content), "tags": asdict(tags)})


def _measure(path: str, answers: IO[bytes]) -> None:
    _limit_processor_time(_CPU_S_FOR_TAGS)
    _write(answers, {"duration_s": read_duration(path)})


def _decode(path: str, answers: IO[bytes], sample_rate: int, **options: Any) -> None:
    _limit_processor_time(_allowed_s(path))
    report = ReadReport()
    for block in decode.blocks(path, sample_rate, report=report, **options):
        if len(block):
            _write(answers, {"n_samples": len(block)}, block.astype(np.float32).tobytes())
    end = {"n_samples": 0, "warnings": report.warnings, "cut_off": report.cut_off}
    _write(answers, end)


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@contextlib.contextmanager
def _little_memory(n_bytes: int) -> Iterator[None]:
    """Allow a little more memory than is in use: a compressed tag may unpack to gigabytes."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + n_bytes
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (ImportError, OSError, ValueError):  # not on every system
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _allowed_s(path: str) -> int:
    return _CPU_S + _CPU_S_PER_MB * os.path.getsize(path) // 1_000_000


def _limit_processor_time(allowed_s: int) -> None:
    """Allow some more seconds from now on; the system ends a process that takes more."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        soft = int(used.ru_utime + used.ru_stime) + allowed_s
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; its end closes the pipes
    _limit_memory()
    # With PYTHONUNBUFFERED, sys.stdout loses the rest of a write that a pause interrupts.
    with open(sys.stdout.fileno(), "wb", closefd=False) as buffered:
        _serve(sys.stdin.buffer, buffered)
