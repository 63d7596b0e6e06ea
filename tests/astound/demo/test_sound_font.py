from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from astound.demo import sound_font
from astound.demo.instruments import DRUMS
from engine.audio import decode
from engine.errors import ConfigError

FONT = next(iter(sorted(Path("/usr/share/sounds/sf2").glob("*.sf2"))), Path("none.sf2"))
RATE = 8000


@pytest.fixture
def font() -> Path:
    pytest.importorskip("fluidsynth", exc_type=ImportError)
    if not FONT.exists():
        pytest.skip("needs a General MIDI sound font")
    return FONT


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_font, "TUNE_S", 5.0)


def test_tunes_are_audible_in_all_styles_and_decided_by_the_seed(
    font: Path, tmp_path: Path
) -> None:
    hours = 5.0 * len(sound_font.STYLES) / 3600
    paths = sound_font.write_tunes(tmp_path / "a", font, hours, RATE)
    assert [path.name.split("-")[0] for path in paths] == list(sound_font.STYLES)
    tunes = [decode.read(path, RATE) for path in paths]
    for tune in tunes:
        assert 5 * RATE < len(tune) < 11 * RATE
        assert np.abs(tune).max() == pytest.approx(0.9, abs=0.01)
    assert (
        max(abs(np.corrcoef(tunes[0][: 5 * RATE], one[: 5 * RATE])[0, 1]) for one in tunes[1:])
        < 0.5
    )
    last = paths[-1].read_bytes()
    paths[-1].unlink()
    sound_font.write_tunes(tmp_path / "a", font, hours, RATE)
    assert paths[-1].read_bytes() == last


def test_tunes_that_exist_are_kept(font: Path, tmp_path: Path) -> None:
    (first,) = sound_font.write_tunes(tmp_path, font, 5 / 3600, RATE)
    first.write_bytes(b"mine")
    sound_font.write_tunes(tmp_path, font, 10 / 3600, RATE)
    assert first.read_bytes() == b"mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_another_file_is_refused(font: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.sf2"
    other.write_bytes(b"RIFF no font")
    with pytest.raises(ConfigError, match="must be an SF2 or SF3 file"):
        sound_font.write_tunes(tmp_path / "tunes", other, 1.0, RATE)


def test_without_fluidsynth_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fluidsynth", None)
    with pytest.raises(ConfigError, match="needs pyfluidsynth and FluidSynth"):
        sound_font.write_tunes(tmp_path, tmp_path / "x.sf2", 1.0, RATE)


def test_each_note_begins_before_it_ends_and_parts_without_a_place_are_silent() -> None:
    places = {"lead": (0, None), **{drum: (9, 40) for drum in DRUMS}}
    events = sorted(sound_font._events(0, RATE, places))
    assert {event.channel for event in events} == {0, 9}
    sounding: dict[tuple[int, int], int] = {}
    for event in events:
        key = event.channel, event.key
        sounding[key] = sounding.get(key, 0) + (1 if event.velocity else -1)
        assert sounding[key] >= 0
        assert 0 <= event.velocity <= 127
    assert not any(sounding.values())
