"""Distortions by name: what `noise0`, `mp3-32k` or `speed+8` do to a query."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.queries.degrade import (
    Distortion,
    Draw,
    Step,
    add_noise,
    band,
    band_pass,
    change_pitch,
    change_speed,
    change_tempo,
    clipped,
    coded,
    gain,
    reverberate,
)
from engine.errors import ConfigError

STANDARD = (
    "clean", "noise10", "noise5", "noise0", "noise-5", "noise-10", "room5", "room0", "mp3-32k",
    "opus-12k", "speed-8", "speed-3", "speed+3", "speed+8", "tempo-20", "tempo-8", "tempo+8",
    "tempo+20", "pitch-2", "pitch-1", "pitch+1", "pitch+2",
)  # fmt: skip
"""Those that the sets of cells are made of."""

NOISE, ROOMS = "noise", "rooms"
Draws = Mapping[str, Draw]
"""What draws noises and room responses, by NOISE and ROOMS."""

_NUMBER = r"(-?\d+(?:\.\d+)?)"
_POSITIVE = r"(\d+(?:\.\d+)?)"
_SIGNED = r"([+-]\d+(?:\.\d+)?)"


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """One family of distortions: how its names are formed, and what they make.

    `ranges` holds the lowest and the highest value of each number in a name.
    """

    form: str
    pattern: str
    make: Callable[..., Distortion]
    ranges: tuple[tuple[float, float], ...] = ()
    needs: tuple[str, ...] = ()

    def numbers(self, name: str) -> list[float] | None:
        """Read the numbers of a name; None if it is of another kind."""
        found = re.fullmatch(self.pattern, name)
        return None if found is None else [float(one) for one in found.groups()]


def chain(name: str, draws: Draws) -> Distortion:
    """Make a distortion by its name.

    Parameters
    ----------
    name : str
        Such as "noise-5"; `forms` lists what is possible.
    draws : mapping
        Must hold what `needs` names.

    Raises
    ------
    ConfigError
        No distortion has that name, or a number in it is out of range.
    """
    kind, numbers = _read(name)
    return kind.make(name, draws, *numbers)


def needs(name: str) -> tuple[str, ...]:
    """Name the sounds that a distortion cannot be made without: of NOISE and ROOMS."""
    return _read(name)[0].needs


def forms() -> str:
    """List how distortions are named."""
    return ", ".join(kind.form for kind in _KINDS)


def _read(name: str) -> tuple[_Kind, list[float]]:
    for kind in _KINDS:
        if (numbers := kind.numbers(name)) is not None:
            _check(name, kind, numbers)
            return kind, numbers
    raise ConfigError.invalid("distortions", name, f"must be one of {forms()}")


def _check(name: str, kind: _Kind, numbers: list[float]) -> None:
    for value, (low, high) in zip(numbers, kind.ranges, strict=True):
        if not low <= value <= high:
            requirement = f"must be from {low:g} to {high:g} in {kind.form}"
            raise ConfigError.invalid("distortions", name, requirement)
    if len(numbers) == 2 and numbers[0] >= numbers[1]:
        raise ConfigError.invalid("distortions", name, "must give the lower frequency first")


# -- the kinds -------------------------------------------------------------------------------


def _noise(name: str, draws: Draws, snr_db: float) -> Distortion:
    return Distortion(name=name, recorded=(add_noise(draws[NOISE], snr_db),))


def _room(name: str, draws: Draws, snr_db: float) -> Distortion:
    recorded = add_noise(draws[NOISE], snr_db), band_pass
    return Distortion(name=name, played=(reverberate(draws[ROOMS]),), recorded=recorded)


def _coded(codec: str, container: str) -> Callable[..., Distortion]:
    def make(name: str, _: Draws, kbit: float) -> Distortion:
        return Distortion(name=name, played=(coded(codec, container, round(kbit * 1000)),))

    return make


def _paced(change: Callable[[float], Step]) -> Callable[..., Distortion]:
    def make(name: str, _: Draws, percent: float) -> Distortion:
        factor = 1 + percent / 100
        return Distortion(name=name, played=(change(factor),), speed=factor)

    return make


def _pitched(name: str, _: Draws, semitones: float) -> Distortion:
    return Distortion(name=name, played=(change_pitch(semitones),))


def _recorded(make_step: Callable[..., Step]) -> Callable[..., Distortion]:
    def make(name: str, _: Draws, *numbers: float) -> Distortion:
        return Distortion(name=name, recorded=(make_step(*numbers),))

    return make


_KINDS = (
    _Kind(form="clean", pattern="clean", make=lambda name, _: Distortion(name=name)),
    _Kind(
        form="noise<SNR dB>", pattern=f"noise{_NUMBER}", ranges=((-40, 60),),
        needs=(NOISE,), make=_noise,
    ),
    _Kind(
        form="room<SNR dB>", pattern=f"room{_NUMBER}", ranges=((-40, 60),),
        needs=(NOISE, ROOMS), make=_room,
    ),
    _Kind(
        form="mp3-<kbit/s>k", pattern=f"mp3-{_POSITIVE}k", ranges=((8, 160),),
        make=_coded("libmp3lame", "mp3"),
    ),
    _Kind(
        form="opus-<kbit/s>k", pattern=f"opus-{_POSITIVE}k", ranges=((6, 256),),
        make=_coded("libopus", "ogg"),
    ),
    _Kind(
        form="aac-<kbit/s>k", pattern=f"aac-{_POSITIVE}k", ranges=((8, 96),),
        make=_coded("aac", "mp4"),
    ),
    _Kind(
        form="speed<+-%>", pattern=f"speed{_SIGNED}", ranges=((-50, 100),),
        make=_paced(change_speed),
    ),
    _Kind(
        form="tempo<+-%>", pattern=f"tempo{_SIGNED}", ranges=((-50, 100),),
        make=_paced(change_tempo),
    ),
    _Kind(
        form="pitch<+-semitones>", pattern=f"pitch{_SIGNED}", ranges=((-12, 12),), make=_pitched,
    ),
    _Kind(
        form="band<low Hz>-<high Hz>", pattern=f"band{_POSITIVE}-{_POSITIVE}",
        ranges=((20, 7800), (20, 7800)), make=_recorded(band),
    ),
    _Kind(
        form="gain<dB>", pattern=f"gain{_NUMBER.replace('-?', '[+-]?')}", ranges=((-60, 60),),
        make=_recorded(gain),
    ),
    _Kind(
        form="clipped<dB over full scale>", pattern=f"clipped{_POSITIVE}", ranges=((0, 60),),
        make=_recorded(clipped),
    ),
)  # fmt: skip
