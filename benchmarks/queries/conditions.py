"""Distortions by name, and cells: the combinations of distortion and query length to measure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from benchmarks.queries.degrade import (
    Distortion,
    DrawSound,
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
"""The distortions of the set `full`."""

DURATIONS_S = (1.0, 2.0, 3.0, 5.0, 10.0)
BOTH_SIGNS = "±"

NOISE, ROOMS = "noise", "rooms"
SoundSources = Mapping[str, DrawSound]
"""Functions that draw a noise or a room response, by NOISE and ROOMS."""

CellKey = tuple[str, float]
"""Label of a cell and the duration of its queries in seconds."""

_ENCODER = (
    "clean", "mp3-32k", "opus-12k", "tempo±8",
    "noise10", "noise5", "noise0", "noise-5", "noise-10", "room5", "room0",
    "speed±3", "pitch±1", "speed±8", "tempo±20", "pitch±2",
)  # fmt: skip
_CLIPS = (
    "clean", "noise10", "noise0", "noise-5", "room5", "room0", "mp3-32k", "tempo±8", "speed±3",
)  # fmt: skip

CELL_SETS: Mapping[str, Sequence[CellKey]] = {
    "quick": [("clean", 5.0), ("noise0", 5.0), ("room5", 5.0)],
    "issue": [("clean", 5.0), ("noise5", 5.0), ("noise0", 5.0), ("noise0", 2.0), ("room5", 5.0)],
    "encoder": list(product(_ENCODER, DURATIONS_S)),
    "full": list(product(STANDARD, DURATIONS_S)),
    "clips": list(product(_CLIPS, [10.0])),
}
"""Cells that are measured together, by the name of the set."""

_NUMBER = r"(-?\d+(?:\.\d+)?)"
_POSITIVE = r"(\d+(?:\.\d+)?)"
_SIGNED = r"([+-]\d+(?:\.\d+)?)"


# -- cells -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One kind of distortion at one query length.

    Parameters
    ----------
    label : str
        Row of a table, such as "noise0" or "speed±3".
    distortions : tuple of Distortion
        Applied in turn: query i gets distortion i modulo their number.
    duration_s : float
        Length of the queries in seconds.
    """

    label: str
    distortions: tuple[Distortion, ...]
    duration_s: float

    @property
    def name(self) -> str:
        """Label and duration, such as "noise0 5 s"."""
        return cell_name(self.key)

    @property
    def key(self) -> CellKey:
        """Label and duration in seconds."""
        return self.label, self.duration_s

    @property
    def spans_s(self) -> list[float]:
        """Seconds of the reference that a query covers, one for each distortion."""
        return [self.duration_s * distortion.speed for distortion in self.distortions]

    def distortion(self, number: int) -> Distortion:
        """Return the distortion of query `number`; it is the same at every query length."""
        return self.distortions[number % len(self.distortions)]


def cell_name(key: CellKey) -> str:
    """Format a key as the name that outcomes and tables show."""
    label, duration_s = key
    return f"{label} {duration_s:g} s"


def parse_cells(distortions: str, durations_s: Sequence[float] = ()) -> list[CellKey]:
    """Parse the options --distortions and --durations.

    Parameters
    ----------
    distortions : str
        Name of a set, or names of distortions separated by commas. With ± (or +-) in a name, half
        of the queries get each sign.
    durations_s : sequence of float
        Durations of the queries in seconds. If empty: those of the set, else DURATIONS_S.

    Raises
    ------
    ConfigError
        A distortion does not exist, or a duration is not positive.
    """
    if wrong := [seconds for seconds in durations_s if not seconds > 0]:
        raise ConfigError.invalid("durations", wrong[0], "must be positive")
    if distortions in CELL_SETS and not durations_s:
        return list(CELL_SETS[distortions])
    labels = [label for label, _ in CELL_SETS.get(distortions, [])] or _labels(distortions)
    keys = product(dict.fromkeys(labels), durations_s or DURATIONS_S)
    return list(dict.fromkeys(keys))


def _labels(distortions: str) -> list[str]:
    labels = [name.strip().replace("+-", BOTH_SIGNS) for name in distortions.split(",")]
    for label in labels:
        try:
            required_sounds(label)
        except ConfigError as error:
            requirement = f"{error.reason}, or one of the sets {', '.join(CELL_SETS)}"
            raise ConfigError.invalid("distortions", label, requirement) from error
    return labels


def required_sounds(label: str) -> tuple[str, ...]:
    """Return which of NOISE and ROOMS a cell with this label needs.

    Raises
    ------
    ConfigError
        No distortion has that name, or a number in it is out of range.
    """
    needs = (need for name in _names(label) for need in _parse(name)[0].needs)
    return tuple(dict.fromkeys(needs))


def make_cells(keys: Sequence[CellKey], sources: SoundSources) -> list[Cell]:
    """Make cells; `sources` must contain the sounds they need."""
    return [
        Cell(
            label=label,
            distortions=tuple(make_distortion(name, sources) for name in _names(label)),
            duration_s=duration_s,
        )
        for label, duration_s in keys
    ]


def _names(label: str) -> list[str]:
    if BOTH_SIGNS not in label:
        return [label]
    return [label.replace(BOTH_SIGNS, sign) for sign in "+-"]


# -- distortions -----------------------------------------------------------------------------


def make_distortion(name: str, sources: SoundSources) -> Distortion:
    """Make a distortion from its name.

    Parameters
    ----------
    name : str
        Such as "noise-5"; `name_forms` lists the possible names.
    sources : mapping
        Must contain the sounds that `required_sounds` names.

    Raises
    ------
    ConfigError
        No distortion has that name, or a number in it is out of range.
    """
    kind, numbers = _parse(name)
    return kind.make(name, sources, *numbers)


def name_forms() -> str:
    """List the forms of distortion names."""
    return ", ".join(kind.form for kind in _KINDS)


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """A family of distortions: the form of their names, and a function that makes them.

    `ranges` contains the smallest and largest value of each number in a name.
    """

    form: str
    pattern: str
    make: Callable[..., Distortion]
    ranges: tuple[tuple[float, float], ...] = ()
    needs: tuple[str, ...] = ()

    def numbers(self, name: str) -> list[float] | None:
        """Return the numbers in a name; None if the name is of another kind."""
        match = re.fullmatch(self.pattern, name)
        return None if match is None else [float(number) for number in match.groups()]


def _parse(name: str) -> tuple[_Kind, list[float]]:
    for kind in _KINDS:
        if (numbers := kind.numbers(name)) is not None:
            _check(name, kind, numbers)
            return kind, numbers
    raise ConfigError.invalid("distortions", name, f"must be one of {name_forms()}")


def _check(name: str, kind: _Kind, numbers: list[float]) -> None:
    for value, (low, high) in zip(numbers, kind.ranges, strict=True):
        if not low <= value <= high:
            requirement = f"must be from {low:g} to {high:g} in {kind.form}"
            raise ConfigError.invalid("distortions", name, requirement)
    if len(numbers) == 2 and numbers[0] >= numbers[1]:
        raise ConfigError.invalid("distortions", name, "must give the lower frequency first")


def _noise(name: str, sources: SoundSources, snr_db: float) -> Distortion:
    return Distortion(name=name, query_steps=(add_noise(sources[NOISE], snr_db),))


def _room(name: str, sources: SoundSources, snr_db: float) -> Distortion:
    return Distortion(
        name=name,
        context_steps=(reverberate(sources[ROOMS]),),
        query_steps=(add_noise(sources[NOISE], snr_db), band_pass),
    )


def _codec(codec: str, container: str) -> Callable[..., Distortion]:
    def make(name: str, _: SoundSources, kbit: float) -> Distortion:
        return Distortion(name=name, context_steps=(coded(codec, container, round(kbit * 1000)),))

    return make


def _rate_change(change: Callable[[float], Step]) -> Callable[..., Distortion]:
    def make(name: str, _: SoundSources, percent: float) -> Distortion:
        factor = 1 + percent / 100
        return Distortion(name=name, context_steps=(change(factor),), speed=factor)

    return make


def _pitch(name: str, _: SoundSources, semitones: float) -> Distortion:
    return Distortion(name=name, context_steps=(change_pitch(semitones),))


def _query_step(make_step: Callable[..., Step]) -> Callable[..., Distortion]:
    def make(name: str, _: SoundSources, *numbers: float) -> Distortion:
        return Distortion(name=name, query_steps=(make_step(*numbers),))

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
        make=_codec("libmp3lame", "mp3"),
    ),
    _Kind(
        form="opus-<kbit/s>k", pattern=f"opus-{_POSITIVE}k", ranges=((6, 256),),
        make=_codec("libopus", "ogg"),
    ),
    _Kind(
        form="aac-<kbit/s>k", pattern=f"aac-{_POSITIVE}k", ranges=((8, 96),),
        make=_codec("aac", "mp4"),
    ),
    _Kind(
        form="speed<+-%>", pattern=f"speed{_SIGNED}", ranges=((-50, 100),),
        make=_rate_change(change_speed),
    ),
    _Kind(
        form="tempo<+-%>", pattern=f"tempo{_SIGNED}", ranges=((-50, 100),),
        make=_rate_change(change_tempo),
    ),
    _Kind(
        form="pitch<+-semitones>", pattern=f"pitch{_SIGNED}", ranges=((-12, 12),), make=_pitch,
    ),
    _Kind(
        form="band<low Hz>-<high Hz>", pattern=f"band{_POSITIVE}-{_POSITIVE}",
        ranges=((20, 7800), (20, 7800)), make=_query_step(band),
    ),
    _Kind(
        form="gain<dB>", pattern=f"gain{_NUMBER.replace('-?', '[+-]?')}", ranges=((-60, 60),),
        make=_query_step(gain),
    ),
    _Kind(
        form="clipped<dB over full scale>", pattern=f"clipped{_POSITIVE}", ranges=((0, 60),),
        make=_query_step(clipped),
    ),
)  # fmt: skip
