from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError
from tests.audio_files import cached_tune
from tests.training.sounds import N_TRACKS, RATE
from training.augment.pool import AudioPool
from training.pieces import write_pieces
from training.sources import RECORDED, Sources


def unpacked(pieces: list[Path], out: Path) -> Sources:
    for piece in pieces:
        with tarfile.open(piece) as archive:
            archive.extractall(out, filter="data")
    return Sources(*(out / kind for kind in RECORDED))


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    n_samples = min(len(first), len(second))
    return float(np.corrcoef(first[:n_samples], second[:n_samples])[0, 1])


def test_pieces_contain_all_audio_in_its_order(sources: Sources, tmp_path: Path) -> None:
    pieces = write_pieces(sources, tmp_path / "pieces", RATE, max_bytes=50_000)
    assert [piece.name for piece in pieces] == [f"audio-{i:02}.tar" for i in range(len(pieces))]
    assert len(pieces) > 2
    assert all(piece.stat().st_size <= 50_000 for piece in pieces)
    folders = unpacked(pieces, tmp_path / "audio")
    music = AudioPool.from_folder(folders.music, tmp_path / "cache", RATE)
    assert len(music) == N_TRACKS
    for seed in range(N_TRACKS):
        assert len(music.recording(seed)) == pytest.approx(6 * RATE, abs=RATE // 50)
        assert correlation(music.recording(seed), cached_tune(seed, 6.0)) > 0.9


def test_pieces_keep_room_responses_exactly(sources: Sources, tmp_path: Path) -> None:
    folders = unpacked(write_pieces(sources, tmp_path / "pieces", RATE), tmp_path / "audio")
    before, after = (
        AudioPool.from_folder(one.rooms, tmp_path / "cache", RATE).recording(0)
        for one in (sources, folders)
    )
    np.testing.assert_allclose(after, before, atol=2 / 32768)


def test_pieces_contain_tunes_and_voices_where_there_are_any(
    sources: Sources, tmp_path: Path
) -> None:
    more = sources._replace(tunes=sources.noise, voices=sources.speech)
    unpacked(write_pieces(more, tmp_path / "pieces", RATE), tmp_path / "audio")
    names = {path.name for path in (tmp_path / "audio").iterdir()}
    assert names == {*RECORDED, "tunes", "voices"}


def test_file_that_cannot_be_decoded_is_left_out(sources: Sources, tmp_path: Path) -> None:
    music = tmp_path / "music"
    music.mkdir()
    (music / "0.wav").write_bytes(b"not audio")
    (music / "1.wav").write_bytes((sources.music / "1.wav").read_bytes())
    pieces = write_pieces(sources._replace(music=music), tmp_path / "pieces", RATE)
    folders = unpacked(pieces, tmp_path / "audio")
    assert [path.name for path in folders.music.iterdir()] == ["000001.ogg"]


def test_pieces_of_a_folder_without_audio_are_refused(sources: Sources, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="no audio files"):
        write_pieces(sources._replace(noise=empty), tmp_path / "pieces", RATE)
