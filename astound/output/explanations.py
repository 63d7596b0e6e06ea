"""How an explanation is written: as text for people, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from astound.output.matches import clock, console, hints, label
from engine.errors import printable
from engine.search.alignment_detail import Agreement, Votes
from engine.search.explanation import Explanation, Near, Subject, Verdict

EXPLAIN_FORMATS = ("text", "json")

_TERMS = {
    "evidence": "evidence",
    "margin": "evidence of the next track",
    "others": "evidence of ten others",
    "too_short": "seconds heard",
    "score": "score",
    "speed": "played so many times as fast",
}
_BARS = " ▁▂▃▄▅▆▇█"
_BAR_WIDTH = 20
_SURE = 0.5
_MAX_ROWS = 40
# A narrower terminal is spared some columns, which JSON has all of.
_WIDE = 110
_SPARED = ("rank", "votes", "margin", "coverage", "also at")


def write_explanation(explanation: Explanation, form: str, out: IO[str]) -> None:
    """Write an explanation in one of EXPLAIN_FORMATS."""
    if form == "json":
        out.write(json.dumps(explanation_object(explanation), ensure_ascii=False, indent=1) + "\n")
    else:
        _write_text(explanation, out)


# -- JSON ------------------------------------------------------------------------------------


def explanation_object(explanation: Explanation) -> dict[str, Any]:
    """Make the JSON object of an explanation; what is no number is null."""
    subject = explanation.subject
    return {
        "query": printable(explanation.query),
        "status": "match" if explanation.verdict.accepted else "no_match",
        "duration_s": explanation.duration_s,
        "heard_s": explanation.heard_s,
        "verdict": _verdict_object(explanation.verdict),
        "nearest": [_near_object(one) for one in explanation.nearest],
        "subject": None if subject is None else _subject_object(subject),
        "timings_ms": dict(explanation.timings_ms),
    }


def _verdict_object(verdict: Verdict) -> dict[str, Any]:
    costs = [
        {key: round(value, 4) if key != "rule" else value for key, value in asdict(one).items()}
        for one in verdict.costs
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
    return [None if np.isnan(one) else round(float(one), 4) + 0.0 for one in values]


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
    """Show what each term takes off the logit; of a match too, for it may be a close one."""
    if not verdict.costs:
        return
    rows = [
        (_TERMS[one.rule], f"{one.found:.3g}", f"{one.plain:.3g}", f"{-one.logit:.1f}")
        for one in verdict.costs
    ]
    _write_table(("what costs confidence", "here", "plain match", "logit"), rows, out)


def _write_nearest(nearest: Sequence[Near], out: IO[str]) -> None:
    rows = [_nearest_row(one) for one in nearest]
    headers = [one for one in rows[0] if console(out).width >= _WIDE or one not in _SPARED]
    _write_table(headers, [[row[one] for one in headers] for row in rows], out)


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
        # Where hardly anything agrees, many places agree as much.
        "also at": ", ".join(map(clock, match.also_at_s)) if match.confidence >= _SURE else "",
    }


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
    _write_table(headers, rows, out)


def _histogram(votes: Votes) -> str:
    """One character for each bin, between the first and last offset."""
    most = max(int(votes.counts.max(initial=0)), 1)
    bars = "".join(_BARS[-(-int(one) * (len(_BARS) - 1) // most)] for one in votes.counts)
    first_s, last_s = votes.offsets_s[[0, -1]]
    return (
        f"{first_s:.1f} s |{bars}| {last_s:.1f} s; a bar is {votes.bin_s:g} s, the highest {most}"
    )


def _stretches(agreement: Agreement) -> Iterator[tuple[str, ...]]:
    """Tell of each second of the clip, or of longer stretches of a long one."""
    starts_s = agreement.starts_s
    length_s = max(int(-(-(starts_s[-1] - starts_s[0] + 1) // _MAX_ROWS)), 1)
    numbers = ((starts_s - starts_s[0] + 1e-6) // length_s).astype(np.int64)
    for number in range(int(numbers[-1]) + 1):
        rows = np.flatnonzero(numbers == number)
        similarity = agreement.similarity[rows]
        heard = similarity[~np.isnan(similarity)]
        mean = float(heard.mean()) if len(heard) else None
        yield (
            clock(float(starts_s[rows[0]])),
            f"{agreement.reference_s[rows[0]]:.2f} s",
            "silent or outside" if mean is None else f"{mean:.3f}",
            "█" * round(max(mean or 0.0, 0.0) * _BAR_WIDTH),
            f"{agreement.agrees[rows].sum()} of {len(rows)}",
            f"{agreement.votes[rows].sum()}",
            f"{agreement.n_neighbours[rows].sum()}",
        )


def _write_table(headers: Sequence[str], rows: Sequence[Sequence[str]], out: IO[str]) -> None:
    table = Table(*headers, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*map(printable, row))
    console(out).print(table)
