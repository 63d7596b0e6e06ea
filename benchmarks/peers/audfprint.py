"""audfprint, the landmark system of Dan Ellis."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.peer import About, Answer
from benchmarks.runs.program import Program, ProgramError

_DATABASE = "landmarks.pklz"
# 16 bits of time are enough for 25 minutes instead of six; the default density of 20 is meant for
# large collections.
_DENSE = ("--density", "70", "--maxtimebits", "16")
# Options of its entry to MIREX 2014 (config.txt in its sources), a task without unknown music. The
# bucket size stays at its default: 500 entries are for 10,000 songs.
_MIREX = ("--fanout", "8")
_MIREX_QUERY = ("--search-depth", "2000")
_MATCHED = re.compile(
    r"^Matched (?P<query>.+) -?[\d.]+ sec \d+ raw hashes as (?P<reference>.+) "
    r"at +(?P<offset_s>-?[\d.]+) s with "
)
_AUDFPRINT = Program(
    name="audfprint",
    names=("audfprint.py",),
    hint="get its sources and give --command audfprint='python .../audfprint.py'",
)


@dataclass(frozen=True, kw_only=True)
class Audfprint:
    """audfprint.

    Parameters
    ----------
    program : Program
        `audfprint.py`.
    options : tuple of str
        For all calls.
    query_options : tuple of str
        Additional ones for queries.
    """

    program: Program = _AUDFPRINT
    options: tuple[str, ...] = _DENSE
    query_options: tuple[str, ...] = ()

    @classmethod
    def mirex(cls) -> Audfprint:
        """Return the configuration of its entry to MIREX, which finds and accepts more."""
        return cls(options=(*_DENSE, *_MIREX), query_options=_MIREX_QUERY)

    def about(self) -> About:
        """Describe it."""
        version = self.program.run(["--version"]).strip()
        options = " ".join((*self.options, *self.query_options))
        return About(version=version, options=options, asked="one command for all queries")

    def build(self, references: Sequence[Path], folder: Path, n_jobs: int) -> None:
        """Write a hash table."""
        self._call("new", references, folder, "--ncores", str(n_jobs))

    def query(self, queries: Sequence[Path], folder: Path) -> Iterator[Answer]:
        """Return the match with the most landmarks, at least five."""
        written = folder / "matches.txt"
        self._call("match", queries, folder, *self.query_options, "--opfile", str(written))
        answers = matches(written.read_text(errors="surrogateescape"))
        for query in queries:
            yield answers.get(str(query), Answer())

    def answer_batch(self, queries: Sequence[Path], folder: Path, n_jobs: int) -> None:
        """Match all files in `n_jobs` processes."""
        self._call("match", queries, folder, *self.query_options, "--ncores", str(n_jobs))

    def _call(self, verb: str, files: Sequence[Path], folder: Path, *options: str) -> None:
        listed = folder / f"{verb}.txt"
        listed.write_text("".join(f"{path}\n" for path in files), errors="surrogateescape")
        common = [
            "--dbase",
            str(folder / _DATABASE),
            *self.options,
            "--continue-on-error",
            "--list",
        ]
        self.program.run([verb, listed, *common, *options])
        if verb == "new" and not (folder / _DATABASE).is_file():
            raise ProgramError(self.program.name, "wrote no database")


def matches(report: str) -> dict[str, Answer]:
    """Parse the report of `audfprint match`.

    Parameters
    ----------
    report : str
        A line for each query.

    Returns
    -------
    dict of Answer
        By the path of the query; without a match there is none.
    """
    found = [match for line in report.splitlines() if (match := _MATCHED.match(line))]
    return {
        match["query"]: Answer(
            reference=Path(match["reference"]), offset_s=float(match["offset_s"])
        )
        for match in found
    }
