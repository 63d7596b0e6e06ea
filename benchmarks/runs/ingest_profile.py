"""Costs of ingest: a real run, and each of its parts measured alone."""

from __future__ import annotations

import copy
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from numpy.typing import NDArray

import astound
from astound.catalog import Catalog, Device
from astound.storage import DATABASE_FILE, local_shards
from engine.audio import decode
from engine.audio.resample import resample
from engine.config import IngestConfig
from engine.errors import AudioError
from engine.model.fingerprinter import Fingerprinter, SegmentEncoder
from engine.records import Fingerprint, NewTrack, Waveform
from engine.store.store import Store
from engine.vectors.shard import write_shard
from indexer.decoder_pool import DecoderPool
from indexer.discover import FoundFile, discover

N_TRACKS = 20
_WARM_UP_S = 10.0

DECODERS = ("decode", "resample", "start, hash, tags")
"""Parts that run in the decoder processes."""
_TIMED = (
    "decode", "resample", "pipe", "features", "network", "clip head", "index write", "database",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Ingest:
    """Recordings to add to a catalog.

    Parameters
    ----------
    folder : Path
        The catalog; created if it does not exist.
    paths : sequence of Path
    model : Path or None
        Weights to encode with; the shipped ones by default.
    device : str
    jobs : int or None
        Number of decoder processes.
    """

    folder: Path
    paths: Sequence[Path]
    model: Path | None
    device: str
    jobs: int | None

    def open(self) -> Catalog:
        """Open the catalog."""
        return astound.open(self.folder, model=self.model, device=cast("Device", self.device))


def add(ingest: Ingest) -> dict[str, Any]:
    """Add recordings. To be called in a process of its own.

    Returns
    -------
    dict
        n_added, n_failed, audio_s and add_s, without loading the encoder; cpu_s, the processor
        seconds of this process ("own") and of the decoder processes ("decoders").
    """
    with ingest.open() as catalog:
        catalog.fingerprinter  # noqa: B018 - loads it before the measurement
        before = os.times()
        report = catalog.add(ingest.paths, config=IngestConfig(n_jobs=ingest.jobs))
        after = os.times()
    return {
        "n_added": len(report.added),
        "n_failed": len(report.failed),
        "audio_s": report.audio_s,
        "add_s": report.elapsed_s,
        "cpu_s": {
            "own": after.user + after.system - before.user - before.system,
            "decoders": _of_children(before, after),
        },
    }


def profile_parts(catalog: Catalog, folder: Path, jobs: int | None) -> dict[str, Any]:
    """Measure each part of ingest alone, one after the other, over some tracks of a catalog.

    Parameters
    ----------
    catalog : Catalog
        A catalog with an encoder of astound's, whose audio files still exist.
    folder : Path
        Folder to write to.
    jobs : int or None
        Number of decoder processes.

    Returns
    -------
    dict
        audio_s; parts, with the wall_s and cpu_s of each part by name. cpu_s counts all threads.
        The part "start, hash, tags" is what decoder processes do besides decoding: it has no
        wall_s, and cpu_s is the difference.
    """
    fingerprinter = catalog.fingerprinter
    assert isinstance(fingerprinter, Fingerprinter)
    every = max(catalog.stats().n_tracks // N_TRACKS, 1)
    tracks = list(catalog.tracks())[::every][:N_TRACKS]
    paths, meter = [track.path for track in tracks], _Meter()
    waveforms = _decoded(paths, fingerprinter.sample_rate, meter)
    decoders_s = _drained(paths, fingerprinter.sample_rate, jobs, meter)
    hop_s = catalog.segment_hop_s
    fingerprints = _fingerprinted(waveforms, fingerprinter.encoder, hop_s, meter)
    with Store.open(catalog.folder / DATABASE_FILE) as store:
        known = store.new_tracks([track.id for track in tracks])
    _written(folder, fingerprints, [known[track.id] for track in tracks], meter)
    spent = {name: meter.spent[name] for name in _TIMED}
    shown = {name: {"wall_s": wall_s, "cpu_s": cpu_s} for name, (wall_s, cpu_s) in spent.items()}
    decoding_s = spent["decode"][1] + spent["resample"][1]
    shown["start, hash, tags"] = {"wall_s": None, "cpu_s": max(decoders_s - decoding_s, 0.0)}
    return {"audio_s": sum(map(len, waveforms)) / fingerprinter.sample_rate, "parts": shown}


class _Meter:
    """Wall and processor seconds by part."""

    def __init__(self) -> None:
        self.spent: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(2))

    @contextmanager
    def part(self, name: str, *but: str) -> Iterator[None]:
        """Measure the ``with`` block as one part, without the parts `but` inside it."""
        nested_before = sum((self.spent[one] for one in but), np.zeros(2))
        start = _now()
        yield
        nested = sum((self.spent[one] for one in but), np.zeros(2)) - nested_before
        self.spent[name] = self.spent[name] + _now() - start - nested


def _timed_encoder(encoder: SegmentEncoder, meter: _Meter) -> SegmentEncoder:
    """Return a copy of an encoder that measures its two networks, in one thread."""

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any) -> Any:
            with meter.part(part):
                return call(*arguments)

        return measured

    copied: Any = copy.copy(encoder)
    copied._pool = ThreadPoolExecutor(1)  # what two threads do at once would count twice
    copied.embed_segments = timed("network", copied.embed_segments)
    copied.embed_clips = timed("clip head", copied.embed_clips)
    return cast("SegmentEncoder", copied)


def _now() -> NDArray[np.float64]:
    return np.array([time.perf_counter(), time.process_time()])


def _of_children(before: os.times_result, after: os.times_result) -> float:
    """Return the processor seconds of children that ended in between."""
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def _decoded(paths: Iterable[str], sample_rate: int, meter: _Meter) -> list[Waveform]:
    waveforms = []
    for path in paths:
        with av.open(path, metadata_errors="ignore") as container:
            native_rate = container.streams.audio[0].rate
        with meter.part("decode"):
            native = decode.read(path, native_rate)
        with meter.part("resample"):
            waveforms.append(resample(native, native_rate, sample_rate))
    return waveforms


def _drained(paths: Sequence[str], sample_rate: int, jobs: int | None, meter: _Meter) -> float:
    """Read and drop all blocks of the decoders; return their processor seconds."""
    files = [found for found in discover(paths) if isinstance(found, FoundFile)]
    before = os.times()
    with meter.part("pipe"), DecoderPool(files, sample_rate, jobs, lambda _: True) as decoders:
        for recording in decoders:
            if isinstance(recording, AudioError):
                raise recording
            for _ in recording.blocks or ():
                pass
    return _of_children(before, os.times())


def _fingerprinted(
    waveforms: Iterable[Waveform], encoder: SegmentEncoder, hop_s: float, meter: _Meter
) -> list[Fingerprint]:
    """Fingerprint as ingest does. Time outside of the networks counts as features."""
    fingerprinter = Fingerprinter(_timed_encoder(encoder, meter))
    n_few = round(_WARM_UP_S * fingerprinter.sample_rate)
    Fingerprinter(encoder).fingerprint([next(iter(waveforms))[:n_few]], hop_s)
    fingerprints = []
    for waveform in waveforms:
        with meter.part("features", "network", "clip head"):
            fingerprints.append(fingerprinter.fingerprint([waveform], hop_s))
    return fingerprints


def _written(
    folder: Path, fingerprints: Sequence[Fingerprint], tracks: Sequence[NewTrack], meter: _Meter
) -> None:
    astound.open(folder).close()
    with meter.part("index write"):
        written = write_shard(local_shards(folder), fingerprints)
    with Store.open(folder / DATABASE_FILE) as store, meter.part("database"):
        store.add_shard(written, tracks)
