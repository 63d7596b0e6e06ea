from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from engine.audio import child
from engine.audio.child import Decoder, SharedDecoders
from engine.audio.content import read_sound
from engine.audio.decode import read
from engine.audio.report import ReadReport
from engine.errors import AudioError
from engine.records import Content, Tags
from tests.audio_files import Waveform, cached_tune, write_audio, write_wav

RATE = 1000  # a minute, which is one block, is small, and still larger than a pipe


@pytest.fixture
def long_file(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Five minutes, five blocks."""
    noise = rng.uniform(-0.5, 0.5, 300 * RATE).astype(np.float32)
    return write_wav(tmp_path / "long.wav", noise, RATE)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder()
    yield decoder
    decoder.close()


@pytest.fixture
def own_decoder() -> Iterator[Decoder]:
    """One that no other test uses."""
    decoder = Decoder()
    yield decoder
    decoder.close()


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "engine.audio.worker" in p.cmdline()]


def decode(decoder: Decoder, path: Path, sample_rate: int = 8000) -> Waveform:
    return np.concatenate(list(decoder.blocks(str(path), sample_rate)))


@pytest.mark.parametrize(("suffix", "rate"), [(".wav", 8000), (".flac", 44100), (".mp3", 22050)])
def test_decoder_returns_the_same_samples_as_reading(
    suffix: str, rate: int, tmp_path: Path, decoder: Decoder
) -> None:
    path = write_audio(tmp_path / f"tune{suffix}", cached_tune(1, 3.0, rate), rate)
    content, tags = decoder.inspect(str(path))
    waveform = decode(decoder, path)
    assert waveform.dtype == np.float32
    assert np.array_equal(waveform, read(path, 8000))
    assert (content.content_hash, content.sound) == read_sound(path)
    assert content.file_hash == hashlib.sha256(path.read_bytes()).hexdigest()
    assert tags == Tags()


def test_long_file_comes_in_blocks(own_decoder: Decoder, long_file: Path) -> None:
    blocks = own_decoder.blocks(str(long_file), RATE)
    assert [len(block) for block in blocks] == [60 * RATE] * 5


@pytest.mark.parametrize("name", ["garbage", "empty", "missing", "folder", "truncated m4a"])
def test_broken_file_is_an_error_and_the_next_works(
    name: str, broken_file: object, tmp_path: Path, decoder: Decoder
) -> None:
    assert callable(broken_file)
    good = write_wav(tmp_path / "good.wav", cached_tune(1, 2.0), 8000)
    decode(decoder, good)
    before = children()
    path = broken_file(name)
    with pytest.raises(AudioError) as caught:
        decode(decoder, path)
    assert caught.value.source == str(path)
    assert "crashed" not in caught.value.reason
    assert len(decode(decoder, good)) == 16000
    assert children() == before


def test_inspected_file_is_not_decoded(tmp_path: Path, decoder: Decoder) -> None:
    broken, good = tmp_path / "broken.wav", tmp_path / "good.wav"
    broken.write_bytes(b"not audio")
    write_wav(good, cached_tune(1, 2.0), 8000)
    content, _ = decoder.inspect(str(broken))
    file_hash = hashlib.sha256(b"not audio").hexdigest()
    assert content == Content(content_hash=file_hash, file_hash=file_hash)
    assert len(decode(decoder, good)) == 16000


def test_killed_decoder_is_an_error_and_the_next_file_works(
    own_decoder: Decoder, long_file: Path, tmp_path: Path
) -> None:
    known = children()
    blocks = own_decoder.blocks(str(long_file), RATE)
    next(blocks)
    (child,) = set(children()) - set(known)
    child.kill()
    with pytest.raises(AudioError, match=r"long\.wav: the decoder crashed on it"):
        list(blocks)
    assert len(decode(own_decoder, long_file, RATE)) == 300 * RATE
    assert child not in children()


@pytest.mark.skipif(sys.platform == "win32", reason="needs stop signals")
def test_paused_decoder_loses_no_samples(
    monkeypatch: pytest.MonkeyPatch, own_decoder: Decoder, long_file: Path
) -> None:
    """A write that is interrupted in a pipe writes a part only; Docker images set the variable."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    report = ReadReport()
    blocks = own_decoder.blocks(str(long_file), 8000, report)
    found = [next(blocks)]
    assert own_decoder._child is not None
    process = psutil.Process(own_decoder._child.pid)
    while process.status() != psutil.STATUS_SLEEPING:  # it fills the pipe, then waits
        time.sleep(0.01)
    process.suspend()
    process.resume()
    found += blocks
    np.testing.assert_array_equal(np.concatenate(found), read(str(long_file), 8000))


def test_close_leaves_no_child(own_decoder: Decoder, long_file: Path) -> None:
    known = children()
    next(own_decoder.blocks(str(long_file), RATE))
    assert len(children()) == len(known) + 1
    own_decoder.close()
    assert children() == known
    own_decoder.close()


@pytest.mark.parametrize("state", ["idle", "writing"])
def test_child_ends_when_its_pipes_close(state: str, own_decoder: Decoder, long_file: Path) -> None:
    known = children()
    if state == "idle":
        own_decoder.inspect(str(long_file))
    else:
        next(own_decoder.blocks(str(long_file), RATE))
    (child,) = set(children()) - set(known)
    process = own_decoder._child
    assert process
    assert process.stdin
    assert process.stdout
    process.stdin.close()  # as the kernel does when the parent dies
    process.stdout.close()
    assert child.wait(timeout=10) is not None


def test_report_comes_with_the_last_block(broken_file: object, own_decoder: Decoder) -> None:
    assert callable(broken_file)
    report = ReadReport()
    list(own_decoder.blocks(str(broken_file("truncated flac")), 8000, report))
    assert report.warnings == ["cut off: its header states 10.0 s, 4.8 s are there"]
    assert report.cut_off == report.warnings[0]


def test_part_and_stream_are_passed_on(tmp_path: Path, own_decoder: Decoder) -> None:
    path = write_wav(tmp_path / "tune.wav", cached_tune(1, 3.0), 8000)
    (part,) = own_decoder.blocks(str(path), 8000, start_s=1.0, end_s=2.0)
    assert np.array_equal(part, read(path, 8000, 1.0, 2.0))
    with pytest.raises(AudioError, match="no sound stream 2"):
        list(own_decoder.blocks(str(path), 8000, stream=2))


def test_decoder_killed_while_idle_is_started_again(tmp_path: Path, own_decoder: Decoder) -> None:
    path = write_wav(tmp_path / "tune.wav", cached_tune(1, 3.0), 8000)
    known = children()
    own_decoder.inspect(str(path))
    (process,) = set(children()) - set(known)
    process.kill()
    process.wait(5)
    assert len(decode(own_decoder, path)) == 24000


def test_relative_path_after_a_change_of_folder(
    tmp_path: Path, own_decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "music").mkdir()
    write_wav(tmp_path / "music" / "tune.wav", cached_tune(1, 3.0), 8000)
    own_decoder.start()
    monkeypatch.chdir(tmp_path / "music")
    assert len(decode(own_decoder, Path("tune.wav"))) == 24000


def test_modules_in_the_current_folder_are_not_imported(
    tmp_path: Path, own_decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_wav(tmp_path / "tune.wav", cached_tune(1, 3.0), 8000)
    (tmp_path / "soxr.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    assert len(decode(own_decoder, path)) == 24000


# -- shared decoders ---------------------------------------------------------------------------


def test_blocks_in_turns_share_one_child(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "tune.wav", cached_tune(1, 3.0), 8000)
    list(child.blocks(str(path), 8000, ReadReport()))
    before = children()
    for _ in range(3):
        assert len(np.concatenate(list(child.blocks(str(path), 8000, ReadReport())))) == 24000
        with pytest.raises(AudioError, match="No such file"):
            list(child.blocks(str(path) + "x", 8000, ReadReport()))
    assert children() == before


def test_blocks_at_the_same_time_do_not_mix(long_file: Path) -> None:
    first = child.blocks(str(long_file), RATE, ReadReport())
    second = child.blocks(str(long_file), RATE, ReadReport())
    pairs = list(zip(first, second, strict=True))
    assert len(pairs) == 5
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_blocks_left_early_do_not_reach_the_next_file(long_file: Path, tmp_path: Path) -> None:
    blocks = child.blocks(str(long_file), RATE, ReadReport())
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    path = write_wav(tmp_path / "tune.wav", cached_tune(1, 3.0), 8000)
    assert np.array_equal(next(child.blocks(str(path), 8000, ReadReport())), read(path, 8000))


def test_prepare_starts_a_child_once() -> None:
    child.prepare()
    before = children()
    child.prepare()
    assert children() == before != []


def test_many_threads_share_few_children(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "tune.wav", cached_tune(1, 3.0), 8000)
    pool, known, n_most = SharedDecoders(2), set(children()), 0

    def read_all(_: int) -> int:
        nonlocal n_most
        n_samples = sum(len(one) for one in pool.blocks(str(path), 8000))
        n_most = max(n_most, len(set(children()) - known))
        return n_samples

    with ThreadPoolExecutor(12) as threads:
        assert set(threads.map(read_all, range(24))) == {24000}
    assert 1 <= n_most <= 2
    pool.close()


def test_long_recordings_do_not_block_others(long_file: Path) -> None:
    pool, known = SharedDecoders(1), set(children())
    long = pool.blocks(str(long_file), RATE)
    next(long)
    assert not pool._has_place()
    next(long)
    assert pool._has_place()
    assert len(list(pool.blocks(str(long_file), RATE))) == 5
    assert len(list(long)) == 3
    assert len(set(children()) - known) == 1  # the one above the limit is closed
    pool.close()


def test_one_thread_that_reads_many_files_at_a_time_waits_no_longer(
    long_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_LONGEST_WAIT_S", 0.05)
    pool = SharedDecoders(1)
    both = [pool.blocks(str(long_file), RATE) for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(*both, strict=True))
    pool.close()
