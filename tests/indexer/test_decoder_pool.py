from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from engine.errors import AudioError
from engine.records import Content
from indexer.decoder_pool import BLOCKS_AHEAD, DecoderPool, Recording
from indexer.discover import FoundFile
from tests.audio_files import write_wav

RATE = 1000  # a minute, which is one block, is small, and still larger than a pipe
BLOCK_BYTES = 60 * RATE * 4


def want_all(content: Content) -> bool:
    return True


def file(path: Path) -> FoundFile:
    return FoundFile(str(path), 1, 1)


def write_noise(path: Path, duration_s: float) -> FoundFile:
    rng = np.random.default_rng(int(duration_s))
    noise = rng.uniform(-0.5, 0.5, int(duration_s * RATE)).astype(np.float32)
    return file(write_wav(path, noise, RATE))


@pytest.fixture
def long_files(tmp_path: Path) -> list[FoundFile]:
    """Three files that take many more blocks than a lane may be ahead."""
    return [write_noise(tmp_path / f"{i}.wav", 60 * (3 * BLOCKS_AHEAD + i)) for i in range(3)]


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "engine.audio.worker" in p.cmdline()]


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    known, n_threads = children(), threading.active_count()
    yield
    assert children() == known
    assert threading.active_count() == n_threads


def outcome(item: Recording | AudioError) -> tuple[str, int | str]:
    """Name of a file and how many samples it has, or why it has none."""
    if isinstance(item, AudioError):
        return Path(item.source).name, item.reason
    try:
        return Path(item.file.path).name, sum(len(block) for block in item.blocks or ())
    except AudioError as error:
        return Path(error.source).name, error.reason


@pytest.mark.parametrize("n_jobs", [1, 2, 3])
def test_files_keep_their_order_with_errors_in_their_places(tmp_path: Path, n_jobs: int) -> None:
    durations_s = {"e": 150, "d": 1, "b": 70, "a": 2, "f": 3}
    files = [write_noise(tmp_path / f"{name}.wav", s) for name, s in durations_s.items()]
    (tmp_path / "broken.wav").write_bytes(b"not audio")
    files.insert(1, file(tmp_path / "broken.wav"))
    files.insert(3, file(tmp_path / "missing.wav"))
    with DecoderPool(files, RATE, n_jobs, want_all) as decoders:
        outcomes = [outcome(item) for item in decoders]
    assert outcomes == [
        ("e.wav", 150_000),
        ("broken.wav", "not audio, damaged, or in a format that cannot be read"),
        ("d.wav", 1000),
        ("missing.wav", "No such file or directory"),
        ("b.wav", 70_000),
        ("a.wav", 2000),
        ("f.wav", 3000),
    ]


def test_unwanted_content_is_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"not audio")
    files = [file(tmp_path / "broken.wav"), write_noise(tmp_path / "good.wav", 2)]
    asked = []

    def wanted(content: Content) -> bool:
        asked.append(content)
        return len(asked) > 1

    with DecoderPool(files, RATE, 1, wanted) as decoders:
        unwanted, good = iter(decoders)
        assert isinstance(unwanted, Recording)
        assert isinstance(good, Recording)
        assert unwanted.blocks is None
        assert outcome(good) == ("good.wav", 2000)
    assert asked == [unwanted.content, good.content]


def test_error_in_is_wanted_fails_one_file_only(tmp_path: Path) -> None:
    files = [write_noise(tmp_path / f"{i}.wav", i + 1) for i in range(3)]
    asked = []

    def wanted(content: Content) -> bool:
        asked.append(content)
        if len(asked) == 2:
            raise RuntimeError("the database is gone")
        return True

    with DecoderPool(files, RATE, 1, wanted) as decoders:
        outcomes = [outcome(item) for item in decoders]
    assert outcomes == [
        ("0.wav", 1000),
        ("1.wav", "RuntimeError: the database is gone"),
        ("2.wav", 3000),
    ]


def test_killed_decoder_fails_its_file_and_no_other(long_files: list[FoundFile]) -> None:
    outcomes = []
    known = children()
    with DecoderPool(long_files, RATE, 1, want_all) as decoders:
        for number, item in enumerate(decoders):
            if number == 1:
                (child,) = set(children()) - set(known)
                child.kill()
            outcomes.append(outcome(item))
    assert outcomes == [
        ("0.wav", 60 * RATE * 3 * BLOCKS_AHEAD),
        ("1.wav", "the decoder crashed on it"),
        ("2.wav", 60 * RATE * (3 * BLOCKS_AHEAD + 2)),
    ]


def test_no_more_blocks_wait_than_may(long_files: list[FoundFile]) -> None:
    tracemalloc.start()
    try:
        with DecoderPool(long_files[:1], RATE, 1, want_all) as decoders:
            recording = next(iter(decoders))
            deadline = time.monotonic() + 30
            while tracemalloc.get_traced_memory()[0] < BLOCKS_AHEAD * BLOCK_BYTES:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(0.3)  # time for many more, if nothing held them back
            waiting_bytes, _ = tracemalloc.get_traced_memory()
            assert waiting_bytes < (BLOCKS_AHEAD + 2) * BLOCK_BYTES  # one more is in the hand
            assert outcome(recording) == ("0.wav", 60 * RATE * 3 * BLOCKS_AHEAD)
    finally:
        tracemalloc.stop()


def test_leaving_early_leaves_nothing_behind(long_files: list[FoundFile]) -> None:
    known = children()
    with DecoderPool(long_files, RATE, 3, want_all) as decoders:
        recording = next(iter(decoders))
        assert isinstance(recording, Recording)
        assert recording.blocks is not None
        next(recording.blocks)
        assert len(children()) > len(known)


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.003, 0.01, 0.03])
def test_leaving_while_decoders_start_leaves_nothing_behind(
    long_files: list[FoundFile], after_s: float
) -> None:
    with DecoderPool(long_files, RATE, 3, want_all):
        time.sleep(after_s)


def test_error_inside_leaves_nothing_behind(long_files: list[FoundFile]) -> None:
    def interrupted() -> None:
        with DecoderPool(long_files, RATE, 2, want_all) as decoders:
            next(iter(decoders))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_no_files_give_no_recordings() -> None:
    with DecoderPool([], RATE, 2, want_all) as decoders:
        assert list(decoders) == []
