from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.errors import ConfigError
from tests.audio_files import cached_tune, write_wav
from tests.training.sounds import RATE, pool_of, tone
from training.augment.pool import AudioPool


def excerpt(pool: AudioPool, index: int, start: int, n_samples: int) -> Tensor:
    return pool.excerpts(np.array([index]), np.array([start]), n_samples)[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "audio" / "music"
    (path / "below").mkdir(parents=True)
    write_wav(path / "b.wav", cached_tune(2, 1.5), RATE, "FLOAT")
    write_wav(path / "a.wav", cached_tune(1, 1.0), RATE, "FLOAT")
    write_wav(path / "below" / "c.wav", cached_tune(3, 0.5), RATE, "FLOAT")
    (path / "notes.txt").write_text("no audio")
    (path / "._a.wav").write_bytes(b"metadata")
    return path


def test_pool_gives_what_was_written(folder: Path, tmp_path: Path) -> None:
    pool = AudioPool.from_folder(folder, tmp_path / "cache", RATE)
    assert len(pool) == 3
    for index, (seed, duration_s) in enumerate([(1, 1.0), (2, 1.5), (3, 0.5)]):
        recording = pool.recording(index)
        assert recording.dtype == np.float32
        np.testing.assert_allclose(recording, cached_tune(seed, duration_s), atol=1 / 16000)


def test_full_scale_does_not_wrap(folder: Path, tmp_path: Path) -> None:
    write_wav(folder / "a.wav", np.array([1.5, 1, -1, -1.5] * 500, np.float32), RATE, "FLOAT")
    recording = AudioPool.from_folder(folder, tmp_path / "cache", RATE).recording(0)
    np.testing.assert_allclose(recording, [1, 1, -1, -1] * 500, atol=1e-3)


def test_second_opening_reads_the_cache(folder: Path, tmp_path: Path) -> None:
    first = AudioPool.from_folder(folder, tmp_path / "cache", RATE)
    for path in folder.rglob("*.wav"):
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = AudioPool.from_folder(folder, tmp_path / "cache", RATE)
    np.testing.assert_array_equal(first.samples, second.samples)
    np.testing.assert_array_equal(first.starts, second.starts)


def test_new_file_is_decoded(folder: Path, tmp_path: Path) -> None:
    AudioPool.from_folder(folder, tmp_path / "cache", RATE)
    write_wav(folder / "aa.wav", cached_tune(4, 0.7), RATE, "FLOAT")
    pool = AudioPool.from_folder(folder, tmp_path / "cache", RATE)
    assert (pool.lengths / RATE).tolist() == [1.0, 0.7, 1.5, 0.5]


def test_other_rate_has_its_own_cache(folder: Path, tmp_path: Path) -> None:
    pools = [AudioPool.from_folder(folder, tmp_path / "cache", rate) for rate in (RATE, 4000)]
    assert [pool.lengths.sum() for pool in pools] == [3.0 * RATE, 3.0 * 4000]


def test_opened_by_several_at_once_is_decoded_once(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "aa.wav").write_bytes(b"not audio")  # gives a line each time it is decoded
    pools: list[AudioPool] = []
    others = [
        threading.Thread(
            target=lambda: pools.append(AudioPool.from_folder(folder, tmp_path / "cache", RATE))
        )
        for _ in range(4)
    ]
    for one in others:
        one.start()
    for one in others:
        one.join()
    assert [pool.lengths.tolist() for pool in pools] == [[8000, 0, 12000, 4000]] * 4
    assert caplog.text.count("aa.wav") == 1


def test_undecodable_file_is_left_empty(folder: Path, tmp_path: Path) -> None:
    (folder / "aa.wav").write_bytes(b"not audio")
    pool = AudioPool.from_folder(folder, tmp_path / "cache", RATE)
    assert pool.lengths.tolist() == [8000, 0, 12000, 4000]
    assert pool.draw(np.random.default_rng(0), 50, 100).shape == (50, 100)


def test_folder_without_audio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no audio files"):
        AudioPool.from_folder(tmp_path, tmp_path / "cache", RATE)


def test_folder_of_nothing_decodable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"not audio")
    for _ in range(2):  # the second time from the cache
        with pytest.raises(ConfigError, match="no audio that can be decoded"):
            AudioPool.from_folder(tmp_path, tmp_path / "cache", RATE)


def test_excerpt_beyond_an_end_begins_again() -> None:
    pool = pool_of(tone(50.0, 0.5), np.arange(10) / 100)
    got = excerpt(pool, 1, -3, 25) * 100
    np.testing.assert_allclose(got, np.arange(-3, 22) % 10, atol=0.01)
    np.testing.assert_allclose(excerpt(pool, 1, 2, 5) * 100, np.arange(2, 7), atol=0.01)


def test_excerpts_cut_at_once_are_those_cut_one_by_one() -> None:
    """A GPU cuts them at once."""
    pool = pool_of(tone(50.0, 0.5), tone(60.0, 0.02), tone(70.0, 0.3))
    recordings, starts = np.array([2, 0, 1, 0]), np.array([2390, 7, -5, 4000 - 200])
    one_by_one, at_once = (cut(recordings, starts, 200) for cut in (pool._slice, pool._gather))
    assert one_by_one.any()
    assert torch.equal(at_once, one_by_one)


def test_draw_takes_long_recordings_more_often() -> None:
    pool = pool_of(np.full(9000, 0.5), np.full(1000, -0.5))
    drawn = pool.draw(np.random.default_rng(0), 1000, 10)[:, 0]
    assert float((drawn > 0).float().mean()) == pytest.approx(0.9, abs=0.03)


def test_subset_draws_from_its_recordings_only() -> None:
    pool = pool_of(*(np.full(1000, level / 10) for level in range(6)))
    drawn = pool.subset([2, 4]).draw(np.random.default_rng(0), 100, 10)[:, 0]
    assert {round(float(one), 1) for one in drawn} == {0.2, 0.4}


def test_truncated_pool_is_shorter_and_the_original_unchanged() -> None:
    pool = pool_of(np.arange(10) / 100, np.arange(30) / 100)
    short = pool.truncate(20)
    assert short.lengths.tolist() == [10, 20]
    assert pool.lengths.tolist() == [10, 30]
    np.testing.assert_allclose(excerpt(short, 1, 18, 4) * 100, [18, 19, 0, 1], atol=0.01)


def test_concatenated_pools_keep_their_recordings() -> None:
    one, other = pool_of(tone(50.0, 0.5), tone(60.0, 0.2)), pool_of(tone(70.0, 0.3))
    both = one.concatenate(other)
    assert both.lengths.tolist() == [4000, 1600, 2400]
    for index, original in enumerate([one.recording(0), one.recording(1), other.recording(0)]):
        np.testing.assert_array_equal(both.recording(index), original)


def test_pool_of_waveforms_in_memory() -> None:
    pool = AudioPool.from_waveforms([tone(50.0, 0.5), tone(60.0, 0.2)])
    np.testing.assert_allclose(pool.recording(1), tone(60.0, 0.2), atol=1e-4)
