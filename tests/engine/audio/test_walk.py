from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.audio.walk import EXTENSIONS, audio_files
from tests.audio_files import CODECS


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def found(folder: Path) -> list[str]:
    return [os.path.relpath(path, folder) for path in audio_files(folder)]


def test_extensions_hold_every_format_tested() -> None:
    assert {suffix.lstrip(".") for suffix in CODECS} <= EXTENSIONS


def test_audio_is_found_in_order(tmp_path: Path) -> None:
    for name in ("b.wav", "a.FLAC", "two/c.wav", "one/d.mkv", "e.txt", "f", ".wav", "g.wav/h"):
        touch(tmp_path / name)
    assert found(tmp_path) == ["a.FLAC", "b.wav", "one/d.mkv", "two/c.wav"]


@pytest.mark.parametrize(
    "name",
    [
        "._a.mp3",
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "__MACOSX/a.mp3",
        "sub/$RECYCLE.BIN/a.mp3",
        "@eaDir/a.mp3/SYNOAUDIO.mp3",
    ],
)
def test_what_systems_leave_in_folders_is_passed_over(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name)
    touch(tmp_path / ".hidden" / "b.mp3")
    assert found(tmp_path) == [".hidden/b.mp3"]
