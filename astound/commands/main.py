"""The command line: results to stdout, all else to stderr; exit 0 done, 1 failed, 2 usage."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import click

import astound
from astound.commands import compare, evaluate, explain, maintenance, model, query as query_commands
from astound.commands.options import (
    FOLDER,
    Session,
    clips,
    format_option,
    given,
    list_option,
    paths_argument,
    say,
)
from astound.output import matches
from engine.config import IngestConfig
from engine.errors import AstoundError
from engine.records import QueryResult

Function = TypeVar("Function", bound=Callable[..., Any])

ALIASES = {"ingest": "add", "store": "add", "match": "query", "identify": "query"}
INTERRUPTED = 130
PLUGINS = "astound.commands"
"""Entry points by which other packages bring commands."""


class Face(click.Group):
    """Knows commands by their aliases too, and turns errors into a line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands, those of other packages too."""
        return sorted({*super().list_commands(ctx), *entry_points(group=PLUGINS).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Look a command up by its name or alias; one of another package is loaded now."""
        known = super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))
        if known is None:
            for found in entry_points(group=PLUGINS, name=cmd_name):
                known = cast(click.Command, found.load())
        return known

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            if any(error.option_name in option.opts for option in self.params):
                raise click.UsageError(
                    f"{error.option_name} belongs to all commands and stands before them: "
                    f"{ctx.info_name} {error.option_name} ... {ctx.invoked_subcommand}"
                ) from error
            raise
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            say("interrupted")
            ctx.exit(INTERRUPTED)
        except AstoundError as error:
            _fail(ctx, str(error))
        except Exception as error:  # noqa: BLE001
            what = " ".join(f"{type(error).__name__}: {error}".split())
            _fail(ctx, f"a bug in astound ({what}); run with -v for the traceback")


def _fail(ctx: click.Context, message: str) -> None:
    if ctx.params["verbose"]:
        traceback.print_exc()
    say(message)
    ctx.exit(1)


_FILE_OR_FOLDER = click.Path(path_type=Path, exists=True)


@click.group(
    cls=Face,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: astound add ~/music, then astound query clip.wav",
)
@click.option(
    "--catalog",
    "folder",
    type=FOLDER,
    envvar="ASTOUND_CATALOG",
    default="catalog",
    metavar="DIR",
    help="The catalog to use; else $ASTOUND_CATALOG, else ./catalog.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="What encodes audio; auto takes a CUDA GPU if there is one.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    envvar="ASTOUND_MODEL",
    metavar="FILE",
    help="Other weights, calibration.json beside them; else $ASTOUND_MODEL, else the shipped ones.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log what happens; show tracebacks.")
@click.version_option(astound.__version__, prog_name="astound", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, /, verbose: bool, **options: Any) -> None:
    """Say which known recording a clip comes from, and where in it."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    if verbose or ctx.invoked_subcommand == "train":
        for package in ("astound", "engine", "indexer", "training"):
            logging.getLogger(package).setLevel(logging.INFO)
    ctx.obj = Session(**options)


@cli.command(epilog="Example: find /nas -name '*.flac' | astound add -")
@paths_argument
@list_option
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Decode N files at a time.")
@click.option(
    "--metadata",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="What to note: a column path, and title, artist, album, isrc or any other.",
)
@click.option("--database", metavar="URL", help="Postgres database for a new catalog.")
@click.pass_context
def add(
    ctx: click.Context,
    paths: tuple[str, ...],
    listed: IO[str] | None,
    jobs: int | None,
    metadata: Path | None,
    database: str | None,
) -> None:
    """Remember recordings: files, and folders with all that is in them; - is a list on stdin.

    What the catalog knows is skipped, so an interrupted run goes on when it is repeated.
    """
    from astound.output import progress

    asked = given(paths, listed)
    noted = matches.read_metadata(metadata) if metadata else {}
    config = IngestConfig(n_jobs=jobs)
    try:
        with ctx.obj.open(create=True, database=database) as catalog, progress.shown() as show:
            report = catalog.add(asked, metadata=noted, config=config, on_progress=show)
    except KeyboardInterrupt:
        say("interrupted; what is committed stays, and the same command goes on from there")
        ctx.exit(INTERRUPTED)
    added = {one.path for one in report.added}
    if n_unused := sum(os.path.abspath(path) not in added for path in noted):
        say(f"{metadata}: {n_unused} of its rows are about no file that was added")
    if not report.n_files:
        say("no audio files there")
    click.echo(matches.summary(report))
    ctx.exit(1 if report.failed else 0)


@cli.command(epilog="Example: astound query clips --format jsonl | jq .status")
@paths_argument
@list_option
@format_option(matches.QUERY_FORMATS)
@click.option("-n", "--max-matches", type=click.IntRange(1), metavar="N", help="N matches at most.")
@click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Confidence that makes a match, in place of the calibrated threshold.",
)
@click.option("--start", "start_s", type=click.FloatRange(0), metavar="S", help="From second S.")
@click.option("--end", "end_s", type=click.FloatRange(0), metavar="S", help="Up to second S.")
@click.pass_context
def query(
    ctx: click.Context, /, paths: tuple[str, ...], listed: IO[str] | None, form: str, **options: Any
) -> None:
    """Identify clips: files, and folders with all that is in them; - is a list on stdin.

    "Not in the catalog" is an answer, not an error.
    """
    from astound.catalog import identify

    asked = given(paths, listed)
    chosen = {key: value for key, value in options.items() if value is not None}
    if chosen.get("end_s", float("inf")) <= chosen.get("start_s", 0.0):
        raise click.UsageError("--end must come after --start")
    failed: list[str] = []
    with ctx.obj.open() as catalog:
        results = (identify(catalog, path, **chosen) for path in clips(asked))
        matches.write_results(_noting_errors(results, failed, form), form, sys.stdout)
    ctx.exit(1 if failed else 0)


def _noting_errors(
    results: Iterable[QueryResult], failed: list[str], form: str
) -> Iterator[QueryResult]:
    for result in results:
        if result.error:
            failed.append(result.query)
            if form != "table":  # which says it itself
                say(result.error["message"])
        yield result


@cli.command(epilog="Example: astound demo --folder tour")
@click.option("--folder", type=FOLDER, metavar="DIR", help="Keep music and catalog there.")
@click.option(
    "--tunes", "n_tunes", type=click.IntRange(1, 900), default=24, show_default=True, metavar="N",
    help="How many to compose.",
)  # fmt: skip
@click.pass_obj
def demo(session: Session, folder: Path | None, n_tunes: int) -> None:
    """Take a tour: compose a small library, degrade clips of it, and identify them."""
    from astound.demo.tour import tour

    tour(folder, n_tunes, device=session.device, model=session.model)


@cli.command(epilog="Example: astound train --music m --noise n --speech s --rooms r --out run1")
@click.option("--music", required=True, type=FOLDER, help="Folder of music.")
@click.option("--noise", required=True, type=FOLDER, help="Folder of noises.")
@click.option("--speech", required=True, type=FOLDER, help="Folder of speech.")
@click.option("--rooms", required=True, type=FOLDER, help="Folder of room impulse responses.")
@click.option("--out", required=True, type=FOLDER, help="Folder for checkpoints and weights.")
@click.option("--init-from", type=_FILE_OR_FOLDER, metavar="PATH", help="Weights to begin with.")
@click.option("--steps", "n_steps", type=click.IntRange(1), metavar="N", help="Length of the run.")
@click.option("--pairs", "n_pairs", type=click.IntRange(2), metavar="N", help="Pairs in a batch.")
@click.option("--learning-rate", type=float, metavar="R", help="Highest learning rate.")
@click.option("--held-out", "n_held_out", type=click.IntRange(1), metavar="N", help="Tracks kept.")
@click.option("--seed", type=int, metavar="N", help="Decides all that is random.")
@click.pass_obj
def train(
    session: Session,
    /,
    out: Path,
    init_from: Path | None,
    music: Path,
    noise: Path,
    speech: Path,
    rooms: Path,
    **settings: Any,
) -> None:
    """Train an encoder; when interrupted, the same command goes on.

    Started as `torchrun --nproc-per-node 4 -m astound train ...` it uses four GPUs.
    """
    from engine.config import load
    from training.config import TrainConfig
    from training.train import Sources, train

    config = load(TrainConfig, {key: one for key, one in settings.items() if one is not None})
    sources = Sources(music, noise, speech, rooms)
    click.echo(train(sources, out, config, init_from=init_from, device=session.device))


for command in (
    *maintenance.COMMANDS,
    *evaluate.COMMANDS,
    *query_commands.COMMANDS,
    *compare.COMMANDS,
    *explain.COMMANDS,
    model.model,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; where the script `astound` begins."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    cli(prog_name="astound")
