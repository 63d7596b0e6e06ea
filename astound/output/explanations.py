"""Writers for explanations: text for people, or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np

from astound.output.terminal import cell, clock, console, hints, label, write_json, write_table
from astound.results import explanation_object
from engine.records import Match
from engine.search.alignment_detail import AlignmentDetail, VoteHistogram
from engine.search.explanation import Decision, ExaminedTrack, Explanation, RankedCandidate

EXPLAIN_FORMATS = ("text", "json")

_TERMS = {
    "evidence": "evidence",
    "margin": "evidence of the next track",
    "others": "evidence of ten others",
    "too_short": "audible seconds",
    "score": "score",
    "direction": "direction",
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


# -- text ------------------------------------------------------------------------------------


def _write_text(explanation: Explanation, out: IO[str]) -> None:
    answer = "not in the catalog"
    if explanation.match:
        match = explanation.match
        answer = f"{label(match)} at {clock(match.reference_start_s)}{hints(match)}"
    out.write(f"{cell(explanation.query)}: {cell(answer)}\n")
    out.write(f"{explanation.decision.reason}\n")
    if explanation.nearest:
        _write_nearest(explanation.nearest, out)
    if explanation.examined:
        _write_examined(explanation.examined, out)
    if explanation.timings_ms:
        spent = (f"{step} {ms:.0f} ms" for step, ms in explanation.timings_ms.items())
        out.write(f"\ntimings: {', '.join(spent)}\n")


def _write_costs(decision: Decision, out: IO[str]) -> None:
    """Write what each term of the calibration subtracts from the logit, for matches as well."""
    if not decision.costs:
        return
    rows = [
        (_TERMS[cost.rule], f"{cost.found:.3g}", f"{cost.plain:.3g}", f"{-cost.logit:.1f}")
        for cost in decision.costs
    ]
    write_table(("what costs confidence", "here", "plain match", "logit"), rows, out)


def _write_nearest(nearest: Sequence[RankedCandidate], out: IO[str]) -> None:
    rows = [_nearest_row(ranked) for ranked in nearest]
    is_wide = console(out).width >= _WIDE
    headers = [header for header in rows[0] if is_wide or header not in _WIDE_COLUMNS]
    write_table(headers, [[row[header] for header in headers] for row in rows], out)


def _nearest_row(ranked: RankedCandidate) -> dict[str, str]:
    match = ranked.match
    return {
        "rank": f"{match.rank}",
        "id": f"{match.track_id}",
        "track": label(match),
        "offset": f"{match.offset_s:.2f}",
        "votes": f"{match.votes}",
        "evidence": f"{ranked.evidence:.3f}",
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


def _write_examined(examined: ExaminedTrack, out: IO[str]) -> None:
    match, detail = examined.candidate.match, examined.detail
    title = f"{match.track_id}: {label(match)} at offset {match.offset_s:.2f} s"
    out.write(f"\n{cell(title)}: {examined.decision.reason}\n")
    _write_costs(examined.decision, out)
    out.write("\nvotes: segments of the clip with a near neighbour in the track, by offset\n")
    for votes in (detail.votes_near, detail.votes_in_track):
        out.write(f"  {_histogram(votes)}\n")
    rows = list(_stretches(detail))
    headers = ("clip", "track", "similarity", "", "agreeing", "voting", "neighbours in the track")
    write_table(headers, rows, out)


def _histogram(votes: VoteHistogram) -> str:
    """Draw a histogram of one character per bin, between the first and the last offset."""
    highest = max(int(votes.counts.max(initial=0)), 1)
    bars = "".join(_BARS[-(-int(count) * (len(_BARS) - 1) // highest)] for count in votes.counts)
    first_s, last_s = votes.offsets_s[[0, -1]]
    scale = f"bins of {votes.bin_s:g} s, highest {highest}"
    return f"{first_s:.1f} s |{bars}| {last_s:.1f} s; {scale}"


def _stretches(detail: AlignmentDetail) -> Iterator[tuple[str, ...]]:
    """Yield a row for each second of the clip, or for longer stretches of a long clip."""
    starts_s = detail.query_s
    length_s = max(int(-(-(starts_s[-1] - starts_s[0] + 1) // _MAX_ROWS)), 1)
    numbers = ((starts_s - starts_s[0] + 1e-6) // length_s).astype(np.int64)
    for number in range(int(numbers[-1]) + 1):
        rows = np.flatnonzero(numbers == number)
        similarity = detail.similarity[rows]
        audible = similarity[~np.isnan(similarity)]
        mean = float(audible.mean()) if len(audible) else None
        yield (
            clock(float(starts_s[rows[0]])),
            f"{detail.reference_s[rows[0]]:.2f} s",
            "silent or outside" if mean is None else f"{mean:.3f}",
            "█" * round(max(mean or 0.0, 0.0) * _BAR_WIDTH),
            f"{detail.agrees[rows].sum()} of {len(rows)}",
            f"{detail.votes[rows].sum()}",
            f"{detail.n_neighbours[rows].sum()}",
        )
