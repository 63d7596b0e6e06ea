"""Estimates compared with values computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.reports import extrapolation
from benchmarks.reports.extrapolation import Extrapolation
from engine.errors import ConfigError

MILLION = 1_000_000


def listed(n_segments: int, search_ms: float, owned_bytes: int, open_s: float) -> dict[str, Any]:
    """Results of a catalog with lists; compaction takes 10 µs per segment."""
    return {
        "name": f"made-up-{n_segments}",
        "n_segments": n_segments,
        "n_shards": {"full": 1},
        "n_bytes": {
            "segments.faiss": 25 * n_segments,
            "segments.i8": 128 * n_segments,
            "clips.i8": 13 * n_segments,
        },
        "memory_bytes": {"asked": {"anonymous": owned_bytes}},
        "open_s": open_s,
        "compact": {"compact_s": 36.0 + n_segments / 100_000, "train_s": 36.0},
        "latency": {
            "clean": {"median_step_ms": {"encode": 20.0, "search": search_ms, "align": 30.0}}
        },
    }


def scale_results() -> dict[str, Any]:
    # A shard of 2^20 has 512 lists and probes 32, which contain 2^16 codes; one of 2^21 has 1024,
    # probes 64, and so compares twice as much. A search takes 10 ms, and 1 ms per 1000 of these.
    flat = {
        "name": "real", "n_segments": 100_000, "n_tracks": 400, "duration_s": 50_000.0,
        "n_shards": {"flat": 1}, "n_bytes": {"catalog.db": 200_000},
    }  # fmt: skip
    return {
        "empty": {"audio_s": 3600.0, "add_s": 12.0},
        "sizes": [
            flat,
            listed(2**20, 10.0 + (512 + 2**16) / 1000, 2**20 * 30 + 10**9, 0.5 + 2**20 / 10**7),
            listed(2**21, 10.0 + (1024 + 2**17) / 1000, 2**21 * 30 + 10**9, 0.5 + 2**21 / 10**7),
        ],
    }


def test_codes_are_lists_and_their_contents() -> None:
    assert extrapolation.codes(2**20) == 512 + 32 * 2048
    assert extrapolation.codes(2**21) == 1024 + 64 * 2048
    # 25 shards of four million: 1024 lists, 64 probed.
    assert extrapolation.codes(100 * MILLION) == 25 * (1024 + 64 * 4 * MILLION / 1024)
    assert extrapolation.WIDEST == 2**16 * 2048
    assert extrapolation.codes(extrapolation.WIDEST, extrapolation.WIDEST) == 2**16 + 64 * 2048


def test_estimate_equals_manual_computation() -> None:
    results = scale_results()
    one = Extrapolation(results).estimate(100 * MILLION)
    assert one.audio_h == pytest.approx(100 * MILLION / 2 / 3600)
    assert one.index_bytes == pytest.approx(2.5e9)
    assert one.vector_bytes == pytest.approx(12.8e9)
    assert one.clip_bytes == pytest.approx(1.3e9)
    assert one.database_bytes == pytest.approx(0.004 * 100 * MILLION * 500)
    assert one.memory_bytes == pytest.approx(4e9)
    assert one.machines == {64: 1, 256: 1}
    assert one.n_shards == 25
    assert one.query_ms == pytest.approx(50 + 10 + 25 * (1024 + 250_000) / 1000)
    assert one.wide_query_ms == pytest.approx(
        60 + extrapolation.codes(100 * MILLION, extrapolation.WIDEST) / 1000
    )
    assert one.machines_for_speed == 7  # 6,335.6 ms before the 60, within 940
    assert one.open_s == pytest.approx(10.5)
    assert one.add_h == pytest.approx(one.audio_h / 300)
    assert one.compact_h == pytest.approx((36 + 1000) / 3600)


def test_estimate_machines_by_memory() -> None:
    results = scale_results()
    # 48 of 64 GB are usable, 1 of them without segments: 47 / 30 · 10^9 segments each.
    one = Extrapolation(results).estimate(10_000 * MILLION)
    assert one.machines == {64: 7, 256: 2}


def test_limits_are_sorted_by_size() -> None:
    results = scale_results()
    limits = {limit.what: limit.n_segments for limit in Extrapolation(results).limits()}
    assert list(limits.values()) == sorted(limits.values())
    assert limits["memory of one machine with 64 GB"] == pytest.approx(47e9 / 30)
    assert limits["opening takes 10 s"] == pytest.approx(9.5e7)
    of_a_shard = 1024 + 250_000
    assert limits["a 5-s query takes 1 s on one machine"] == pytest.approx(
        940_000 / of_a_shard * 4 * MILLION
    )
    assert limits["track ids, 2,147,483,647"] == pytest.approx((2**31 - 1) / 0.004)
    assert limits["vector ids, 64 bits"] == pytest.approx(2**39 / 0.004)


def test_limits_of_constant_quantities_are_infinite() -> None:
    results = scale_results()
    results["sizes"][2] |= {key: results["sizes"][1][key] for key in ("open_s", "latency")}
    limits = {limit.what: limit.n_segments for limit in Extrapolation(results).limits()}
    assert limits["opening takes 10 s"] == float("inf")
    assert Extrapolation(results).estimate(100 * MILLION).machines_for_speed == 1


def test_one_catalog_with_lists_is_refused() -> None:
    results = scale_results()
    del results["sizes"][2]
    assert not extrapolation.is_possible(results)
    with pytest.raises(ConfigError, match="two catalogs with lists"):
        Extrapolation(results)
