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

from engine import calibration, query
from engine.calibration import Calibration
from engine.config import AlignConfig, IndexConfig, SearchConfig
from engine.encoder import load_encoder
from engine.errors import AstoundError
from engine.fingerprint import Fingerprinter
from engine.index import Index
from engine.records import Candidate, Fingerprint, Placement
from engine.shard import write_shard
from training.dataset import AudioPool, PairSampler

log = logging.getLogger(__name__)

DURATIONS_S = (1.0, 2.0, 3.0, 5.0, 10.0)
N_QUERIES = 6  # of each track and duration
FALSE_ACCEPT_RATE = 0.01


class _Answer(NamedTuple):
    """The best candidate of a query, and what it should have been."""

    candidate: Candidate
    n_segments: int
    is_known: bool
    is_right: bool


def calibrate(weights: Path, held_out: PairSampler, seed: int) -> Calibration:
    """Fit the curve and choose the threshold.

    Parameters
    ----------
    weights : Path
    held_out : PairSampler
        Over recordings that the weights have never seen. All others of its music go into the
        catalog with one half of these; the other half is asked for in vain.
    seed : int

    Returns
    -------
    Calibration
    """
    fingerprinter = Fingerprinter(load_encoder(weights))
    queries = list(_queries(fingerprinter, held_out, seed))
    with tempfile.TemporaryDirectory() as folder:
        placements = _write_catalog(fingerprinter, held_out.music, Path(folder))
        answers: list[_Answer] = []
        for half in (held_out.tracks[::2], held_out.tracks[1::2]):
            known = [one for one in placements if one.track_id - 1 not in half]
            index = Index(Path(folder), known, fingerprinter.recipe.recipe_id)
            answers += _ask(queries, index, {one.track_id for one in known})
    return _fit(answers, fingerprinter.recipe.recipe_id)


def _queries(
    fingerprinter: Fingerprinter, held_out: PairSampler, seed: int
) -> Iterator[tuple[int, Fingerprint]]:
    """Degrade clips of each track; none is transposed or mixed into something it is not."""
    heard = dataclasses.replace(
        held_out.config, transpose_share=0.0, mix_share=0.0, speed_share=0.0
    )
    for track in map(int, held_out.tracks):
        for duration_s in DURATIONS_S:
            rng = np.random.default_rng((seed, 2, track, int(duration_s)))
            n_samples = int(duration_s * fingerprinter.sample_rate)
            for clip in held_out.narrowed([track], heard).draw(rng, N_QUERIES, n_samples)[1]:
                try:
                    hop_s = SearchConfig().query_hop_s
                    yield track + 1, fingerprinter.fingerprint([clip.numpy()], hop_s)
                except AstoundError as error:
                    log.info("left out: %s", error)


def _write_catalog(fingerprinter: Fingerprinter, music: AudioPool, folder: Path) -> list[Placement]:
    fingerprints: dict[int, Fingerprint] = {}
    for track in range(len(music)):
        try:
            waveform = music.recording(track)
            hop_s = IndexConfig().segment_hop_s
            fingerprints[track + 1] = fingerprinter.fingerprint([waveform], hop_s)
        except AstoundError as error:
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
    queries: Sequence[tuple[int, Fingerprint]], index: Index, known: set[int]
) -> Iterator[_Answer]:
    hop_s, stopwatch = IndexConfig().segment_hop_s, query.Stopwatch()
    for track_id, clip in queries:
        found = query.find(clip, index, hop_s, SearchConfig(), AlignConfig(), stopwatch)
        if found:
            n_segments = int(clip.audible.sum())
            yield _Answer(found[0], n_segments, track_id in known, found[0].track_id == track_id)


def _fit(answers: Sequence[_Answer], recipe_id: str) -> Calibration:
    inputs = calibration.features(
        [one.candidate for one in answers], [one.n_segments for one in answers]
    )
    weights = calibration.fit(inputs, np.array([one.is_right for one in answers]))
    curve = Calibration(recipe_id=recipe_id, weights=tuple(map(float, weights)), min_confidence=0.5)
    absent = [
        curve.confidence(one.candidate, one.n_segments) for one in answers if not one.is_known
    ]
    threshold = calibration.threshold_for(np.array(absent), FALSE_ACCEPT_RATE)
    kept = [
        curve.confidence(one.candidate, one.n_segments) >= threshold
        for one in answers
        if one.is_right
    ]
    log.info("%d answers; %.1f %% of the right ones kept", len(answers), 100 * np.mean(kept))
    return dataclasses.replace(curve, min_confidence=round(threshold, 4))
