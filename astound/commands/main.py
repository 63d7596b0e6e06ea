"""The command line `astound`: results go to stdout, messages to stderr.

The exit code is 0 on success, 1 if some of the input failed, 2 on a usage error, 130 after Ctrl-C.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import traceback
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

import click

import astound
from astound.commands import compare, evaluate, maintenance, query, tracks
from astound.commands.add import add
from astound.commands.demo import demo
from astound.commands.key import key
from astound.commands.model import model
from astound.commands.options import EXIT_INTERRUPTED, FOLDER, Session, echo_err
from astound.commands.serve import serve
from astound.commands.train import train
from astound.output.terminal import cell
from engine.errors import AstoundError, printable

ALIASES = {
    "ingest": "add",
    "store": "add",
    "match": "query",
    "identify": "query",
    "remove": "delete",
}
_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
PLUGINS = "astound.commands"
"""Group of entry points by which other packages add commands."""


class RootGroup(click.Group):
    """Finds aliases and commands of other packages, and turns errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the names of all commands, including those of other packages."""
        return sorted({*super().list_commands(ctx), *entry_points(group=PLUGINS).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command by name or alias; load it if it belongs to another package."""
        command = super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))
        if command is None:
            for plugin in entry_points(group=PLUGINS, name=cmd_name):
                command = cast(click.Command, plugin.load())
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; print an error as one line and exit with its code."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # or a full disk would show only at exit
            return result
        except click.NoSuchOption as error:
            if any(error.option_name in option.opts for option in self.params):
                raise click.UsageError(
                    f"{error.option_name} is a global option; put it before the command: "
                    f"{ctx.info_name} {error.option_name} ... {ctx.invoked_subcommand}"
                ) from error
            raise
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            echo_err("interrupted")
            ctx.exit(EXIT_INTERRUPTED)
        except AstoundError as error:
            _fail(ctx, str(error))
        except Exception as error:  # noqa: BLE001
            _fail(ctx, _refusal(error) or _bug(error))


def _fail(ctx: click.Context, message: str) -> None:
    if ctx.params["verbose"]:
        traceback.print_exc()
    echo_err(message)
    ctx.exit(1)


def _refusal(error: Exception) -> str | None:
    """Describe what is missing or was refused, such as a full disk; None for another error."""
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        return "this needs torch: pip install 'astound[torch]'"
    if not isinstance(error, OSError) or error.strerror is None:
        return None
    if error.filename is not None:
        return f"{printable(error.filename)}: {error.strerror}"
    if error.errno not in _WRITE_ERRORS:
        return error.strerror
    with suppress(OSError, ValueError):  # the output is lost, and must not fail again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return f"cannot write: {error.strerror}"


def _bug(error: Exception) -> str:
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"a bug in astound ({what}); run with -v for the traceback"


class _LogFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return cell(record.message)


@click.group(
    cls=RootGroup,
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
    help="Catalog folder; $ASTOUND_CATALOG or ./catalog by default.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Device for encoding and search; auto uses a CUDA GPU if there is one.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    envvar="ASTOUND_MODEL",
    metavar="FILE",
    help="Weights with calibration.json beside them; else $ASTOUND_MODEL, else the shipped ones.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log progress; show tracebacks.")
@click.version_option(astound.__version__, prog_name="astound", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, /, verbose: bool, **options: Any) -> None:
    """Identify which known recording a clip comes from, and where in it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogFormatter())
    logging.basicConfig(handlers=[handler])
    if verbose or ctx.invoked_subcommand == "train":
        for package in ("astound", "engine", "indexer", "training"):
            logging.getLogger(package).setLevel(logging.INFO)
    ctx.obj = Session(**options)


for command in (
    add,
    *(query.query, query.scan, query.explain),
    *(tracks.list_tracks, tracks.show, tracks.stats, tracks.delete, tracks.update),
    *(maintenance.verify, maintenance.compact, maintenance.backup, maintenance.merge),
    *(maintenance.export, maintenance.import_files),
    *(compare.same, compare.similar, compare.dedup, compare.repeats),
    *(evaluate.calibrate, evaluate.robustness),
    *(model, train, demo, serve, key),
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; entry point of the script `astound`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        cli(prog_name="astound")
    except OSError as error:  # of `--help` and `--version`, which no command writes
        echo_err(_refusal(error) or _bug(error))
        sys.exit(1)
