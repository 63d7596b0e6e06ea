"""The command line: results to stdout, all else to stderr; exit 0 done, 1 failed, 2 usage."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

import click

import astound
from astound import formats, models
from engine.config import IngestConfig
from engine.errors import AstoundError
from engine.records import QueryResult

if TYPE_CHECKING:
    from astound.catalog import Catalog

Function = TypeVar("Function", bound=Callable[..., Any])

ALIASES = {"ingest": "add", "store": "add", "match": "query", "identify": "query"}
INTERRUPTED = 130


@dataclass(frozen=True)
class Session:
    """The options that stand before the command."""

    folder: Path
    device: Literal["auto", "cpu", "cuda"]
    model: Path | None

    def open(self, *, create: bool = False, database: str | None = None) -> Catalog:
        """Open the catalog all commands work on."""
        return astound.open(
            self.folder, device=self.device, model=self.model, create=create, database=database
        )


class Face(click.Group):
    """Knows commands by their aliases too, and turns errors into a line and an exit code."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Look a command up by its name or alias."""
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            _say("interrupted")
            ctx.exit(INTERRUPTED)
        except AstoundError as error:
            _fail(ctx, str(error))
        except Exception as error:  # noqa: BLE001
            what = " ".join(f"{type(error).__name__}: {error}".split())
            _fail(ctx, f"a bug in astound ({what}); run with -v for the traceback")


def _fail(ctx: click.Context, message: str) -> None:
    if ctx.params["verbose"]:
        traceback.print_exc()
    _say(message)
    ctx.exit(1)


def _say(message: str) -> None:
    click.echo(f"astound: {message}", err=True)


# A list may hold names that are not UTF-8.
_LIST = click.File(encoding="utf-8", errors="surrogateescape")
_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
_PATH = click.Path(path_type=Path, exists=True)

paths_argument = click.argument("paths", nargs=-1, metavar="PATH...")
list_option = click.option(
    "--list", "listed", type=_LIST, metavar="FILE", help="Also the paths in FILE, one a line."
)


def format_option(choices: Iterable[str]) -> Callable[[Function], Function]:
    """Make the option --format."""
    kind = click.Choice(list(choices))
    text = "How to write the result."
    return click.option(
        "--format", "form", type=kind, default="table", show_default=True, help=text
    )


record_format = format_option(formats.RECORD_FORMATS)


@click.group(
    cls=Face,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: astound add ~/music, then astound query clip.wav",
)
@click.option(
    "--catalog",
    "folder",
    type=_FOLDER,
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
    from astound import progress

    given = _given(paths, listed)
    noted = formats.read_metadata(metadata) if metadata else {}
    config = IngestConfig(n_jobs=jobs)
    try:
        with ctx.obj.open(create=True, database=database) as catalog, progress.shown() as show:
            report = catalog.add(given, metadata=noted, config=config, on_progress=show)
    except KeyboardInterrupt:
        _say("interrupted; what is committed stays, and the same command goes on from there")
        ctx.exit(INTERRUPTED)
    added = {one.path for one in report.added}
    if n_unused := sum(os.path.abspath(path) not in added for path in noted):
        _say(f"{metadata}: {n_unused} of its rows are about no file that was added")
    click.echo(formats.summary(report))
    ctx.exit(1 if report.failed else 0)


@cli.command(epilog="Example: astound query clips --format jsonl | jq .status")
@paths_argument
@list_option
@format_option(formats.QUERY_FORMATS)
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

    given = _given(paths, listed)
    chosen = {key: value for key, value in options.items() if value is not None}
    if chosen.get("end_s", float("inf")) <= chosen.get("start_s", 0.0):
        raise click.UsageError("--end must come after --start")
    failed: list[str] = []
    with ctx.obj.open() as catalog:
        results = (identify(catalog, path, **chosen) for path in _clips(given))
        formats.write_results(_noting_errors(results, failed, form), form, sys.stdout)
    ctx.exit(1 if failed else 0)


def _given(paths: tuple[str, ...], listed: IO[str] | None) -> list[str]:
    """Put the paths of lists beside the others; a usage error when nothing was given."""
    if not paths and listed is None:
        raise click.UsageError("give at least one PATH, --list FILE, or - for a list on stdin")
    given: list[str] = []
    for path in paths:
        given += formats.read_list(_LIST.convert("-", None, None)) if path == "-" else [path]
    return given + (formats.read_list(listed) if listed else [])


def _clips(given: list[str]) -> Iterator[str]:
    """Replace folders by the audio files in them, named as the folder was."""
    from indexer.scan import scan

    for path in given:
        if os.path.isdir(path):
            for found in scan([path]):
                yield os.path.join(path, os.path.relpath(found.path, path))
        else:
            yield path


def _noting_errors(
    results: Iterable[QueryResult], failed: list[str], form: str
) -> Iterator[QueryResult]:
    for result in results:
        if result.error:
            failed.append(result.query)
            if form != "table":  # which says it itself
                _say(result.error["message"])
        yield result


@cli.command(epilog="Example: astound same remix.mp3 original.flac")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@record_format
@click.option(
    "--min-length", "min_length_s", type=click.FloatRange(0), default=4.0, show_default=True,
    metavar="S", help="Seconds of the shortest passage.",
)  # fmt: skip
@click.pass_obj
def same(session: Session, first: str, second: str, form: str, min_length_s: float) -> None:
    """Compare two files: how alike they are, and which passages they share. Needs no catalog."""
    from rich.console import Console

    from astound.comparison import compare

    device, model = session.device, session.model
    with Console(stderr=True).status("comparing"):
        comparison = compare(first, second, min_length_s=min_length_s, device=device, model=model)
    formats.write_comparison(*comparison, form, sys.stdout)


@cli.command("list", epilog="Example: astound list --format csv > tracks.csv")
@record_format
@click.pass_obj
def list_tracks(session: Session, form: str) -> None:
    """List all tracks."""
    with session.open() as catalog:
        formats.write_tracks(catalog.tracks(), form, sys.stdout)


@cli.command(epilog="Example: astound show 12")
@click.argument("key", metavar="ID|PATH")
@record_format
@click.pass_obj
def show(session: Session, key: str, form: str) -> None:
    """Show all that is known of one track."""
    with session.open() as catalog:
        formats.write_track(catalog.track(_key(key)), form, sys.stdout)


@cli.command(epilog="Example: astound stats")
@record_format
@click.pass_obj
def stats(session: Session, form: str) -> None:
    """Count tracks, hours, segments and bytes."""
    with session.open() as catalog:
        formats.write_stats(catalog.stats(), form, sys.stdout)


@cli.command(epilog="Example: astound delete 12 music/old.ogg")
@click.argument("keys", nargs=-1, required=True, metavar="ID|PATH...")
@click.pass_obj
def delete(session: Session, keys: tuple[str, ...]) -> None:
    """Forget tracks; their files stay. Nothing is deleted unless all are known."""
    with session.open() as catalog:
        for track in catalog.delete(map(_key, keys)):
            click.echo(f"deleted {formats.line(track)}")


@cli.command(epilog='Example: astound update 12 --title "Quiet Rain" --set mood=calm')
@click.argument("key", metavar="ID|PATH")
@click.option("--title", help="Its title; an empty value removes what was noted.")
@click.option("--artist", help="Its artist.")
@click.option("--album", help="Its album.")
@click.option("--isrc", help="Its International Standard Recording Code.")
@click.option("--path", help="Where its file lies now.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Anything else.")
@click.pass_obj
def update(session: Session, /, key: str, pairs: tuple[str, ...], **tags: str | None) -> None:
    """Change what is noted about a track."""
    changes: dict[str, Any] = {name: text for name, text in tags.items() if text is not None}
    if pairs:
        changes["metadata"] = dict(_pair(pair) for pair in pairs)
    if not changes:
        raise click.UsageError("say what to change; astound update --help shows the options")
    if changes.get("path"):
        changes["path"] = os.path.abspath(changes["path"])
    with session.open() as catalog:
        click.echo(f"updated {formats.line(catalog.update(_key(key), **changes))}")


def _key(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
    return key, value


@cli.command(epilog="Example: astound verify && echo safe")
@click.pass_context
def verify(ctx: click.Context) -> None:
    """Check every shard against the database and its own hashes; exit 1 if something is wrong."""
    with ctx.obj.open() as catalog:
        problems, counts = catalog.verify(), catalog.stats()
    for problem in problems:
        click.echo(problem)
    if not problems:
        click.echo(f"all well: tracks {counts.n_tracks}, shards {counts.n_shards}")
    ctx.exit(1 if problems else 0)


@cli.command(epilog="Example: astound demo --folder tour")
@click.option("--folder", type=_FOLDER, metavar="DIR", help="Keep music and catalog there.")
@click.option(
    "--tunes", "n_tunes", type=click.IntRange(1, 900), default=24, show_default=True, metavar="N",
    help="How many to compose.",
)  # fmt: skip
@click.pass_obj
def demo(session: Session, folder: Path | None, n_tunes: int) -> None:
    """Take a tour: compose a small library, degrade clips of it, and identify them."""
    from astound.demo import tour

    tour(folder, n_tunes, device=session.device, model=session.model)


@cli.command(epilog="Example: astound train --music m --noise n --speech s --rooms r --out run1")
@click.option("--music", required=True, type=_FOLDER, help="Folder of music.")
@click.option("--noise", required=True, type=_FOLDER, help="Folder of noises.")
@click.option("--speech", required=True, type=_FOLDER, help="Folder of speech.")
@click.option("--rooms", required=True, type=_FOLDER, help="Folder of room impulse responses.")
@click.option("--out", required=True, type=_FOLDER, help="Folder for checkpoints and weights.")
@click.option("--init-from", type=_PATH, metavar="PATH", help="Weights to begin with.")
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
    n_steps: int | None,
    n_pairs: int | None,
    learning_rate: float | None,
    n_held_out: int | None,
    seed: int | None,
    **folders: Path,
) -> None:
    """Train an encoder; when interrupted, the same command goes on.

    Started as `torchrun --nproc-per-node 4 -m astound.cli train ...` it uses four GPUs.
    """
    from engine.config import load
    from training.config import TrainConfig
    from training.train import Sources, train

    asked = {
        "n_steps": n_steps,
        "n_pairs": n_pairs,
        "learning_rate": learning_rate,
        "n_held_out": n_held_out,
        "seed": seed,
    }
    config = load(TrainConfig, {key: one for key, one in asked.items() if one is not None})
    sources = Sources(**folders)
    device = session.device
    click.echo(train(sources, out, config, init_from=init_from, device=device))


cli.add_command(models.model)


def main() -> None:
    """Run the command line; where the script `astound` begins."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    cli(prog_name="astound")
