"""Provenance of a measurement: the command, the commit and the machine."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

_ENGINE = ("astound/*.py", "engine/**/*.py")


def provenance() -> dict[str, Any]:
    """Describe this run as a dict for JSON. Paths are shown without their parents."""
    return {"command": _command(), "commit": _commit(), "machine": _machine()}


def code_id(modules: Iterable[str] = ("**/*",), *, with_engine: bool = True) -> str:
    """Hash the source code an answer depends on: the engine, the catalog, and benchmark modules.

    Parameters
    ----------
    modules : iterable of str
        Modules of the benchmarks as paths without suffix, such as "queries/datasets"; patterns are
        allowed. All by default.
    with_engine : bool
        Whether it depends on the engine and the catalog as well.

    Returns
    -------
    str
        16 hex digits.

    Raises
    ------
    FileNotFoundError
        A path matches no file.
    """
    root = Path(__file__).parents[2]
    engine = _ENGINE if with_engine else ()
    patterns = [*engine, *(f"benchmarks/{module}.py" for module in modules)]
    return digest(file.read_text() for pattern in patterns for file in _matching(root, pattern))


def _matching(root: Path, pattern: str) -> list[Path]:
    files = sorted(root.glob(pattern))
    if not files:
        raise FileNotFoundError(pattern)
    return files


def digest(texts: Iterable[str]) -> str:
    """Hash a sequence of texts to 16 hex digits."""
    joined = "\0".join(texts).encode("utf-8", "surrogateescape")
    return hashlib.sha256(joined).hexdigest()[:16]


def _command() -> str:
    arguments = [Path(a).name if os.sep in a else a for a in sys.argv[1:]]
    is_script = Path(sys.argv[0]).name == "astound"
    return shlex.join([*(["astound"] if is_script else ["python", "-m", "benchmarks"]), *arguments])


def _commit() -> str | None:
    """Return the commit of this checkout, marked "-dirty" if files differ; None outside of git."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or None


def _machine() -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "n_cpus": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "faiss": metadata.version(metadata.packages_distributions()["faiss"][0]),
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
