"""Why a query did or did not match: what its confidence lacks.

The confidence is a curve over a few terms (:mod:`engine.search.calibration`). What one of them
costs is told by asking the curve again with that one as good as it is in a plain match and all
others as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from engine.errors import AudioError, AudioTooShortError
from engine.records import Candidate, Match
from engine.search.alignment_detail import Agreement
from engine.search.calibration import Calibration, features

Rule = Literal[
    "accepted",
    "silent",
    "too_short",
    "no_neighbours",
    "evidence",
    "margin",
    "others",
    "score",
    "speed",
]
"""What decided; all but the first refuse, and those from "too_short" on can cost confidence."""

REASONS: Mapping[Rule, str] = {
    "accepted": "its confidence reaches the threshold",
    "silent": "it is silent from beginning to end",
    "too_short": "it is too short to be told from chance",
    "no_neighbours": "nothing in the catalog resembles any of it",
    "evidence": "too little evidence: it hardly stands out above what any music reaches",
    "margin": "no lead: another track with other audio agrees nearly as well, or better",
    "others": "many tracks agree: what is heard is common to much music",
    "score": "what agrees is only roughly alike",
    "speed": "found only at another speed, where chance has more to choose from",
}
"""What decided, in words, by the rule of a verdict."""

# About what half of the right answers to clips of eight seconds in 5 dB of noise have in a catalog
# of 16.6 hours.
_PLAIN_EVIDENCE = 1.0
_PLAIN_SCORE = 0.9
_PLAIN_S = 8.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one term takes off the certainty of an answer.

    Parameters
    ----------
    rule : str
        The term: "evidence", "margin", "others", "too_short", "score" or "speed".
    found, plain : float
        What it is, and what a plain match has. The rival's evidence for "margin", seconds for
        "too_short", the factor of the speed for "speed".
    logit : float
        How much higher the logit of the confidence were with the latter.
    """

    rule: Rule
    found: float
    plain: float
    logit: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer about one candidate, and what decided.

    Parameters
    ----------
    accepted : bool
        It is a match.
    rule : str
        "accepted", or why not: what cannot be looked for at all ("silent", "too_short"), what
        resembles nothing ("no_neighbours"), else the term that costs most.
    confidence, min_confidence : float
        In [0, 1]; 0 without a candidate.
    costs : tuple of Cost
        Of all terms, the dearest first; those that cost nothing are left out.
    """

    accepted: bool
    rule: Rule
    confidence: float
    min_confidence: float
    costs: tuple[Cost, ...] = ()

    @property
    def reason(self) -> str:
        """What decided, in words."""
        if not self.accepted and not self.confidence:
            return REASONS[self.rule]
        needed = f"{self.min_confidence:.3f} is needed"
        return f"{REASONS[self.rule]} (confidence {self.confidence:.3f}, {needed})"


@dataclass(frozen=True, kw_only=True)
class Near:
    """A candidate, whether it is a match or not, as people are told of it.

    Parameters
    ----------
    match : Match
        What it were if it were accepted.
    evidence, others : float
        Of the :class:`Candidate`.
    """

    match: Match
    evidence: float
    others: float


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The track that an explanation looks into: the best one, or the one that was asked about."""

    near: Near
    verdict: Verdict
    agreement: Agreement


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a query did or did not match.

    Parameters
    ----------
    query : str
        The path as given, or "array".
    duration_s, heard_s : float
        Its length, and how much of it is not silent.
    verdict : Verdict
        About its best candidate.
    answer : Match or None
        The best match, None if there is none.
    nearest : tuple of Near
        The best candidates, matches or not.
    subject : Subject or None
        The best one, or the one asked about, in detail; None without any.
    timings_ms : mapping
        Milliseconds of decode, encode, search and align, for the answer and its explanation.
    """

    query: str
    duration_s: float
    heard_s: float
    verdict: Verdict
    answer: Match | None = None
    nearest: tuple[Near, ...] = ()
    subject: Subject | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)


def unheard(query: str, duration_s: float, error: AudioError, min_confidence: float) -> Explanation:
    """Explain why a clip cannot be looked for at all: it is silent or too short."""
    rule: Rule = "too_short" if isinstance(error, AudioTooShortError) else "silent"
    verdict = Verdict(accepted=False, rule=rule, confidence=0.0, min_confidence=min_confidence)
    return Explanation(query=query, duration_s=duration_s, heard_s=0.0, verdict=verdict)


# -- what decided ----------------------------------------------------------------------------


def judge(
    candidate: Candidate | None, heard_s: float, calibration: Calibration, min_confidence: float
) -> Verdict:
    """Say whether a candidate is a match, and which term decided if it is none.

    Parameters
    ----------
    candidate : Candidate or None
        None if nothing resembles the query.
    heard_s : float
        Audible seconds of the query.
    calibration : Calibration
    min_confidence : float
        In [0, 1].

    Returns
    -------
    Verdict
    """
    if candidate is None:
        rule: Rule = "no_neighbours"
        return Verdict(accepted=False, rule=rule, confidence=0.0, min_confidence=min_confidence)
    confidence = calibration.confidence(candidate, heard_s)
    accepted = confidence >= min_confidence
    costs = costs_of(candidate, heard_s, calibration)
    # With a threshold above anything no term may cost; what there is of evidence is too little.
    refusal: Rule = costs[0].rule if costs else "evidence"
    return Verdict(
        accepted=accepted,
        rule="accepted" if accepted else refusal,
        confidence=confidence,
        min_confidence=min_confidence,
        costs=costs,
    )


def costs_of(candidate: Candidate, heard_s: float, calibration: Calibration) -> tuple[Cost, ...]:
    """Find what each term takes off the logit of the confidence, the dearest first.

    Parameters
    ----------
    candidate : Candidate
    heard_s : float
        Audible seconds of the query.
    calibration : Calibration

    Returns
    -------
    tuple of Cost
        Those above 0.
    """
    rival, evidence = candidate.evidence - candidate.margin, candidate.evidence
    better = max(evidence, _PLAIN_EVIDENCE)
    score = max(candidate.score, _PLAIN_SCORE)
    length_s = max(heard_s, _PLAIN_S)
    # Longer queries leave less to chance, and to all that owes its evidence to chance.
    less = _chance(length_s) / _chance(heard_s)
    longer = replace(candidate, margin=evidence - rival * less, others=candidate.others * less)
    asked: list[tuple[Rule, float, float, Candidate, float]] = [
        ("evidence", evidence, better, _with(candidate, evidence=better), heard_s),
        ("margin", rival, 0.0, replace(candidate, margin=evidence), heard_s),
        ("others", candidate.others, 0.0, replace(candidate, others=0.0), heard_s),
        ("too_short", heard_s, length_s, longer, length_s),
        ("score", candidate.score, score, replace(candidate, score=score), heard_s),
        ("speed", candidate.resampled, 1.0, replace(candidate, resampled=1.0), heard_s),
    ]
    supposed = [candidate, *(one for *_, one, _ in asked)]
    terms = features(supposed, [heard_s, *(length for *_, length in asked)])
    logits = terms @ np.array(calibration.weights)
    costs = [
        Cost(rule=rule, found=found, plain=plain, logit=float(logit - logits[0]))
        for (rule, found, plain, *_), logit in zip(asked, logits[1:], strict=True)
    ]
    return tuple(sorted((one for one in costs if one.logit > 0), key=lambda one: -one.logit))


def _with(candidate: Candidate, evidence: float) -> Candidate:
    """Suppose more evidence, and the same rivals."""
    more = evidence - candidate.evidence
    return replace(candidate, evidence=evidence, margin=candidate.margin + more)


def _chance(heard_s: float) -> float:
    """Evidence that chance brings a query of this length, as the curve has it: its least rival."""
    nothing = Candidate(
        track_id=0, offset_s=0.0, votes=0, evidence=1.0, score=0.0, coverage=0.0,
        query_start_s=0.0, query_end_s=0.0, margin=1.0,
    )  # fmt: skip
    _, log_evidence, lead, *_ = features([nothing], [heard_s])[0]
    return math.exp(log_evidence - lead)
