from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import astound
from engine.device import resolve_device
from tests.audio_files import cached_tune, write_wav

ROOT = Path(astound.__file__).parents[1]
HEAVY = {"torch", "faiss", "sqlalchemy", "av", "soundfile"}


def _run(
    code: str, folder: Path, env: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    """Run code in a new Python."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def _loaded(code: str, folder: Path) -> set[str]:
    """Names of the packages that are loaded after some code has run in a new Python."""
    report = "import sys; print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    process = _run(f"import atexit; atexit.register(lambda: exec({report!r})); {code}", folder)
    process.check_returncode()
    return set(process.stderr.split())


def _command(*arguments: str) -> str:
    return f"from astound.commands.main import cli; cli({list(arguments)!r})"


def test_import_is_light(tmp_path: Path) -> None:
    loaded = _loaded("import astound", tmp_path)
    assert "astound" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    ("name", "default", "other"),
    [
        ("OMP_WAIT_POLICY", "PASSIVE", "ACTIVE"),
        ("OPENBLAS_NUM_THREADS", "1", "2"),
        ("ORT_DISABLE_TELEMETRY", "1", "0"),
    ],
)
def test_libraries_are_limited_unless_the_user_says_otherwise(
    tmp_path: Path, name: str, default: str, other: str
) -> None:
    code = f"import os, astound, engine; print(os.environ[{name!r}], file=sys.stderr)"
    plain = {key: value for key, value in os.environ.items() if key != name}
    for given, expected in (({}, default), ({name: other}, other)):
        process = _run(f"import sys; {code}", tmp_path, plain | given)
        assert process.stderr.split() == [expected]


def test_loading_the_encoder_stores_nothing_outside_the_catalog(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR")}
    for folder in folders.values():
        folder.mkdir()
    no_telemetry = ("CI", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS")
    env = {key: value for key, value in os.environ.items() if key not in no_telemetry}
    code = "from engine.model.fingerprinter import Fingerprinter; Fingerprinter.load(device='cpu')"
    _run(code, tmp_path, env | {key: str(path) for key, path in folders.items()}).check_returncode()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_help_is_light(tmp_path: Path) -> None:
    loaded = _loaded(_command("--help"), tmp_path)
    assert "click" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("command", ["add", "query", "scan"])
def test_only_children_import_a_decoder(tmp_path: Path, tiny_weights: Path, command: str) -> None:
    write_wav(tmp_path / "tune.wav", cached_tune(1, 6.0), 8000)
    with astound.open(tmp_path / "catalog", model=tiny_weights) as catalog:
        catalog.add(tmp_path / "tune.wav")
    loaded = _loaded(_command("--device", "cpu", command, "tune.wav"), tmp_path)
    assert not loaded & {"av", "mutagen"}


@pytest.mark.parametrize("device", ["cpu", "auto"])
@pytest.mark.parametrize("command", ["add", "query", "scan", "same", "repeats"])
def test_encoding_on_the_cpu_needs_no_torch(
    tmp_path: Path, tiny_weights: Path, command: str, device: str
) -> None:
    if device == "auto" and resolve_device("auto") != "cpu":
        pytest.skip("there is a GPU")
    write_wav(tmp_path / "tune.wav", cached_tune(1, 6.0), 8000)
    with astound.open(tmp_path / "catalog", model=tiny_weights) as catalog:
        catalog.add(tmp_path / "tune.wav")
    write_wav(tmp_path / "other.wav", cached_tune(2, 6.0), 8000)
    files = ["tune.wav", "other.wav"] if command == "same" else ["other.wav"]
    loaded = _loaded(_command("--device", device, command, *files), tmp_path)
    assert "onnxruntime" in loaded
    assert "torch" not in loaded


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model", "export", "--onnx", "a.onnx"), "this needs torch: pip install 'astound[torch]'"),
        (("--device", "cuda", "query", "a.wav"), "no torch with CUDA; use --device cpu"),
    ],
)
def test_what_needs_torch_says_so(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    with astound.open(tmp_path / "catalog", create=True):
        pass
    process = _run(f"import sys; sys.modules['torch'] = None; {_command(*arguments)}", tmp_path)
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].endswith(message)


@pytest.mark.parametrize("command", ["list", "stats"])
def test_looking_needs_no_torch(tmp_path: Path, tiny_model: Path, command: str) -> None:
    write_wav(tmp_path / "tune.wav", cached_tune(1, 2.0), 8000)
    with astound.open(tmp_path / "catalog", model=tiny_model) as catalog:
        catalog.add(tmp_path / "tune.wav")
    loaded = _loaded(_command(command), tmp_path)
    assert "sqlalchemy" in loaded
    assert not loaded & {"torch", "faiss"}
