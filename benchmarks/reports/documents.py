"""Generated tables in the documentation, from benchmarks/results/*.json.

Each table stands between a pair of marks in a page. For a new table, add a line to TABLES and a
pair of marks to a page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reports import passage_pages, peer_tables, speed_tables
from benchmarks.reports.report import table
from engine.errors import ConfigError

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/benchmarks.md", "docs/peers.md", "docs/service.md")

Results = Mapping[str, Any]
Format = Callable[[Results], str]

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
"""Rows of the table in README.md, with the labels of their cells."""


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A table: its file of results, and the function that formats it."""

    source: str
    format: Format


def main_table(results: Results) -> str:
    """Return the table of a measurement, below its command."""
    return f"{command(results)}\n\n{results['table']}"


def below_command(format_table: Format) -> Format:
    """Return a function that formats a table below the command of its measurement."""
    return lambda results: f"{command(results)}\n\n{format_table(results)}"


def named_table(name: str) -> Format:
    """Return one of the tables of a measurement, below its command."""
    return lambda results: f"{command(results)}\n\n{results['tables'][name]}"


def command(results: Results) -> str:
    """Format the provenance of results: command, machine, recipe and commit."""
    machine = results["machine"]
    parts = [f"{machine['n_cpus']} cores of {machine['cpu']}"]
    parts += [f"recipe `{results['recipe_id']}`"] if "recipe_id" in results else []
    parts += [f"commit `{results['commit'][:12]}`"] if results["commit"] else []
    return f"    {results['command']}\n\n{', '.join(parts)}."


def accuracy(results: Results) -> str:
    """Format the hit rates for README.md in whole per cent."""
    rates = _hit_rates(results)
    durations = list(dict.fromkeys(duration for _, duration in rates))
    rows = []
    for title, labels in _ROWS.items():
        columns = ([f"{100 * rates[label, s]:.0f}" for label in labels] for s in durations)
        rows.append([title, *("; ".join(dict.fromkeys(values)) for values in columns)])
    return table(["query", *durations], rows)


def _hit_rates(results: Results) -> dict[tuple[str, str], float]:
    found = {}
    for cell in results["cells"]:
        label, _, duration = cell["cell"].partition(" ")
        found[label, duration] = cell["present"]["hit_rate"]["value"]
    return found


TABLES: Mapping[str, Generated] = {
    "accuracy": Generated(source="encoder.json", format=accuracy),
    "hits": Generated(source="encoder.json", format=named_table("hits")),
    "acceptance": Generated(source="accuracy.json", format=named_table("acceptance")),
    "peers": Generated(source="peers.json", format=below_command(peer_tables.tables)),
    "clips": Generated(source="clips.json", format=main_table),
    "passages": Generated(source="passages.json", format=below_command(passage_pages.goals_table)),
    "scan": Generated(source="scan.json", format=below_command(speed_tables.scan_table)),
    "speed": Generated(source="speed.json", format=below_command(speed_tables.summary_table)),
    "ingest": Generated(source="speed.json", format=speed_tables.ingest_table),
    "query": Generated(source="speed.json", format=speed_tables.query_table),
    "askers": Generated(source="speed.json", format=speed_tables.concurrency_table),
    "service": Generated(source="service.json", format=main_table),
    "model": Generated(source="model.json", format=main_table),
}
"""Tables by the name in their marks."""


def write(root: Path = ROOT) -> list[str]:
    """Write all tables into the pages.

    Returns
    -------
    list of str
        Pages that changed.
    """
    changed = differing(root)
    for page, text in changed.items():
        (root / page).write_text(text)
    return list(changed)


def differing(root: Path = ROOT) -> dict[str, str]:
    """Return the pages whose tables differ from the results, with their new text.

    Raises
    ------
    ConfigError
        A page has marks of an unknown table, or the file of results is missing.
    """
    pages = {page: (root / page).read_text() for page in PAGES}
    filled = {page: _MARKED.sub(lambda m: _filled(m, root), text) for page, text in pages.items()}
    return {page: text for page, text in filled.items() if text != pages[page]}


def _filled(marked: re.Match[str], root: Path) -> str:
    begin, name, end = marked.groups()
    if name not in TABLES:
        raise ConfigError.invalid("tables", name, f"must be one of {', '.join(TABLES)}")
    generated = TABLES[name]
    source = root / "benchmarks" / "results" / generated.source
    if not source.exists():
        raise ConfigError("tables", f"{name!r} needs benchmarks/results/{generated.source}")
    return f"{begin}\n{generated.format(json.loads(source.read_text()))}\n\n{end}"
