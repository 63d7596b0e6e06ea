from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

import astound
from astound.catalog import Catalog
from engine.audio.resample import change_speed
from engine.config import IngestConfig, ScanConfig
from engine.errors import AudioError, AudioTooShortError
from engine.records import Entry, Timeline
from engine.scan.scanner import Scanner
from tests.audio_files import Waveform, cached_tune, write_wav

RATE = 8000
SEEDS = (0, 4, 6)
TUNE_S = 32.0
NEAR_S = 2.0
CONFIG = ScanConfig()

Run = Callable[..., Result]


def part(number: int, start_s: float = 0.0, end_s: float = TUNE_S) -> Waveform:
    return cached_tune(SEEDS[number], TUNE_S)[round(start_s * RATE) : round(end_s * RATE)]


def noise(duration_s: float, seed: int = 0) -> Waveform:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, round(duration_s * RATE)).astype(np.float32)


# 10 s of noise, tune 0 from its second 5 on for 20 s, tune 1 from its beginning for 20 s, noise
MIX = np.concatenate([noise(10), part(0, 5, 25), part(1, 0, 20), noise(10, seed=1)])
MIX_S = 60.0


@pytest.fixture(scope="module")
def filled_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the shipped encoder: random weights confuse tunes and speeds."""
    folder = tmp_path_factory.mktemp("filled_catalog")
    (folder / "music").mkdir()
    for number in range(len(SEEDS)):
        write_wav(folder / "music" / f"{number}.wav", part(number), RATE)
    write_wav(folder / "mix.wav", MIX, RATE)
    with astound.open(folder / "catalog", device="cpu") as catalog:
        catalog.add(folder / "music", config=IngestConfig(n_jobs=1))
    return folder


@pytest.fixture(scope="module")
def catalog(filled_catalog: Path) -> Iterator[Catalog]:
    with astound.open(filled_catalog / "catalog", device="cpu") as catalog:
        yield catalog


@pytest.fixture(scope="module")
def positions_s() -> list[float]:
    """Seconds of the recording at each call of progress while the timeline is made."""
    return []


@pytest.fixture(scope="module")
def timeline(filled_catalog: Path, catalog: Catalog, positions_s: list[float]) -> Timeline:
    return catalog.scan(filled_catalog / "mix.wav", config=CONFIG, on_progress=positions_s.append)


def spans(entries: Iterable[Entry]) -> list[tuple[str, float, float]]:
    return [(Path(one.path).stem, one.query_start_s, one.query_end_s) for one in entries]


def check(
    entries: Iterable[Entry], expected: list[tuple[str, float, float]], within_s: float = NEAR_S
) -> None:
    found = spans(entries)
    assert [name for name, _, _ in found] == [name for name, _, _ in expected]
    times_s = [time_s for _, *span_s in expected for time_s in span_s]
    assert [t for _, *span_s in found for t in span_s] == pytest.approx(times_s, abs=within_s)


def test_mix_is_taken_apart(timeline: Timeline, filled_catalog: Path) -> None:
    assert timeline.recording == os.fspath(filled_catalog / "mix.wav")
    assert timeline.duration_s == MIX_S
    check(timeline.entries, [("0", 10.0, 30.0), ("1", 30.0, 50.0)])
    first = timeline.entries[0]
    assert first.offset_s == pytest.approx(-5.0, abs=0.3)
    assert first.reference_start_s == pytest.approx(first.query_start_s - 5.0, abs=0.3)
    assert first.speed == pytest.approx(1.0, abs=0.01)
    assert [round(gap.end_s - gap.start_s) for gap in timeline.gaps] == [
        pytest.approx(10, abs=NEAR_S), pytest.approx(10, abs=NEAR_S)
    ]  # fmt: skip


def test_progress_is_the_position(timeline: Timeline, positions_s: list[float]) -> None:
    assert positions_s == sorted(positions_s)
    assert positions_s[-1] == timeline.duration_s


def test_entries_are_shown_before_a_clip_is_complete(
    catalog: Catalog, filled_catalog: Path, timeline: Timeline
) -> None:
    shown: list[tuple[float, list[Entry]]] = []
    position_s = 0.0

    def move(scanned_s: float) -> None:
        nonlocal position_s
        position_s = scanned_s

    found = catalog.scan(
        filled_catalog / "mix.wav",
        config=CONFIG,
        on_preview=lambda entries: shown.append((position_s, entries)),
        on_progress=move,
    )
    assert found == timeline
    (first_s, first), (_, second) = shown
    assert first_s <= 30
    check(first, [("0", 10, 24)])
    check(second, [("0", 10, 30), ("1", 30, 48)])


def test_preview_leaves_out_what_is_settled(catalog: Catalog) -> None:
    shown: list[list[Entry]] = []
    recording = np.concatenate([MIX, noise(115, seed=2)])
    timeline = catalog.scan(recording, RATE, config=CONFIG, on_preview=shown.append)
    assert [len(entries) for entries in shown] == [1, 2, 2, 2, 2, 2, 0]
    assert len(timeline.entries) == 2


def test_part_has_the_times_of_the_whole(catalog: Catalog, filled_catalog: Path) -> None:
    found = catalog.scan(filled_catalog / "mix.wav", start_s=18.0, end_s=42.0, config=CONFIG)
    assert (found.start_s, found.duration_s) == (18.0, 24.0)
    check(found.entries, [("0", 18.0, 30.0), ("1", 30.0, 42.0)])
    assert found.entries[0].offset_s == pytest.approx(-5.0, abs=0.3)


def test_faster_mix_is_found_at_other_speeds(catalog: Catalog) -> None:
    speed = 2 ** (1 / 12)
    faster = change_speed(MIX, RATE, speed)
    found = catalog.scan(faster, RATE, config=CONFIG, min_confidence=0.8)
    assert {Path(one.path).stem for one in found.entries} == {"0", "1"}
    for one in found.entries:
        assert one.speed == pytest.approx(speed, abs=0.02)


@pytest.mark.parametrize("n_samples", [997, 10**7])
def test_size_of_blocks_changes_nothing(
    catalog: Catalog, timeline: Timeline, n_samples: int
) -> None:
    blocks = (MIX[i : i + n_samples] for i in range(0, len(MIX), n_samples))
    found = sorted(catalog.follow(blocks, config=CONFIG), key=lambda one: one.query_start_s)
    check(found, spans(timeline.entries), within_s=0.3)


def test_entry_is_told_before_the_end_is_known(catalog: Catalog) -> None:
    n_given = 0

    def endless() -> Iterator[Waveform]:
        nonlocal n_given
        yield MIX
        while True:
            n_given += 1
            yield noise(8, seed=n_given)

    first = next(catalog.follow(endless(), config=CONFIG))
    assert Path(first.path).stem == "0"
    assert n_given < 10


@pytest.mark.slow
def test_what_is_held_does_not_grow(catalog: Catalog) -> None:
    searcher = catalog.searcher(CONFIG.search, CONFIG.alignment)
    scanner = Scanner(searcher, CONFIG.max_gap_s, 0.8)
    held, n_found = [], 0
    for _ in scanner.scan(searcher.clips((MIX for _ in range(12)), "array")):
        n_found += 1
        held.append(scanner.timeline.n_held)
    assert n_found >= 12
    half = len(held) // 2
    assert max(held[half:]) <= max(held[:half]) + 2


@pytest.mark.parametrize("duration_s", [3.0, 12.0])
def test_short_and_silent_recordings_have_empty_timelines(
    catalog: Catalog, duration_s: float
) -> None:
    silence = np.zeros(round(duration_s * RATE), np.float32)
    for waveform in (silence, noise(duration_s)):
        found = catalog.scan(waveform, RATE)
        assert found.entries == ()
        assert found.duration_s == duration_s


def test_too_short_and_missing_recordings_are_errors(catalog: Catalog) -> None:
    with pytest.raises(AudioTooShortError):
        catalog.scan(noise(0.3), RATE)
    with pytest.raises(AudioError):
        catalog.scan("missing.wav")
