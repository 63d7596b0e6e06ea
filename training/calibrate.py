"""Fit the confidence curve of trained weights on tracks they were not trained on.

Clips of the held-out tracks are searched twice, each time with another half of these tracks in the
catalog, so that every track gives known and unknown queries. No catalog contains reversed clips,
tones, hum, noise and voices, which are queried as well. The catalogs differ in size, because
random matches have less competition in a small one: a curve fitted to 365 tracks alone accepted 1 %
of 360 unknown queries among 459 tracks, and 5 % among 78.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.config import AlignConfig, IndexConfig, SearchConfig
from engine.errors import AudioError
from engine.model.fingerprinter import Fingerprinter
from engine.protocol import VectorIndex
from engine.records import Candidate, Fingerprint, Placement
from engine.search.calibration import Answer, Calibration, learn
from engine.search.candidates import find_candidates
from engine.search.context import SearchContext
from engine.search.speeds import SpeedSearch
from engine.vectors.index import Index
from engine.vectors.shard import write_shard
from engine.vectors.storage import LocalStorage, ShardStorage
from training.augment import signals
from training.augment.config import AugmentConfig
from training.augment.pool import AudioPool
from training.augment.rng import Rng
from training.dataset import PairSampler

log = logging.getLogger(__name__)

DURATIONS_S = (1.0, 2.0, 3.0, 5.0, 10.0)
N_QUERIES, N_UNKNOWN = 12, 3  # of each track and duration; unknown ones of each kind
CHANGED_PROB = 0.1  # of speed, pitch and tempo, each
_NOISE_PROB, _ROOM_PROB = 0.7, 0.4  # lower than in training: people also search clean files
_MIN_REVERSED_S = 3.0
_CATALOG_STRIDES = (1, 4, 16)  # catalogs contain all tracks, every 4th or every 16th


class UnknownSound(NamedTuple):
    """A sound that no catalog contains: float32 tensor of shape (n_samples,)."""

    waveform: Tensor
    is_reversed: bool  # a clip of music


class _Query(NamedTuple):
    """A degraded clip of a held-out track, or, if `is_unknown`, a sound that is on no track.

    Unknown ones are searched where the track is known that they were made from.
    """

    track_id: int
    waveform: NDArray[np.float32]
    fingerprint: Fingerprint
    is_unknown: bool
    is_reversed: bool


def calibrate(weights: Path, held_out: PairSampler, seed: int, device: str = "auto") -> Calibration:
    """Fit the curve and choose the threshold.

    Parameters
    ----------
    weights : Path
    held_out : PairSampler
        Over recordings that the weights were not trained on. The other recordings of its pool are
        in every catalog.
    seed : int
    device : {"auto", "cpu", "cuda"}

    Returns
    -------
    Calibration
    """
    fingerprinter = Fingerprinter.load(weights, device)
    queries = list(_queries(fingerprinter, held_out, seed))
    with tempfile.TemporaryDirectory() as folder:
        shards = LocalStorage(Path(folder))
        placements = _write_catalog(fingerprinter, held_out.music, shards)
        answers: list[Answer] = []
        index = Index(shards, placements, fingerprinter.recipe_id)
        everything = {one.track_id for one in placements}
        for half in (held_out.tracks[::2], held_out.tracks[1::2]):
            known = everything - {int(track) + 1 for track in half}
            answers += _search(queries, fingerprinter, index.among(known))
    curve = learn(answers, fingerprinter.recipe_id, search=SearchConfig(), alignment=AlignConfig())
    kept = [
        p >= curve.min_confidence for p, is_right in (a.best(curve) for a in answers) if is_right
    ]
    log.info("%d answers; %d of %d right ones kept", len(answers), sum(kept), len(kept))
    return curve


def query_augmentation(
    config: AugmentConfig, *, noise: bool = True, speech: bool = True
) -> AugmentConfig:
    """Adapt the degradations of training to queries, some of them at another speed.

    Queries contain no other music, because that music is in the catalog and a right answer too.
    They are not in reverse, because that is music that the catalog does not contain.

    Parameters
    ----------
    config : AugmentConfig
    noise, speech : bool
        Whether there are recordings of noise and speech.

    Returns
    -------
    AugmentConfig
    """
    recorded, voices, _, coloured = config.noise_kind_probs
    recorded, voices = recorded * noise, voices * speech
    total = recorded + voices + coloured
    return dataclasses.replace(
        config,
        transpose_prob=0.0,
        mix_prob=0.0,
        reverse_prob=0.0,
        noise_kind_probs=(recorded / total, voices / total, 0.0, coloured / total),
        noise_prob=_NOISE_PROB,
        room_prob=_ROOM_PROB,
        speed=(0.92, 1.08),
        speed_prob=CHANGED_PROB,
        wide_speed_prob=0.0,
        pitch=(-2.0, 2.0),
        pitch_prob=CHANGED_PROB,
        wide_pitch_prob=0.0,
        tempo_prob=CHANGED_PROB,
    )


def unknown_sounds(clips: Tensor, sampler: PairSampler, rng: Rng) -> list[UnknownSound]:
    """Make sounds that no catalog contains, and that still agree with some music.

    Parameters
    ----------
    clips : float32 tensor of shape (n, n_samples)
    sampler : PairSampler
        With the noises.
    rng : Rng

    Returns
    -------
    list of UnknownSound
        Tones, sweeps and hum; noise and voices; and the reversed clips, if they are long enough to
        be distinguished from the clips.
    """
    n, n_samples = clips.shape
    rate = sampler.reverb.sample_rate
    config = query_augmentation(sampler.config)
    noise = sampler.noise.draw(rng, n, n_samples, config)
    noise = noise / noise.abs().amax(dim=1, keepdim=True).clamp(min=1e-6)
    sounds = [*signals.draw(rng, n, n_samples, rate), *noise]
    reversed_clips = clips.flip(1) if n_samples >= _MIN_REVERSED_S * rate else ()
    return [UnknownSound(one, False) for one in sounds] + [
        UnknownSound(one, True) for one in reversed_clips
    ]


def best_candidates(
    clip: Fingerprint, waveform: NDArray[np.float32], speed_search: SpeedSearch
) -> tuple[Candidate, ...]:
    """Search a clip as it is and at other speeds, even if the first search is confident.

    Parameters
    ----------
    clip : Fingerprint
    waveform : float32 array of shape (n_samples,)
        The waveform of `clip`.
    speed_search : SpeedSearch
        With the context to search.

    Returns
    -------
    tuple of Candidate
        The best candidate of each search; empty if nothing is found.
    """
    plain = find_candidates(clip, speed_search.context)
    return (*plain[:1], *speed_search.extend(plain, waveform)[:1])


def _queries(fingerprinter: Fingerprinter, held_out: PairSampler, seed: int) -> Iterator[_Query]:
    """Degrade clips of each track."""
    hop_s = fingerprinter.hop_within(SearchConfig().query_hop_s, IndexConfig().segment_hop_s)
    for track in map(int, held_out.tracks):
        one = dataclasses.replace(
            held_out, tracks=np.array([track]), config=query_augmentation(held_out.config)
        )
        for duration_s in DURATIONS_S:
            rng = Rng((seed, 3, track, int(duration_s)))
            n_samples = int(duration_s * fingerprinter.sample_rate)
            clips = one.draw(rng, N_QUERIES, n_samples).degraded
            sounds = [(clip, False, False) for clip in clips]
            unknown = unknown_sounds(clips[:N_UNKNOWN], one, rng)
            sounds += [(sound, True, is_reversed) for sound, is_reversed in unknown]
            for sound, *kind in sounds:
                waveform = sound.numpy()
                try:
                    fingerprint = fingerprinter.fingerprint([waveform], hop_s)
                except AudioError as error:
                    log.info("left out: %s", error)
                else:
                    yield _Query(track + 1, waveform, fingerprint, *kind)


def _write_catalog(
    fingerprinter: Fingerprinter, music: AudioPool, shards: ShardStorage
) -> list[Placement]:
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
    return write_shard(shards, fingerprints.values()).placements(fingerprints)


def _search(
    queries: Sequence[_Query], fingerprinter: Fingerprinter, index: VectorIndex
) -> list[Answer]:
    """Search each query in a catalog of all tracks or of some of them, in parallel."""
    known = index.track_ids
    searched = [one for one in queries if not one.is_unknown or one.track_id in known]

    def answer(number: int) -> Answer:
        one = searched[number]
        own = {one.track_id}.intersection(known)
        is_known = bool(own) and not one.is_unknown
        stride = np.random.default_rng(number).choice(_CATALOG_STRIDES)
        some = set(known[::stride])
        tracks = index.among(some | own)
        context = SearchContext(index=tracks, reference_hop_s=IndexConfig().segment_hop_s)
        speed_search = SpeedSearch(fingerprinter, context)
        found = best_candidates(one.fingerprint, one.waveform, speed_search)
        right = tuple(is_known and candidate.track_id == one.track_id for candidate in found)
        return Answer(
            candidates=found,
            right=right,
            audible_s=one.fingerprint.audible_s,
            is_known=is_known,
            is_reversed=one.is_reversed,
            n_tracks=len(some | own),
        )

    answers = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for number, result in enumerate(threads.map(answer, range(len(searched)))):
            answers.append(result)
            if number % 100 == 0:
                log.info("searched %d of %d", number, len(searched))
    return answers
