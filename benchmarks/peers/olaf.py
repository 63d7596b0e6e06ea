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
from engine.audio.decode import EXTENSIONS

_HOME = "home"
_OLAF = Program(
    name="olaf",
    names=("olaf",),
    hint="build it from its sources with zig; or give --command olaf=...",
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
        """Describe it; called without a command, it says its version and fails."""
        said = self.program.run([], works=(0, 1))
        version = said.partition(" - ")[0].removeprefix("Olaf").strip() or "unknown"
        return About(version=version, options="as it comes", asked="a command per query")

    def build(self, references: Sequence[Path], folder: Path, n_jobs: int) -> None:
        """Store references in a database of its own, not that in the user's home."""
        _configure(folder)
        listed = folder / "references.txt"
        listed.write_text("".join(f"{path}\n" for path in references), errors="surrogateescape")
        self._call(folder, "store", "--threads", n_jobs, listed)

    def ask(self, queries: Sequence[Path], folder: Path) -> Iterator[Answer]:
        """Give the match with the most fingerprints; there is none below six."""
        for query in queries:
            began = time.perf_counter()
            try:
                said = self._call(folder, "query", "--format", "json", query)
            except ProgramError as error:
                yield Answer(error=str(error))
            else:
                yield answer(said, time.perf_counter() - began)

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
        # It decodes whatever ffmpeg does, but refuses most endings unless they are listed.
        "allowed_audio_file_extensions": [f".{ending}" for ending in sorted(EXTENSIONS)],
    }
    (home / ".olaf" / "olaf_config.json").write_text(json.dumps(settings))


def answer(said: str, taken_s: float | None = None) -> Answer:
    """Read what `olaf query --format json` says of one query.

    Raises
    ------
    ProgramError
        It is not JSON.
    """
    try:
        found = json.loads(said)["matches"]
    except (ValueError, KeyError) as error:
        raise ProgramError("olaf", f"what it says cannot be read ({said[:80]!r})") from error
    if not found:
        return Answer(taken_s=taken_s)
    best = max(found, key=lambda match: match["match_count"])
    offset_s = best["reference_start"] - best["query_start"]
    return Answer(reference=Path(best["path"]), offset_s=offset_s, taken_s=taken_s)
