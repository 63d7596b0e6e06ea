"""Why a query did or did not match: its passages, and what lowers their confidence.

The confidence is a logistic curve over a few terms (:mod:`engine.search.calibration`). The cost of
one term is the difference to the curve's logit if that term alone were as good as in a plain match.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from engine.errors import AudioError, AudioTooShortError
from engine.records import Candidate, Match
from engine.search.alignment_detail import AlignmentDetail
from engine.search.calibration import MAX_DIRECTION, Calibration, features, probability
from engine.search.plane import CosinePlane, PassageEnd, Trace

Rule = Literal[
    "accepted",
    "silent",
    "too_short",
    "no_neighbours",
    "evidence",
    "margin",
    "others",
    "score",
    "direction",
    "speed",
]
"""What decided. All but "accepted" reject; those from "evidence" on and "too_short" have costs."""

REASONS: Mapping[Rule, str] = {
    "accepted": "its confidence reaches the threshold",
    "silent": "it is silent from beginning to end",
    "too_short": "it is too short to be distinguished from chance",
    "no_neighbours": "nothing in the catalog resembles any of it",
    "evidence": "too little evidence: its cosines hardly exceed those of unrelated music",
    "margin": "no lead: another track with other audio agrees nearly as well, or better",
    "others": "many tracks agree: it sounds like much music",
    "score": "what agrees is only roughly alike",
    "direction": "it agrees as well backwards: it is steady sound, or is played in reverse",
    "speed": "found only at another speed, where more tracks agree by chance",
}
"""What decided, in words."""

# A plain match: about the median of the right answers to clips of eight seconds in 5 dB of noise,
# in a catalog of 16.6 hours.
_PLAIN_EVIDENCE = 1.0
_PLAIN_SCORE = 0.9
_PLAIN_S = 8.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one term costs the confidence of a candidate.

    Parameters
    ----------
    rule : str
        The term: "evidence", "margin", "others", "too_short", "score", "direction" or "speed".
    found, plain : float
        Value of the term in this candidate and in a plain match: the rival's evidence for
        "margin", seconds for "too_short", the factor of the speed for "speed".
    logit : float
        How much higher the logit of the confidence would be with `plain`.
    """

    rule: Rule
    found: float
    plain: float
    logit: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a candidate is a match, and why.

    Parameters
    ----------
    accepted : bool
    rule : str
        "accepted"; or "silent" or "too_short" if the query cannot be searched, "no_neighbours" if
        it has no candidate, else the term that costs most.
    confidence, min_confidence : float
        In [0, 1]; the confidence is 0 without a candidate.
    costs : tuple of Cost
        Those above 0, the highest first.
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
        threshold = f"{self.min_confidence:.3f} is needed"
        return f"{REASONS[self.rule]} (confidence {self.confidence:.3f}, {threshold})"


@dataclass(frozen=True, kw_only=True)
class RankedCandidate:
    """A candidate with its track, whether it is a match or not.

    Parameters
    ----------
    match : Match
        The match it would be if it were accepted.
    evidence, others : float
        Those of the :class:`Candidate`.
    """

    match: Match
    evidence: float
    others: float


@dataclass(frozen=True, kw_only=True)
class ExaminedPassage:
    """A candidate with its evidence along its line, and why it ends.

    Parameters
    ----------
    candidate : RankedCandidate
    decision : Decision
    start, end : PassageEnd
    trace : Trace
    """

    candidate: RankedCandidate
    decision: Decision
    start: PassageEnd
    end: PassageEnd
    trace: Trace


@dataclass(frozen=True, kw_only=True)
class TrackPlane:
    """A track in the plane of clip time and track time.

    Parameters
    ----------
    passages : tuple of ExaminedPassage
        Those of the answer in this track; its best candidate if there are none.
    cosines : CosinePlane
        Of the whole clip and the part of the track around the passages.
    """

    passages: tuple[ExaminedPassage, ...]
    cosines: CosinePlane


@dataclass(frozen=True, kw_only=True)
class ExaminedTrack:
    """The track that an explanation shows in detail.

    Parameters
    ----------
    passages : tuple of ExaminedPassage
        Those of the answer in this track, in its order; its best candidate if there are none.
    details : tuple of AlignmentDetail
        One along the line of each passage.
    """

    passages: tuple[ExaminedPassage, ...]
    details: tuple[AlignmentDetail, ...]

    @property
    def candidate(self) -> RankedCandidate:
        """The first candidate."""
        return self.passages[0].candidate

    @property
    def decision(self) -> Decision:
        """The decision about the first candidate."""
        return self.passages[0].decision

    @property
    def detail(self) -> AlignmentDetail:
        """How query and track agree along the first candidate's line."""
        return self.details[0]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a query did or did not match.

    Parameters
    ----------
    query : str
        The path as passed, or "array".
    duration_s, audible_s : float
        Length of the query, and of what is not silent in it.
    decision : Decision
        About its best candidate.
    passages : tuple of ExaminedPassage
        The answer: all matches of the query, in its order.
    nearest : tuple of RankedCandidate
        The best candidates in the order of their ranks, the matches first.
    examined : ExaminedTrack or None
        The track of the best candidate, or the one requested; None if it has no candidate.
    planes : tuple of TrackPlane
        The tracks of the answer, the examined one and some of the nearest.
    timings_ms : mapping
        Milliseconds of decode, encode, search and align, for the answer and its explanation.
    """

    query: str
    duration_s: float
    audible_s: float
    decision: Decision
    passages: tuple[ExaminedPassage, ...] = ()
    nearest: tuple[RankedCandidate, ...] = ()
    examined: ExaminedTrack | None = None
    planes: tuple[TrackPlane, ...] = ()
    timings_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def match(self) -> Match | None:
        """The best match, None if there is none."""
        return self.passages[0].candidate.match if self.passages else None


def unsearchable(
    query: str, duration_s: float, error: AudioError, min_confidence: float
) -> Explanation:
    """Explain why a query cannot be searched: it is silent or too short.

    Parameters
    ----------
    query : str
    duration_s : float
    error : AudioError
        The one its fingerprinting raised.
    min_confidence : float
        In [0, 1].

    Returns
    -------
    Explanation
    """
    rule: Rule = "too_short" if isinstance(error, AudioTooShortError) else "silent"
    decision = Decision(accepted=False, rule=rule, confidence=0.0, min_confidence=min_confidence)
    return Explanation(query=query, duration_s=duration_s, audible_s=0.0, decision=decision)


def decide(
    candidate: Candidate | None, calibration: Calibration, min_confidence: float
) -> Decision:
    """Decide whether a candidate is a match, and which term rejects it if it is not.

    Parameters
    ----------
    candidate : Candidate or None
        None if nothing resembles the query.
    calibration : Calibration
    min_confidence : float
        In [0, 1].

    Returns
    -------
    Decision
    """
    if candidate is None:
        rule: Rule = "no_neighbours"
        return Decision(accepted=False, rule=rule, confidence=0.0, min_confidence=min_confidence)
    accepted = candidate.confidence >= min_confidence
    costs = costs_of(candidate, candidate.audible_s, calibration)
    # A threshold above 1 rejects candidates that no term costs anything.
    rejection: Rule = costs[0].rule if costs else "evidence"
    return Decision(
        accepted=accepted,
        rule="accepted" if accepted else rejection,
        confidence=candidate.confidence,
        min_confidence=min_confidence,
        costs=costs,
    )


def costs_of(candidate: Candidate, audible_s: float, calibration: Calibration) -> tuple[Cost, ...]:
    """Compute what each term costs the logit of a candidate's confidence.

    Parameters
    ----------
    candidate : Candidate
    audible_s : float
        Audible seconds of the query.
    calibration : Calibration

    Returns
    -------
    tuple of Cost
        Those above 0, the highest first.
    """
    rival, evidence = candidate.evidence - candidate.margin, candidate.evidence
    plain_evidence = max(evidence, _PLAIN_EVIDENCE)
    plain_score = max(candidate.score, _PLAIN_SCORE)
    direction = max(candidate.direction, MAX_DIRECTION)
    plain_s = max(audible_s, _PLAIN_S)
    improved: list[tuple[Rule, float, float, Candidate, float]] = [
        (
            "evidence",
            evidence,
            plain_evidence,
            _with_evidence(candidate, plain_evidence),
            audible_s,
        ),
        ("margin", rival, 0.0, replace(candidate, margin=evidence), audible_s),
        ("others", candidate.others, 0.0, replace(candidate, others=0.0), audible_s),
        ("too_short", audible_s, plain_s, _with_length(candidate, audible_s, plain_s), plain_s),
        ("score", candidate.score, plain_score, replace(candidate, score=plain_score), audible_s),
        (
            "direction",
            candidate.direction,
            direction,
            replace(candidate, direction=direction),
            audible_s,
        ),
        ("speed", candidate.resampled, 1.0, replace(candidate, resampled=1.0), audible_s),
    ]
    candidates = [candidate, *(one for *_, one, _ in improved)]
    lengths_s = [audible_s, *(length_s for *_, length_s in improved)]
    logits = calibration.curve_logits(candidates, lengths_s)
    if (
        probability(logits[0]) >= calibration.min_confidence
    ):  # rejected by nothing but its direction
        logits = calibration.logits(candidates, lengths_s)
    costs = [
        Cost(rule=rule, found=found, plain=plain, logit=float(logit - logits[0]))
        for (rule, found, plain, *_), logit in zip(improved, logits[1:], strict=True)
    ]
    return tuple(sorted((one for one in costs if one.logit > 0), key=lambda one: -one.logit))


def _with_evidence(candidate: Candidate, evidence: float) -> Candidate:
    """Replace the evidence, and keep that of the rivals."""
    margin = candidate.margin + evidence - candidate.evidence
    return replace(candidate, evidence=evidence, margin=margin)


def _with_length(candidate: Candidate, audible_s: float, longer_s: float) -> Candidate:
    """Scale the evidence of the rivals, which is due to chance, to that of a longer query."""
    factor = _chance(longer_s) / _chance(audible_s)
    rival = candidate.evidence - candidate.margin
    return replace(
        candidate, margin=candidate.evidence - rival * factor, others=candidate.others * factor
    )


def _chance(audible_s: float) -> float:
    """Evidence that chance gives a query of this length: the least rival in `features`."""
    nothing = Candidate(
        track_id=0, offset_s=0.0, votes=0, evidence=1.0, score=0.0, coverage=0.0,
        query_start_s=0.0, query_end_s=0.0, margin=1.0,
    )  # fmt: skip
    _, log_evidence, lead, *_ = features([nothing], [audible_s])[0]
    return math.exp(log_evidence - lead)
