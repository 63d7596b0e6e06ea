"""Which distortions are measured on queries of which length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from benchmarks.queries import conditions
from benchmarks.queries.degrade import Distortion
from engine.errors import ConfigError

DURATIONS_S = (1.0, 2.0, 3.0, 5.0, 10.0)
BOTH_SIGNS = "±"

Place = tuple[str, float]
"""Label of a cell and seconds of its queries."""

_ENCODER = (
    "clean", "mp3-32k", "opus-12k", "tempo±8",
    "noise10", "noise5", "noise0", "noise-5", "noise-10", "room5", "room0",
    "speed±3", "pitch±1", "speed±8", "tempo±20", "pitch±2",
)  # fmt: skip
_CLIPS = (
    "clean", "noise10", "noise0", "noise-5", "room5", "room0", "mp3-32k", "tempo±8", "speed±3",
)  # fmt: skip

SETS: Mapping[str, Sequence[Place]] = {
    "quick": [("clean", 5.0), ("noise0", 5.0), ("room5", 5.0)],
    "issue": [("clean", 5.0), ("noise5", 5.0), ("noise0", 5.0), ("noise0", 2.0), ("room5", 5.0)],
    "encoder": list(product(_ENCODER, DURATIONS_S)),
    "full": list(product(conditions.STANDARD, DURATIONS_S)),
    "clips": list(product(_CLIPS, [10.0])),
}
"""Places that are measured together, by the name of the set."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One kind of distortion at one query length.

    Parameters
    ----------
    label : str
        What its row of a table is called.
    distortions : tuple of Distortion
        Queries take turns with them.
    duration_s : float
    """

    label: str
    distortions: tuple[Distortion, ...]
    duration_s: float

    @property
    def name(self) -> str:
        """Distortion and length, as tables show them."""
        return f"{self.label} {self.duration_s:g} s"

    @property
    def place(self) -> Place:
        """Where it stands in a table."""
        return self.label, self.duration_s

    @property
    def spans_s(self) -> list[float]:
        """Seconds of the reference that a query covers, one for each distortion."""
        return [self.duration_s * distortion.speed for distortion in self.distortions]

    def distortion(self, number: int) -> Distortion:
        """Choose by the query's number, so that a query meets the same one at every length."""
        return self.distortions[number % len(self.distortions)]


def places(distortions: str, durations_s: Sequence[float] = ()) -> list[Place]:
    """Read which distortions are asked for at which lengths.

    Parameters
    ----------
    distortions : str
        The name of a set, or names of distortions joined by commas. ± (or +-) in a name gives half
        of the queries each sign.
    durations_s : sequence of float
        Seconds; where there are none, those of the set, or all of DURATIONS_S.

    Raises
    ------
    ConfigError
        A distortion does not exist, or a duration is not positive.
    """
    if wrong := [seconds for seconds in durations_s if not seconds > 0]:
        raise ConfigError.invalid("durations", wrong[0], "must be positive")
    if distortions in SETS and not durations_s:
        return list(SETS[distortions])
    labels = [label for label, _ in SETS.get(distortions, [])] or _labels(distortions)
    found = product(dict.fromkeys(labels), durations_s or DURATIONS_S)
    return list(dict.fromkeys(found))


def _labels(distortions: str) -> list[str]:
    labels = [one.strip().replace("+-", BOTH_SIGNS) for one in distortions.split(",")]
    for label in labels:
        try:
            needs(label)
        except ConfigError as error:
            requirement = f"{error.reason}, or one of the sets {', '.join(SETS)}"
            raise ConfigError.invalid("distortions", label, requirement) from error
    return labels


def needs(label: str) -> tuple[str, ...]:
    """Name the sounds without which a cell cannot be made, as :func:`chains.needs` does."""
    return tuple(dict.fromkeys(one for name in _names(label) for one in conditions.needs(name)))


def make(wanted: Sequence[Place], draws: conditions.Draws) -> list[Cell]:
    """Make cells; `draws` must hold what they need."""
    return [
        Cell(
            label=label,
            distortions=tuple(conditions.chain(name, draws) for name in _names(label)),
            duration_s=duration_s,
        )
        for label, duration_s in wanted
    ]


def _names(label: str) -> list[str]:
    if BOTH_SIGNS not in label:
        return [label]
    return [label.replace(BOTH_SIGNS, sign) for sign in "+-"]
