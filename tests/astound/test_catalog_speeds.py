from __future__ import annotations

from collections.abc import Iterator

import pytest

import astound
from astound.catalog import Catalog
from engine.audio.resample import change_speed
from engine.config import IngestConfig, SearchConfig
from engine.search import speeds
from tests.audio_files import Waveform, cached_tune, write_wav

RATE = 8000
SEEDS = (0, 4, 6)
SPEED = 2 ** (1 / 12)
AS_IT_IS = SearchConfig(speeds=())


def part(start_s: float = 2.0, end_s: float = 7.5) -> Waveform:
    return cached_tune(SEEDS[0], 8.0)[round(start_s * RATE) : round(end_s * RATE)]


@pytest.fixture(scope="module")
def filled_catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """With the shipped encoder: random weights confuse tunes and speeds."""
    folder = tmp_path_factory.mktemp("music")
    for number, seed in enumerate(SEEDS):
        write_wav(folder / f"{number}.wav", cached_tune(seed, 8.0), RATE)
    with astound.open(folder / "catalog", device="cpu") as catalog:
        catalog.add(folder, config=IngestConfig(n_jobs=1))
        yield catalog


def test_faster_clip_is_found_where_it_is(filled_catalog: Catalog) -> None:
    clip = change_speed(part(), RATE, SPEED)
    best = filled_catalog.query(clip, RATE, min_confidence=0.0).best
    assert best
    assert best.path.endswith("0.wav")
    assert best.speed == pytest.approx(SPEED, rel=0.01)
    assert best.offset_s == pytest.approx(2.0, abs=0.1)
    assert best.reference_start_s == pytest.approx(2.0, abs=0.4)
    assert best.reference_end_s == pytest.approx(7.5, abs=0.4)


def test_other_speeds_can_be_left_out(filled_catalog: Catalog) -> None:
    clip = change_speed(part(), RATE, 2 ** (3 / 12))
    plain = filled_catalog.query(clip, RATE, min_confidence=0.0, search=AS_IT_IS).best
    widened = filled_catalog.query(clip, RATE, min_confidence=0.0).best
    assert plain
    assert widened
    assert plain.confidence < widened.confidence


def test_offset_of_a_part_is_where_the_whole_clip_begins(filled_catalog: Catalog) -> None:
    clip = change_speed(part(1.0, 8.0), RATE, SPEED)
    start_s = 3.0 / SPEED  # where a segment of the catalog lies
    best = filled_catalog.query(clip, RATE, start_s=start_s, min_confidence=0.0).best
    assert best
    assert best.offset_s == pytest.approx(1.0, abs=0.1)
    assert best.query_start_s >= round(start_s, 3)
    assert best.reference_start_s == pytest.approx(1.0 + best.query_start_s * SPEED, abs=0.1)


def test_sure_clip_is_not_played_at_other_speeds(
    filled_catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Waveform:
        raise AssertionError("played at another speed")

    monkeypatch.setattr(speeds, "change_speed", refuse)
    result = filled_catalog.query(part(), RATE)
    assert result.status == "match"
    assert result.best
    assert result.best.speed == 1.0
