"""Which distortions are measured on queries of which length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

from benchmarks.distort import Distortion

DURATIONS_S = (1.0, 2.0, 3.0, 5.0, 10.0)
BOTH_SIGNS = "±"

_QUICK = (("clean", 5.0), ("noise0", 5.0), ("room5", 5.0))
_ISSUE = (("clean", 5.0), ("noise5", 5.0), ("noise0", 5.0), ("noise0", 2.0), ("room5", 5.0))
_ENCODER = (
    "clean", "mp3-32k", "opus-12k", "tempo±8",
    "noise10", "noise5", "noise0", "noise-5", "noise-10", "room5", "room0",
    "speed±3", "pitch±1", "speed±8", "tempo±20", "pitch±2",
)  # fmt: skip
_CLIPS = (
    "clean", "noise10", "noise0", "noise-5", "room5", "room0", "mp3-32k", "tempo±8", "speed±3",
)  # fmt: skip
_CLIP_S = 10.0


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
    def spans_s(self) -> list[float]:
        """Seconds of the reference that a query covers, one for each distortion."""
        return [self.duration_s * distortion.speed for distortion in self.distortions]

    def distortion(self, number: int) -> Distortion:
        """Choose by the query's number, so that a query meets the same one at every length."""
        return self.distortions[number % len(self.distortions)]


def choose(which: str, chains: Mapping[str, Distortion]) -> list[Cell]:
    """Give the cells of a set.

    Parameters
    ----------
    which : {"quick", "issue", "full", "encoder", "clips"}
    chains : mapping of Distortion
        All distortions by name. A cell whose label has ± gives half of its queries each sign.
    """
    sets: dict[str, Iterable[tuple[str, float]]] = {
        "quick": _QUICK,
        "issue": _ISSUE,
        "full": product(chains, DURATIONS_S),
        "encoder": product(_ENCODER, DURATIONS_S),
        "clips": product(_CLIPS, [_CLIP_S]),
    }
    return [
        Cell(label=label, distortions=tuple(chains[name] for name in _names(label)), duration_s=s)
        for label, s in sets[which]
    ]


def _names(label: str) -> list[str]:
    if BOTH_SIGNS not in label:
        return [label]
    return [label.replace(BOTH_SIGNS, sign) for sign in "+-"]
