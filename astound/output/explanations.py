"""Writers for explanations: text for people, or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np

from astound.output.terminal import (
    cell,
    clock,
    console,
    counted,
    further_places,
    hints,
    label,
    span,
    write_json,
    write_table,
)
from astound.results import explanation_object
from engine.records import Match
from engine.search.alignment_detail import AlignmentDetail, VoteHistogram
from engine.search.explanation import (
    Decision,
    ExaminedPassage,
    ExaminedTrack,
    Explanation,
    RankedCandidate,
)

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
_BAR_WIDTH, _NARROW_BAR_WIDTH = 20, 10
_MIN_CONFIDENCE_OF_PLACES = 0.5
_MAX_ROWS = 40
# Terminals narrower than this do not get the columns in _WIDE_COLUMNS, which JSON contains, and get
# the ends of passages in a table of their own.
_WIDE = 120
_WIDE_COLUMNS = ("id", "votes", "margin", "coverage", "also at", "neighbours in the track")
_ENDS = ("begins", "ends")


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
        n_more = len(explanation.passages) - 1
        answer += f" and {counted(n_more, 'more passage')}" if n_more else ""
    out.write(f"{cell(explanation.query)}: {cell(answer)}\n")
    out.write(f"{explanation.decision.reason}\n")
    if explanation.passages:
        _write_passages(explanation.passages, out)
    if explanation.nearest:
        _write_nearest(explanation.nearest, out)
    if explanation.examined:
        _write_examined(explanation.examined, out)
    if explanation.timings_ms:
        spent = (f"{step} {ms:.0f} ms" for step, ms in explanation.timings_ms.items())
        out.write(f"\ntimings: {', '.join(spent)}\n")


def _write_passages(passages: Sequence[ExaminedPassage], out: IO[str]) -> None:
    """Write where each passage lies, and why it begins and ends there."""
    rows = [_passage_row(passage) for passage in passages]
    places = [header for header in rows[0] if header not in _ENDS]
    is_wide = console(out).width >= _WIDE
    for headers in [[*places, *_ENDS]] if is_wide else [places, ["rank", *_ENDS]]:
        _write_columns(headers, rows, out)


def _passage_row(passage: ExaminedPassage) -> dict[str, str]:
    match = passage.candidate.match
    return {
        "rank": f"{match.rank}",
        "track": label(match),
        "in the clip": span(match.query_start_s, match.query_end_s),
        "in the track": span(match.reference_start_s, match.reference_end_s),
        "speed": f"{match.speed:.3f}",
        "confidence": f"{match.confidence:.3f}",
        "begins": passage.start.text,
        "ends": passage.end.text,
    }


def _write_columns(headers: Sequence[str], rows: Sequence[dict[str, str]], out: IO[str]) -> None:
    right = {"in the clip", "in the track", "speed", "confidence"}
    write_table(headers, [[row[header] for header in headers] for row in rows], out, right=right)


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
    out.write("nearest tracks, matches or not:\n")
    _write_columns([h for h in rows[0] if is_wide or h not in _WIDE_COLUMNS], rows, out)


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
    return further_places(match) if is_likely else ""


def _write_examined(examined: ExaminedTrack, out: IO[str]) -> None:
    match = examined.candidate.match
    title = f"{match.track_id}: {label(match)} at offset {match.offset_s:.2f} s"
    out.write(f"\n{cell(title)}: {examined.decision.reason}\n")
    if not examined.decision.accepted:  # it is not among the passages of the answer
        _write_passages(examined.passages, out)
    _write_costs(examined.decision, out)
    out.write("\nvotes: segments of the clip with a near neighbour in the track, by offset\n")
    near = [detail.votes_near for detail in examined.details]
    for votes in (*near, examined.detail.votes_in_track):
        out.write(f"  {_histogram(votes)}\n")
    is_wide = console(out).width >= _WIDE
    rows = list(_stretches(examined, _BAR_WIDTH if is_wide else _NARROW_BAR_WIDTH))
    hidden = set() if is_wide else set(_WIDE_COLUMNS)
    hidden |= {"passage"} if len(examined.passages) == 1 else set()
    _write_columns([header for header in rows[0] if header not in hidden], rows, out)


def _histogram(votes: VoteHistogram) -> str:
    """Draw a histogram of one character per bin, between the first and the last offset."""
    highest = max(int(votes.counts.max(initial=0)), 1)
    bars = "".join(_BARS[-(-int(count) * (len(_BARS) - 1) // highest)] for count in votes.counts)
    first_s, last_s = votes.offsets_s[[0, -1]]
    scale = f"bins of {votes.bin_s:g} s, highest {highest}"
    return f"{first_s:.1f} s |{bars}| {last_s:.1f} s; {scale}"


def _stretches(examined: ExaminedTrack, bar_width: int) -> Iterator[dict[str, str]]:
    """Yield a row for each second of the clip, or for longer stretches of a long clip.

    A row is about the passage that covers it, or about the first one.
    """
    starts_s = examined.detail.query_s
    length_s = max(int(-(-(starts_s[-1] - starts_s[0] + 1) // _MAX_ROWS)), 1)
    for start_s in np.arange(starts_s[0], starts_s[-1] + 1e-6, length_s).tolist():
        passage, detail = _covering(examined, start_s + length_s / 2)
        first, last = np.searchsorted(detail.query_s, (start_s - 1e-6, start_s + length_s - 1e-6))
        if first < last:
            row = _stretch_row(detail, slice(first, last), bar_width)
            yield row | {"passage": f"{passage.candidate.match.rank}"}


def _covering(examined: ExaminedTrack, at_s: float) -> tuple[ExaminedPassage, AlignmentDetail]:
    pairs = list(zip(examined.passages, examined.details, strict=True))
    covering = (pair for pair in pairs if pair[0].trace.start_s <= at_s <= pair[0].trace.end_s)
    return next(covering, pairs[0])


def _stretch_row(detail: AlignmentDetail, rows: slice, bar_width: int) -> dict[str, str]:
    similarity = detail.similarity[rows]
    audible = similarity[~np.isnan(similarity)]
    mean = float(audible.mean()) if len(audible) else None
    return {
        "clip": clock(float(detail.query_s[rows][0])),
        "track": f"{detail.reference_s[rows][0]:.2f} s",
        "similarity": "none" if mean is None else f"{mean:.3f}",
        "": "█" * round(max(mean or 0.0, 0.0) * bar_width),
        "agreeing": f"{detail.agrees[rows].sum()} of {len(similarity)}",
        "voting": f"{detail.votes[rows].sum()}",
        "neighbours in the track": f"{detail.n_neighbours[rows].sum()}",
    }
