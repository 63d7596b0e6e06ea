from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.encoder import EncoderConfig, Recordings, embedded, run
from engine.encoder import load_encoder
from engine.errors import ConfigError
from engine.fingerprint import Fingerprinter


def _recordings(lengths: tuple[int, ...], dim: int = 16) -> Recordings:
    drawn = np.random.default_rng(7).standard_normal((sum(lengths), dim)).astype(np.float32)
    unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return Recordings(unit, np.repeat(np.arange(len(lengths)), lengths))


def test_best_is_what_trying_every_place_finds() -> None:
    recordings = _recordings((9, 4, 12))
    rng = np.random.default_rng(8)
    for n_segments in (1, 2, 5, 8):
        query = rng.standard_normal((n_segments, 16)).astype(np.float32)
        tried = {}
        for phase in range(min(2, n_segments)):
            own = query[phase::2]
            for place in range(len(recordings.owners) - len(own) + 1):
                there = slice(place, place + len(own))
                if len(set(recordings.owners[there])) == 1:
                    tried[phase, place] = float((own * recordings.embeddings[there]).sum(1).mean())
        _, place = max(tried, key=lambda one: tried[one])
        assert recordings.best(query, 2) == recordings.owners[place]


def test_any_phase_of_a_query_may_fall_on_stored_segments() -> None:
    recordings = _recordings((9, 4, 12))
    for phase in range(4):
        query = np.tile(recordings.embeddings[:1], (12, 1))
        query[phase::4] = recordings.embeddings[14:17]
        assert recordings.best(query, 4) == 2


def test_query_is_never_laid_across_two_recordings() -> None:
    recordings = _recordings((6, 6))
    assert recordings.best(recordings.embeddings[6:9], 1) == 1
    across = recordings.embeddings[4:8].copy()
    scores = recordings._scores(across)
    assert scores[4] == -np.inf
    assert np.isfinite(scores[[0, 2, 6, 8]]).all()
    assert not np.isfinite(scores[9:]).any()


def test_every_cell_is_asked_and_written(sounds: Path, tiny_model: Path) -> None:
    config = EncoderConfig(
        references=[sounds / "music"], distractors=[sounds / "absent"], noise=sounds / "noise",
        rooms=sounds / "rooms", out=sounds / "encoder.json", distortions="clean,noise0",
        durations_s=(1.0, 2.0), n_queries=3, model=tiny_model, device="cpu",
    )  # fmt: skip
    results = run(config)
    rates = {(one["label"], one["duration_s"]): one["hit_rate"] for one in results["cells"]}
    assert list(rates) == [("clean", 1.0), ("clean", 2.0), ("noise0", 1.0), ("noise0", 2.0)]
    assert all(rate["n"] == 3 for rate in rates.values())
    assert rates["clean", 2.0]["value"] == 1.0
    assert json.loads(config.out.read_text())["table"] == results["table"]
    assert results["table"].startswith("| right track, % | 1 s | 2 s |")


def test_what_cannot_be_decoded_is_left_out(tmp_path: Path, tiny_model: Path) -> None:
    fingerprinter = Fingerprinter(load_encoder(tiny_model, "cpu"))
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    with pytest.raises(ConfigError, match="nothing in them"):
        embedded([broken], fingerprinter)


def test_asking_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n_queries"):
        EncoderConfig(references=[], noise=tmp_path, rooms=tmp_path, out=tmp_path, n_queries=0)
