"""The commands `astound bench ...`, which are those of `python -m benchmarks ...` too.

Each imports what it needs when it runs, so that the group itself needs no more than astound does.
"""

from __future__ import annotations

from typing import Any

import click

from astound.commands.options import FOLDER, echo_err
from benchmarks.comparisons import mirex, nafp, peers, pex
from benchmarks.options import (
    FILE,
    PATH,
    catalog,
    device,
    distortions,
    distractors,
    durations,
    folders,
    given,
    jobs,
    listed,
    model_option,
    n_queries,
    noise,
    number,
    out_file,
    references,
    rooms,
    seed,
    show,
    together,
)
from engine.errors import AstoundError

_EXTRA = ("matplotlib", "psutil", "scipy")


class Bench(click.Group):
    """Says in a sentence when what only benchmarks need is not installed."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing not in _EXTRA:
                raise
            raise AstoundError(
                f"benchmarks need {missing}: pip install 'astound[bench]'"
            ) from error


@click.group(cls=Bench, epilog="Example: astound bench retrieval --references music --out measured")
def bench() -> None:
    """Measure how often answers are right, how fast they come, and what they cost."""


for _one in (mirex, nafp, peers, pex):
    bench.add_command(_one)


@bench.command(
    epilog="Example: astound bench retrieval --references music --hold-out 0.2 --out measured"
)
@references
@folders("--absent", "Music to ask for that the catalog does not know")
@click.option(
    "--hold-out", type=click.FloatRange(0, 1, max_open=True), metavar="SHARE",
    help="Share of the references to keep out of the catalog and ask for as absent music.",
)  # fmt: skip
@distractors
@click.option("--noise", type=PATH, metavar="DIR", help="Noises; without, none are measured.")
@click.option("--rooms", type=PATH, metavar="DIR", help="Room responses; without, as for noises.")
@click.option(
    "--out", required=True, type=FOLDER, metavar="DIR",
    help="For results.json, report.md, report.html and queries.jsonl; a run cut short goes on.",
)  # fmt: skip
@together(distortions, durations, n_queries)
@number("--n-absent", "Queries of absent music of each kind; as many by default.", low=0)
@seed
@click.option(
    "--query-hop", "query_hop_s", type=float, metavar="S", help="Between segments of a query."
)
@click.option(
    "--catalog",
    type=FOLDER,
    metavar="DIR",
    help="Where to open or create it; else inside of --out.",
)
@together(model_option, device, jobs)
@number("--processes", "Processes that ask; the answers do not depend on it.")
def retrieval(**options: Any) -> None:
    """Measure how often the answer is right, and how often unknown music is told apart."""
    from benchmarks.suites.retrieval import RetrievalConfig, run

    config = RetrievalConfig(**given(options))
    show(run(config))
    echo_err(f"the whole report: {config.out / 'report.html'}")


@bench.command(epilog="Example: astound bench quick")
@click.option("--update", is_flag=True, help="Write the baseline instead of comparing with it.")
@click.option("--baseline", type=FILE, metavar="FILE.json", help="Another one than that shipped.")
@number("--processes", "Processes that ask; the answers do not depend on it.")
@click.pass_context
def quick(ctx: click.Context, /, **options: Any) -> None:
    """Tell whether anything was lost: accuracy and speed, on music made on the spot."""
    from benchmarks.suites.quick import QuickConfig, run

    results = run(QuickConfig(**given(options)))
    show(results)
    for lost in results["losses"]:
        echo_err(f"lost: {lost}")
    if not results["losses"]:
        echo_err("baseline written" if options["update"] else "nothing was lost")
    ctx.exit(1 if results["losses"] else 0)


@bench.command(epilog="Example: astound bench tables --check")
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if a page differs.")
@click.pass_context
def tables(ctx: click.Context, check: bool) -> None:
    """Write the tables of README.md and docs/benchmarks.md from benchmarks/results/*.json."""
    from benchmarks.reports import documents

    changed = list(documents.differing()) if check else documents.write()
    for page in changed:
        click.echo(page)
    if check and changed:
        echo_err("these differ from benchmarks/results; astound bench tables writes them")
        ctx.exit(1)


@bench.command(epilog="Example: astound bench clips --references music --noise n --rooms r "
               "--catalog c --out clips.json")  # fmt: skip
@together(
    references, distractors, noise, rooms, catalog, out_file, n_queries, seed, model_option, device,
    jobs,
)  # fmt: skip
def clips(**options: Any) -> None:
    """Measure how well clip-level embeddings alone tell tracks."""
    from benchmarks.suites.clips import ClipsConfig, run

    show(run(ClipsConfig(**given(options))))


@bench.command(epilog="Example: astound bench encoder --references music --noise n --rooms r "
               "--out encoder.json")  # fmt: skip
@together(
    references, distractors, noise, rooms, out_file, distortions, durations, n_queries, seed,
    model_option, device,
)  # fmt: skip
def encoder(**options: Any) -> None:
    """Measure what the encoder alone finds when every place is scored."""
    from benchmarks.suites.encoder import EncoderConfig, run

    show(run(EncoderConfig(**given(options))))


@bench.command(epilog="Example: astound bench gpu --distractors-from c --out gpu.json")
@click.option(
    "--distractors-from", required=True, type=FOLDER, metavar="CATALOG",
    help="A catalog of music, which vectors are made up like.",
)  # fmt: skip
@out_file
@number("--n-vectors", "How many are made up.", low=20_000)
@number("--n-queries", "Query segments.")
@click.option("--work", type=FOLDER, metavar="DIR", help="For the shards, which are removed.")
@seed
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), help="What trains, fills and searches."
)
def gpu(**options: Any) -> None:
    """Measure how fast a GPU fills and searches large shards, next to the CPU."""
    from benchmarks.suites.gpu import GpuConfig, run

    show(run(GpuConfig(**given(options))))


@bench.command(epilog="Example: astound bench model --seconds 1.5 --out model.json")
@out_file
@click.option("--seconds", type=float, metavar="S", help="About how long each comparison goes on.")
@device
def model(**options: Any) -> None:
    """Measure how fast the networks are, in torch and in onnxruntime."""
    from benchmarks.suites.model import ModelConfig, run

    show(run(ModelConfig(**given(options))))


@bench.command(epilog="Example: astound bench speed --references music --out speed.json")
@together(references, out_file, n_queries)
@click.option(
    "--n-askers", callback=listed(int, "1,8,64"), metavar="N,N,...",
    help="How many ask at once, one number after the other.",
)  # fmt: skip
@together(seed, model_option, device, jobs)
def speed(**options: Any) -> None:
    """Measure how fast recordings go in and answers come out, and at what cost."""
    from benchmarks.suites.speed import SpeedConfig, run

    show(run(SpeedConfig(**given(options))))


@bench.command(epilog="Example: astound bench scan --references music --catalog c --out scan.json")
@references
@folders("--speech", "Speech between the music and over it")
@together(catalog, out_file)
@click.option("--minutes", type=float, metavar="M", help="Length of the mix.")
@number("--n-tracks", "Known tracks in the mix.")
@together(seed, device)
def scan(**options: Any) -> None:
    """Measure how well a long mix is taken apart."""
    from benchmarks.suites.scan import ScanBenchmarkConfig, run

    show(run(ScanBenchmarkConfig(**given(options))))


@bench.command(epilog="Example: astound bench scale --references music --distractors-from c "
               "--noise n --rooms r --out scale.json")  # fmt: skip
@references
@click.option(
    "--distractors-from", required=True, type=FOLDER, metavar="CATALOG",
    help="A catalog of other music, which what catalogs are padded with is made like.",
)  # fmt: skip
@click.option(
    "--n-segments", callback=listed(int, "1000,20000"), metavar="N,N,...",
    help="Sizes of the catalogs; what is asked for fits into the smallest.",
)  # fmt: skip
@together(noise, rooms, out_file, n_queries)
@number("--n-exact", "Queries of each distortion that are searched exactly as well.", low=0)
@click.option(
    "--work", type=FOLDER, metavar="DIR", help="For the catalogs; a run cut short goes on there."
)
@click.option("--storage", type=click.Choice(["full", "compact"]), help="How vectors are kept.")
@click.option("--docs", type=FOLDER, metavar="DIR", help="Write scale.md and its plots there.")
@click.option("--keep", is_flag=True, help="Leave the catalogs where they are.")
@together(seed, model_option, device, jobs)
def scale(**options: Any) -> None:
    """Measure what catalogs cost and find as they grow."""
    from benchmarks.suites.scale import ScaleConfig, run

    show(run(ScaleConfig(**given(options))))
