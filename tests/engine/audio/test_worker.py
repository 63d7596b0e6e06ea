from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from engine.audio.child import Decoder
from engine.audio.worker import MAX_MEMORY_BYTES
from engine.errors import AudioError
from engine.records import Tags
from tests.audio_files import cached_tune, write_audio, write_wav


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    decoder = Decoder()
    yield decoder
    decoder.close()


def process(decoder: Decoder) -> psutil.Process:
    assert decoder._child is not None
    return psutil.Process(decoder._child.pid)


def peak_bytes(child: psutil.Process) -> int:
    status = Path(f"/proc/{child.pid}/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def test_worker_has_limits(tmp_path: Path, decoder: Decoder) -> None:
    path = write_wav(tmp_path / "tune.wav", cached_tune(1, 2.0), 8000)
    list(decoder.blocks(str(path), 8000))
    child = process(decoder)
    assert child.rlimit(psutil.RLIMIT_AS) == (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES)
    assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert 100 < child.rlimit(psutil.RLIMIT_CPU)[0] < 1000


def test_processor_time_is_limited_from_now_on() -> None:
    script = (
        "from engine.audio import worker\n"
        "for _ in range(2):\n"
        "    worker._limit_processor_time(1)\n"
        "    for _ in range(10**6): pass\n"
        "print('file', flush=True)\n"
        "while True: pass"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert done.stdout == b"file\n"
    assert done.returncode == -signal.SIGXCPU
    assert time.monotonic() - began < 60


def test_too_much_processor_time_is_an_error_about_one_file(
    tmp_path: Path, decoder: Decoder
) -> None:
    noise = np.random.default_rng(1).uniform(-1, 1, 600_000).astype(np.float32)
    long = write_wav(tmp_path / "long.wav", noise, 1000)
    blocks = decoder.blocks(str(long), 1000)
    next(blocks)
    os.kill(process(decoder).pid, signal.SIGXCPU)
    with pytest.raises(AudioError, match=r"long\.wav: decoding it takes more processor time"):
        list(blocks)
    good = write_wav(tmp_path / "good.wav", cached_tune(1, 2.0), 8000)
    assert len(np.concatenate(list(decoder.blocks(str(good), 8000)))) == 16000


def id3(frame_id: bytes, content: bytes, flags: int = 0) -> bytes:
    """An ID3v2.3 tag with one frame."""
    frame = frame_id + len(content).to_bytes(4, "big") + flags.to_bytes(2, "big") + content
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + size + frame


def compressed_title(n_megabytes: int) -> bytes:
    """A compressed text frame of the letter x; one compressed megabyte is repeated."""
    packer = zlib.compressobj(9)
    packed = packer.compress(b"\0") + packer.flush(zlib.Z_FULL_FLUSH)
    megabyte = b"x" * 1_000_000
    repeated = packer.compress(megabyte) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = zlib.adler32(b"\0")
    for _ in range(n_megabytes):
        checksum = zlib.adler32(megabyte, checksum)
    end = b"\x03\0" + checksum.to_bytes(4, "big")  # an empty last block
    size = 1 + 1_000_000 * n_megabytes
    return size.to_bytes(4, "big") + packed + repeated * n_megabytes + end


def test_tag_that_unpacks_to_gigabytes_costs_no_more_than_the_limit(
    tmp_path: Path, decoder: Decoder
) -> None:
    music = write_audio(tmp_path / "tune.mp3", cached_tune(1, 2.0, 44100), 44100)
    bomb = tmp_path / "bomb.mp3"
    bomb.write_bytes(id3(b"TIT2", compressed_title(600), 0x0080) + music.read_bytes())
    assert bomb.stat().st_size < 1_000_000
    _, tags = decoder.inspect(str(bomb))
    assert tags == Tags()
    child = process(decoder)
    assert peak_bytes(child) < 400_000_000
    assert len(np.concatenate(list(decoder.blocks(str(bomb), 8000)))) == pytest.approx(16000, abs=9)
    assert process(decoder) == child


def test_title_of_many_megabytes_is_cut(tmp_path: Path, decoder: Decoder) -> None:
    music = write_audio(tmp_path / "tune.mp3", cached_tune(1, 2.0, 44100), 44100)
    path = tmp_path / "small.mp3"
    path.write_bytes(id3(b"TIT2", compressed_title(1), 0x0080) + music.read_bytes())
    assert decoder.inspect(str(path))[1] == Tags(title="x" * 1000)
    path = tmp_path / "title.mp3"
    path.write_bytes(id3(b"TIT2", b"\0" + b"x" * 30_000_000) + music.read_bytes())
    assert decoder.inspect(str(path))[1] == Tags(title="x" * 1000)
