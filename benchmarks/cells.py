"""Which distortions are measured on queries of which length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from benchmarks.distort import Distortion

DURATIONS_S = (1.0, 2.0, 3.0, 5.0, 10.0)

_QUICK = (("clean", 5.0), ("noise0", 5.0), ("room5", 5.0))
_ISSUE = (("clean", 5.0), ("noise5", 5.0), ("noise0", 5.0), ("noise0", 2.0), ("room5", 5.0))


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One distortion at one query length."""

    distortion: Distortion
    duration_s: float

    @property
    def name(self) -> str:
        """Distortion and length, as tables show them."""
        return f"{self.distortion.name} {self.duration_s:g} s"

    @property
    def span_s(self) -> float:
        """Seconds of the reference that a query covers."""
        return self.duration_s * self.distortion.speed


def choose(which: str, chains: dict[str, Distortion]) -> list[Cell]:
    """Give the cells of a set.

    Parameters
    ----------
    which : {"quick", "issue", "full"}
    chains : dict of Distortion
        All distortions by name.
    """
    sets: dict[str, Iterable[tuple[str, float]]] = {
        "quick": _QUICK,
        "issue": _ISSUE,
        "full": product(chains, DURATIONS_S),
    }
    return [Cell(distortion=chains[name], duration_s=s) for name, s in sets[which]]
