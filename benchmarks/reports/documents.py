"""Tables in the documentation that are written from the results, so that both say the same.

A page holds marks; what stands between them is written here and nowhere else. One more table is
one more line in TABLES, and a pair of marks in a page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reports.report import table
from engine.errors import ConfigError

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/benchmarks.md", "docs/peers.md")

Results = Mapping[str, Any]
Show = Callable[[Results], str]

_MARKED = re.compile(r"(<!-- begin: (\S+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)

_ROWS: Mapping[str, Sequence[str]] = {
    "clean": ("clean",),
    "MP3 at 32 kbit/s; Opus at 12": ("mp3-32k", "opus-12k"),
    "noise at 10 dB": ("noise10",),
    "noise at 0 dB": ("noise0",),
    "noise at −5 dB": ("noise-5",),
    "room, noise at 5 dB, telephone band": ("room5",),
    "speed ± 3 %; ± 8 %": ("speed±3", "speed±8"),
    "pitch ± 1 semitone; ± 2": ("pitch±1", "pitch±2"),
    "tempo ± 8 %; ± 20 %": ("tempo±8", "tempo±20"),
}
"""What README shows, in its words."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A table: the file of results it comes from, and how it is written."""

    source: str
    show: Show


def own_table(results: Results) -> str:
    """Show the table that a measurement wrote itself, below the command that made it."""
    return f"{command(results)}\n\n{results['table']}"


def kept_table(name: str) -> Show:
    """Show one of several tables of a measurement, below the command that made it."""
    return lambda results: f"{command(results)}\n\n{results['tables'][name]}"


def command(results: Results) -> str:
    """Show how results came about: the command, the commit, the recipe and the machine."""
    machine = results["machine"]
    said = [f"{machine['n_cpus']} cores of {machine['cpu']}"]
    said += [f"recipe `{results['recipe_id']}`"] if "recipe_id" in results else []
    said += [f"commit `{results['commit'][:12]}`"] if results["commit"] else []
    return f"    {results['command']}\n\n{', '.join(said)}."


def accuracy(results: Results) -> str:
    """Show the hit rates that README names, whole per cents, in words for everyone."""
    rates = _hit_rates(results)
    durations = list(dict.fromkeys(duration for _, duration in rates))
    rows = []
    for title, labels in _ROWS.items():
        shown = ([f"{100 * rates[label, s]:.0f}" for label in labels] for s in durations)
        rows.append([title, *("; ".join(dict.fromkeys(values)) for values in shown)])
    return table(["query", *durations], rows)


def _hit_rates(results: Results) -> dict[tuple[str, str], float]:
    found = {}
    for cell in results["cells"]:
        label, _, duration = cell["cell"].partition(" ")
        found[label, duration] = cell["present"]["hit_rate"]["value"]
    return found


TABLES: Mapping[str, Generated] = {
    "accuracy": Generated(source="encoder.json", show=accuracy),
    "hits": Generated(source="encoder.json", show=kept_table("hits")),
    "acceptance": Generated(source="accuracy.json", show=kept_table("acceptance")),
    "peers": Generated(source="peers.json", show=own_table),
    "clips": Generated(source="clips.json", show=own_table),
    "scan": Generated(source="scan.json", show=own_table),
    "speed": Generated(source="speed.json", show=own_table),
    "ingest": Generated(source="speed.json", show=lambda results: str(results["tables"]["ingest"])),
    "query": Generated(source="speed.json", show=lambda results: str(results["tables"]["query"])),
    "askers": Generated(source="speed.json", show=lambda results: str(results["tables"]["askers"])),
    "model": Generated(source="model.json", show=own_table),
}
"""All tables by the name in their marks."""


def write(root: Path = ROOT) -> list[str]:
    """Write all tables into the pages.

    Returns
    -------
    list of str
        The pages that have changed.
    """
    changed = differing(root)
    for page, text in changed.items():
        (root / page).write_text(text)
    return list(changed)


def differing(root: Path = ROOT) -> dict[str, str]:
    """Give the pages that do not hold what the results say, with the text they should have.

    Raises
    ------
    ConfigError
        A page has marks for a table that does not exist, or whose results are not there.
    """
    pages = {page: (root / page).read_text() for page in PAGES}
    wanted = {page: _MARKED.sub(lambda m: _filled(m, root), text) for page, text in pages.items()}
    return {page: text for page, text in wanted.items() if text != pages[page]}


def _filled(marked: re.Match[str], root: Path) -> str:
    begin, name, end = marked.groups()
    if name not in TABLES:
        raise ConfigError.invalid("tables", name, f"must be one of {', '.join(TABLES)}")
    generated = TABLES[name]
    source = root / "benchmarks" / "results" / generated.source
    if not source.exists():
        raise ConfigError("tables", f"{name!r} needs benchmarks/results/{generated.source}")
    return f"{begin}\n{generated.show(json.loads(source.read_text()))}\n\n{end}"
