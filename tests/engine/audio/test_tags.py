from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mutagen
import mutagen.id3
import pytest
from mutagen.easyid3 import EasyID3

from engine.audio.tags import read_tags
from engine.records import Tags
from tests.audio_files import Tune, Waveform

WriteAudio = Callable[[Path, Waveform, int], Path]
BrokenFile = Callable[[str], Path]

FULL = {"title": "Blå måndag", "artist": "Ünder 東京", "album": "No. 1", "isrc": "DEA123456789"}


@pytest.fixture
def music(tmp_path: Path, tune: Tune, write_audio: WriteAudio) -> Callable[[str], Path]:
    """Give music(suffix), a file without tags."""
    return lambda suffix: write_audio(tmp_path / f"music{suffix}", tune(1, 1.0, 44100), 44100)


@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".ogg"])
def test_read_tags_returns_the_tags_of_the_file(music: Callable[[str], Path], suffix: str) -> None:
    path = music(suffix)
    file = mutagen.File(path, easy=True)
    if file.tags is None:
        file.add_tags()
    for name, value in FULL.items():
        file[name] = value
    file.save()
    assert read_tags(path) == Tags(**FULL)


def test_read_tags_mp4_has_no_place_for_an_isrc(music: Callable[[str], Path]) -> None:
    path = music(".m4a")
    file = mutagen.File(path, easy=True)
    for name in ("title", "artist", "album"):
        file[name] = FULL[name]
    file.save()
    assert read_tags(path) == Tags(**(FULL | {"isrc": None}))


@pytest.mark.parametrize("suffix", [".wav", ".aiff"])
def test_read_tags_of_uncompressed_files(music: Callable[[str], Path], suffix: str) -> None:
    path = music(suffix)
    file = mutagen.File(path)
    file.add_tags()
    file.tags.add(mutagen.id3.TIT2(encoding=3, text=FULL["title"]))
    file.tags.add(mutagen.id3.TPE1(encoding=3, text=FULL["artist"]))
    file.save()
    assert read_tags(path) == Tags(title=FULL["title"], artist=FULL["artist"])


@pytest.mark.parametrize("suffix", [".mp3", ".flac", ".ogg", ".m4a", ".wav", ".mka", ".aac"])
def test_read_tags_without_tags_is_empty(music: Callable[[str], Path], suffix: str) -> None:
    assert read_tags(music(suffix)) == Tags()


def test_read_tags_first_of_several_artists_counts(music: Callable[[str], Path]) -> None:
    path = music(".flac")
    file = mutagen.File(path, easy=True)
    file["artist"] = ["One", "Two"]
    file.save()
    assert read_tags(path) == Tags(artist="One")


@pytest.mark.parametrize("value", ["", "   ", "\0"])
def test_read_tags_blank_value_is_none(music: Callable[[str], Path], value: str) -> None:
    path = music(".flac")
    file = mutagen.File(path, easy=True)
    file["title"] = value
    file.save()
    assert read_tags(path).title is None


def test_read_tags_value_loses_nulls_and_edges(music: Callable[[str], Path]) -> None:
    path = music(".flac")
    file = mutagen.File(path, easy=True)
    file["title"] = "  A\0B \n"
    file.save()
    assert read_tags(path).title == "AB"


@pytest.mark.parametrize(
    "name", ["missing", "empty", "garbage", "text", "folder", "truncated m4a", "truncated mp3"]
)
def test_read_tags_broken_file_is_empty(name: str, broken_file: BrokenFile) -> None:
    assert read_tags(broken_file(name)) == Tags()


def test_read_tags_damaged_label_is_no_error(music: Callable[[str], Path]) -> None:
    path = music(".mp3")
    tags = EasyID3()
    tags["title"] = "x" * 500
    tags.save(path)
    content = bytearray(path.read_bytes())
    for at in range(6, 60, 3):
        damaged = content.copy()
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        title = read_tags(path).title
        assert title is None or isinstance(title, str)
