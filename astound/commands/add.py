"""The command `astound add`."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import IO, Any

import click

from astound.commands.options import (
    EXIT_INTERRUPTED,
    database_option,
    echo,
    echo_err,
    list_option,
    paths_argument,
    read_paths,
)
from astound.output.progress import ingest_progress
from astound.output.tracks import summary
from engine.config import IngestConfig
from engine.errors import ConfigError, printable


@click.command(epilog="Example: find /nas -name '*.flac' | astound add -")
@paths_argument
@list_option
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Decode N files in parallel.")
@click.option(
    "--metadata",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="CSV with the column path and any of title, artist, album, isrc or other keys.",
)
@database_option
@click.pass_context
def add(
    ctx: click.Context,
    paths: tuple[str, ...],
    list_file: IO[bytes] | None,
    jobs: int | None,
    metadata: Path | None,
    database: str | None,
) -> None:
    """Add recordings to the catalog: files, or folders searched recursively.

    PATH - reads a list of paths from stdin. Content that is already in the catalog is skipped, so
    an interrupted run can be resumed by repeating the command.
    """
    files = read_paths(paths, list_file)
    tags = read_metadata(metadata) if metadata else {}
    config = IngestConfig(n_jobs=jobs)
    try:
        with ctx.obj.open(create=True, database=database) as catalog, ingest_progress() as show:
            report = catalog.add(files, metadata=tags, config=config, on_progress=show)
    except KeyboardInterrupt:
        echo_err("interrupted; committed files are kept, repeat the command to resume")
        ctx.exit(EXIT_INTERRUPTED)
    added = {path for file in report.added for path in (file.path, os.path.realpath(file.path))}
    if n_unused := sum(
        added.isdisjoint((os.path.abspath(path), os.path.realpath(path))) for path in tags
    ):
        echo_err(f"{metadata}: {n_unused} metadata rows match no added file")
    if not report.n_files:
        echo_err("no audio files found")
    echo(summary(report))
    ctx.exit(1 if report.failed else 0)


def read_metadata(path: Path) -> dict[str, dict[str, str]]:
    """Read the metadata of files from a CSV file.

    Parameters
    ----------
    path : Path
        Its header names a column `path`; the other columns are title, artist, album, isrc or any
        other key.

    Returns
    -------
    dict
        For each path, the non-empty columns.

    Raises
    ------
    ConfigError
        The file cannot be read, has no column `path`, or a row does not fit the header.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if "path" not in (reader.fieldnames or ()):
                raise ConfigError(str(path), "header has no column path")
            return dict(_path_and_tags(path, reader.line_num, row) for row in reader)
    except (OSError, csv.Error) as error:
        raise ConfigError(str(path), f"cannot be read as CSV ({error})") from error


def _path_and_tags(csv_path: Path, line: int, row: dict[Any, Any]) -> tuple[str, dict[str, str]]:
    if None in row or None in row.values():
        raise ConfigError(f"{csv_path}: line {line}", "number of fields differs from the header")
    if not row["path"]:
        raise ConfigError(f"{csv_path}: line {line}", "path is empty")
    tags = {key: value for key, value in row.items() if key != "path" and value}
    if any(text != printable(text) for item in tags.items() for text in item):
        raise ConfigError(f"{csv_path}: line {line}", "not valid UTF-8; only a path may be so")
    return row["path"], tags
