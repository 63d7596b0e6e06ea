"""Fit the confidence curve of trained weights on tracks they were not trained on.

The held-out tracks are asked for twice, once with one half of them in the catalog and once with the
other, so each gives queries that are known and queries that are not.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine import calibration, query
from engine.calibration import Calibration
from engine.config import AlignConfig, IndexConfig, SearchConfig
from engine.encoder import load_encoder
from engine.errors import AudioError
from engine.fingerprint import Fingerprinter
from engine.index import Index
from engine.records import Candidate, Fingerprint, Placement
from engine.shard import write_shard
from engine.variants import Variants
from training.chance import Chance
from training.dataset import PairSampler
from training.pool import AudioPool

log = logging.getLogger(__name__)

DURATIONS_S = (1.0, 2.0, 3.0, 5.0, 10.0)
N_QUERIES = 4  # of each track and duration
CHANGED_SHARE = 0.1
FALSE_ACCEPT_RATE = 0.01


class _Query(NamedTuple):
    """A degraded clip of a held-out track."""

    track_id: int
    waveform: NDArray[np.float32]
    fingerprint: Fingerprint


class _Answer(NamedTuple):
    """The best candidates of a query, as it is and at other speeds, and what they should be."""

    candidates: tuple[Candidate, ...]
    heard_s: float
    track_id: int
    is_known: bool

    def is_right(self, candidate: Candidate) -> bool:
        return self.is_known and candidate.track_id == self.track_id

    def confidence(self, curve: Calibration) -> float:
        return max(curve.confidence(one, self.heard_s) for one in self.candidates)


def calibrate(weights: Path, held_out: PairSampler, seed: int, device: str = "auto") -> Calibration:
    """Fit the curve and choose the threshold.

    Parameters
    ----------
    weights : Path
    held_out : PairSampler
        Over recordings that the weights have never seen. All others of its music go into the
        catalog with one half of these; the other half is asked for in vain.
    seed : int
    device : {"auto", "cpu", "cuda"}

    Returns
    -------
    Calibration
    """
    fingerprinter = Fingerprinter(load_encoder(weights, device))
    queries = list(_queries(fingerprinter, held_out, seed))
    with tempfile.TemporaryDirectory() as folder:
        placements = _write_catalog(fingerprinter, held_out.music, Path(folder))
        answers: list[_Answer] = []
        for half in (held_out.tracks[::2], held_out.tracks[1::2]):
            known = [one for one in placements if one.track_id - 1 not in half]
            index = Index(Path(folder), known, fingerprinter.recipe_id)
            answers += _ask(queries, fingerprinter, index, {one.track_id for one in known})
    return _fit(answers, fingerprinter.recipe_id)


def _queries(fingerprinter: Fingerprinter, held_out: PairSampler, seed: int) -> Iterator[_Query]:
    """Degrade clips of each track; some run at other speeds.

    None has other music in it: the catalog holds that music, and would be right to say so.
    """
    recorded, voices, _, coloured = held_out.config.noise_kinds
    total = recorded + voices + coloured
    heard = dataclasses.replace(
        held_out.config,
        transpose_share=0.0,
        mix_share=0.0,
        noise_kinds=(recorded / total, voices / total, 0.0, coloured / total),
        speed=(0.92, 1.08),
        speed_share=CHANGED_SHARE,
        pitch=(-2.0, 2.0),
        pitch_share=CHANGED_SHARE,
        tempo_share=CHANGED_SHARE,
    )
    hop_s = fingerprinter.hop_within(SearchConfig().query_hop_s, IndexConfig().segment_hop_s)
    for track in map(int, held_out.tracks):
        one = dataclasses.replace(held_out, tracks=np.array([track]), config=heard)
        for duration_s in DURATIONS_S:
            chance = Chance((seed, 3, track, int(duration_s)))
            n_samples = int(duration_s * fingerprinter.sample_rate)
            for clip in one.draw(chance, N_QUERIES, n_samples).degraded.numpy():
                try:
                    fingerprint = fingerprinter.fingerprint([clip], hop_s)
                except AudioError as error:
                    log.info("left out: %s", error)
                else:
                    yield _Query(track + 1, clip, fingerprint)


def _write_catalog(fingerprinter: Fingerprinter, music: AudioPool, folder: Path) -> list[Placement]:
    fingerprints: dict[int, Fingerprint] = {}
    for track in range(len(music)):
        try:
            waveform = music.recording(track)
            hop_s = IndexConfig().segment_hop_s
            fingerprints[track + 1] = fingerprinter.fingerprint([waveform], hop_s)
        except AudioError as error:
            log.info("left out: %s", error)
        if track % 50 == 0:
            log.info("fingerprinted %d of %d tracks", track, len(music))
    name, _ = write_shard(folder, list(fingerprints.values()))
    placements, row, clip = [], 0, 0
    for track_id, one in fingerprints.items():
        n_segments, n_clips = len(one.embeddings), len(one.clip_embeddings)
        placements.append(
            Placement(
                track_id=track_id,
                shard=name,
                first_row=row,
                n_segments=n_segments,
                first_clip=clip,
                n_clips=n_clips,
            )
        )
        row, clip = row + n_segments, clip + n_clips
    return placements


def _ask(
    queries: Sequence[_Query], fingerprinter: Fingerprinter, index: Index, known: set[int]
) -> Iterator[_Answer]:
    """Ask for each query as it is and at other speeds, though a sure one would not need it."""
    hop_s, stopwatch = IndexConfig().segment_hop_s, query.Stopwatch()
    search, alignment = SearchConfig(), AlignConfig()
    variants = Variants(fingerprinter, index, hop_s, search, alignment, stopwatch)
    for number, (track_id, waveform, clip) in enumerate(queries):
        plain = query.find(clip, index, hop_s, search, alignment, stopwatch)
        found = (*plain[:1], *variants.widen(plain, waveform)[:1])
        if found:
            yield _Answer(found, clip.heard_s, track_id, track_id in known)
        if number % 100 == 0:
            log.info("asked %d of %d", number, len(queries))


def _curve(answers: Sequence[_Answer], recipe_id: str) -> Calibration:
    each = [(answer, one) for answer in answers for one in answer.candidates]
    inputs = calibration.features([one for _, one in each], [answer.heard_s for answer, _ in each])
    right = np.array([answer.is_right(one) for answer, one in each])
    weights = tuple(map(float, calibration.fit(inputs, right)))
    return Calibration(recipe_id=recipe_id, weights=weights, min_confidence=0.5)


def _fit(answers: Sequence[_Answer], recipe_id: str) -> Calibration:
    curve = _curve(answers, recipe_id)
    absent = [one.confidence(curve) for one in answers if not one.is_known]
    threshold = calibration.threshold_for(np.array(absent), FALSE_ACCEPT_RATE)
    kept = [
        answer.confidence(curve) >= threshold
        for answer in answers
        if any(map(answer.is_right, answer.candidates))
    ]
    log.info("%d answers; %d of %d right ones kept", len(answers), sum(kept), len(kept))
    return dataclasses.replace(curve, min_confidence=round(threshold, 4))
