"""What a match tells of tempo, pitch and other places where the same is heard."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import astound
from astound.catalog import Catalog
from astound.output import matches
from engine.config import IngestConfig
from engine.records import Match, QueryResult
from tests.audio_files import Waveform, cached_tune, write_wav

RATE = 8000
MATCH = Match(
    rank=1, track_id=12, path="/music/a.ogg", title="Rain", artist=None, query_start_s=0.0,
    query_end_s=5.0, reference_start_s=2.0, reference_end_s=7.0, offset_s=2.0, score=0.8,
    confidence=0.99, votes=20, coverage=1.0, speed=1.0, margin=0.5,
)  # fmt: skip


def tune(seed: int) -> Waveform:
    return cached_tune(seed, 8.0)


@pytest.fixture(scope="module")
def catalog(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """A track that plays a tune, another one, and the first again, from 16 s on; and others."""
    folder = tmp_path_factory.mktemp("music")
    write_wav(folder / "again.wav", np.concatenate([tune(0), tune(4), tune(0)]), RATE)
    for seed in (6, 3):
        write_wav(folder / f"{seed}.wav", tune(seed), RATE)
    with astound.open(folder / "catalog", model=tiny_model, device="cpu") as opened:
        opened.add(folder, config=IngestConfig(n_jobs=1))
        yield opened


@pytest.mark.parametrize("start_s", [0.0, 1.0])
def test_other_place_of_a_repeated_tune_is_told(catalog: Catalog, start_s: float) -> None:
    clip = tune(0)[2 * RATE : 7 * RATE]
    best = catalog.query(clip, RATE, start_s=start_s).best
    assert best
    assert len(best.also_at_s) == 1
    places_s = sorted((best.reference_start_s, *best.also_at_s))
    assert places_s == pytest.approx([2.0 + start_s, 18.0 + start_s], abs=0.1)


def test_tune_heard_once_has_no_other_place(catalog: Catalog) -> None:
    best = catalog.query(tune(4)[2 * RATE : 7 * RATE], RATE).best
    assert best
    assert best.offset_s == pytest.approx(10.0, abs=0.05)
    assert (best.also_at_s, best.tempo, best.pitch) == ((), 1.0, 0.0)


def shown(match: Match, form: str) -> str:
    out = io.StringIO()
    result = QueryResult(query="clip.wav", status="match", matches=(match,))
    matches.write_results([result], form, out)
    return out.getvalue()


def test_table_hints_at_what_is_unusual() -> None:
    assert "(" not in shown(MATCH, "table")
    assert "Rain (also at 1:02.50) " in shown(replace(MATCH, also_at_s=(62.5,)), "table")
    changed = replace(MATCH, speed=0.94, tempo=0.94, pitch=-1.0)
    assert "Rain (tempo 0.940; pitch -1.0) " in shown(changed, "table")
    many = replace(MATCH, also_at_s=(10.0, 20.0, 30.0, 40.0, 50.0))
    assert "(also at 0:10.00, 0:20.00, 0:30.00 and 2 more)" in shown(many, "table")


def test_json_and_csv_hold_tempo_pitch_and_places() -> None:
    match = replace(MATCH, tempo=0.94, pitch=-1.0, also_at_s=(62.5, 80.0))
    (row,) = json.loads(shown(match, "json"))[0]["matches"]
    assert (row["tempo"], row["pitch"], row["also_at_s"]) == (0.94, -1.0, [62.5, 80.0])
    (cells,) = csv.DictReader(io.StringIO(shown(match, "csv")))
    assert (cells["tempo"], cells["pitch"], cells["also_at_s"]) == ("0.94", "-1.0", "[62.5, 80.0]")
