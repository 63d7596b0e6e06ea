from __future__ import annotations

import logging
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from click.testing import CliRunner, Result
from filelock import FileLock, Timeout

import astound
import training.config
from astound.commands.main import cli
from engine.errors import RecipeMismatchError
from engine.model.weights import load_weights
from engine.search.calibration import Calibration
from tests.audio_files import write_wav
from tests.training.sounds import N_TRACKS, RATE, RECIPE, be_brief, tone, write_sources
from training.config import TrainConfig
from training.packed import unpack
from training.sources import RECORDED, Sources


@dataclass(frozen=True, kw_only=True)
class Short(TrainConfig):
    """A run of seconds."""

    n_steps: int = 4
    n_pairs: int = 4
    n_clips: int = 8
    n_clip_steps: int = 2
    n_clip_pairs: int = 4
    n_held_out: int = 2


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return write_sources(tmp_path_factory.mktemp("audio"))


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the command train a tiny model for a few steps, and keep its log levels to itself."""
    monkeypatch.setattr(training.config, "TrainConfig", Short)
    monkeypatch.setattr("training.train.Recipe", lambda: RECIPE)
    be_brief(monkeypatch)
    loggers = [logging.getLogger(name) for name in ("astound", "engine", "indexer", "training")]
    levels = [one.level for one in loggers]
    yield
    for one, level in zip(loggers, levels, strict=True):
        one.setLevel(level)


def run(sources: Sources, out: Path, *options: object) -> Result:
    folders = {kind: getattr(sources, kind) for kind in RECORDED} | {"out": out}
    given: list[Any] = [part for name, path in folders.items() for part in (f"--{name}", path)]
    arguments = ["--device", "cpu", "train", *given, *options]
    result = CliRunner().invoke(cli, [str(one) for one in arguments])
    assert "Traceback" not in result.stderr
    return result


def test_train_from_folders_to_weights(sources: Sources, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = run(sources, out, "--steps", 3, "--seed", 5, "--learning-rate", 1e-3)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{out / 'weights.safetensors'}\n"
    assert load_weights(Path(result.stdout.strip())).recipe.encoder == RECIPE.encoder
    assert (out / "calibration.json").exists()
    assert (out / "log.jsonl").read_text().count('"loss"') == 3
    # The same command has nothing left to do but the end, a longer one goes on.
    longer = run(sources, out, "--steps", 4, "--seed", 5, "--learning-rate", 1e-3)
    assert longer.exit_code == 0, longer.stderr
    assert (out / "log.jsonl").read_text().count('"loss"') == 4


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="needs espeak-ng")
def test_train_makes_voices_once(sources: Sources, tmp_path: Path) -> None:
    for _ in range(2):
        result = run(sources, tmp_path, "--steps", 1, "--spoken-hours", 0.005)
        assert result.exit_code == 0, result.stderr
        (*voices,) = (tmp_path / "voices").iterdir()
        assert len(voices) == 3


def test_train_uses_tunes_and_voices_that_are_given(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Sources] = []
    monkeypatch.setattr("training.train.train", lambda sources, *_, **__: used.append(sources))
    options = ("--tunes", sources.noise, "--voices", sources.speech)
    assert run(sources, tmp_path / "run", *options).exit_code == 0
    assert used == [sources._replace(tunes=sources.noise, voices=sources.speech)]


def test_processes_of_one_run_write_its_files_one_after_another(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(folder: Path, hours: float) -> None:
        with pytest.raises(Timeout):
            FileLock(folder.parent / "lock").acquire(timeout=0)
        folder.mkdir()
        write_wav(folder / "0.wav", tone(700.0, 9.0), RATE)

    monkeypatch.setattr("training.voices.write_voices", write)
    result = run(sources, tmp_path, "--steps", 1, "--spoken-hours", 1)
    assert result.exit_code == 0, result.stderr


def test_train_with_another_file_than_a_sound_font_is_one_line(
    sources: Sources, tmp_path: Path, tiny_model: Path
) -> None:
    result = run(sources, tmp_path, "--sound-font", tiny_model, "--composed-hours", 0.01)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "sound_font" in result.stderr


@pytest.mark.parametrize("kind", Sources._fields)
def test_train_of_a_folder_without_audio_is_one_line(
    sources: Sources, tmp_path: Path, kind: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    options = () if kind in RECORDED else (f"--{kind}", empty)
    result = run(sources._replace(**{kind: empty}), tmp_path / "run", *options)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [f"astound: folder: {empty} has no audio files"]
    assert not (tmp_path / "run" / "cache").exists()  # nothing was decoded before


@pytest.mark.slow
def test_train_follows_the_shape_of_the_weights_it_begins_with(
    sources: Sources, tmp_path: Path, tiny_model: Path
) -> None:
    result = run(sources, tmp_path / "run", "--init-from", tiny_model)
    assert result.exit_code == 0, result.stderr
    trained, tiny = (load_weights(Path(one)).recipe for one in (result.stdout.strip(), tiny_model))
    assert trained.encoder == tiny.encoder
    assert trained.weights_sha256 != tiny.weights_sha256


def test_published_checkpoint_becomes_a_catalog_of_its_own(
    sources: Sources, tmp_path: Path
) -> None:
    """From an AudioSet AST (a small one, of random weights) to a match."""
    _write_checkpoint(tmp_path / "ast")
    result = run(sources, tmp_path / "run", "--init-from", tmp_path / "ast")
    assert result.exit_code == 0, result.stderr
    weights = Path(result.stdout.strip())
    recipe = load_weights(weights).recipe
    assert (recipe.spectrogram.front_end, recipe.spectrogram.sample_rate) == ("kaldi", 16000)
    assert recipe.spectrogram.segment_s == pytest.approx(1.015)
    assert recipe.encoder.fingerprint_dim == 128
    assert any(Calibration.load(weights.with_name("calibration.json")).weights)

    with astound.open(tmp_path / "catalog", model=weights, device="cpu") as catalog:
        report = catalog.add(sources.music)
        assert len(report.added) == N_TRACKS
        assert catalog.recipe_id == recipe.recipe_id
        found = catalog.query(
            str(sources.music / "3.wav"),
            start_s=1.0,
            end_s=5.0,
            min_confidence=0,
            max_matches=100,
        )
        # Which one is the surest is a matter of the calibration, which eight answers made.
        own = [one for one in found.matches if Path(one.path).name == "3.wav"]
        assert min(abs(one.offset_s) for one in own) < 0.1
    shipped = astound.open(tmp_path / "catalog", device="cpu")
    with shipped, pytest.raises(RecipeMismatchError):
        shipped.query(str(sources.music / "3.wav"))


def _write_checkpoint(folder: Path) -> None:
    torch.manual_seed(0)
    shape = transformers.ASTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    transformers.ASTForAudioClassification(shape).save_pretrained(folder)


@pytest.mark.parametrize(
    "options", [("--seed", -1), ("--learning-rate", 0)], ids=lambda one: one[0]
)
def test_train_with_a_senseless_setting_is_one_line(
    sources: Sources, tmp_path: Path, options: tuple[str, int]
) -> None:
    result = run(sources, tmp_path / "run", *options)
    assert result.exit_code == 1
    assert "must be" in result.stderr
    assert not (tmp_path / "run").exists()


def test_train_without_folders_is_a_usage_error(tmp_path: Path) -> None:
    assert CliRunner().invoke(cli, ["train"]).exit_code == 2
    result = CliRunner().invoke(cli, ["train", "--out", str(tmp_path / "run"), "--music", "m"])
    assert result.exit_code == 2
    assert "Missing option '--noise'" in result.stderr


def test_train_packed_run_resumes_with_its_settings(sources: Sources, tmp_path: Path) -> None:
    out, packed = tmp_path / "run", tmp_path / "run.pack"
    assert run(sources, out, "--steps", 3, "--seed", 5, "--no-codecs").exit_code == 0
    packing = CliRunner().invoke(cli, ["train", "--out", str(out), "--pack", str(packed)])
    assert packing.stdout == f"{packed}\n"
    other = tmp_path / "other"
    result = run(sources, other, "--resume", packed, "--steps", 5)
    assert result.exit_code == 0, result.stderr
    assert (other / "log.jsonl").read_text().count('"loss"') == 5
    config = load_weights(Path(result.stdout.strip())).training_record["config"]
    assert (config["seed"], config["n_steps"]) == (5, 5)
    assert config["augment"]["codec_prob"] == 0
    assert config["augment"]["noise_prob"] == 0.93


def test_train_packs_the_run_after_training(sources: Sources, tmp_path: Path) -> None:
    packed = tmp_path / "run.pack"
    result = run(sources, tmp_path / "run", "--steps", 3, "--pack", packed)
    assert result.stdout == f"{tmp_path / 'run' / 'weights.safetensors'}\n"
    assert unpack(packed, tmp_path / "other").config.n_steps == 3


def test_train_resumed_and_with_other_weights_is_a_usage_error(
    sources: Sources, tmp_path: Path, tiny_model: Path
) -> None:
    both = ("--resume", tiny_model, "--init-from", tiny_model)
    assert run(sources, tmp_path / "run", *both).exit_code == 2


def test_train_packs_audio_in_pieces(sources: Sources, tmp_path: Path) -> None:
    result = run(sources, tmp_path / "pieces", "--pack-audio")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'pieces' / 'audio-00.tar'}\n"
    assert tarfile.is_tarfile(result.stdout.strip())
