"""Olaf, the landmark system of Joren Six."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import About, Answer
from benchmarks.runs.program import Program, ProgramError
from engine.audio.walk import EXTENSIONS

_HOME = "home"
_OLAF = Program(
    name="olaf",
    names=("olaf",),
    hint="build it from its sources with zig, or give --command olaf=...",
)


@dataclass(frozen=True, kw_only=True)
class Olaf:
    """Olaf.

    Parameters
    ----------
    program : Program
        `olaf`, which needs `ffmpeg`.
    """

    program: Program = _OLAF

    def about(self) -> About:
        """Describe it; called without a command, it prints its version and fails."""
        output = self.program.run([], success_codes=(0, 1))
        version = output.partition(" - ")[0].removeprefix("Olaf").strip() or "unknown"
        return About(version=version, options="defaults", asked="a command per query")

    def build(self, references: Sequence[Path], folder: Path, n_jobs: int) -> None:
        """Store references in a database in the folder, not that in the user's home."""
        _configure(folder)
        listed = folder / "references.txt"
        listed.write_text("".join(f"{path}\n" for path in references), errors="surrogateescape")
        self._call(folder, "store", "--threads", n_jobs, listed)

    def query(self, queries: Sequence[Path], folder: Path) -> Iterator[Answer]:
        """Return the match with the most fingerprints, at least six."""
        for query in queries:
            start = time.perf_counter()
            try:
                output = self._call(folder, "query", "--format", "json", query)
            except ProgramError as error:
                yield Answer(error=str(error))
            else:
                yield parse_answer(output, time.perf_counter() - start)

    def answer_batch(self, queries: Sequence[Path], folder: Path, n_jobs: int) -> None:
        """Query all files with `n_jobs` threads."""
        self._call(folder, "query", "--threads", n_jobs, *queries)

    def _call(self, folder: Path, *arguments: Any) -> str:
        home = {"HOME": str(folder.resolve() / _HOME)}
        return self.program.run([str(one) for one in arguments], environment=home)


def _configure(folder: Path) -> None:
    home = folder.resolve() / _HOME
    database, cache = home / "database", home / "cache"
    for each in (home / ".olaf", database, cache):
        each.mkdir(parents=True, exist_ok=True)
    settings = {
        "db_folder": f"{database}/",
        "cache_folder": f"{cache}/",
        # It decodes with ffmpeg, but rejects most extensions unless they are listed.
        "allowed_audio_file_extensions": [f".{ending}" for ending in sorted(EXTENSIONS)],
    }
    (home / ".olaf" / "olaf_config.json").write_text(json.dumps(settings))


def parse_answer(output: str, taken_s: float | None = None) -> Answer:
    """Parse the output of `olaf query --format json` for one query.

    Raises
    ------
    ProgramError
        It is not JSON.
    """
    try:
        found = json.loads(output)["matches"]
    except (ValueError, KeyError) as error:
        raise ProgramError("olaf", f"invalid output {output[:80]!r}") from error
    if not found:
        return Answer(taken_s=taken_s)
    best = max(found, key=lambda match: match["match_count"])
    offset_s = best["reference_start"] - best["query_start"]
    return Answer(reference=Path(best["path"]), offset_s=offset_s, taken_s=taken_s)
