from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from engine.audio import decode, ffmpeg
from engine.audio.report import ReadReport
from engine.audio.resample import resample
from engine.audio.tempo import change_tempo
from engine.errors import AudioError
from tests.audio_files import (
    BROKEN_FILES,
    CODECS,
    LOSSLESS,
    WARNED_FILES,
    Tune,
    Waveform,
    stereo,
    write_wav,
)

RATE = 8000
WriteAudio = Callable[[Path, Waveform, int], Path]
BrokenFile = Callable[[str], Path]


def native_rate(suffix: str) -> int:
    return 48000 if suffix in {".opus", ".webm"} else 44100


def delay_and_correlation(reference: Waveform, decoded: Waveform) -> tuple[float, float]:
    """Delay in s at which `decoded` fits `reference` best, and the correlation there."""
    n = min(len(reference), len(decoded))
    n_fft = 2 * n
    spectrum = np.fft.rfft(decoded[:n], n_fft) * np.fft.rfft(reference[:n], n_fft).conj()
    lag = int(np.argmax(np.fft.irfft(spectrum, n_fft)))
    lag -= n_fft if lag > n else 0
    first, second = reference[max(-lag, 0) : n - max(lag, 0)], decoded[max(lag, 0) :]
    return lag / RATE, float(np.corrcoef(first, second[: len(first)])[0, 1])


@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("suffix", CODECS)
def test_read_every_format_returns_the_music(
    suffix: str, n_channels: int, tmp_path: Path, tune: Tune, write_audio: WriteAudio
) -> None:
    rate = native_rate(suffix)
    music = tune(1, 4.0, rate)
    path = tmp_path / f"music{suffix}"
    write_audio(path, music if n_channels == 1 else stereo(music), rate)
    decoded = decode.read(path, RATE)
    assert decoded.dtype == np.float32
    assert decoded.ndim == 1
    assert len(decoded) / RATE == pytest.approx(4.0, abs=0.15)
    delay_s, correlation = delay_and_correlation(resample(music, rate, RATE), decoded)
    assert abs(delay_s) < 0.06
    assert correlation > 0.95
    assert np.std(decoded) == pytest.approx(np.std(music), rel=0.1)


@pytest.mark.parametrize("suffix", sorted(LOSSLESS))
def test_read_lossless_at_native_rate_is_exact(
    suffix: str, tmp_path: Path, tune: Tune, write_audio: WriteAudio
) -> None:
    music = tune(2, 2.0)
    decoded = decode.read(write_audio(tmp_path / f"music{suffix}", music, RATE), RATE)
    np.testing.assert_allclose(decoded, music, atol=1 / 32768)


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM", "GSM610"]
)
def test_read_wav_of_any_sample_format_is_the_same_music(
    subtype: str, tmp_path: Path, tune: Tune
) -> None:
    music = tune(2, 2.0)
    decoded = decode.read(write_wav(tmp_path / "music.wav", music, RATE, subtype), RATE)
    delay_s, correlation = delay_and_correlation(music, decoded)
    assert delay_s == 0
    assert correlation > 0.9


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".mka"])
def test_blocks_joined_are_what_read_returns(
    suffix: str,
    tmp_path: Path,
    tune: Tune,
    write_audio: WriteAudio,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_audio(tmp_path / f"music{suffix}", tune(3, 10.0, 22050), 22050)
    whole = decode.read(path, RATE)
    monkeypatch.setattr(ffmpeg, "BLOCK_S", 3.0)
    parts = list(decode.blocks(path, RATE))
    assert len(parts) >= 4
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


@pytest.mark.parametrize("suffix", [".flac", ".mka"])
@pytest.mark.parametrize(
    ("start_s", "end_s"), [(0.0, 2.5), (2.5, None), (1.25, 3.75), (5.5, 20.0), (6.0, None), (4, 2)]
)
def test_read_part_is_that_part_of_the_whole(
    suffix: str,
    start_s: float,
    end_s: float | None,
    tmp_path: Path,
    tune: Tune,
    write_audio: WriteAudio,
) -> None:
    path = write_audio(tmp_path / f"music{suffix}", tune(3, 6.0), RATE)
    whole = decode.read(path, RATE)
    part = decode.read(path, RATE, start_s, end_s)
    wanted = whole[int(start_s * RATE) : None if end_s is None else int(end_s * RATE)]
    np.testing.assert_array_equal(part, wanted)


def test_read_part_of_resampled_file_keeps_its_time(
    tmp_path: Path, tune: Tune, write_audio: WriteAudio
) -> None:
    path = write_audio(tmp_path / "music.mp3", tune(3, 10.0, 44100), 44100)
    whole, part = decode.read(path, RATE), decode.read(path, RATE, 4.0, 8.0)
    assert len(part) == 4 * RATE
    inner = slice(400, -400)  # the resampler sees silence beyond the part's ends
    np.testing.assert_allclose(part[inner], whole[4 * RATE : 8 * RATE][inner], atol=2e-3)


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_read_broken_file_says_which_and_why_in_one_line(
    name: str, broken_file: BrokenFile
) -> None:
    path = broken_file(name)
    with pytest.raises(AudioError) as caught:
        decode.read(path, RATE)
    message = str(caught.value)
    assert caught.value.source == path
    assert message.startswith(f"{path}: ")
    assert len(message) > len(f"{path}: ") + 8
    assert "\n" not in message


@pytest.mark.parametrize("name", [name for name in BROKEN_FILES if name.startswith("truncated")])
def test_read_file_without_its_table_of_contents_is_called_cut_off(
    name: str, broken_file: BrokenFile
) -> None:
    with pytest.raises(AudioError, match=r"cut off: .* without its table of contents"):
        decode.read(broken_file(name), RATE)


@pytest.mark.parametrize("name", WARNED_FILES)
def test_blocks_of_a_file_that_is_read_all_the_same_report_one_warning(
    name: str, broken_file: BrokenFile
) -> None:
    report = ReadReport()
    assert list(decode.blocks(broken_file(name), RATE, report=report))
    assert len(report.warnings) == 1
    assert "\n" not in report.warnings[0]


def test_read_path_with_zero_byte_is_an_audio_error() -> None:
    with pytest.raises(AudioError, match="null byte"):
        decode.read("music\0.wav", RATE)


def test_read_file_whose_name_is_not_utf8(broken_file: BrokenFile) -> None:
    assert len(decode.read(broken_file("undecodable name"), RATE)) == 2 * RATE


def test_error_about_file_whose_name_is_not_utf8_can_be_printed(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    path.write_bytes(b"")
    with pytest.raises(AudioError) as caught:
        decode.read(path, RATE)
    assert "caf\\udce9.wav: empty file" in str(caught.value)
    str(caught.value).encode("utf-8")


def test_read_silent_file_is_silence(broken_file: BrokenFile) -> None:
    silence = decode.read(broken_file("silent"), RATE)
    assert len(silence) == 5 * RATE
    assert not silence.any()


def test_read_short_file_is_short(broken_file: BrokenFile) -> None:
    assert len(decode.read(broken_file("short"), RATE)) == RATE // 5


def test_read_wav_of_unknown_length_reads_to_its_end(tmp_path: Path, tune: Tune) -> None:
    music = tune(2, 2.0)
    path = write_wav(tmp_path / "streamed.wav", music, RATE)
    for unknown in (b"\0\0\0\0", b"\xff\xff\xff\xff"):
        content = bytearray(path.read_bytes())
        content[4:8] = content[40:44] = unknown
        path.write_bytes(content)
        np.testing.assert_allclose(decode.read(path, RATE), music, atol=1 / 32768)


def test_read_flac_of_unknown_length_reads_to_its_end(
    tmp_path: Path, tune: Tune, write_audio: WriteAudio
) -> None:
    music = tune(2, 2.0)
    path = write_audio(tmp_path / "streamed.flac", music, RATE)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    np.testing.assert_allclose(decode.read(path, RATE), music, atol=1 / 32768)


def test_read_mp3_with_rubbish_inside_leaves_out_the_rubbish(
    tmp_path: Path, tune: Tune, write_audio: WriteAudio
) -> None:
    music = tune(1, 10.0, 44100)
    path = write_audio(tmp_path / "music.mp3", music, 44100)
    content, middle = path.read_bytes(), path.stat().st_size // 2
    rubbish = np.random.default_rng(1).bytes(1000)
    path.write_bytes(content[:middle] + rubbish + content[middle:] + bytes(5000))
    decoded = decode.read(path, RATE)
    assert len(decoded) / RATE == pytest.approx(10.0, abs=0.15)
    for part in (slice(0, 4 * RATE), slice(6 * RATE, None)):
        reference = resample(music, 44100, RATE)[part]
        assert delay_and_correlation(reference, decoded[part])[1] > 0.95


def test_read_mp3_that_changes_its_form_is_one_recording(
    tmp_path: Path, tune: Tune, write_audio: WriteAudio
) -> None:
    music = tune(1, 4.0, 44100)
    parts = [(music, 44100), (stereo(music), 44100), (tune(1, 4.0, 22050), 22050)]
    joined = b"".join(
        write_audio(tmp_path / f"{i}.mp3", part, rate).read_bytes()
        for i, (part, rate) in enumerate(parts)
    )
    (tmp_path / "joined.mp3").write_bytes(joined)
    decoded = decode.read(tmp_path / "joined.mp3", RATE)
    assert len(decoded) / RATE == pytest.approx(12.0, abs=0.3)
    reference = resample(music, 44100, RATE)
    for start_s in (0, 4, 8):
        part = decoded[start_s * RATE : (start_s + 4) * RATE]
        assert delay_and_correlation(reference, part)[1] > 0.9


@pytest.mark.parametrize("suffix", [".wav", ".mka"])
def test_blocks_of_long_file_need_little_memory(
    suffix: str, tmp_path: Path, tune: Tune, write_audio: WriteAudio
) -> None:
    minute = tune(4, 10.0, 22050)
    path = write_audio(tmp_path / f"long{suffix}", np.tile(minute, 120), 22050)
    script = f"""
import resource
from engine.audio import decode, ffmpeg
list(decode.blocks({str(path)!r}, 8000, end_s=1.0))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
n_samples = sum(len(block) for block in decode.blocks({str(path)!r}, 8000))
print(n_samples, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    n_samples, grown_kib = map(int, done.stdout.split())
    assert n_samples == 20 * 60 * RATE
    assert grown_kib * 1024 < 0.5 * path.stat().st_size


@pytest.mark.parametrize("n_samples", [0, 1, 7, 44100])
def test_resample_keeps_duration(n_samples: int) -> None:
    resampled = resample(np.zeros(n_samples, np.float32), 44100, RATE)
    assert resampled.dtype == np.float32
    assert len(resampled) == pytest.approx(n_samples * RATE / 44100, abs=1)


def test_resample_keeps_low_tones_and_drops_high_ones() -> None:
    t = np.arange(44100) / 44100
    for hz, level in ((440, np.sqrt(0.5)), (6000, 0.0)):
        tone = np.sin(2 * np.pi * hz * t).astype(np.float32)
        assert np.std(resample(tone, 44100, RATE)[400:-400]) == pytest.approx(level, abs=0.01)


def test_read_many_channels_is_their_mean(tmp_path: Path, tune: Tune) -> None:
    music = tune(5, 1.0)
    channels = np.stack([music, -music, music, music, 0 * music, music], axis=1)
    soundfile.write(tmp_path / "surround.wav", channels, RATE)
    np.testing.assert_allclose(decode.read(tmp_path / "surround.wav", RATE), music / 2, atol=1e-4)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2.0])
def test_changed_tempo_keeps_the_pitch(factor: float) -> None:
    rate, hz = 8000, 440.0
    tone = np.sin(2 * np.pi * hz * np.arange(4 * rate) / rate).astype(np.float32)
    changed = change_tempo(tone, rate, factor)
    assert changed.dtype == np.float32
    assert len(changed) / rate == pytest.approx(4 / factor, abs=0.1)
    middle = changed[len(changed) // 4 : -len(changed) // 4]
    loudest = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax()
    assert loudest * rate / len(middle) == pytest.approx(hz, abs=2.0)
