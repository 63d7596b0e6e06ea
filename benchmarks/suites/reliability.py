"""Mutated files: each is refused with a sentence or used, and none breaks the run.

A clip of known music is written in many formats and mutated, and each file is queried. The files
of a catalog are mutated one at a time, and the catalog is opened, checked and queried. Everything
is synthetic and follows from the seed.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from astound.catalog import Catalog
from astound.demo import composer
from benchmarks.queries.datasets import RATE, Waveform, generator
from benchmarks.reports import report
from benchmarks.runs.journal import Journal
from benchmarks.runs.progress import track
from benchmarks.runs.provenance import code_id, provenance
from engine.errors import AstoundError
from engine.records import QueryResult

_N_TUNES, _TUNE_S = 8, 20.0
_CLIP_START_S, _CLIP_S = 6.0, 5.0
# A query that takes longer hangs.
_HANG_S = 60.0
# A place further from the right one is wrong, unless the mutation moves sound.
_MAX_DISTANCE_S = 0.5
_CODEC_RATE = 48_000

FORMATS = {
    "wav": ("wav", "pcm_s16le"),
    "wav 24": ("wav", "pcm_s24le"),
    "wav float": ("wav", "pcm_f32le"),
    "w64": ("w64", "pcm_s16le"),
    "aiff": ("aiff", "pcm_s16be"),
    "au": ("au", "pcm_s16be"),
    "caf": ("caf", "pcm_s16be"),
    "flac": ("flac", "flac"),
    "mp3": ("mp3", "mp3"),
    "mp2": ("mp2", "mp2"),
    "m4a": ("ipod", "aac"),
    "m4a alac": ("ipod", "alac"),
    "aac": ("adts", "aac"),
    "ac3": ("ac3", "ac3"),
    "ogg opus": ("ogg", "libopus"),
    "mka": ("matroska", "pcm_s16le"),
    "webm": ("webm", "libopus"),
    "wma": ("asf", "wmav2"),
}
"""Container and codec of each format."""

# A flipped bit makes their decoders drop a whole page, and sound moves.
_PAGED = ("ogg opus",)


class Mutation(NamedTuple):
    """A way to damage bytes; sound keeps its place unless `moves` is true."""

    apply: Callable[[bytearray, np.random.Generator], bytearray]
    moves: bool = False


def _cut(content: bytearray, rng: np.random.Generator) -> bytearray:
    return content[: int(rng.integers(0, len(content)))]


def _flip(content: bytearray, rng: np.random.Generator) -> bytearray:
    for at in rng.integers(0, len(content), int(rng.integers(1, 33))):
        content[at] ^= 1 << int(rng.integers(8))
    return content


def _flip_header(content: bytearray, rng: np.random.Generator) -> bytearray:
    for at in rng.integers(0, min(len(content), 256), int(rng.integers(1, 9))):
        content[at] = int(rng.integers(256))
    return content


def _span(content: bytearray, rng: np.random.Generator) -> slice:
    start, stop = sorted(rng.integers(0, len(content) + 1, 2))
    return slice(int(start), int(stop))


def _zero(content: bytearray, rng: np.random.Generator) -> bytearray:
    span = _span(content, rng)
    content[span] = bytes(span.stop - span.start)
    return content


def _randomise(content: bytearray, rng: np.random.Generator) -> bytearray:
    span = _span(content, rng)
    content[span] = rng.bytes(span.stop - span.start)
    return content


def _remove(content: bytearray, rng: np.random.Generator) -> bytearray:
    del content[_span(content, rng)]
    return content


def _duplicate(content: bytearray, rng: np.random.Generator) -> bytearray:
    span = _span(content, rng)
    return content[: span.stop] + content[span] + content[span.stop :]


MUTATIONS = {
    "cut off": Mutation(_cut),
    "flipped bits": Mutation(_flip),
    "random header": Mutation(_flip_header, moves=True),
    "zeroed range": Mutation(_zero, moves=True),  # decoders drop empty frames
    "random range": Mutation(_randomise, moves=True),
    "removed range": Mutation(_remove, moves=True),
    "repeated range": Mutation(_duplicate, moves=True),
}
"""Ways to damage a file, by name."""


@dataclass(frozen=True, kw_only=True)
class ReliabilityConfig:
    """Settings of the campaign.

    Parameters
    ----------
    out : Path
        Folder for the results; an interrupted run resumes there.
    n_audio, n_storage : int
        Number of mutated audio files, and of catalogs with a mutated file.
    seed : int
    model : Path or None
        Weights; the shipped ones by default.
    """

    out: Path
    n_audio: int = 8000
    n_storage: int = 2000
    seed: int = 0
    model: Path | None = None


def run(config: ReliabilityConfig) -> dict[str, Any]:
    """Run the campaign, and write ``reliability.md`` into its folder.

    Returns
    -------
    dict
        "table": a Markdown table of counts by kind and outcome; "n_faults": number of exceptions,
        hangs, wrong answers and losses.
    """
    with tempfile.TemporaryDirectory(prefix="astound-") as folder:
        campaign = _Campaign(config, Path(folder))
        settings = {
            "seed": config.seed,
            "n_audio": config.n_audio,  # later numbers are catalogs
            "recipe_id": campaign.catalog.recipe_id,
            "code": code_id(("suites/reliability",)),
        }
        journal = Journal(config.out / "inputs.jsonl", settings)
        n_inputs = config.n_audio + config.n_storage
        numbers = range(journal.n_groups, n_inputs)
        with campaign.catalog:
            records = map(campaign.try_input, numbers)
            for record in track(records, "inputs", n_inputs, numbers.start):
                journal.append(record)
    return _report(journal.records, config.out)


class _Campaign:
    """The catalog, the intact files, and what happens to mutated ones."""

    def __init__(self, config: ReliabilityConfig, home: Path) -> None:
        self.config, self.home = config, home
        self.music = composer.write_library(home / "music", _N_TUNES, 0, _TUNE_S)
        self.catalog = Catalog(home / "catalog", create=True, device="cpu", model=config.model)
        self.catalog.add(home / "music")
        self.catalog.export(home / "exported.astound")
        tune = composer.compose(0, _TUNE_S, RATE)
        first = round(_CLIP_START_S * RATE)
        clip = np.asarray(tune[first : first + round(_CLIP_S * RATE)], np.float32)
        self.audio = {name: _encode(clip, *form) for name, form in FORMATS.items()}

    def try_input(self, number: int) -> dict[str, Any]:
        """Make and try one input; the same number gives the same input."""
        rng = generator(self.config.seed, f"input {number}")
        is_audio = number < self.config.n_audio
        began_s = time.monotonic()
        kind, outcome, detail = (self._try_audio if is_audio else self._try_storage)(rng)
        elapsed_s = time.monotonic() - began_s
        if elapsed_s > _HANG_S:
            outcome = "hang"
        used = [resource.getrusage(who).ru_maxrss * 1024 for who in
                (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]  # fmt: skip
        return {"number": number, "kind": kind, "outcome": outcome, "detail": detail,
                "elapsed_s": round(elapsed_s, 3), "memory_bytes": max(used)}  # fmt: skip

    def _try_audio(self, rng: np.random.Generator) -> tuple[str, str, str]:
        form = str(rng.choice(list(FORMATS)))
        name = str(rng.choice(list(MUTATIONS)))
        mutation = MUTATIONS[name]
        path = self.home / "mutated.bin"
        path.write_bytes(mutation.apply(bytearray(self.audio[form]), rng))
        try:
            result = self.catalog.query(path)
        except AstoundError as error:
            return f"audio: {name}", "refused", error.code
        except Exception as error:  # noqa: BLE001 - counted, whatever it is
            return f"audio: {name}", "exception", f"{form}: {type(error).__name__}: {error}"
        return f"audio: {name}", self._judge(result, mutation.moves or form in _PAGED), form

    def _judge(self, result: QueryResult, moves: bool) -> str:
        if result.best is None:
            return "refused" if result.status == "error" else "used, no match"
        is_right = result.best.path == str(self.music[0])
        distance_s = abs(result.best.offset_s - _CLIP_START_S)
        is_near = moves or distance_s <= _MAX_DISTANCE_S
        return "used, right" if is_right and is_near else "wrong answer"

    def _try_storage(self, rng: np.random.Generator) -> tuple[str, str, str]:
        folder = self.home / "mutated"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.home / "catalog", folder)
        exported = shutil.copy(self.home / "exported.astound", folder / "exported.astound")
        files = sorted(one for one in folder.rglob("*") if one.is_file() and one.stat().st_size)
        path = files[int(rng.integers(len(files)))]
        name = str(rng.choice(list(MUTATIONS)))
        path.write_bytes(MUTATIONS[name].apply(bytearray(path.read_bytes()), rng))
        kind = f"catalog: {_kind(path)}"
        try:
            if path == exported:
                with Catalog(folder / "new", create=True, model=self.config.model) as new:
                    new.import_(path)
                return kind, "used", name
            with Catalog(folder, create=False, model=self.config.model) as catalog:
                problems = catalog.verify()
                matches = catalog.query(self.music[1]).matches
        except AstoundError as error:
            return kind, "refused", error.code
        except Exception as error:  # noqa: BLE001
            return kind, "exception", f"{name}: {type(error).__name__}: {error}"
        is_right = bool(matches) and matches[0].path == str(self.music[1])
        if is_right or problems:
            return kind, "used" if is_right else "refused", name
        return kind, "wrong answer", name


def _kind(path: Path) -> str:
    return f"shard, {path.name}" if path.parent.parent.name == "shards" else path.name


def _encode(waveform: Waveform, container: str, codec: str) -> bytes:
    """Encode a waveform in memory."""
    with tempfile.NamedTemporaryFile() as file:
        with av.open(file.name, "w", format=container) as out:
            stream = out.add_stream(codec, rate=_CODEC_RATE, layout="mono")
            assert isinstance(stream, av.AudioStream)
            stream.bit_rate = 64_000
            frame = av.AudioFrame.from_ndarray(waveform[None], "flt", "mono")
            frame.sample_rate = RATE
            resampler = av.AudioResampler(stream.format.name, "mono", _CODEC_RATE,
                                          stream.frame_size or None)  # fmt: skip
            for part in (frame, None):
                for resampled in resampler.resample(part):
                    out.mux(stream.encode(resampled))
            out.mux(stream.encode(None))
        return Path(file.name).read_bytes()


# -- report ----------------------------------------------------------------------------------

_FAULTS = ("exception", "hang", "wrong answer")
_OUTCOMES = ("refused", "used", "used, right", "used, no match", *_FAULTS)


def _report(records: Sequence[Mapping[str, Any]], out: Path) -> dict[str, Any]:
    counts = Counter((one["kind"], one["outcome"]) for one in records)
    kinds = sorted({one["kind"] for one in records})
    rows = [[kind, *(str(counts[kind, outcome]) for outcome in _OUTCOMES)] for kind in kinds]
    totals = [str(sum(counts[kind, outcome] for kind in kinds)) for outcome in _OUTCOMES]
    made = report.table(["input", *_OUTCOMES], [*rows, ["all", *totals]])
    faults = [one for one in records if one["outcome"] in _FAULTS]
    lines = [*_summary(records), "", made, "", *map(_fault, faults)]
    out.mkdir(parents=True, exist_ok=True)
    (out / "reliability.md").write_text("\n".join(lines) + "\n")
    return {"table": made, "n_faults": len(faults)}


def _summary(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    about = provenance()
    longest_s = max(one["elapsed_s"] for one in records)
    memory_mb = max(one["memory_bytes"] for one in records) / 1e6
    yield (
        f"{len(records)} inputs; `{about['command']}`; commit {about['commit']}. The longest took "
        f"{longest_s:.1f} s, and the largest process {memory_mb:.0f} MB."
    )


def _fault(record: Mapping[str, Any]) -> str:
    return f"- input {record['number']}, {record['kind']}: {record['outcome']}, {record['detail']}"
