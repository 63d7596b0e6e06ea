"""The command line: ``python -m benchmarks accuracy|clips|model|scale|scan|speed``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from engine.errors import AstoundError


def main(arguments: list[str] | None = None) -> int:
    """Run one measurement and print its table."""
    options = vars(_parser().parse_args(arguments))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        results = _measure(options.pop("command"), options)
    except AstoundError as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return 1
    print("\n\n".join([results["table"], *results.get("tables", {}).values()]))
    return 0


def _measure(command: str, options: dict[str, Any]) -> dict[str, Any]:
    # Imported here, so that --help does not wait for the model's libraries.
    if command == "accuracy":
        from benchmarks.accuracy import AccuracyConfig, run

        return run(AccuracyConfig(**options))
    if command == "clips":
        from benchmarks.clips import ClipsConfig
        from benchmarks.clips import run as run_clips

        return run_clips(ClipsConfig(**options))
    if command == "model":
        from benchmarks.model import ModelConfig
        from benchmarks.model import run as run_model

        return run_model(ModelConfig(**options))
    if command == "scale":
        from benchmarks.scale import ScaleConfig
        from benchmarks.scale import run as run_scale

        return run_scale(ScaleConfig(**options))
    if command == "scan":
        from benchmarks.scan import ScanBenchmarkConfig
        from benchmarks.scan import run as run_scan

        return run_scan(ScanBenchmarkConfig(**options))
    from benchmarks.speed import SpeedConfig
    from benchmarks.speed import run as run_speed

    return run_speed(SpeedConfig(**options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    accuracy = commands.add_parser("accuracy", help="how often the answer is right")
    _add_common(accuracy)
    _add_catalog(accuracy)
    _add_accuracy(accuracy)
    clips = commands.add_parser("clips", help="how well clip-level embeddings alone tell tracks")
    _add_common(clips)
    _add_catalog(clips)
    _add_model(commands.add_parser("model", help="how fast the networks are, and onnxruntime"))
    scale = commands.add_parser("scale", help="what catalogs cost and find as they grow")
    _add_common(scale)
    _add_sounds(scale)
    _add_scale(scale)
    _add_scan(commands.add_parser("scan", help="how well a long mix is taken apart"))
    _add_common(commands.add_parser("speed", help="how fast, and at what cost"))
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    _add_out(parser)
    parser.add_argument(
        "--seconds", type=float, default=argparse.SUPPRESS, metavar="S",
        help="for about how long each comparison goes on",
    )  # fmt: skip


def _add_scan(parser: argparse.ArgumentParser) -> None:
    _add_out(parser)
    parser.add_argument(
        "--references", type=Path, nargs="+", required=True, metavar="DIR",
        help="music, of which the catalog knows most",
    )  # fmt: skip
    parser.add_argument("--speech", type=Path, nargs="+", default=(), metavar="DIR")
    parser.add_argument("--catalog", type=Path, required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=180.0, metavar="M")
    parser.add_argument("--n-tracks", type=int, default=40, metavar="N", help="known tracks")
    parser.add_argument("--seed", type=int, default=1)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))


def _add_common(parser: argparse.ArgumentParser) -> None:
    _add_out(parser)
    parser.add_argument("--references", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--n-queries", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=None, metavar="N", help="decoding processes")


def _add_catalog(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--catalog", type=Path, required=True, metavar="DIR")
    _add_sounds(parser)
    parser.add_argument(
        "--distractors", type=Path, nargs="+", default=(), metavar="DIR",
        help="more music for the catalog, never asked for",
    )  # fmt: skip


def _add_sounds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--noise", type=Path, required=True, metavar="DIR")
    parser.add_argument("--rooms", type=Path, required=True, metavar="DIR", help="room responses")
    parser.add_argument(
        "--model", type=Path, default=None, metavar="FILE",
        help="weights to encode with, instead of those astound ships",
    )  # fmt: skip


def _add_scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--distractors-from", type=Path, required=True, metavar="CATALOG",
        help="other music, which what catalogs are padded with is made like",
    )  # fmt: skip
    parser.add_argument(
        "--n-segments", type=_numbers, default=argparse.SUPPRESS, metavar="N,N,...",
        help="sizes of the catalogs; the references that are asked for fit into the smallest",
    )  # fmt: skip
    parser.add_argument(
        "--n-exact", type=int, default=argparse.SUPPRESS, metavar="N",
        help="queries of each distortion that are searched exactly as well",
    )  # fmt: skip
    parser.add_argument(
        "--work", type=Path, default=None, metavar="DIR",
        help="folder for the catalogs, from which a run that was cut short goes on",
    )  # fmt: skip
    parser.add_argument("--storage", default="full", choices=("full", "compact"))
    parser.add_argument(
        "--docs", type=Path, default=None, metavar="DIR", help="write scale.md and its plots there"
    )
    parser.add_argument("--keep", action="store_true", help="leave the catalogs where they are")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number.replace("_", "")) for number in text.split(","))


def _add_accuracy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--absent", type=Path, nargs="+", default=(), metavar="DIR",
        help="music to ask for that the catalog does not know",
    )  # fmt: skip
    parser.add_argument(
        "--hold-out", type=float, default=0.0, metavar="SHARE",
        help="share of the references to keep out of the catalog and ask for as absent music",
    )  # fmt: skip
    parser.add_argument("--cells", default="issue", choices=("quick", "issue", "full", "encoder"))
    parser.add_argument(
        "--n-absent", type=int, default=None, metavar="N",
        help="queries of absent music; as many as of present music by default",
    )  # fmt: skip
    parser.add_argument(
        "--query-hop", type=float, default=argparse.SUPPRESS, dest="query_hop_s", metavar="S",
        help="seconds between the segments of a query",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N",
        help="processes that ask; the answers do not depend on it",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
