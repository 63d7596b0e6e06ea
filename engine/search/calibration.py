"""Calibrate confidences: from the scores of a candidate to the probability that it is right.

The best wrong candidate of a short query has more evidence than that of a long one. A logistic
curve over evidence, margin and length is fitted to queries whose answer is known (Platt 1999).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.config import AlignConfig, SearchConfig
from engine.errors import ModelError
from engine.files import atomic_write
from engine.records import Candidate
from engine.validation import parse_json, to_record

N_FEATURES = 9
FALSE_ACCEPT_RATE = 0.01
MAX_DIRECTION = 0.5
"""Direction that wrong tracks hardly ever exceed: more of it is no better sign."""

SHIPPED_CALIBRATION = Path(__file__).parents[1] / "weights" / "calibration.json"

TERMS_VERSION = 2
"""Version of the terms that weights are fitted to."""

# Calibrations of older catalogs have weights for the first seven terms, and some for a former
# measure of the direction, of which wrong tracks hardly ever exceeded another value.
_N_FIRST_FEATURES, _FORMER_MAX_DIRECTION = 7, 0.3
_MIN_AUDIBLE_S = 0.1
# Evidence of the best wrong tracks in a catalog of a hundred thousand segments, for a query of one
# second, and its power of the length.
_CHANCE, _CHANCE_POWER = 0.6, -0.46
# Reversed music may have much evidence and a lead, so the logit of what agrees nearly as well
# backwards is lower, if the query is long enough. Steady music agrees so too, but as a copy does;
# docs/measurements.md#search.
_MIN_DIRECTION, _MIN_DIRECTED_S, _COPY_SCORE, _BACKWARDS_COST = 0.2, 2.5, 0.98, 8.0
# Distance of a score to 1 below which differences are due to rounding.
_MIN_DISTANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A fitted curve with its threshold, and what both were fitted for.

    Parameters
    ----------
    recipe_id : str
        Recipe of the fingerprints.
    weights : tuple of float
        One for each of :func:`features`.
    min_confidence : float
        Threshold: candidates with less confidence are no match.
    search, alignment : SearchConfig, AlignConfig
        Settings of the queries it was fitted on; confidences hold for no others.
    terms_version : int
        Version of the terms of the curve.
    """

    recipe_id: str
    weights: tuple[float, ...]
    min_confidence: float
    search: SearchConfig = field(default_factory=SearchConfig)
    alignment: AlignConfig = field(default_factory=AlignConfig)
    terms_version: int = TERMS_VERSION

    def is_fitted_for(self, search: SearchConfig, alignment: AlignConfig) -> bool:
        """Whether confidences are calibrated for queries with these settings."""
        return (self.search, self.alignment) == (search, alignment)

    def confidence(self, candidate: Candidate, audible_s: float) -> float:
        """Compute the probability in [0, 1] that a candidate is right.

        Parameters
        ----------
        candidate : Candidate
        audible_s : float
            Audible seconds of the query.
        """
        return probability(self.logits([candidate], [audible_s])[0])

    def logits(
        self, candidates: Sequence[Candidate], audible_s: Sequence[float]
    ) -> NDArray[np.float64]:
        """Compute the logits of the confidences, float64 array of shape (n_candidates,)."""
        pairs = zip(candidates, audible_s, strict=True)
        backwards = np.array([_is_backwards(*one) for one in pairs], dtype=np.float64)
        return self.curve_logits(candidates, audible_s) - _BACKWARDS_COST * backwards

    def curve_logits(
        self, candidates: Sequence[Candidate], audible_s: Sequence[float]
    ) -> NDArray[np.float64]:
        """Compute the logits of the fitted curve alone, float64 array of shape (n_candidates,)."""
        return np.asarray(features(candidates, audible_s) @ np.array(self.weights))

    def accepted(
        self, candidates: Iterable[Candidate], min_confidence: float | None = None
    ) -> list[Candidate]:
        """Select the candidates from a confidence on; the threshold by default."""
        least = self.min_confidence if min_confidence is None else min_confidence
        return [one for one in candidates if one.confidence >= least]

    def save(self, path: Path) -> None:
        """Write it to a JSON file, which is replaced as a whole."""
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path = SHIPPED_CALIBRATION) -> Calibration:
        """Read a file that :meth:`save` wrote.

        Raises
        ------
        ModelError
            It is missing, or no calibration.
        """
        try:
            return _from_json(parse_json(path.read_bytes()))
        except FileNotFoundError as error:
            reason = "calibration file missing; run `astound train` to create it"
            raise ModelError(path, reason) from error
        except (OSError, ValueError) as error:  # ConfigError is a ValueError
            raise ModelError(path, f"not a calibration ({error})") from error


def probability(logit: float) -> float:
    """Return the probability of a logit."""
    return float(1 / (1 + np.exp(-np.clip(logit, -30, 30))))


def _is_backwards(candidate: Candidate, audible_s: float) -> bool:
    """Whether a candidate agrees nearly as well backwards, and is not as close as a copy is."""
    is_known = audible_s >= _MIN_DIRECTED_S and candidate.score < _COPY_SCORE
    return is_known and candidate.direction < _MIN_DIRECTION


def _from_json(values: object) -> Calibration:
    calibration = to_record(Calibration, values)
    if isinstance(values, dict) and (missing := {"search", "alignment"} - values.keys()):
        raise ValueError(f"field {min(missing)} is missing")
    if calibration.terms_version > TERMS_VERSION:
        requirement = f"must be at most {TERMS_VERSION}; update astound or calibrate again"
        raise ValueError(f"invalid terms_version={calibration.terms_version}: {requirement}")
    if isinstance(values, dict) and "terms_version" not in values:
        calibration = _with_terms(calibration)
    if (n_weights := len(calibration.weights)) != N_FEATURES:
        raise ValueError(f"invalid weights: must be {N_FEATURES} numbers, not {n_weights}")
    return calibration


def _with_terms(older: Calibration) -> Calibration:
    """Convert a calibration of the first version of the terms."""
    first, rest = older.weights[:_N_FIRST_FEATURES], older.weights[_N_FIRST_FEATURES:] or (0.0,)
    scale = _FORMER_MAX_DIRECTION / MAX_DIRECTION
    return replace(older, weights=(*first, *(scale * weight for weight in rest), 0.0))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The candidates of a query whose truth is known.

    Parameters
    ----------
    candidates : tuple of Candidate
        The best ones at the query's own speed and at other speeds; empty if there are none.
    right : tuple of bool
        For each candidate, whether it is the music of the query.
    audible_s : float
        Audible seconds of the query.
    is_known : bool
        Whether the catalog contains its music.
    is_reversed : bool
        Whether the catalog contains its music in reverse. Some music is nearly the same then, so
        that no threshold would reject it and keep right answers.
    n_tracks : int
        Tracks of the catalog.
    """

    candidates: tuple[Candidate, ...]
    right: tuple[bool, ...]
    audible_s: float
    is_known: bool
    is_reversed: bool = False
    n_tracks: int = 1

    @property
    def is_absent(self) -> bool:
        """Whether the catalog does not contain its music at all."""
        return not (self.is_known or self.is_reversed)

    def best(self, curve: Calibration) -> tuple[float, bool]:
        """Return the highest confidence of the candidates, and whether that one is right."""
        confidences = (curve.confidence(one, self.audible_s) for one in self.candidates)
        return max(zip(confidences, self.right, strict=True), default=(0.0, False))


def features(candidates: Sequence[Candidate], audible_s: Sequence[float]) -> NDArray[np.float64]:
    """Compute the inputs of the curve.

    Parameters
    ----------
    candidates : sequence of Candidate
    audible_s : sequence of float
        Audible seconds of each one's query.

    Returns
    -------
    float64 array of shape (n_candidates, N_FEATURES)
        One; the logarithms of the candidate's evidence, of its lead over the best other, of the
        evidence of ten others, and of the length; how close its score is to 1; whether it was found
        at another speed, where more tracks agree by chance; its direction; and the product of the
        logarithms of evidence and length, because evidence by chance is rarer in longer queries.
    """
    length_s = np.maximum(np.array(audible_s, dtype=float), _MIN_AUDIBLE_S)
    # A small catalog has few other tracks, so their evidence underestimates chance.
    chance = _CHANCE * length_s**_CHANCE_POWER
    evidence = np.array([max(one.evidence, 1e-3) for one in candidates])
    rival = np.maximum([one.evidence - one.margin for one in candidates], chance)
    others = np.maximum([one.others for one in candidates], chance)
    closeness = -np.log(np.array([max(1 - one.score, _MIN_DISTANCE) for one in candidates]))
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
            np.array([min(one.direction, MAX_DIRECTION) for one in candidates]),
            np.log(evidence) * np.log(length_s),
        ],
        axis=1,
    )


def learn(
    answers: Sequence[Answer],
    recipe_id: str,
    false_accept_rate: float = FALSE_ACCEPT_RATE,
    *,
    search: SearchConfig,
    alignment: AlignConfig,
) -> Calibration:
    """Fit the curve to answers, and choose the threshold on the queries of absent music.

    Only answers of the largest catalogs choose it, because a small catalog accepts less by chance.

    Parameters
    ----------
    answers : sequence of Answer
    recipe_id : str
    false_accept_rate : float
        Share of the queries of absent music that may get a match.
    search, alignment : SearchConfig, AlignConfig
        Settings of the queries that were answered.

    Returns
    -------
    Calibration
    """
    rows = [
        (candidate, answer.audible_s, is_right)
        for answer in answers
        for candidate, is_right in zip(answer.candidates, answer.right, strict=True)
    ]
    inputs = features([one for one, _, _ in rows], [audible_s for _, audible_s, _ in rows])
    right = np.array([is_right for _, _, is_right in rows], dtype=bool)
    curve = Calibration(
        recipe_id=recipe_id,
        weights=tuple(map(float, fit(inputs, right))),
        min_confidence=0.5,
        search=search,
        alignment=alignment,
    )
    absent = [answer.best(curve)[0] for answer in _of_large_catalogs(answers) if answer.is_absent]
    threshold = threshold_for(np.array(absent), false_accept_rate)
    # Round up, so that no confidence just below the threshold is accepted.
    return replace(curve, min_confidence=math.ceil(threshold * 1e4) / 1e4)


def _of_large_catalogs(answers: Sequence[Answer]) -> Iterator[Answer]:
    """Answers of the largest catalogs, where most other music agrees by chance."""
    most = max((one.n_tracks for one in answers), default=0)
    return (one for one in answers if one.n_tracks > most / 2)


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
    """Find the lowest threshold that accepts at most this share of queries of absent music.

    Parameters
    ----------
    confidences : float64 array of shape (n,)
        Those of the best candidates of queries whose music is not in the catalog.
    false_accept_rate : float

    Returns
    -------
    float
        Above 1 if one of them is certain and none may be accepted.
    """
    ranked = np.sort(confidences)[::-1]
    allowed = int(false_accept_rate * len(ranked))
    return float(np.nextafter(ranked[allowed], 2.0)) if allowed < len(ranked) else 0.0
