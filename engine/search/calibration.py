"""How sure a candidate may make us: its score to a probability.

The best wrong candidate of a short query has more evidence than that of a long one; a logistic
curve over evidence, margin and length learns that from queries whose answer is known (Platt 1999).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError
from engine.files import atomic_write
from engine.records import Candidate

N_FEATURES = 7
FALSE_ACCEPT_RATE = 0.01
_SHORTEST_S = 0.1
# Evidence that the best wrong tracks nearly reach in a catalog of a hundred thousand segments.
_CHANCE, _CHANCE_POWER = 0.6, -0.46
# Beyond it differences of the score are those of rounding.
_CLOSEST = 0.02
SHIPPED_CALIBRATION = Path(__file__).parents[1] / "weights" / "calibration.json"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A fitted curve, the threshold chosen on it, and the recipe both hold for.

    Parameters
    ----------
    recipe_id : str
    weights : tuple of float
        One for each of :func:`features`.
    min_confidence : float
        Candidates below are no match.
    """

    recipe_id: str
    weights: tuple[float, ...]
    min_confidence: float

    def confidence(self, candidate: Candidate, heard_s: float) -> float:
        """Probability in [0, 1] that a candidate is right.

        Parameters
        ----------
        candidate : Candidate
        heard_s : float
            Audible seconds of the query.
        """
        logit = float(features([candidate], [heard_s])[0] @ np.array(self.weights))
        return float(1 / (1 + np.exp(-np.clip(logit, -30, 30))))

    def save(self, path: Path) -> None:
        """Write it as JSON; what was there before stays until all is written."""
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path = SHIPPED_CALIBRATION) -> Calibration:
        """Read what :meth:`save` wrote; ModelError when it is not that."""
        try:
            values = json.loads(path.read_text())
            weights = tuple(map(float, values["weights"]))
            if len(weights) != N_FEATURES:
                raise ValueError(f"{len(weights)} weights, {N_FEATURES} are needed")
            return cls(**values | {"weights": weights})
        except FileNotFoundError as error:
            reason = "not there; `astound train` writes it, and no confidence is told without"
            raise ModelError(path, reason) from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ModelError(path, f"not a calibration ({error})") from error


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back for a query whose truth is known.

    Parameters
    ----------
    candidates : tuple of Candidate
        The best ones, as the query is and at other speeds; empty where it resembles nothing.
    right : tuple of bool
        For each whether it is the music of the query.
    heard_s : float
        Audible seconds of the query.
    is_known : bool
        Whether its music was there to be found.
    """

    candidates: tuple[Candidate, ...]
    right: tuple[bool, ...]
    heard_s: float
    is_known: bool

    def best(self, curve: Calibration) -> tuple[float, bool]:
        """Confidence of the candidate that a curve trusts most, and whether it is right."""
        confidences = (curve.confidence(one, self.heard_s) for one in self.candidates)
        return max(zip(confidences, self.right, strict=True), default=(0.0, False))


def features(candidates: Sequence[Candidate], heard_s: Sequence[float]) -> NDArray[np.float64]:
    """Collect what the curve looks at.

    Parameters
    ----------
    candidates : sequence of Candidate
    heard_s : sequence of float
        Audible seconds of each one's query.

    Returns
    -------
    float64 array of shape (n_candidates, N_FEATURES)
        One; the logarithms of the candidate's evidence, of its lead over the best other, of what
        ten others reach, and of the length; how close its score is to 1; and whether it was found
        at another speed, where so many more are compared.
    """
    length_s = np.maximum(np.array(heard_s, dtype=float), _SHORTEST_S)
    # A small catalog holds few others, and chance would look like nothing in it.
    chance = _CHANCE * length_s**_CHANCE_POWER
    evidence = np.array([max(one.evidence, 1e-3) for one in candidates])
    rival = np.maximum([one.evidence - one.margin for one in candidates], chance)
    others = np.maximum([one.others for one in candidates], chance)
    closeness = -np.log(np.array([max(1 - one.score, _CLOSEST) for one in candidates]))
    resampled = np.array([one.resampled != 1.0 for one in candidates], dtype=float)
    lead = np.log(evidence / rival)
    constant = np.ones(len(length_s))
    return np.stack(
        [
            constant,
            np.log(evidence),
            lead,
            np.log(others),
            np.log(length_s),
            closeness,
            resampled,
        ],
        axis=1,
    )


def learn(
    answers: Sequence[Answer], recipe_id: str, false_accept_rate: float = FALSE_ACCEPT_RATE
) -> Calibration:
    """Fit the curve to answers, and choose the threshold on those to queries of absent music.

    Parameters
    ----------
    answers : sequence of Answer
    recipe_id : str
    false_accept_rate : float
        Share of the queries of absent music that may get a match.

    Returns
    -------
    Calibration
    """
    each = [
        (one, answer.heard_s, is_right)
        for answer in answers
        for one, is_right in zip(answer.candidates, answer.right, strict=True)
    ]
    inputs = features([one for one, _, _ in each], [heard_s for _, heard_s, _ in each])
    right = np.array([is_right for _, _, is_right in each], dtype=bool)
    weights = tuple(map(float, fit(inputs, right)))
    curve = Calibration(recipe_id=recipe_id, weights=weights, min_confidence=0.5)
    absent = [answer.best(curve)[0] for answer in answers if not answer.is_known]
    threshold = threshold_for(np.array(absent), false_accept_rate)
    # Rounded up: a confidence just below it must not pass.
    return replace(curve, min_confidence=math.ceil(threshold * 1e4) / 1e4)


def fit(
    inputs: NDArray[np.float64], right: NDArray[np.bool_], ridge: float = 1e-2, n_steps: int = 50
) -> NDArray[np.float64]:
    """Fit a logistic curve by Newton's method.

    Parameters
    ----------
    inputs : float64 array of shape (n, n_features)
    right : bool array of shape (n,)
        Whether the candidate was the right answer.
    ridge : float
        Penalty that keeps separable data finite.
    n_steps : int

    Returns
    -------
    float64 array of shape (n_features,)
    """
    weights = np.zeros(inputs.shape[1])
    for _ in range(n_steps):
        p = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        gradient = inputs.T @ (right - p) - ridge * weights
        hessian = (inputs * (p * (1 - p))[:, None]).T @ inputs + ridge * np.eye(len(weights))
        weights = weights + np.linalg.solve(hessian, gradient)
    return weights


def threshold_for(confidences: NDArray[np.float64], false_accept_rate: float) -> float:
    """Lowest confidence that accepts at most this share of queries of absent music.

    Parameters
    ----------
    confidences : float64 array of shape (n,)
        Of the best candidates of queries whose music is not in the catalog.
    false_accept_rate : float

    Returns
    -------
    float
        Above 1 where one of them is certain and none may be accepted.
    """
    ranked = np.sort(confidences)[::-1]
    allowed = int(false_accept_rate * len(ranked))
    return float(np.nextafter(ranked[allowed], 2.0)) if allowed < len(ranked) else 0.0
