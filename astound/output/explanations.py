"""Writers for explanations: text for people, or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from astound.output.terminal import clock, console, hints, label, write_json, write_table
from engine.errors import printable
from engine.records import Match
from engine.search.alignment_detail import Agreement, Votes
from engine.search.explanation import Explanation, Near, Subject, Verdict

EXPLAIN_FORMATS = ("text", "json")

_TERMS = {
    "evidence": "evidence",
    "margin": "evidence of the next track",
    "others": "evidence of ten others",
    "too_short": "audible seconds",
    "score": "score",
    "speed": "playback speed of the query",
}
_BARS = " ▁▂▃▄▅▆▇█"
_BAR_WIDTH = 20
_MIN_CONFIDENCE_OF_PLACES = 0.5
_MAX_ROWS = 40
# Terminals narrower than this do not get the columns in _WIDE_COLUMNS; JSON contains them all.
_WIDE = 110
_WIDE_COLUMNS = ("rank", "votes", "margin", "coverage", "also at")


def write_explanation(explanation: Explanation, form: str, out: IO[str]) -> None:
    """Write an explanation in one of EXPLAIN_FORMATS."""
    if form == "json":
        write_json(explanation_object(explanation), out)
    else:
        _write_text(explanation, out)


# -- JSON ------------------------------------------------------------------------------------


def explanation_object(explanation: Explanation) -> dict[str, Any]:
    """Return the JSON object of an explanation; NaN becomes null."""
    subject = explanation.subject
    return {
        "query": printable(explanation.query),
        "status": "match" if explanation.verdict.accepted else "no_match",
        "duration_s": explanation.duration_s,
        "heard_s": explanation.heard_s,
        "verdict": _verdict_object(explanation.verdict),
        "nearest": [_near_object(near) for near in explanation.nearest],
        "subject": None if subject is None else _subject_object(subject),
        "timings_ms": dict(explanation.timings_ms),
    }


def _verdict_object(verdict: Verdict) -> dict[str, Any]:
    costs = [
        {key: round(value, 4) if key != "rule" else value for key, value in asdict(cost).items()}
        for cost in verdict.costs
    ]
    return {
        "accepted": verdict.accepted,
        "rule": verdict.rule,
        "reason": verdict.reason,
        "confidence": round(verdict.confidence, 4),
        "min_confidence": verdict.min_confidence,
        "costs": costs,
    }


def _near_object(near: Near) -> dict[str, Any]:
    return asdict(near.match) | {"evidence": near.evidence, "others": near.others}


def _subject_object(subject: Subject) -> dict[str, Any]:
    agreement = subject.agreement
    columns = {
        "query_s": _numbers(agreement.starts_s),
        "reference_s": _numbers(agreement.reference_s),
        "similarity": _numbers(agreement.similarity),
        "agrees": agreement.agrees.tolist(),
        "n_neighbours": agreement.n_neighbours.tolist(),
        "votes": agreement.votes.tolist(),
    }
    rows = zip(*columns.values(), strict=True)
    return _near_object(subject.near) | {
        "verdict": _verdict_object(subject.verdict),
        "segments": [dict(zip(columns, row, strict=True)) for row in rows],
        "votes_near": _votes_object(agreement.near),
        "votes_in_track": _votes_object(agreement.whole),
    }


def _votes_object(votes: Votes) -> dict[str, Any]:
    offsets_s, counts = _numbers(votes.offsets_s), votes.counts.tolist()
    return {"bin_s": votes.bin_s, "offsets_s": offsets_s, "counts": counts}


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(x) else round(float(x), 4) + 0.0 for x in values]


# -- text ------------------------------------------------------------------------------------


def _write_text(explanation: Explanation, out: IO[str]) -> None:
    answer = "not in the catalog"
    if explanation.answer:
        match = explanation.answer
        answer = f"{label(match)} at {clock(match.reference_start_s)}{hints(match)}"
    out.write(f"{printable(explanation.query)}: {printable(answer)}\n")
    out.write(f"{explanation.verdict.reason}\n")
    if explanation.nearest:
        _write_nearest(explanation.nearest, out)
    if explanation.subject:
        _write_subject(explanation.subject, out)
    if explanation.timings_ms:
        spent = (f"{step} {ms:.0f} ms" for step, ms in explanation.timings_ms.items())
        out.write(f"\ntimings: {', '.join(spent)}\n")


def _write_costs(verdict: Verdict, out: IO[str]) -> None:
    """Write what each term of the calibration subtracts from the logit, for matches as well."""
    if not verdict.costs:
        return
    rows = [
        (_TERMS[cost.rule], f"{cost.found:.3g}", f"{cost.plain:.3g}", f"{-cost.logit:.1f}")
        for cost in verdict.costs
    ]
    write_table(("what costs confidence", "here", "plain match", "logit"), rows, out)


def _write_nearest(nearest: Sequence[Near], out: IO[str]) -> None:
    rows = [_nearest_row(near) for near in nearest]
    is_wide = console(out).width >= _WIDE
    headers = [header for header in rows[0] if is_wide or header not in _WIDE_COLUMNS]
    write_table(headers, [[row[header] for header in headers] for row in rows], out)


def _nearest_row(near: Near) -> dict[str, str]:
    match = near.match
    return {
        "rank": f"{match.rank}",
        "id": f"{match.track_id}",
        "track": label(match),
        "offset": f"{match.offset_s:.2f}",
        "votes": f"{match.votes}",
        "evidence": f"{near.evidence:.3f}",
        "score": f"{match.score:.3f}",
        "margin": f"{match.margin:+.3f}",
        "confidence": f"{match.confidence:.3f}",
        "coverage": f"{match.coverage:.0%}",
        "speed": f"{match.speed:.3f}",
        "pitch": f"{match.pitch:+.1f}" if match.pitch else "",
        "also at": _places(match),
    }


def _places(match: Match) -> str:
    """List further places of a match; many places agree equally little with an unlikely one."""
    is_likely = match.confidence >= _MIN_CONFIDENCE_OF_PLACES
    return ", ".join(map(clock, match.also_at_s)) if is_likely else ""


def _write_subject(subject: Subject, out: IO[str]) -> None:
    match, agreement = subject.near.match, subject.agreement
    title = f"{match.track_id}: {label(match)} at offset {match.offset_s:.2f} s"
    out.write(f"\n{printable(title)}: {subject.verdict.reason}\n")
    _write_costs(subject.verdict, out)
    out.write("\nvotes: segments of the clip with a near neighbour in the track, by offset\n")
    for votes in (agreement.near, agreement.whole):
        out.write(f"  {_histogram(votes)}\n")
    rows = list(_stretches(agreement))
    headers = ("clip", "track", "similarity", "", "agreeing", "voting", "neighbours in the track")
    write_table(headers, rows, out)


def _histogram(votes: Votes) -> str:
    """Draw a histogram of one character per bin, between the first and the last offset."""
    highest = max(int(votes.counts.max(initial=0)), 1)
    bars = "".join(_BARS[-(-int(count) * (len(_BARS) - 1) // highest)] for count in votes.counts)
    first_s, last_s = votes.offsets_s[[0, -1]]
    scale = f"bins of {votes.bin_s:g} s, highest {highest}"
    return f"{first_s:.1f} s |{bars}| {last_s:.1f} s; {scale}"


def _stretches(agreement: Agreement) -> Iterator[tuple[str, ...]]:
    """Yield a row for each second of the clip, or for longer stretches of a long clip."""
    starts_s = agreement.starts_s
    length_s = max(int(-(-(starts_s[-1] - starts_s[0] + 1) // _MAX_ROWS)), 1)
    numbers = ((starts_s - starts_s[0] + 1e-6) // length_s).astype(np.int64)
    for number in range(int(numbers[-1]) + 1):
        rows = np.flatnonzero(numbers == number)
        similarity = agreement.similarity[rows]
        audible = similarity[~np.isnan(similarity)]
        mean = float(audible.mean()) if len(audible) else None
        yield (
            clock(float(starts_s[rows[0]])),
            f"{agreement.reference_s[rows[0]]:.2f} s",
            "silent or outside" if mean is None else f"{mean:.3f}",
            "█" * round(max(mean or 0.0, 0.0) * _BAR_WIDTH),
            f"{agreement.agrees[rows].sum()} of {len(rows)}",
            f"{agreement.votes[rows].sum()}",
            f"{agreement.n_neighbours[rows].sum()}",
        )
