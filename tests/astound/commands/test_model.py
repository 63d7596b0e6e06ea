from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner, Result

import astound
from astound.commands.main import cli
from astound.commands.model import model as group
from engine.audio import decode
from engine.model.ast_model import ASTModel
from engine.recipe import SpectrogramConfig
from tests.audio_files import cached_tune, write_wav
from tests.encoders import TINY_AST

ROOT = Path(astound.__file__).parents[1]
RATE = 8000
LABELS = ("rain", "bells", "speech [near]")

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny model with three classes and random weights."""
    path = tmp_path_factory.mktemp("classifier") / "classes.safetensors"
    config = dataclasses.replace(TINY_AST, num_classes=3)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        ASTModel(config, spectrogram=SpectrogramConfig(), labels=LABELS, device="cpu").save(path)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Path) -> Path:
    """The current folder, with two tunes and a file that is none; ASTOUND_MODEL is a tiny model."""
    for seed in (1, 2):
        write_wav(tmp_path / f"{seed}.wav", cached_tune(seed, 3.0), RATE)
    (tmp_path / "broken.wav").write_bytes(b"not audio")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run() -> Run:
    """Give run(*arguments): `astound model` in this process."""

    def invoke(*arguments: object) -> Result:
        result = CliRunner().invoke(cli, ["--device", "cpu", "model", *map(str, arguments)])
        assert "Traceback" not in result.stderr
        assert "a bug in astound" not in result.stderr
        return result

    return invoke


# -- info ------------------------------------------------------------------------------------


def test_info_tells_what_the_model_in_use_is(home: Path, tiny_model: Path, run: Run) -> None:
    result = run("info")
    assert (result.exit_code, result.stderr) == (0, "")
    expected = ASTModel.load(tiny_model, device="cpu")
    assert re.search(rf"recipe +{expected.recipe_id} *$", result.stdout, re.MULTILINE)
    assert re.search(rf"parameters +{expected.n_parameters:,} *$", result.stdout, re.MULTILINE)
    assert re.search(r"shape +2 layers, 2 heads, 32 wide *$", result.stdout, re.MULTILINE)
    assert re.search(r"labels +none *$", result.stdout, re.MULTILINE)


def test_info_of_the_shipped_model(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASTOUND_MODEL")
    described = json.loads(run("info", "--format", "json").stdout)
    assert described["recipe_id"] == ASTModel.shipped(device="cpu").recipe_id
    assert described["training"]


def test_info_as_json_is_all_that_is_known(home: Path, classifier: Path, run: Run) -> None:
    described = json.loads(run("info", classifier, "--format", "json").stdout)
    metadata = ASTModel.load(classifier, device="cpu").metadata()
    assert described == json.loads(json.dumps(metadata))
    assert described["labels"] == list(LABELS)


@pytest.mark.parametrize("name", ["missing.safetensors", "broken.wav", "missing", "missing.onnx"])
def test_what_is_no_model_is_one_line(home: Path, run: Run, name: str) -> None:
    result = run("info", name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(rf"astound: .*{name}.*\n", result.stderr)


# -- classify --------------------------------------------------------------------------------


def test_classify_names_the_likeliest(home: Path, classifier: Path, run: Run) -> None:
    result = run("classify", "1.wav", "2.wav", "-m", classifier, "-k", 2, "--format", "jsonl")
    assert (result.exit_code, result.stderr) == (0, "")
    loaded = ASTModel.load(classifier, device="cpu")
    for seed, line in zip((1, 2), result.stdout.splitlines(), strict=True):
        found = json.loads(line)
        assert found["path"] == f"{seed}.wav"
        expected = loaded.classify(cached_tune(seed, 3.0), top_k=2)
        assert [one["label"] for one in found["classes"]] == [label for label, _ in expected]
        probabilities = [one["probability"] for one in found["classes"]]
        assert probabilities == pytest.approx(
            [probability for _, probability in expected], abs=1e-3
        )


def test_classify_goes_on_past_bad_files(home: Path, classifier: Path, run: Run) -> None:
    write_wav(home / "short.wav", cached_tune(1, 0.1), RATE)
    given = ["broken.wav", "short.wav", "missing.wav", "1.wav"]
    result = run("classify", *given, "--weights", classifier)
    assert result.exit_code == 1
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == given[:3]
    assert "short.wav: too short: 0.10 s" in result.stderr
    assert "1.wav" in result.stdout
    assert "speech [near]" in result.stdout
    assert "broken" not in result.stdout


def test_classify_without_classes_says_so(home: Path, tiny_model: Path, run: Run) -> None:
    result = run("classify", "1.wav")
    assert (result.exit_code, result.stdout) == (1, "")
    sentence = "model has no classes; name one that has with --weights"
    assert result.stderr == f"astound: {tiny_model}: {sentence}\n"


# -- embed -----------------------------------------------------------------------------------


def test_embed_writes_a_row_for_each_file(home: Path, tiny_model: Path, run: Run) -> None:
    result = run("embed", "2.wav", "broken.wav", "1.wav", "2.wav", "-o", "clips")
    assert (result.exit_code, result.stdout) == (1, "clips: 4 × 32\n")
    assert result.stderr.startswith("astound: broken.wav: ")
    rows = np.load("clips")
    assert str(rows.dtype) == "float32"
    assert np.isnan(rows[1]).all()
    loaded = ASTModel.load(tiny_model, device="cpu")
    for row, seed in ((0, 2), (2, 1), (3, 2)):
        expected = loaded.extract_embedding(cached_tune(seed, 3.0))[0].numpy()
        assert rows[row] == pytest.approx(expected, abs=1e-2)
    assert np.abs(rows[0] - rows[2]).max() > 1e-3


def test_embed_frames_are_the_fingerprint_that_a_catalog_stores(
    home: Path, tiny_model: Path, run: Run
) -> None:
    assert run("embed", "1.wav", "--frames", "-o", "frames.npy").stdout == "frames.npy: 5 × 16\n"
    with astound.open(home / "catalog", device="cpu", model=tiny_model) as catalog:
        expected = catalog.fingerprinter.fingerprint([decode.read("1.wav", RATE)], 0.5)
    frames = np.load("frames.npy")
    np.testing.assert_allclose(np.linalg.norm(frames, axis=1), 1, atol=1e-4)
    assert np.sum(frames * expected.embeddings, axis=1).min() >= 0.999  # torch and onnxruntime


def test_embed_writes_nothing_when_all_fail(home: Path, run: Run) -> None:
    result = run("embed", "broken.wav", "missing.wav", "-o", "clips.npy")
    assert (result.exit_code, result.stdout) == (1, "")
    assert not Path("clips.npy").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["1.wav", "2.wav", "--frames", "-o", "x.npy"], "--frames takes one FILE"),
        (["1.wav", "-o", "nowhere/x.npy"], "folder nowhere does not exist"),
        (["1.wav"], "Missing option '-o'"),
    ],
)
def test_embed_refuses_before_it_works(
    home: Path, run: Run, arguments: list[str], reason: str
) -> None:
    result = run("embed", *arguments)
    assert result.exit_code == 2
    assert reason in result.stderr


# -- importance ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gradient", "rollout", "occlusion"])
def test_importance_draws(home: Path, run: Run, method: str) -> None:
    result = run("importance", "1.wav", "-o", "why.png", "--method", method)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "why.png\n", "")
    assert Path("why.png").read_bytes().startswith(b"\x89PNG")


def test_importance_begins_and_asks_where_it_is_told(
    home: Path, classifier: Path, run: Run
) -> None:
    pictures = set()
    for more in ([], ["--start", 1.5], ["--class", "rain"], ["--class", "bells"]):
        result = run("importance", "1.wav", "-o", "why.png", "-m", classifier, *more)
        assert result.exit_code == 0
        pictures.add(Path("why.png").read_bytes())
    assert len(pictures) == 3  # the likeliest class is one of the two


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--class", "snow"], 1, "invalid --class='snow': must be a class of the model"),
        (["--class", "rain", "--method", "rollout"], 2, "rollout does not depend on a class"),
        (["--start", "30"], 1, "1.wav: it ends before 30 s; use an earlier start"),
        (["--start", "2.9"], 1, "1.wav: too short"),
        (["-o", "why.txt"], 1, "invalid path='why.txt': must end in one of .png, .svg, .pdf"),
    ],
)
def test_importance_says_what_does_not_work(
    home: Path, classifier: Path, run: Run, arguments: list[str], code: int, reason: str
) -> None:
    result = run("importance", "1.wav", "-o", "why.png", "-m", classifier, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert reason in result.stderr
    assert not Path("why.png").exists()


# -- in and out ------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as Hugging Face's library writes it, of a tiny model."""
    shape: dict[str, Any] = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "max_length": 128, "num_mel_bins": 128, "time_stride": 16,
        "frequency_stride": 16,
    }  # fmt: skip
    config = transformers.ASTConfig(**shape, id2label=dict(enumerate(LABELS)))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = transformers.ASTForAudioClassification(config)
    made.save_pretrained(tmp_path / "published")
    return tmp_path / "published"


def test_import_makes_weights_that_work(home: Path, published: Path, run: Run) -> None:
    result = run("import", published, "-o", "own.safetensors")
    own = ASTModel.load("own.safetensors", device="cpu")
    assert result.stdout == f"own.safetensors: recipe {own.recipe_id}\n"
    assert own.labels == LABELS
    expected = ASTModel.from_pretrained(published, device="cpu").predict(cached_tune(1, 1.5, 16000))
    torch.testing.assert_close(own.predict(cached_tune(1, 1.5, 16000)), expected)
    direct = run("classify", "1.wav", "--weights", published)
    assert direct.stdout == run("classify", "1.wav", "--weights", "own.safetensors").stdout


def test_import_changes_the_shape_and_names_classes(home: Path, published: Path, run: Run) -> None:
    Path("names.txt").write_text("a\nb\nc\n")
    run(
        *("import", published, "-o", "own.safetensors", "--target-length", 64),
        *("--fingerprint-dim", 16, "--labels", "names.txt"),
    )
    own = ASTModel.load("own.safetensors", device="cpu")
    assert (own.config.target_length, own.fingerprint_length) == (64, 16)
    assert own.labels == ("a", "b", "c")


def test_import_of_what_is_no_checkpoint_is_one_line(home: Path, run: Run) -> None:
    result = run("import", home, "-o", "own.safetensors")
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(rf"astound: {home}: .*\n", result.stderr)
    assert not Path("own.safetensors").exists()


@pytest.mark.slow  # test_model.py and test_graph.py do so without the command line
def test_exported_model_answers_as_before(home: Path, classifier: Path, run: Run) -> None:
    result = run("export", classifier, "--onnx", "classes.onnx")
    assert (result.exit_code, result.stdout) == (0, "classes.onnx\n")
    before = run("classify", "1.wav", "-m", classifier, "--format", "jsonl")
    after = run("classify", "1.wav", "-m", "classes.onnx", "--format", "jsonl")
    for one, other in zip(
        *(json.loads(some.stdout)["classes"] for some in (before, after)), strict=True
    ):
        assert one["label"] == other["label"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-3)


# -- the group -------------------------------------------------------------------------------


def test_help_of_the_group_is_light() -> None:
    code = "from astound.commands.main import cli; cli(['model', '--help'], standalone_mode=False)"
    report = "import sys; print(*{'torch', 'faiss', 'matplotlib'} & set(sys.modules))"
    process = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "classify" in process.stdout
    assert process.stdout.endswith("\n\n")


@pytest.mark.parametrize("name", group.commands)
def test_every_command_is_documented(name: str) -> None:
    command = group.commands[name]
    assert command.help
    assert (command.epilog or "").startswith(f"Example: astound model {name} ")
    (section,) = re.findall(
        rf"^### model {name}\n(.*?)(?=^##|\Z)", (ROOT / "docs" / "cli.md").read_text(), re.M | re.S
    )
    assert f"\n    astound model {name}" in section
    cells = [row.split(" | ")[0] for row in section.splitlines() if row.startswith("| `")]
    documented = set(re.findall(r"--?[a-z][a-z-]*", " ".join(cells)))
    options = [one for one in command.params if isinstance(one, click.Option)]
    assert all(option.help for option in options)
    assert documented == {spelling for option in options for spelling in option.opts}
