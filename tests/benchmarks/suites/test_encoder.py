from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.suites.encoder import EncoderConfig, embed, run
from engine.errors import ConfigError
from engine.model.fingerprinter import Fingerprinter
from tests.benchmarks.markdown import rows


def test_run_measures_every_cell(sounds: Path, tiny_model: Path) -> None:
    config = EncoderConfig(
        references=[sounds / "music"], distractors=[sounds / "absent"], noise=sounds / "noise",
        rooms=sounds / "rooms", out=sounds / "encoder.json", distortions="clean,noise0",
        durations_s=(1.0, 2.0), n_queries=3, model=tiny_model, device="cpu",
    )  # fmt: skip
    results = run(config)
    rates = {(cell["label"], cell["duration_s"]): cell["hit_rate"] for cell in results["cells"]}
    assert list(rates) == [("clean", 1.0), ("clean", 2.0), ("noise0", 1.0), ("noise0", 2.0)]
    assert all(rate["n"] == 3 for rate in rates.values())
    assert rates["clean", 2.0]["value"] == 1.0
    assert json.loads(config.out.read_text())["table"] == results["table"]
    assert rows(results["table"])[0] == ["right track, %", "1 s", "2 s"]


def test_file_in_both_folders_counts_as_a_reference(
    sounds: Path, tiny_model: Path, tmp_path: Path
) -> None:
    config = EncoderConfig(
        references=[sounds / "music"], distractors=[sounds / "music"], noise=sounds / "noise",
        rooms=sounds / "rooms", out=tmp_path / "encoder.json", distortions="clean",
        durations_s=(2.0,), n_queries=2, model=tiny_model, device="cpu",
    )  # fmt: skip
    alone = run(replace(config, distractors=()))
    twice = run(config)
    assert twice["n_segments"] == alone["n_segments"]
    assert twice["cells"] == alone["cells"]


def test_files_that_cannot_be_decoded_are_skipped(
    sounds: Path, tiny_model: Path, tmp_path: Path
) -> None:
    fingerprinter = Fingerprinter.load(tiny_model, "cpu")
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    whole = next(path for path in sorted((sounds / "music").iterdir()))
    embeddings, owners = embed([broken, whole], fingerprinter)
    assert len(embeddings) == len(owners) > 0
    assert set(owners) == {1}
    with pytest.raises(ConfigError, match="no file that can be decoded"):
        embed([broken], fingerprinter)


def test_comparison_counts_the_queries_that_only_one_encoder_finds(
    sounds: Path, tiny_model: Path, tmp_path: Path
) -> None:
    config = EncoderConfig(
        references=[sounds / "music"], noise=sounds / "noise", rooms=sounds / "rooms",
        out=tmp_path / "now.json", distortions="clean", durations_s=(1.0, 2.0), n_queries=3,
        model=tiny_model, device="cpu", before=tmp_path / "before.json",
    )  # fmt: skip
    earlier = run(replace(config, before=None))
    assert earlier["right"] == {"clean 1 s": "111", "clean 2 s": "111"}
    former = {**earlier, "right": {"clean 1 s": "010", "clean 2 s": "111"}}
    (tmp_path / "before.json").write_text(json.dumps(former))
    compared = rows(run(config)["tables"]["compared"])
    assert compared[1:] == [
        ["clean", "6", "4", "6", "2", "0", "0.5"],
        ["all", "6", "4", "6", "2", "0", "0.5"],
    ]
    for changes in ({"seed": 2}, {"right": {"clean 1 s": "0"}}):
        (tmp_path / "before.json").write_text(json.dumps({**former, **changes}))
        with pytest.raises(ConfigError, match="other queries or recordings"):
            run(config)
    (tmp_path / "before.json").write_text("[]")
    with pytest.raises(ConfigError, match="has no results of this benchmark"):
        run(config)


def test_no_queries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n_queries"):
        EncoderConfig(references=[], noise=tmp_path, rooms=tmp_path, out=tmp_path, n_queries=0)
