from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from engine.audio import decode, recording
from engine.audio.gain import quiet_gain
from engine.audio.recording import Recording, amplified
from engine.audio.report import ReadReport
from engine.audio.resample import resample, resampled
from engine.errors import AudioError
from tests.audio_files import (
    CUT_FILES,
    Sound,
    Tune,
    Waveform,
    cut,
    stereo,
    write_audio,
    write_streams,
    write_wav,
)

RATE = 8000
BrokenFile = Callable[[str], Path]


def read(path: Path, stream: int | None = None) -> tuple[Waveform, ReadReport]:
    """Decode a file; its samples and what is wrong with it."""
    report = ReadReport()
    with path.open("rb") as file:
        blocks = list(Recording(file, path, RATE, stream).blocks(report))
    return np.concatenate(blocks), report


def find(part: Waveform, samples: Waveform) -> float:
    """Where in `samples` a part lies best, in seconds."""
    n_fft = 1 << (len(samples) + len(part)).bit_length()
    spectrum = np.fft.rfft(samples, n_fft) * np.fft.rfft(part, n_fft).conj()
    return int(np.argmax(np.fft.irfft(spectrum, n_fft)[: len(samples)])) / RATE


# -- the clock of the container ----------------------------------------------------------------

CONTAINERS = [("mkv", "flac"), ("mp4", "aac"), ("ts", "mp2"), ("nut", "pcm_s16le")]


@pytest.mark.parametrize(("suffix", "codec"), CONTAINERS)
def test_sound_shorter_than_the_picture_is_complete(
    suffix: str, codec: str, tmp_path: Path, tune: Tune
) -> None:
    sound = Sound(tune(1, 4.0, 32000))
    path = write_streams(tmp_path / f"film.{suffix}", [sound], 32000, codec=codec, video_s=15.0)
    samples, report = read(path)
    assert len(samples) / RATE == pytest.approx(4.0, abs=0.1)
    assert report.warnings == []


@pytest.mark.parametrize(("suffix", "codec"), CONTAINERS)
def test_sound_that_begins_after_the_picture_has_silence_before_it(
    suffix: str, codec: str, tmp_path: Path, tune: Tune
) -> None:
    music = tune(1, 4.0, 32000)
    sound = Sound(music, start_s=2.5)
    path = write_streams(tmp_path / f"film.{suffix}", [sound], 32000, codec=codec, video_s=8.0)
    samples, report = read(path)
    part = resample(music[32000:96000], 32000, RATE)
    assert find(part, samples) == pytest.approx(3.5, abs=0.04)
    assert len(samples) / RATE == pytest.approx(6.5, abs=0.1)
    assert not samples[: 2 * RATE].any()
    assert report.warnings == []


@pytest.mark.parametrize("gap_s", [1.5, 20.0])
@pytest.mark.parametrize(("suffix", "codec"), CONTAINERS)
def test_gap_in_the_time_stamps_is_silence(
    suffix: str, codec: str, gap_s: float, tmp_path: Path, tune: Tune
) -> None:
    music = tune(1, 8.0, 32000)
    sound = Sound(music, gap_s=(4.0, gap_s))
    path = write_streams(tmp_path / f"film.{suffix}", [sound], 32000, codec=codec, video_s=10.0)
    samples, report = read(path)
    for start_s, expected_s in ((1.0, 1.0), (5.0, 5.0 + gap_s)):
        first = round(start_s * 32000)
        part = resample(music[first : first + 64000], 32000, RATE)
        assert find(part, samples) == pytest.approx(expected_s, abs=0.04)
    assert len(samples) / RATE == pytest.approx(8.0 + gap_s, abs=0.1)
    assert report.warnings == []


def test_part_of_a_recording_counts_on_the_clock(tmp_path: Path, tune: Tune) -> None:
    sound = Sound(tune(1, 4.0), start_s=2.5, gap_s=(2.048, 1.5))
    path = write_streams(tmp_path / "film.mkv", [sound], RATE, video_s=10.0)
    whole = decode.read(path, RATE)
    np.testing.assert_array_equal(decode.read(path, RATE, 3.0, 7.0), whole[3 * RATE : 7 * RATE])
    np.testing.assert_allclose(decode.read(path, RATE, 2.5, 3.5), tune(1, 4.0)[:RATE], atol=1e-4)
    part = tune(1, 4.0)[round(2.5 * RATE) : round(3.5 * RATE)]
    assert find(part, whole) == pytest.approx(2.5 + 2.5 + 1.5, abs=0.05)


def test_two_sounds_of_a_film_have_the_same_clock(tmp_path: Path, tune: Tune) -> None:
    sounds = [Sound(tune(1, 3.0)), Sound(tune(2, 2.0), start_s=1.0)]
    path = write_streams(tmp_path / "film.mka", sounds, RATE)
    np.testing.assert_allclose(read(path, 1)[0], tune(1, 3.0), atol=1e-4)
    np.testing.assert_allclose(read(path, 2)[0][RATE:], tune(2, 2.0), atol=1e-4)


# -- files that end early ----------------------------------------------------------------------


@pytest.mark.parametrize("name", CUT_FILES)
def test_cut_file_is_read_as_far_as_it_goes(name: str, broken_file: BrokenFile) -> None:
    path = broken_file(name)
    samples, report = read(path)
    assert 3.0 < len(samples) / RATE < 7.0
    (warning,) = report.warnings
    assert warning == report.cut_off
    assert warning.startswith("cut off: ")
    rate = 48000 if path.suffix in (".opus", ".webm") else 22050
    whole = resample(_tune(rate), rate, RATE)
    assert find(samples[RATE : 3 * RATE], whole) == pytest.approx(1.0, abs=0.11)


def _tune(rate: int) -> Waveform:
    from tests.audio_files import cached_tune

    return cached_tune(1, 10.0, rate)


@pytest.mark.parametrize("suffix", [".mp3", ".aac"])
def test_quiet_beginning_does_not_make_a_file_without_a_length_look_cut_off(
    suffix: str, tmp_path: Path, tune: Tune
) -> None:
    """FFmpeg estimates its length by the bit rate of its beginning."""
    music = np.concatenate([np.zeros(20 * 22050, np.float32), tune(1, 10.0, 22050)])
    path = tmp_path / f"quiet{suffix}"
    if suffix == ".mp3":
        with soundfile.SoundFile(
            path, "w", 22050, 1, format="MP3", bitrate_mode="VARIABLE"
        ) as file:
            file.write(music)
        content = path.read_bytes()
        path.write_bytes(content[content.index(content[:2], 100) :])  # without its first frame
    else:
        write_audio(path, music, 22050)
    samples, report = read(path)
    assert len(samples) / RATE == pytest.approx(30.0, abs=0.2)
    assert report.warnings == []


@pytest.mark.parametrize(
    "size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 20_000], ids=[*"0 ff 7f sox".split(), "small"]
)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
def test_wav_whose_sizes_are_wrong_is_read_to_its_end(
    subtype: str, size: int, tmp_path: Path, tune: Tune
) -> None:
    path = write_wav(tmp_path / "streamed.wav", tune(1, 10.0), RATE, subtype)
    expected, _ = read(path)
    content = bytearray(path.read_bytes())
    data = content.index(b"data")
    content[4:8] = content[data + 4 : data + 8] = size.to_bytes(4, "little")
    path.write_bytes(content)
    samples, report = read(path)
    np.testing.assert_array_equal(samples, expected)
    (warning,) = report.warnings
    assert "read to the end of the file" in warning
    assert report.cut_off is None


# -- several parts -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ogg", ".opus"])
def test_chained_ogg_whose_parts_differ_is_one_recording(
    suffix: str, tmp_path: Path, tune: Tune
) -> None:
    second_rate = 48000 if suffix == ".opus" else 32000
    first = tune(1, 4.0, 48000)
    second = tune(2, 3.0, second_rate)
    joined = write_audio(tmp_path / f"1{suffix}", first, 48000).read_bytes()
    joined += write_audio(tmp_path / f"2{suffix}", stereo(second), second_rate).read_bytes()
    (tmp_path / "chained").write_bytes(joined)
    samples, report = read(tmp_path / "chained")
    assert len(samples) / RATE == pytest.approx(7.0, abs=0.05)
    part = resample(second[second_rate : 2 * second_rate], second_rate, RATE)
    assert find(part, samples) == pytest.approx(5.0, abs=0.03)
    assert report.warnings == []


def test_chained_ogg_with_a_damaged_link_is_read_without_it(tmp_path: Path, tune: Tune) -> None:
    links = [
        write_audio(tmp_path / f"{seed}.ogg", tune(seed, 3.0, 48000), 48000).read_bytes()
        for seed in (1, 2, 3)
    ]
    links[1] = links[1][:58] + bytes(3000) + links[1][3058:]  # its headers
    (tmp_path / "chained.ogg").write_bytes(b"".join(links))
    samples, report = read(tmp_path / "chained.ogg")
    assert len(samples) / RATE >= 5.9
    assert report.warnings


def test_mp3_behind_rubbish_is_read_from_its_first_frame(
    tmp_path: Path, tune: Tune, rng: np.random.Generator
) -> None:
    path = write_audio(tmp_path / "tune.mp3", tune(1, 4.0, 44100), 44100)
    expected, _ = read(path)
    path.write_bytes(rng.bytes(50_000) + path.read_bytes())
    samples, report = read(path)
    np.testing.assert_array_equal(samples, expected)
    assert report.warnings == []


# -- samples -----------------------------------------------------------------------------------


def test_samples_that_are_no_numbers_become_zero_with_a_warning(tmp_path: Path, tune: Tune) -> None:
    music = stereo(tune(1, 3.0))
    music[1000, 0] = np.nan
    music[2000, 1] = np.inf
    samples, report = read(write_wav(tmp_path / "nan.wav", music, RATE, "FLOAT"))
    assert np.isfinite(samples).all()
    np.testing.assert_allclose(
        np.delete(samples, [1000, 2000]), np.delete(tune(1, 3.0), [1000, 2000]), atol=1e-6
    )
    assert samples[1000] == np.float32(music[1000, 1] / 2)
    assert report.warnings == ["samples that are not finite numbers were replaced by 0"]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".m4a", ".opus"])
def test_inverted_channel_does_not_silence_a_recording(
    suffix: str, tmp_path: Path, tune: Tune
) -> None:
    music = tune(1, 4.0, 48000)
    path = tmp_path / f"inverted{suffix}"
    write_audio(path, np.stack([music, -music], axis=1).astype(np.float32), 48000)
    samples, _ = read(path)
    whole = resample(music, 48000, RATE)
    assert np.std(samples) == pytest.approx(np.std(whole), rel=0.1)
    assert find(whole[RATE : 3 * RATE], samples) == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("n_channels", [2, 6])
def test_sound_in_one_channel_only_is_read(n_channels: int, tmp_path: Path, tune: Tune) -> None:
    channels = np.zeros((3 * RATE, n_channels), np.float32)
    channels[:, -1] = tune(1, 3.0)
    samples, _ = read(write_wav(tmp_path / "one.wav", channels, RATE, "FLOAT"))
    np.testing.assert_allclose(samples * n_channels, tune(1, 3.0), atol=1e-5)


@pytest.mark.parametrize("level_db", [-60, -80, -95, -110])
@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT"])
def test_very_quiet_recording_is_amplified_as_a_whole(
    subtype: str, level_db: int, tmp_path: Path, tune: Tune
) -> None:
    music = np.tile(tune(1, 10.0) / np.abs(tune(1, 10.0)).max(), 8)
    scaled = (music * 10 ** (level_db / 20)).astype(np.float32)
    path = write_wav(tmp_path / "quiet.wav", scaled, RATE, subtype)
    samples = decode.read(path, RATE)
    assert 0.12 < np.abs(samples).max() <= 0.26
    assert np.corrcoef(samples, music)[0, 1] > 0.98


def test_recording_that_is_quiet_for_a_minute_is_not_amplified(tmp_path: Path, tune: Tune) -> None:
    music = np.concatenate([np.tile(tune(1, 10.0), 7) * np.float32(1e-4), tune(1, 10.0)])
    path = write_wav(tmp_path / "fade.wav", music, RATE, "FLOAT")
    np.testing.assert_array_equal(decode.read(path, RATE), music)


@pytest.mark.parametrize(
    ("peak", "is_fine", "expected"),
    [
        (1.0, True, 1.0),
        (2.0**-7, True, 1.0),
        (2.0**-8, False, 2.0**6),
        (2.0**-12, False, 2.0**10),
        (2.0**-13, False, 1.0),  # a few steps of a 16-bit converter
        (2.0**-20, True, 2.0**18),
        (2.0**-21, True, 1.0),
        (0.0, True, 1.0),
        (0.6e-4, True, 2.0**12),
    ],
)
def test_quiet_gain_is_a_power_of_two_for_quiet_sound_only(
    peak: float, is_fine: bool, expected: float
) -> None:
    assert quiet_gain(peak, is_fine=is_fine) == expected


# -- streams and limits ------------------------------------------------------------------------


def test_silent_stream_warns_with_the_names_of_the_others(tmp_path: Path, tune: Tune) -> None:
    sounds = [
        Sound(np.zeros(3 * RATE, np.float32), language="eng"),
        Sound(tune(1, 3.0), language="ger"),
    ]
    path = write_streams(tmp_path / "film.mkv", sounds, RATE, video_s=3.0)
    samples, report = read(path)
    assert not samples.any()
    assert report.warnings == [
        "sound stream 1 (eng, flac) is silent; choose another one: 2 (ger, flac)"
    ]
    samples, report = read(path, 2)
    np.testing.assert_allclose(samples, tune(1, 3.0), atol=1e-4)
    assert report.warnings == []


def test_recording_beyond_the_limit_is_left_out(
    tmp_path: Path, tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MAX_DURATION_S", 100.0)
    path = write_wav(tmp_path / "long.wav", np.tile(tune(1, 10.0), 30), RATE)
    samples, report = read(path)
    assert 100 <= len(samples) / RATE <= 160
    assert report.warnings == ["only its first 0.0277778 hours were read"]


def test_damaged_packets_are_left_out_with_a_warning(
    tmp_path: Path, tune: Tune, rng: np.random.Generator
) -> None:
    path = write_audio(tmp_path / "tune.mp3", tune(1, 10.0, 44100), 44100)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + rng.bytes(3000) + content[middle + 3000 :])
    samples, report = read(path)
    assert len(samples) / RATE == pytest.approx(10.0, abs=0.5)
    assert report.cut_off is None
    assert all(one.startswith("damaged packets were left out: ") for one in report.warnings)


def test_file_without_any_sound_is_an_error(tmp_path: Path, tune: Tune) -> None:
    path = write_audio(tmp_path / "tune.mka", tune(1, 2.0), RATE)
    cut(path, 0.02)
    with pytest.raises(AudioError, match=r"cut off|no sound"):
        read(path)
    with pytest.raises(AudioError, match="empty file"):
        Recording(io.BytesIO(), "nothing", RATE)


def test_amplified_part_of_nothing_is_empty(tmp_path: Path, tune: Tune) -> None:
    path = write_wav(tmp_path / "tune.wav", tune(1, 2.0), RATE)
    with path.open("rb") as file:
        assert list(amplified(Recording(file, path, RATE), 5.0, None, ReadReport())) == []


@pytest.mark.parametrize("n_samples", [1, 999, 44100])
def test_resampled_blocks_are_the_whole_resampled(n_samples: int, rng: np.random.Generator) -> None:
    waveform = rng.uniform(-0.5, 0.5, 100_000).astype(np.float32)
    blocks = (waveform[i : i + n_samples * 100] for i in range(0, len(waveform), n_samples * 100))
    joined = np.concatenate(list(resampled(blocks, 44100, RATE)))
    np.testing.assert_allclose(joined, resample(waveform, 44100, RATE), atol=1e-6)
