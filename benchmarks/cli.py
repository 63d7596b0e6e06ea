"""The commands `astound bench ...`, which are those of `python -m benchmarks ...` too.

Each command imports its benchmark when it runs, so that the group needs no more than astound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from astound.commands.options import FOLDER, echo_err, storage_option
from engine.errors import AstoundError

EXTRA = ("jinja2", "matplotlib", "psutil", "scipy", "soundfile", "tabulate")
"""Packages of the extra `bench`."""

PATH = click.Path(path_type=Path, exists=True)
DIR = click.Path(path_type=Path, exists=True, file_okay=False)
EXISTING_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
SHARE = click.FloatRange(0, 1, max_open=True)
Decorator = Callable[[Any], Any]


class Bench(click.Group):
    """Group that explains how to install missing packages of the extra."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing not in EXTRA:
                raise
            raise AstoundError(
                f"{missing} is not installed; benchmarks need {', '.join(EXTRA)}: "
                "pip install 'astound[bench]'"
            ) from error


@click.group(cls=Bench, epilog="Example: astound bench retrieval --references music --out measured")
def bench() -> None:
    """Measure accuracy, speed and costs."""


# -- options -----------------------------------------------------------------------------------


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Drop options that were not given, so that the defaults of the configuration apply.

    The default device is that of the option before the command.
    """
    chosen = {key: value for key, value in options.items() if value not in (None, ())}
    session = click.get_current_context().obj
    if "device" in options and session is not None:
        chosen.setdefault("device", session.device)
    return chosen


def show(results: Mapping[str, Any]) -> None:
    """Write the tables of a measurement to stdout."""
    click.echo("\n\n".join([results["table"], *results.get("tables", {}).values()]))


def folders(name: str, text: str, *, required: bool = False) -> Decorator:
    """Make a repeatable option for folders or files."""
    text = f"{text}; repeatable."
    return click.option(name, multiple=True, required=required, type=PATH, metavar="DIR", help=text)


def folder(name: str, text: str) -> Decorator:
    """Make a required option for one existing folder."""
    return click.option(name, required=True, type=DIR, metavar="DIR", help=text)


def number(name: str, text: str, low: int = 1) -> Decorator:
    """Make an option for an integer."""
    return click.option(name, type=click.IntRange(low), metavar="N", help=text)


def listed(convert: Callable[[str], Any], example: str) -> Callable[..., tuple[Any, ...]]:
    """Make a callback that parses comma-separated values."""

    def parse(_: click.Context, __: click.Parameter, text: str | None) -> tuple[Any, ...]:
        try:
            return tuple(convert(one.replace("_", "")) for one in text.split(",")) if text else ()
        except ValueError as error:
            raise click.BadParameter(
                f"{text!r} is not a list of numbers such as {example}"
            ) from error

    return parse


def named(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Parse NAME=COMMAND options."""
    pairs = [text.partition("=") for text in texts]
    if wrong := [name for name, sign, command in pairs if not (name and sign and command)]:
        raise click.BadParameter(f"{wrong[0]!r} is not NAME=COMMAND, such as olaf=/opt/bin/olaf")
    return {name: command for name, _, command in pairs}


def together(*options: Decorator) -> Decorator:
    """Combine options, in the order of the help text."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


references = folders("--references", "Music to cut queries from", required=True)
distractors = folders("--distractors", "More music for the catalog, without queries")
seed = number("--seed", "Seed of everything random.", low=0)
n_queries = number("--n-queries", "Queries per distortion and duration.")
jobs = number("--jobs", "Decode N files at a time.")
processes = number("--processes", "Processes that run queries; answers do not depend on it.")
noise = click.option("--noise", required=True, type=PATH, metavar="DIR", help="Noises.")
rooms = click.option("--rooms", required=True, type=PATH, metavar="DIR", help="Room responses.")
optional_noise = click.option(
    "--noise", type=PATH, metavar="DIR",
    help="Noises; without them, distortions that need them are left out.",
)  # fmt: skip
optional_rooms = click.option(
    "--rooms", type=PATH, metavar="DIR", help="Room responses; without them, as for noises."
)
hold_out = click.option(
    "--hold-out", type=SHARE, metavar="SHARE",
    help="Share of the references to keep out of the catalog and to use as absent music.",
)  # fmt: skip
catalog = click.option(
    "--catalog", required=True, type=FOLDER, metavar="DIR", help="Catalog to open or create."
)
model_option = click.option(
    "--model", type=PATH, metavar="FILE",
    help="Weights to encode with; the shipped ones by default.",
)  # fmt: skip
device = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Device of the encoder."
)
before = click.option(
    "--before", type=EXISTING_FILE, metavar="FILE.json",
    help="Results of an earlier run, to be compared with.",
)  # fmt: skip
out_file = click.option(
    "--out", required=True, type=FILE, metavar="FILE.json", help="File for the results."
)
out_folder = click.option(
    "--out", required=True, type=FOLDER, metavar="DIR",
    help="Folder for catalog and results; an interrupted run resumes there.",
)  # fmt: skip
distortions = click.option(
    "--distortions", metavar="NAME,NAME,...",
    help="Distortions of the queries, such as noise0,mp3-32k,speed±8; or one of the sets quick, "
    "issue, encoder, full.",
)  # fmt: skip
durations = click.option(
    "--durations", "durations_s", callback=listed(float, "2,5"), metavar="S,S,...",
    help="Durations of the queries, in seconds.",
)  # fmt: skip


# -- accuracy ----------------------------------------------------------------------------------


@bench.command(
    epilog="Example: astound bench retrieval --references music --hold-out 0.2 --out measured"
)
@references
@folders("--absent", "Music that the catalog does not contain, to cut absent queries from")
@together(hold_out, distractors, optional_noise, optional_rooms)
@click.option(
    "--out", required=True, type=FOLDER, metavar="DIR",
    help="Folder for results.json, report.md, report.html and queries.jsonl; an interrupted run "
    "resumes there.",
)  # fmt: skip
@together(distortions, durations, n_queries)
@number("--n-absent", "Queries of absent music, likewise; as many as present ones by default.", 0)
@seed
@click.option(
    "--query-hop", "query_hop_s", type=float, metavar="S",
    help="Seconds between the segments of a query.",
)  # fmt: skip
@click.option(
    "--catalog", type=FOLDER, metavar="DIR",
    help="Catalog to open or create; inside of --out by default.",
)  # fmt: skip
@together(model_option, device, jobs, processes)
def retrieval(**options: Any) -> None:
    """Measure how often answers are right, and how often unknown music gets a match."""
    from benchmarks.suites.retrieval import RetrievalConfig, run

    config = RetrievalConfig(**given(options))
    show(run(config))
    echo_err(f"full report: {config.out / 'report.html'}")


@bench.command(epilog="Example: astound bench quick")
@click.option("--update", is_flag=True, help="Write the baseline instead of comparing with it.")
@click.option(
    "--baseline", type=FILE, metavar="FILE.json", help="Baseline; the shipped one by default."
)
@processes
@click.pass_context
def quick(ctx: click.Context, /, **options: Any) -> None:
    """Compare accuracy and speed with a baseline, on synthetic music."""
    from benchmarks.suites.quick import QuickConfig, run

    results = run(QuickConfig(**given(options)))
    show(results)
    for loss in results["losses"]:
        echo_err(f"lost: {loss}")
    if not results["losses"]:
        echo_err("baseline written" if options["update"] else "nothing was lost")
    ctx.exit(1 if results["losses"] else 0)


@bench.command(epilog="Example: astound bench reliability --out measured")
@click.option("--out", required=True, type=FOLDER, metavar="DIR", help="Folder for the results.")
@number("--n-audio", "Mutated audio files.", 0)
@number("--n-storage", "Catalogs with a mutated file.", 0)
@number("--n-rows", "Catalogs with a mutated value in the database.", 0)
@number("--n-weights", "Mutated files of weights and ONNX graphs.", 0)
@number("--n-kills", "Commands that are killed.", 0)
@number("--n-disks", "Commands on a full disk.", 0)
@seed
@model_option
@click.pass_context
def reliability(ctx: click.Context, /, **options: Any) -> None:
    """Query mutated files and catalogs; count what breaks."""
    from benchmarks.suites.reliability import ReliabilityConfig, run

    results = run(ReliabilityConfig(**given(options)))
    show(results)
    ctx.exit(1 if results["n_faults"] else 0)


@bench.command(epilog="Example: astound bench tables --check")
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if a page differs.")
@click.pass_context
def tables(ctx: click.Context, check: bool) -> None:
    """Update the generated tables in README.md and docs from benchmarks/results/*.json."""
    from benchmarks.reports import documents

    changed = list(documents.differing()) if check else documents.write()
    for page in changed:
        click.echo(page)
    if check and changed:
        echo_err("these pages differ from benchmarks/results; run `astound bench tables`")
        ctx.exit(1)


@bench.command(epilog="Example: astound bench clips --references music --noise n --rooms r "
               "--catalog c --out clips.json")  # fmt: skip
@together(
    references, distractors, noise, rooms, catalog, out_file, n_queries, seed, model_option, device,
    jobs,
)  # fmt: skip
def clips(**options: Any) -> None:
    """Measure how well clip-level embeddings alone identify tracks."""
    from benchmarks.suites.clips import ClipsConfig, run

    show(run(ClipsConfig(**given(options))))


@bench.command(epilog="Example: astound bench encoder --references music --noise n --rooms r "
               "--out encoder.json")  # fmt: skip
@together(
    references, distractors, noise, rooms, out_file, distortions, durations, n_queries, seed,
    model_option, before, device,
)  # fmt: skip
def encoder(**options: Any) -> None:
    """Measure the accuracy of the encoder alone, scoring every position."""
    from benchmarks.suites.encoder import EncoderConfig, run

    show(run(EncoderConfig(**given(options))))


@bench.command(epilog="Example: astound bench scan --references music --catalog c --out scan.json")
@references
@folders("--speech", "Speech between and over the music")
@together(catalog, out_file)
@click.option("--minutes", type=float, metavar="M", help="Length of the mix.")
@number("--n-tracks", "Known tracks in the mix.")
@together(seed, device)
def scan(**options: Any) -> None:
    """Measure `scan` on a long mix."""
    from benchmarks.suites.scan import ScanBenchmarkConfig, run

    show(run(ScanBenchmarkConfig(**given(options))))


@bench.command(epilog="Example: astound bench passages --references music --speech speech "
               "--noise noise --out measured")  # fmt: skip
@references
@folders("--absent", "Music that the catalog does not contain; files of --references are ignored")
@click.option(
    "--hold-out", type=SHARE, metavar="SHARE",
    help="Share of the references to use as absent music; a third by default without other music.",
)  # fmt: skip
@folder("--speech", "Speech between and around the music; two recordings or more.")
@together(noise, out_folder)
@click.option(
    "--suites", metavar="NAME,NAME,...",
    help="Any of joins, half-known, edits, short-pieces, jingles, detuned, speeds, same, repeats, "
    "rejects, within, long; all by default.",
)  # fmt: skip
@number("--n", "Cases per row of most suites; 20 by default, 6 for a first impression.")
@together(before, seed, model_option, device, jobs, processes)
def passages(**options: Any) -> None:
    """Measure passages: songs in a row, edits, jingles, repeats, other speeds, unknown sound."""
    from benchmarks.suites.passages import PassagesConfig, run

    config = PassagesConfig(**given(options))
    show(run(config))
    echo_err(f"full report: {config.out / 'report.html'}")


# -- speed and scale ---------------------------------------------------------------------------


@bench.command(epilog="Example: astound bench speed --references music --out speed.json")
@together(references, out_file, n_queries)
@click.option(
    "--n-askers", callback=listed(int, "1,8,64"), metavar="N,N,...",
    help="Numbers of threads that query concurrently.",
)  # fmt: skip
@together(seed, model_option, device, jobs)
def speed(**options: Any) -> None:
    """Measure speed and costs of ingest and of queries."""
    from benchmarks.suites.speed import SpeedConfig, run

    show(run(SpeedConfig(**given(options))))


@bench.command(epilog="Example: astound bench service --references music --out service.json")
@together(references, out_file)
@number("--n-queries", "Clips, and queries of each client.")
@number("--n-clients", "Clients that query all the time; 16 at most.")
@number("--n-at-once", "Clients that query at the same moment.")
@number("--upload-bytes", "Size of a large upload.")
@number("--limit-bytes", "Limit that another upload exceeds.")
@together(seed, model_option, device, jobs)
def service(**options: Any) -> None:
    """Measure the service under load, with large uploads, and when it ends."""
    from benchmarks.suites.service import ServiceBenchmarkConfig, run

    show(run(ServiceBenchmarkConfig(**given(options))))


@bench.command(epilog="Example: astound bench model --seconds 1.5 --out model.json")
@out_file
@click.option("--seconds", type=float, metavar="S", help="Approximate time for each comparison.")
@device
def model(**options: Any) -> None:
    """Measure the speed of the networks, in torch and in onnxruntime."""
    from benchmarks.suites.model import ModelConfig, run

    show(run(ModelConfig(**given(options))))


@bench.command(epilog="Example: astound bench gpu --distractors-from c --out gpu.json")
@click.option(
    "--distractors-from", required=True, type=FOLDER, metavar="CATALOG",
    help="A catalog of music to fit the synthetic vectors to.",
)  # fmt: skip
@out_file
@number("--n-vectors", "Number of synthetic vectors.", low=20_000)
@number("--n-queries", "Query segments.")
@click.option("--work", type=FOLDER, metavar="DIR", help="Folder for the shards; removed.")
@seed
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]),
    help="Device that trains, fills and searches.",
)  # fmt: skip
def gpu(**options: Any) -> None:
    """Measure how fast a GPU fills and searches large shards, compared with the CPU."""
    from benchmarks.suites.gpu import GpuConfig, run

    show(run(GpuConfig(**given(options))))


@bench.command(epilog="Example: astound bench scale --references music --distractors-from c "
               "--noise n --rooms r --out scale.json")  # fmt: skip
@references
@click.option(
    "--distractors-from", required=True, type=FOLDER, metavar="CATALOG",
    help="A catalog of other music to fit the synthetic tracks to.",
)  # fmt: skip
@click.option(
    "--n-segments", callback=listed(int, "1000,20000"), metavar="N,N,...",
    help="Sizes of the catalogs; the smallest limits the references.",
)  # fmt: skip
@together(noise, rooms, out_file, n_queries)
@number("--n-exact", "Queries per distortion that are also searched exactly.", low=0)
@click.option(
    "--work", type=FOLDER, metavar="DIR",
    help="Folder for the catalogs; an interrupted run resumes there.",
)  # fmt: skip
@storage_option
@click.option("--docs", type=FOLDER, metavar="DIR", help="Write scale.md and its plots there.")
@click.option("--keep", is_flag=True, help="Keep the catalogs.")
@together(seed, model_option, device, jobs)
def scale(**options: Any) -> None:
    """Measure costs and recall of catalogs as they grow."""
    from benchmarks.suites.scale import ScaleConfig, run

    show(run(ScaleConfig(**given(options))))


# -- other systems and published tests ---------------------------------------------------------


@bench.command(epilog="Example: astound bench peers --references music --noise n --out compared")
@together(references, optional_noise, optional_rooms, out_folder)
@click.option(
    "--peers", callback=listed(str, "astound,olaf"), metavar="NAME,NAME,...",
    help="Any of astound, chromaprint, audfprint, audfprint-mirex, olaf; all by default.",
)  # fmt: skip
@click.option(
    "--command", "commands", multiple=True, callback=named, metavar="NAME=COMMAND",
    help="Command of a program that is not on the PATH; repeatable.",
)  # fmt: skip
@together(n_queries, hold_out, seed, jobs, model_option, device)
def peers(**options: Any) -> None:
    """Compare astound with other systems: same recordings, same queries, same machine."""
    from benchmarks.suites.peers import PeersConfig, run

    show(run(PeersConfig(**given(options))))


@bench.command(epilog="Example: astound bench nafp --data neural-audio-fp-dataset --out measured")
@folder("--data", "The data set, or a folder with query, db and dummy.")
@out_folder
@click.option(
    "--test-ids", type=EXISTING_FILE, metavar="FILE.npy",
    help="Ids of the segments that queries start at.",
)  # fmt: skip
@number("--n-queries", "Number of ids to draw without a file of ids.")
@together(seed, model_option, device, jobs)
def nafp(**options: Any) -> None:
    """Run the test of "Neural Audio Fingerprint": top-1 exact, near and song for 1 to 10 s."""
    from benchmarks.protocols.nafp import NafpConfig, run

    show(run(NafpConfig(**given(options))))


@bench.command(epilog="Example: astound bench pex --annotations annotations.csv "
               "--references references --queries queries --out measured")  # fmt: skip
@click.option(
    "--annotations", required=True, type=EXISTING_FILE, metavar="FILE.csv",
    help="Annotations of the toolkit.",
)  # fmt: skip
@folder("--references", "Recordings, named by their ids.")
@folder("--queries", "Queries, named by their ids.")
@together(out_folder, model_option, device, jobs)
def pex(**options: Any) -> None:
    """Run the Pex audio fingerprinting benchmark: precision, recall and F, files and segments."""
    from benchmarks.protocols.pex import PexConfig, run

    show(run(PexConfig(**given(options))))


@bench.command(epilog="Example: astound bench mirex --references database --queries clips "
               "--list truth.txt --out measured")  # fmt: skip
@folder("--references", "Recordings.")
@folder("--queries", "Clips.")
@click.option(
    "--list", required=True, type=EXISTING_FILE, metavar="FILE",
    help="A clip and its recording per line.",
)  # fmt: skip
@together(out_folder, model_option, device, jobs)
def mirex(**options: Any) -> None:
    """Run the audio fingerprinting task of MIREX: top-1 hit rate."""
    from benchmarks.protocols.mirex import MirexConfig, run

    show(run(MirexConfig(**given(options))))
