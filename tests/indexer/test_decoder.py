from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from engine.audio.decode import read
from engine.errors import AudioError
from engine.records import Tags
from indexer.decoder import Decoder
from tests.audio_files import Waveform, cached_tune, write_audio, write_wav

RATE = 1000  # a minute, which is one block, is small, and still larger than a pipe


@pytest.fixture
def long_file(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Five minutes, five blocks."""
    noise = rng.uniform(-0.5, 0.5, 300 * RATE).astype(np.float32)
    return write_wav(tmp_path / "long.wav", noise, RATE)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(8000)
    yield decoder
    decoder.close()


@pytest.fixture
def own_decoder() -> Iterator[Decoder]:
    """One that no other test uses."""
    decoder = Decoder(RATE)
    yield decoder
    decoder.close()


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "indexer.decoder" in p.cmdline()]


def decode(decoder: Decoder, path: Path) -> Waveform:
    decoder.open(str(path))
    return np.concatenate(list(decoder.blocks()))


@pytest.mark.parametrize(("suffix", "rate"), [(".wav", 8000), (".flac", 44100), (".mp3", 22050)])
def test_decoder_returns_the_same_samples_as_reading(
    suffix: str, rate: int, tmp_path: Path, decoder: Decoder
) -> None:
    path = write_audio(tmp_path / f"tune{suffix}", cached_tune(1, 3.0, rate), rate)
    content_hash, tags = decoder.open(str(path))
    waveform = np.concatenate(list(decoder.blocks()))
    assert waveform.dtype == np.float32
    assert np.array_equal(waveform, read(path, 8000))
    assert content_hash == hashlib.sha256(path.read_bytes()).hexdigest()
    assert tags == Tags()


def test_long_file_comes_in_blocks(own_decoder: Decoder, long_file: Path) -> None:
    own_decoder.open(str(long_file))
    assert [len(block) for block in own_decoder.blocks()] == [60 * RATE] * 5


@pytest.mark.parametrize("name", ["garbage", "empty", "missing", "folder", "truncated mp3"])
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


def test_skipped_file_is_not_decoded(tmp_path: Path, decoder: Decoder) -> None:
    broken, good = tmp_path / "broken.wav", tmp_path / "good.wav"
    broken.write_bytes(b"not audio")
    write_wav(good, cached_tune(1, 2.0), 8000)
    content_hash, _ = decoder.open(str(broken))
    assert content_hash == hashlib.sha256(b"not audio").hexdigest()
    decoder.skip()
    assert len(decode(decoder, good)) == 16000


def test_killed_decoder_is_an_error_and_the_next_file_works(
    own_decoder: Decoder, long_file: Path, tmp_path: Path
) -> None:
    known = children()
    own_decoder.open(str(long_file))
    blocks = own_decoder.blocks()
    next(blocks)
    (child,) = set(children()) - set(known)
    child.kill()
    with pytest.raises(AudioError, match=r"long\.wav: the decoder crashed on it"):
        list(blocks)
    assert len(decode(own_decoder, long_file)) == 300 * RATE
    assert child not in children()


def test_close_leaves_no_child(own_decoder: Decoder, long_file: Path) -> None:
    known = children()
    own_decoder.open(str(long_file))
    next(own_decoder.blocks())
    assert len(children()) == len(known) + 1
    own_decoder.close()
    assert children() == known
    own_decoder.close()


@pytest.mark.parametrize("state", ["idle", "waiting", "writing"])
def test_child_ends_when_its_pipes_close(state: str, own_decoder: Decoder, long_file: Path) -> None:
    known = children()
    own_decoder.open(str(long_file))
    if state == "idle":
        own_decoder.skip()
    elif state == "writing":
        next(own_decoder.blocks())
    (child,) = set(children()) - set(known)
    process = own_decoder._child
    assert process
    assert process.stdin
    assert process.stdout
    process.stdin.close()  # as the kernel does when the parent dies
    process.stdout.close()
    assert child.wait(timeout=10) is not None
