"""astound as a system to compare with others."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import astound
from astound.catalog import Catalog, Device
from benchmarks.peers.peer import About, Answer
from benchmarks.runs.program import Program
from benchmarks.runs.provenance import code_id
from engine.config import IngestConfig
from engine.errors import AudioError

_CATALOG = "catalog"
_COMMAND = Program(name="astound", names=(), command=shlex.join([sys.executable, "-m", "astound"]))


@dataclass(frozen=True, kw_only=True)
class Astound:
    """astound with its defaults.

    Parameters
    ----------
    model : Path or None
        Weights to encode with; the shipped ones by default.
    device : {"auto", "cpu", "cuda"}
    """

    model: Path | None = None
    device: Device = "auto"

    def about(self) -> About:
        """Describe it; the version contains a hash of the code that answers depend on."""
        options = f"--device {self.device}" + (f" --model {self.model.name}" if self.model else "")
        version = f"{astound.__version__} ({code_id(())})"
        return About(version=version, options=options, asked="in-process")

    def build(self, references: Sequence[Path], folder: Path, n_jobs: int) -> None:
        """Add references to a catalog."""
        with self._open(folder, create=True) as catalog:
            catalog.add(references, config=IngestConfig(n_jobs=n_jobs))

    def query(self, queries: Sequence[Path], folder: Path) -> Iterator[Answer]:
        """Return the best match above the catalog's threshold."""
        with self._open(folder, create=False) as catalog:
            for query in queries:
                yield _answer(catalog, query)

    def answer_batch(self, queries: Sequence[Path], folder: Path, n_jobs: int) -> None:
        """Run `astound query` with `n_jobs` jobs, its start included."""
        listed = folder / "queries.txt"
        listed.write_text("".join(f"{path}\n" for path in queries), errors="surrogateescape")
        model: list[str | Path] = [] if self.model is None else ["--model", self.model]
        common: list[str | Path] = ["--catalog", folder / _CATALOG, "--device", self.device, *model]
        options: list[str | Path] = ["--jobs", str(n_jobs), "--max-matches", "1", "--list", listed]
        _COMMAND.run([*common, "query", *options], success_codes=(0, 1))

    def recipe_id(self, folder: Path) -> str:
        """Return the recipe of the index."""
        with self._open(folder, create=False) as catalog:
            return catalog.recipe_id

    def _open(self, folder: Path, *, create: bool) -> Catalog:
        return Catalog(folder / _CATALOG, create=create, model=self.model, device=self.device)


def _answer(catalog: Catalog, query: Path) -> Answer:
    start = time.perf_counter()
    try:
        best = catalog.query(query, max_matches=1).best
    except AudioError as error:
        return Answer(error=str(error))
    taken_s = time.perf_counter() - start
    if best is None:
        return Answer(taken_s=taken_s)
    return Answer(reference=Path(best.path), offset_s=best.offset_s, taken_s=taken_s)
