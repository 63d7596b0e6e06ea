"""A long recording composed of excerpts of known and unknown music, with the truth about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator

from benchmarks.queries import datasets
from benchmarks.queries.datasets import RATE, Waveform
from engine.audio import decode
from engine.errors import ConfigError

MAX_SPEED_CHANGE = 0.04
FADE_S = (2.0, 8.0)
MIN_TRACK_S = 60.0

_CUT_S = 0.02
_N_TRIES = 10
_STRETCH_S = 2.0
_SOFTEST_DB = 25.0
_N_KNOWN_PER_UNKNOWN = 5
_SPEECH_OVER_S = (10.0, 25.0)
_RMS = 0.1
# How far music is turned down while someone speaks, relative to the speech.
_UNDER_SPEECH_DB = -6.0


@dataclass(frozen=True, kw_only=True)
class Part:
    """An excerpt in the mix.

    Parameters
    ----------
    path : Path
    present : bool
        Whether the catalog knows the track.
    start_s, end_s : float
        Where it sounds in the mix, the fades included.
    fade_in_s, fade_out_s : float
    reference_start_s : float
        Where in the track it begins.
    speed : float
        Seconds of the track in one of the mix.
    speech_s : tuple of float
        Where in the mix someone speaks over it; empty if nobody does.
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
    """What sounds when.

    Parameters
    ----------
    parts : tuple of Part
        In the order they begin.
    talks : tuple of (float, float)
        Where there is speech and no music, as start and end.
    duration_s : float
    """

    parts: tuple[Part, ...]
    talks: tuple[tuple[float, float], ...]
    duration_s: float


def plan(
    known: Sequence[Path], unknown: Sequence[Path], n_tracks: int, duration_s: float, seed: int
) -> Mix:
    """Decide what sounds when.

    Half of the parts fade into each other; a third are apart by speech, the rest by a hard cut.

    Parameters
    ----------
    known, unknown : sequence of Path
        Tracks to choose from, those below MIN_TRACK_S left out; none is chosen twice.
    n_tracks : int
        Of the known ones; one unknown is added for five of them.
    duration_s : float
        What the music does not fill is speech between it.
    seed : int
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
    """Choose excerpts of as many tracks; they have no place in the mix yet."""
    tried = (_excerpt(paths[i], present, slot_s, rng) for i in rng.permutation(len(paths)))
    found = list(islice((part for part in tried if part is not None), n))
    if len(found) < n:
        reason = f"{n} tracks of at least {MIN_TRACK_S:g} s are needed, {len(found)} are there"
        raise ConfigError("n_tracks", reason)
    return found


def _excerpt(path: Path, present: bool, slot_s: float, rng: Generator) -> Part | None:
    """Cut an excerpt that is nowhere silent, None if that does not come off."""
    waveform = decode.read(path, RATE)
    if len(waveform) < MIN_TRACK_S * RATE:
        return None
    for _ in range(_N_TRIES):
        speed = float(rng.uniform(1 - MAX_SPEED_CHANGE, 1 + MAX_SPEED_CHANGE))
        whole_s = len(waveform) / RATE / speed - 1.0
        length_s = min(whole_s, slot_s * float(rng.uniform(0.6, 1.1)))
        start_s = float(rng.uniform(0, whole_s - length_s)) * speed
        if _is_audible(
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


def _is_audible(waveform: Waveform) -> bool:
    """Whether no two seconds lie far below the whole: the truth is when music is to be heard."""
    n = round(_STRETCH_S * RATE)
    stretches = [waveform[i : i + n] for i in range(0, len(waveform) - n + 1, n)] + [waveform[-n:]]
    softest = min(map(datasets.level_dbfs, stretches))
    return softest > datasets.level_dbfs(waveform) - _SOFTEST_DB


def _joined(parts: Sequence[Part], duration_s: float, rng: Generator) -> Mix:
    """Give the parts their places; what time is left over is speech."""
    ways = rng.choice(["fade", "talk", "cut"], size=len(parts) - 1, p=[1 / 2, 1 / 3, 1 / 6])
    ways = np.array(["talk", *ways, "talk"])
    fades_s = np.where(ways == "fade", rng.uniform(*FADE_S, size=len(ways)), 0.0)
    left_s = max(duration_s - sum(one.end_s for one in parts) + float(fades_s.sum()), 0.0)
    shares = np.where(ways == "talk", rng.uniform(0.5, 1.5, size=len(ways)), 0.0)
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
    """Let someone speak over every third part."""
    length_s = float(rng.uniform(*_SPEECH_OVER_S))
    first_s, last_s = part.start_s + part.fade_in_s, part.end_s - part.fade_out_s - length_s
    if rng.random() > 1 / 3 or last_s <= first_s:
        return part
    begin_s = float(rng.uniform(first_s, last_s))
    return replace(part, speech_s=(begin_s, begin_s + length_s))


# -- sound -----------------------------------------------------------------------------------


def write(mix: Mix, speech: Sequence[Path], out: Path, seed: int) -> None:
    """Write a mix to a file, a part at a time.

    Parameters
    ----------
    mix : Mix
    speech : sequence of Path
        Recordings of speech; where there are none, nobody speaks and nothing sounds.
    out : Path
        As FLAC or WAV, by its ending.
    seed : int
    """
    voice = _Voice(speech, datasets.generator(seed, "speech"))
    with soundfile.SoundFile(out, "w", RATE, 1) as file:
        for block in _overlaid(_sounds(mix, voice), round(mix.duration_s * RATE)):
            file.write(block.clip(-1, 1))


def _sounds(mix: Mix, voice: _Voice) -> Iterator[tuple[int, Waveform]]:
    """Give where each part and each talk begins, and its waveform, in the order they begin."""
    whats: list[tuple[float, Part | tuple[float, float]]] = [
        *((part.start_s, part) for part in mix.parts),
        *((talk[0], talk) for talk in mix.talks),
    ]
    for start_s, what in sorted(whats, key=lambda one: one[0]):
        if isinstance(what, Part):
            yield round(start_s * RATE), _music(what, voice)
        else:
            yield round(start_s * RATE), voice.speak(round((what[1] - what[0]) * RATE))


def _music(part: Part, voice: _Voice) -> Waveform:
    length_s = part.end_s - part.start_s
    end_s = part.reference_start_s + length_s * part.speed + 0.5
    cut = decode.read(part.path, RATE, start_s=part.reference_start_s, end_s=end_s)
    played = _loud(decode.change_speed(cut, RATE, part.speed))[: round(length_s * RATE)]
    for fade_s, end in ((part.fade_in_s, slice(None)), (part.fade_out_s, slice(None, None, -1))):
        ramp = np.linspace(0, np.pi / 2, min(round(fade_s * RATE), len(played)))
        played[end][: len(ramp)] *= np.sin(ramp).astype(np.float32)
    if part.speech_s:
        first, last = (round((at_s - part.start_s) * RATE) for at_s in part.speech_s)
        played[first:last] *= np.float32(10 ** (_UNDER_SPEECH_DB / 20))
        spoken = voice.speak(last - first)
        played[first : first + len(spoken)] += spoken[: len(played) - first]
    return played


class _Voice:
    """Someone who speaks on and on: recordings of speech in random order, one after the other."""

    def __init__(self, paths: Sequence[Path], rng: Generator) -> None:
        self.paths, self.rng = paths, rng
        self.pending = np.zeros(0, np.float32)

    def speak(self, n_samples: int) -> Waveform:
        if not self.paths:
            return np.zeros(n_samples, np.float32)
        while len(self.pending) < n_samples:
            path = self.paths[int(self.rng.integers(len(self.paths)))]
            self.pending = np.concatenate([self.pending, _loud(decode.read(path, RATE))])
        spoken, self.pending = self.pending[:n_samples], self.pending[n_samples:]
        return spoken.copy()


def _loud(waveform: Waveform) -> Waveform:
    """Bring a waveform to the loudness that all parts have."""
    rms = float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
    return (waveform * np.float32(_RMS / max(rms, 1e-6))).astype(np.float32)


def _overlaid(sounds: Iterable[tuple[int, Waveform]], n_samples: int) -> Iterator[Waveform]:
    """Add up waveforms that overlap, holding no more than what still may change."""
    held, first = np.zeros(0, np.float32), 0
    for start, waveform in sounds:
        yield np.pad(held, (0, max(start - first - len(held), 0)))[: start - first]
        held = np.pad(held[start - first :], (0, max(len(waveform) - len(held) + start - first, 0)))
        held[: len(waveform)] += waveform
        first = start
    yield np.pad(held, (0, max(n_samples - first - len(held), 0)))[: n_samples - first]
