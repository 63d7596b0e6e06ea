from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import astound
from benchmarks.queries.mix import Mix, Part
from benchmarks.suites.scan import ScanBenchmarkConfig, measure, run
from tests.benchmarks.conftest import N_LONG_TUNES


def _entry(track_id: int, start_s: float, end_s: float) -> dict[str, Any]:
    return {
        "track_id": track_id, "path": f"/m/{track_id}.wav", "reference_start_s": 0.0,
        "query_start_s": start_s, "query_end_s": end_s,
    }  # fmt: skip


def test_measure_counts_found_parts_boundaries_and_false_entries() -> None:
    def part(name: str, start_s: float, end_s: float, *, present: bool = True) -> Part:
        return Part(
            path=Path(name), present=present, start_s=start_s, end_s=end_s, fade_in_s=0.02,
            fade_out_s=6.0, reference_start_s=0.0, speed=1.0,
        )  # fmt: skip

    parts = (part("a", 0, 50), part("b", 44, 90), part("c", 100, 150), part("d", 200, 250))
    unknown = part("u", 300, 350, present=False)
    planned = Mix(parts=(*parts, unknown), talks=((90.0, 100.0),), duration_s=360.0)
    ids = {Path(name).resolve(): number for number, name in enumerate("abcd", 1)}
    planned = Mix(
        parts=tuple(Part(**(one.__dict__ | {"path": one.path.resolve()})) for one in planned.parts),
        talks=planned.talks,
        duration_s=planned.duration_s,
    )
    entries = [
        _entry(1, 0.5, 49.5),  # 2.5 s after the fade's middle, within it
        _entry(2, 44.0, 60.0), _entry(2, 62.0, 88.0),
        _entry(3, 110.0, 146.0),  # begins late
        _entry(1, 305.0, 320.0),  # false
    ]  # fmt: skip
    results = measure(planned, entries, ids)
    assert (results["found"]["n_yes"], results["found"]["n"]) == (3, 4)
    assert results["in_one_entry"]["n_yes"] == 2
    assert (results["boundaries"]["n_yes"], results["boundaries"]["n"]) == (4, 6)
    assert results["boundaries_of_fades"]["n_yes"] == 5
    assert results["n_false"] == 1
    assert results["parts"][0]["offset_error_s"] == pytest.approx(-0.5)


@pytest.mark.slow
def test_run_measures_a_mix(long_sounds: Path, tiny_weights: Path) -> None:
    with astound.open(long_sounds / "catalog", model=tiny_weights, device="cpu") as catalog:
        catalog.add([long_sounds / "music" / f"{seed}.wav" for seed in range(N_LONG_TUNES - 1)])
    config = ScanBenchmarkConfig(
        references=[long_sounds / "music"], speech=[long_sounds / "speech"],
        catalog=long_sounds / "catalog", out=long_sounds / "scan.json", minutes=4.0, n_tracks=3,
        device="cpu",
    )  # fmt: skip
    results = run(config)
    assert json.loads(config.out.read_text())["table"] == results["table"]
    assert (results["n_known"], results["n_unknown"]) == (3, 1)
    assert results["peak_rss_bytes"] > 2**20
