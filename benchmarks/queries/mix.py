"""A long mix of known music, unknown music and speech, with its ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator

from benchmarks.queries import datasets
from benchmarks.queries.datasets import RATE, SpeechSource, Waveform
from engine.audio import decode
from engine.audio.resample import change_speed
from engine.errors import ConfigError

MAX_SPEED_CHANGE = 0.04
FADE_S = (2.0, 8.0)
MIN_TRACK_S = 60.0

_CUT_S = 0.02
_N_TRIES = 10
_N_KNOWN_PER_UNKNOWN = 5
_SPEECH_OVER_S = (10.0, 25.0)
_UNDER_SPEECH_DB = -6.0
"""Level of music under speech, relative to the speech."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """An excerpt in the mix.

    Parameters
    ----------
    path : Path
    present : bool
        Whether the catalog contains the track.
    start_s, end_s : float
        Position in the mix, including the fades.
    fade_in_s, fade_out_s : float
    reference_start_s : float
        Start of the excerpt in the track.
    speed : float
        Seconds of the track per second of the mix.
    speech_s : tuple of float
        Start and end of speech over it, in the mix; empty without.
    """

    path: Path
    present: bool
    start_s: float
    end_s: float
    fade_in_s: float
    fade_out_s: float
    reference_start_s: float
    speed: float
    speech_s: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Mix:
    """The plan of a mix.

    Parameters
    ----------
    parts : tuple of Part
        By start.
    talks : tuple of (float, float)
        Start and end of speech without music.
    duration_s : float
    """

    parts: tuple[Part, ...]
    talks: tuple[tuple[float, float], ...]
    duration_s: float


def plan(
    known: Sequence[Path], unknown: Sequence[Path], n_tracks: int, duration_s: float, seed: int
) -> Mix:
    """Plan a mix.

    Half of the parts fade into each other, a third are separated by speech, the rest by hard cuts.

    Parameters
    ----------
    known, unknown : sequence of Path
        Tracks to choose from, each at most once. Tracks shorter than MIN_TRACK_S are ignored.
    n_tracks : int
        Number of known tracks. For every five, one unknown track is added.
    duration_s : float
        Length of the mix. What music does not fill is speech.
    seed : int

    Raises
    ------
    ConfigError
        There are not enough tracks.
    """
    rng = datasets.generator(seed, "mix")
    n_unknown = -(-n_tracks // _N_KNOWN_PER_UNKNOWN) if unknown else 0
    slot_s = duration_s / (n_tracks + n_unknown)
    parts = [
        *_drawn(known, n_tracks, slot_s, present=True, rng=rng),
        *_drawn(unknown, n_unknown, slot_s, present=False, rng=rng),
    ]
    return _joined([parts[i] for i in rng.permutation(len(parts))], duration_s, rng)


def _drawn(
    paths: Sequence[Path], n: int, slot_s: float, *, present: bool, rng: Generator
) -> list[Part]:
    """Choose excerpts of `n` tracks; all start at 0 s."""
    tried = (_excerpt(paths[i], present, slot_s, rng) for i in rng.permutation(len(paths)))
    found = list(islice((part for part in tried if part is not None), n))
    if len(found) < n:
        reason = f"{n} tracks of at least {MIN_TRACK_S:g} s are needed, {len(found)} are there"
        raise ConfigError("n_tracks", reason)
    return found


def _excerpt(path: Path, present: bool, slot_s: float, rng: Generator) -> Part | None:
    """Cut an excerpt without silence; None if the tries are used up."""
    waveform = decode.read(path, RATE)
    if len(waveform) < MIN_TRACK_S * RATE:
        return None
    for _ in range(_N_TRIES):
        speed = float(rng.uniform(1 - MAX_SPEED_CHANGE, 1 + MAX_SPEED_CHANGE))
        whole_s = len(waveform) / RATE / speed - 1.0
        length_s = min(whole_s, slot_s * float(rng.uniform(0.6, 1.1)))
        start_s = float(rng.uniform(0, whole_s - length_s)) * speed
        if datasets.is_audible(
            waveform[round(start_s * RATE) : round((start_s + length_s * speed) * RATE)]
        ):
            return Part(
                path=path,
                present=present,
                start_s=0.0,
                end_s=length_s,
                fade_in_s=_CUT_S,
                fade_out_s=_CUT_S,
                reference_start_s=start_s,
                speed=speed,
            )
    return None


def _joined(parts: Sequence[Part], duration_s: float, rng: Generator) -> Mix:
    """Place the parts one after the other; the remaining time is speech."""
    transitions = rng.choice(["fade", "talk", "cut"], size=len(parts) - 1, p=[1 / 2, 1 / 3, 1 / 6])
    transitions = np.array(["talk", *transitions, "talk"])
    fades_s = np.where(transitions == "fade", rng.uniform(*FADE_S, size=len(transitions)), 0.0)
    left_s = max(duration_s - sum(part.end_s for part in parts) + float(fades_s.sum()), 0.0)
    shares = np.where(transitions == "talk", rng.uniform(0.5, 1.5, size=len(transitions)), 0.0)
    talks_s = left_s * shares / shares.sum()
    placed, talks, now_s = [], [(0.0, float(talks_s[0]))], float(talks_s[0])
    for i, part in enumerate(parts):
        start_s = now_s - float(fades_s[i])
        end_s = now_s = start_s + part.end_s
        moved = replace(
            part,
            start_s=start_s,
            end_s=end_s,
            fade_in_s=max(float(fades_s[i]), _CUT_S),
            fade_out_s=max(float(fades_s[i + 1]), _CUT_S),
        )
        placed.append(_spoken(moved, rng))
        if talks_s[i + 1]:
            talks.append((now_s, now_s + float(talks_s[i + 1])))
            now_s = talks[-1][1]
    return Mix(parts=tuple(placed), talks=tuple(talks), duration_s=now_s)


def _spoken(part: Part, rng: Generator) -> Part:
    """Add speech over every third part."""
    length_s = float(rng.uniform(*_SPEECH_OVER_S))
    first_s, last_s = part.start_s + part.fade_in_s, part.end_s - part.fade_out_s - length_s
    if rng.random() > 1 / 3 or last_s <= first_s:
        return part
    begin_s = float(rng.uniform(first_s, last_s))
    return replace(part, speech_s=(begin_s, begin_s + length_s))


# -- sound -----------------------------------------------------------------------------------


def write(mix: Mix, speech: Sequence[Path], out: Path, seed: int) -> None:
    """Render a mix to a file, one part at a time.

    Parameters
    ----------
    mix : Mix
    speech : sequence of Path
        Recordings of speech. Without any, speech is silence.
    out : Path
        A FLAC or WAV file, by its suffix.
    seed : int
    """
    source = SpeechSource(speech, datasets.generator(seed, "speech"))
    with soundfile.SoundFile(out, "w", RATE, 1) as file:
        for block in _overlaid(_sounds(mix, source), round(mix.duration_s * RATE)):
            file.write(block.clip(-1, 1))


def _sounds(mix: Mix, speech: SpeechSource) -> Iterator[tuple[int, Waveform]]:
    """Yield the first sample and the waveform of each part and talk, by start."""
    items: list[tuple[float, Part | tuple[float, float]]] = [
        *((part.start_s, part) for part in mix.parts),
        *((talk[0], talk) for talk in mix.talks),
    ]
    for start_s, item in sorted(items, key=lambda pair: pair[0]):
        if isinstance(item, Part):
            yield round(start_s * RATE), _music(item, speech)
        else:
            yield round(start_s * RATE), speech.read(round((item[1] - item[0]) * RATE))


def _music(part: Part, speech: SpeechSource) -> Waveform:
    length_s = part.end_s - part.start_s
    end_s = part.reference_start_s + length_s * part.speed + 0.5
    cut = decode.read(part.path, RATE, start_s=part.reference_start_s, end_s=end_s)
    played = datasets.normalised(change_speed(cut, RATE, part.speed))[: round(length_s * RATE)]
    for fade_s, end in ((part.fade_in_s, slice(None)), (part.fade_out_s, slice(None, None, -1))):
        ramp = np.linspace(0, np.pi / 2, min(round(fade_s * RATE), len(played)))
        played[end][: len(ramp)] *= np.sin(ramp).astype(np.float32)
    if part.speech_s:
        first, last = (round((at_s - part.start_s) * RATE) for at_s in part.speech_s)
        played[first:last] *= np.float32(10 ** (_UNDER_SPEECH_DB / 20))
        spoken = speech.read(last - first)
        played[first : first + len(spoken)] += spoken[: len(played) - first]
    return played


def _overlaid(sounds: Iterable[tuple[int, Waveform]], n_samples: int) -> Iterator[Waveform]:
    """Sum overlapping waveforms; yield samples as soon as they are final."""
    pending, first = np.zeros(0, np.float32), 0
    for start, waveform in sounds:
        yield np.pad(pending, (0, max(start - first - len(pending), 0)))[: start - first]
        pending = np.pad(
            pending[start - first :], (0, max(len(waveform) - len(pending) + start - first, 0))
        )
        pending[: len(waveform)] += waveform
        first = start
    yield np.pad(pending, (0, max(n_samples - first - len(pending), 0)))[: n_samples - first]
