from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mutagen
import mutagen.apev2
import mutagen.flac
import mutagen.id3
import numpy as np
import pytest

from engine.audio.content import read_duration, read_sound
from engine.audio.decode import blocks, read
from engine.audio.report import ReadReport
from engine.errors import AudioError
from tests.audio_files import BROKEN_FILES, CODECS, Waveform, cached_tune, cut, remux, write_audio

RATE = 44100
FRAMES = b"\xff\xfb\x90\x00" * 5000  # in a picture they look like MP3


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give music(suffix), a file of 3 s; not to be changed."""
    folder = tmp_path_factory.mktemp("music")

    def write(suffix: str) -> Path:
        path = folder / f"music{suffix}"
        return path if path.exists() else write_tune(path, 1)

    return write


def write_tune(path: Path, seed: int) -> Path:
    rate = 48000 if path.suffix in (".opus", ".webm") else RATE
    waveform: Waveform = cached_tune(seed, 3.0, rate)
    return write_audio(path, waveform, rate)


def audio_hash(path: Path) -> str | None:
    found = read_sound(path)
    return found[0] if found else None


# -- tags --------------------------------------------------------------------------------------


def add_id3(path: Path, version: int = 4, **options: Any) -> None:
    tags = mutagen.id3.ID3()
    tags.add(mutagen.id3.TIT2(3, ["Title"]))
    tags.add(mutagen.id3.APIC(3, "image/jpeg", 3, "", FRAMES))
    if version == 3:
        tags.update_to_v23()
    tags.save(path, v2_version=version, **options)


def add_ape(path: Path) -> None:
    tags = mutagen.apev2.APEv2()
    tags["Title"] = "Title"
    tags["Cover Art (Front)"] = mutagen.apev2.APEValue(FRAMES, mutagen.apev2.BINARY)
    tags.save(path)


def append(content: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_bytes(path.read_bytes() + content)

    return change


ID3V1 = b"TAG" + b"x" * 125
LYRICS = b"LYRICSBEGININD0000200ETT00010aaaaaaaaaa000039LYRICS200"


def all_of(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        for one in changes:
            one(path)

    return change


def add_easily(path: Path) -> None:
    file = mutagen.File(path, easy=True)
    if file.tags is None:
        file.add_tags()
    file["title"] = "Title" * 1000  # more than the room that encoders leave
    file.save()


def add_frame(path: Path) -> None:
    """Tag a WAV or AIFF file."""
    file = mutagen.File(path)
    file.add_tags()
    file.tags.add(mutagen.id3.TIT2(3, ["Title"]))
    file.save()


def add_picture(path: Path) -> None:
    file, picture = mutagen.flac.FLAC(path), mutagen.flac.Picture()
    picture.data, picture.mime = b"\xff\xf8" * 50000, "image/jpeg"
    file.add_picture(picture)
    file.save()


def add_info(path: Path) -> None:
    """Put the tags of RIFF before and after the samples."""
    content = path.read_bytes()
    chunk = b"LIST" + struct.pack("<I", 18) + b"INFOINAM" + struct.pack("<I", 6) + b"Title\0"
    content = content[:12] + chunk + content[12:] + chunk
    path.write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])


TAGGED = {
    "id3v2.4": (".mp3", add_id3),
    "id3v2.3": (".mp3", lambda path: add_id3(path, 3)),
    "id3v1": (".mp3", append(ID3V1)),
    "id3v1 and id3v2": (".mp3", lambda path: add_id3(path, v1=2)),
    "ape": (".mp3", add_ape),
    "ape and id3": (".mp3", all_of(add_ape, lambda path: add_id3(path, v1=2))),
    "lyrics": (".mp3", append(LYRICS + ID3V1)),
    "adts with id3": (".aac", lambda path: add_id3(path, v1=2)),
    "adts with ape": (".aac", all_of(add_ape, append(ID3V1))),
    "flac": (".flac", add_easily),
    "flac with picture": (".flac", add_picture),
    "flac with id3": (".flac", lambda path: add_id3(path, v1=2)),
    "vorbis": (".ogg", add_easily),
    "opus": (".opus", add_easily),
    "m4a": (".m4a", add_easily),
    "mp4": (".mp4", add_easily),
    "wma": (".wma", add_easily),
    "wav with id3": (".wav", add_frame),
    "wav with info": (".wav", add_info),
    "aiff": (".aiff", add_frame),
}


@pytest.mark.parametrize("name", TAGGED)
def test_hash_does_not_depend_on_tags(
    name: str, music: Callable[[str], Path], tmp_path: Path
) -> None:
    suffix, change = TAGGED[name]
    given = music(suffix)
    tagged = Path(shutil.copy(given, tmp_path))
    change(tagged)
    assert tagged.read_bytes() != given.read_bytes()
    assert audio_hash(tagged) == audio_hash(given)


@pytest.mark.parametrize("name", TAGGED)
def test_tags_are_not_taken_for_sound(
    name: str, music: Callable[[str], Path], tmp_path: Path
) -> None:
    suffix, change = TAGGED[name]
    tagged = Path(shutil.copy(music(suffix), tmp_path))
    change(tagged)
    report = ReadReport()
    samples = np.concatenate(list(blocks(tagged, RATE, report=report)))
    assert report.warnings == []
    assert np.array_equal(samples, read(music(suffix), RATE))


# -- containers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "other"),
    [
        (".mp3", ".mka"),
        (".mp3", ".mp4"),
        (".mp3", ".avi"),
        (".flac", ".oga"),
        (".flac", ".mka"),
        (".ogg", ".webm"),
        (".opus", ".webm"),
        (".m4a", ".mka"),
        (".m4a", ".aac"),
        (".m4a", ".ts"),
        (".aac", ".m4a"),
        (".mp4", ".m4a"),
        (".wma", ".mka"),
        (".wav", ".w64"),
        (".wav", ".mka"),
        (".aiff", ".caf"),
    ],
)
def test_hash_does_not_depend_on_the_container(
    suffix: str, other: str, music: Callable[[str], Path], tmp_path: Path
) -> None:
    copy = remux(music(suffix), tmp_path / f"copy{other}")
    assert audio_hash(copy) == audio_hash(music(suffix))


def test_hash_of_mp4_does_not_depend_on_where_its_contents_are(
    music: Callable[[str], Path], tmp_path: Path
) -> None:
    moved = remux(music(".m4a"), tmp_path / "moved.m4a", movflags="faststart")
    content = moved.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert audio_hash(moved) == audio_hash(music(".m4a"))


def test_chained_ogg_is_identified_by_all_its_parts(tmp_path: Path) -> None:
    first, second = write_tune(tmp_path / "1.ogg", 1), write_tune(tmp_path / "2.ogg", 2)
    tagged = Path(shutil.copy(second, tmp_path / "tagged.ogg"))
    add_easily(tagged)
    chains = [tmp_path / f"{i}.oga" for i in range(3)]
    for chain, parts in zip(chains, [(first, second), (first, tagged), (first,)], strict=True):
        chain.write_bytes(b"".join(part.read_bytes() for part in parts))
    hashes = [audio_hash(chain) for chain in chains]
    assert hashes[0] == hashes[1] != hashes[2] == audio_hash(first)


# -- what is another recording -------------------------------------------------------------------


@pytest.mark.parametrize("suffix", CODECS)
def test_other_sound_and_less_sound_have_another_hash(
    suffix: str, music: Callable[[str], Path], tmp_path: Path
) -> None:
    other = write_tune(tmp_path / f"other{suffix}", 2)
    shorter = cut(Path(shutil.copy(music(suffix), tmp_path)), 0.8)
    hashes = [audio_hash(path) for path in (music(suffix), other, shorter)]
    assert len(set(hashes)) == 3
    assert hashes[0]
    assert hashes[1]


def test_same_samples_at_another_rate_or_as_channels_are_other_sound(tmp_path: Path) -> None:
    waveform = cached_tune(1, 2.0)
    paths = [tmp_path / f"{name}.wav" for name in ("mono", "fast", "stereo")]
    write_audio(paths[0], waveform, 8000)
    write_audio(paths[1], waveform, 16000)
    write_audio(paths[2], waveform.reshape(-1, 2), 8000)
    assert len({audio_hash(path) for path in paths}) == 3


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_file_without_packets_has_no_hash(name: str, broken_file: Callable[[str], Path]) -> None:
    assert audio_hash(broken_file(name)) is None


@pytest.mark.parametrize(
    ("suffix", "codec", "is_lossless"),
    [
        (".wav", "pcm_s16le", True),
        (".flac", "flac", True),
        (".mp3", "mp3", False),
        (".m4a", "aac", False),
        (".opus", "opus", False),
    ],
)
def test_sound_is_described(
    suffix: str, codec: str, is_lossless: bool, music: Callable[[str], Path]
) -> None:
    found = read_sound(music(suffix))
    assert found
    rate = 48000 if suffix == ".opus" else RATE
    sound = found[1]
    assert (sound.codec, sound.is_lossless, sound.sample_rate) == (codec, is_lossless, rate)
    n_bytes = music(suffix).stat().st_size
    assert 0.8 * n_bytes < sound.n_bytes < n_bytes


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".m4a"])
def test_duration_is_that_of_the_headers(music: Callable[[str], Path], suffix: str) -> None:
    assert read_duration(music(suffix)) == pytest.approx(3.0, abs=0.05)


def test_duration_of_what_is_cut_off_is_unknown(
    music: Callable[[str], Path], tmp_path: Path
) -> None:
    content = music(".wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(content[: len(content) // 2])
    assert read_duration(tmp_path / "cut.wav") is None


def test_text_has_no_duration(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not audio")
    with pytest.raises(AudioError):
        read_duration(tmp_path / "notes.txt")
