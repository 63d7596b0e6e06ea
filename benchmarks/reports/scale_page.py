"""The page about scale, made from the JSON of the measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks.reports import extrapolation
from benchmarks.reports.scale_plots import COST_PLOT, FOUND_PLOT, plot
from benchmarks.reports.scale_tables import (
    cost_table,
    effort_table,
    forecast_table,
    found_table,
    likeness_table,
    limits_table,
)

Results = Mapping[str, Any]


def publish(results: Results, folder: Path) -> None:
    """Write scale.md and its plots into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scale.md").write_text(page(results))
    plot(results, folder)


def page(results: Results) -> str:
    """Write the page, as Markdown."""
    machine, references, others = (results[key] for key in ("machine", "references", "others"))
    empty = results["empty"]
    return _PAGE.format(
        command=results["command"],
        cpu=machine["cpu"],
        n_cpus=machine["n_cpus"],
        load=machine["load_average"][0],
        storage=results["storage"],
        n_references=references["n_tracks"],
        n_reference_segments=f"{references['n_segments']:,}",
        n_others=others["n_tracks"],
        n_other_segments=f"{others['n_segments']:,}",
        n_queries=results["n_queries"],
        n_exact=results["n_exact"],
        costs=cost_table(results),
        add=f"{empty['audio_s'] / 60:.0f} minutes to an empty catalog took {empty['add_s']:.1f} s",
        found=found_table(results),
        efforts=effort_table(results),
        likeness=likeness_table(results["likeness"]["all"]),
        few=likeness_table(_largest(results["likeness"]["few"])),
        cost_plot=COST_PLOT,
        found_plot=FOUND_PLOT,
        note=f"\n{fill(results['note'], 100)}\n" if "note" in results else "",
        paper=_paper(results) if extrapolation.is_possible(results) else "",
    )


def _paper(results: Results) -> str:
    """Write what larger catalogs would take, or nothing where too little was measured."""
    growth = extrapolation.Growth(results)
    return _PAPER.format(
        small=f"{growth.small['n_segments']:,}",
        large=f"{growth.large['n_segments']:,}",
        usable=f"{100 * extrapolation.USABLE:.0f} %",
        widest=f"{extrapolation.WIDEST:,}",
        estimates=forecast_table(results),
        limits=limits_table(results),
    )


def _largest(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    most = max(row["n_segments"] for row in rows)
    return [row for row in rows if row["n_segments"] == most]


_PAGE = """# Scale

What a catalog costs, and what it finds, as it grows. This page is written by

    {command}

on {n_cpus} × {cpu}, at a load of {load} when it ended; vectors were stored in `{storage}`.
{note}
## What is real here, and what is not

{n_references} tracks ({n_reference_segments} segments, half a second apart) are real and are asked
for. `real` is the catalog of these and of {n_others} other tracks ({n_other_segments} segments),
real as well. All other catalogs hold the same references and are padded with made-up tracks, drawn
from a density fitted to the embeddings of the {n_others} others.

Time, memory and bytes are measured in all of them, none is estimated. What is found in the padded
ones is as true as made-up music is like real music. Columns with a star are extrapolated: they hold
more than twice as much music as the density was fitted to, and real music of that amount may be
harder to tell apart.

## Costs

{costs}

Queries, openings and compactions ran each in a process of its own, with all files in the page
cache. Memory that a process owns cannot be taken from it; mapped files can. Adding {add}.

![cost]({cost_plot})

## What is found

{n_queries} queries a cell, the same in every catalog; 95 % intervals in brackets.

{found}

![found]({found_plot})

{paper}## Against an exact search

{n_exact} queries of 5 s of each distortion, played at no other speed. The exact search compares a
query with every stored vector and finds as many neighbours. Right are the queries whose best track
is the right one.

{efforts}

## How like real music made-up music is

Cosines of queries of the references (5 s, half a second apart) and their 1st, 10th and 50th
neighbours, among as many segments of real music as of made-up music: 10th, 50th and 90th
percentile, and the mean of made-up minus real. Below 0 made-up music is farther off, and so too
easy. The density has seen the real music, but no reference.

{likeness}

The same for a density fitted to every fourth track only: what becomes of it in a catalog four times
as large as what it has seen. Expect it to fall behind further in still larger ones.

{few}
"""

_PAPER = """## On paper: a hundred million segments and more

This is an estimate; nothing of it was run. Straight lines go through the two largest catalogs
measured, {small} and {large} segments:

- bytes a segment are those of the larger one; the database has as many bytes for a track as that of
  `real`, and as many tracks for a segment;
- memory and opening grow as they do from the one to the other. A machine has {usable} of its memory
  for what the process owns, the rest caches files; whole vectors are read from disk or that cache;
- a query segment is compared, in each shard, with the middle of every list and with the codes in
  the lists chosen. Each comparison takes what those the larger catalog has more than the smaller
  one took on average; encoding and aligning stay. Several machines share the shards;
- adding is as fast as to the empty catalog above, by one writer. Compacting trains once and then
  takes as long for a segment as in the larger catalog.

{estimates}

The number of shards is what makes queries slow: each is searched by its own lists. The widest
shards have {widest} segments, as many as fill all the lists a shard may have; how much fewer
neighbours they find, looking into as small a number of lists, is not measured.

What ends first:

{limits}

Machines that share a catalog, each with shards of its own, are nothing astound does by itself: they
would be catalogs of their own, asked one beside the other.

"""
