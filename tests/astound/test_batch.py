from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import astound
from astound.batch import identify, identify_all, timeline
from astound.catalog import Catalog
from engine.errors import AudioError, ShardError
from engine.records import Entry, Timeline
from tests.audio_files import cached_tune, write_wav

RATE = 8000
ENTRY = Entry(
    track_id=1, path="/music/a.ogg", title=None, artist=None, query_start_s=0.0, query_end_s=9.0,
    reference_start_s=0.0, reference_end_s=9.0, offset_s=0.0, score=0.9, confidence=1.0, speed=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Catalog]:
    folder = tmp_path_factory.mktemp("music")
    write_wav(folder / "0.wav", cached_tune(0, 8.0), RATE)
    with astound.open(folder / "catalog", model=tiny_model, device="cpu") as catalog:
        catalog.add(folder)
        yield catalog


@pytest.mark.parametrize("n_jobs", [1, 3, 20])
def test_identify_all_keeps_the_order_of_its_paths(
    catalog: Catalog, tmp_path: Path, n_jobs: int
) -> None:
    paths = [str(tmp_path / f"{n}.wav") for n in range(7)]
    for n, path in enumerate(paths):
        write_wav(Path(path), cached_tune(n % 2, 1.0 + 6.0 * (n % 3 == 0)), RATE)
    paths.insert(2, str(tmp_path / "missing.wav"))
    found = list(identify_all(catalog, iter(paths), n_jobs, max_matches=1))
    assert [one.query for one in found] == paths
    expected = [identify(catalog, path, max_matches=1) for path in paths]
    assert [replace(one, timings_ms={}) for one in found] == [
        replace(one, timings_ms={}) for one in expected
    ]


def test_identify_all_queries_little_more_than_what_is_read(
    catalog: Catalog, tmp_path: Path
) -> None:
    read: list[str] = []

    def paths() -> Iterator[str]:
        for n in range(100):
            read.append(str(tmp_path / f"missing{n}.wav"))
            yield read[-1]

    next(identify_all(catalog, paths(), 2))
    assert len(read) == 3


def test_identify_turns_a_bad_file_into_a_result(catalog: Catalog, tmp_path: Path) -> None:
    result = identify(catalog, str(tmp_path / "missing.wav"))
    assert (result.status, result.matches) == ("error", ())
    assert result.error
    assert result.error["code"] == "unreadable_audio"
    assert "No such file" in result.error["message"]
    assert result.duration_s is None


def test_identify_states_the_duration_of_a_clip_that_is_too_short(
    catalog: Catalog, tmp_path: Path
) -> None:
    write_wav(tmp_path / "short.wav", cached_tune(0, 8.0)[:800], RATE)
    result = identify(catalog, str(tmp_path / "short.wav"))
    assert (result.status, result.duration_s) == ("error", 0.1)
    assert timeline(catalog, str(tmp_path / "short.wav")).duration_s == 0.1


def test_identify_passes_options_on(catalog: Catalog, tmp_path: Path) -> None:
    write_wav(tmp_path / "clip.wav", cached_tune(0, 8.0)[2 * RATE : 5 * RATE], RATE)
    result = identify(catalog, str(tmp_path / "clip.wav"), start_s=0.5, max_matches=1)
    assert (result.status, result.duration_s) == ("match", 2.5)


class Scanning:
    """A catalog whose scan finds one entry and then raises an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def scan(self, path: str, *, on_entry: Callable[[Entry], None], **_: Any) -> Timeline:
        on_entry(ENTRY)
        raise self.error


def test_timeline_keeps_entries_before_an_error() -> None:
    streamed: list[Entry] = []
    catalog: Any = Scanning(AudioError("a.wav", "it is broken"))
    result = timeline(catalog, "a.wav", on_entry=streamed.append)
    assert result.entries == tuple(streamed) == (ENTRY,)
    assert (result.duration_s, result.gaps) == (None, ())
    assert result.error == {"code": "unreadable_audio", "message": "a.wav: it is broken"}


def test_errors_of_the_catalog_are_raised() -> None:
    catalog: Any = Scanning(ShardError("shard", "it is broken"))
    with pytest.raises(ShardError):
        timeline(catalog, "a.wav")
