"""Results of the catalog: candidates joined with their tracks, and the JSON objects of results."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import cache
from typing import TYPE_CHECKING, Any

from engine.errors import printable
from engine.records import (
    Candidate,
    Cluster,
    Duplicate,
    Entry,
    Job,
    Match,
    QueryResult,
    ServiceKey,
    SimilarTrack,
    Timeline,
    Track,
)
from engine.validation import to_record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.search.alignment_detail import VoteHistogram
    from engine.search.explainer import Explainer
    from engine.search.explanation import (
        Decision,
        ExaminedPassage,
        ExaminedTrack,
        Explanation,
        RankedCandidate,
    )
    from engine.search.plane import PassageEnd
    from engine.store.store import Store
    from indexer.report import IngestReport

JsonObject = dict[str, Any]

MAX_SIMILAR_TRACKS = 10
"""Similar tracks of a recording, at most, by default."""

# Candidates that an explanation lists, and tracks of which it has a plane; more if there are more
# matches.
_N_NEAREST, _N_PLANES, _MAX_PLANES = 10, 2, 12


# -- candidates joined with their tracks -----------------------------------------------------


def to_match(rank: int, candidate: Candidate, track: Track, start_s: float) -> Match:
    """Join a candidate of a query with its track.

    Parameters
    ----------
    rank : int
        From 1.
    candidate : Candidate
    track : Track
    start_s : float
        Where in the clip the query began, in seconds; the times of a match are those of the clip.
    """
    moved = candidate.later(start_s)
    shifts_s = [place_s - moved.offset_s for place_s in moved.also]
    placed = _place(moved, track)
    return Match(
        rank=rank,
        **placed,
        votes=candidate.votes,
        coverage=round(candidate.coverage, 3),
        margin=round(candidate.margin, 4),
        tempo=placed["speed"],
        pitch=round(candidate.pitch, 2) + 0.0,
        also_at_s=tuple(
            round(max(placed["reference_start_s"] + shift_s, 0.0), 3) for shift_s in shifts_s
        ),
    )


def _place(passage: Candidate, track: Track) -> dict[str, Any]:
    """Return the fields of a match and of an entry; both ends lie within the track."""
    offset_s, speed = passage.offset_s, passage.speed
    earliest_s, latest_s = -offset_s / speed, (track.duration_s - offset_s) / speed
    query_start_s = max(passage.query_start_s, earliest_s)
    query_end_s = max(min(passage.query_end_s, latest_s), query_start_s)
    return {
        "track_id": track.id,
        "path": track.path,
        "title": track.title,
        "artist": track.artist,
        "query_start_s": round(query_start_s, 3),
        "query_end_s": round(query_end_s, 3),
        "reference_start_s": round(offset_s + speed * query_start_s, 3) + 0.0,  # never -0.0
        "reference_end_s": round(offset_s + speed * query_end_s, 3),
        "offset_s": round(offset_s, 3) + 0.0,
        "score": round(passage.score, 4),
        "confidence": round(passage.confidence, 4),
        "speed": round(speed, 6),
        "start_error_s": round(passage.start_error_s, 2),
        "end_error_s": round(passage.end_error_s, 2),
    }


def to_matches(candidates: Sequence[Candidate], store: Store, start_s: float) -> tuple[Match, ...]:
    """Join candidates with their tracks; leave out deleted tracks."""
    tracks = {t.id: t for t in store.tracks([one.track_id for one in candidates])}
    return tuple(
        to_match(rank, candidate, tracks[candidate.track_id], start_s)
        for rank, candidate in enumerate(candidates, 1)
        if candidate.track_id in tracks
    )


def to_explanation(
    explainer: Explainer, store: Store, track_id: int | None, name: str, start_s: float
) -> Explanation:
    """Explain a query.

    Parameters
    ----------
    explainer : Explainer
    store : Store
    track_id : int or None
        The track to examine; that of the best candidate if None.
    name : str
        Name of the clip.
    start_s : float
        Where in the clip the query began, in seconds.
    """
    from engine.search.explanation import ExaminedTrack, Explanation, TrackPlane

    @cache
    def examine(candidate: Candidate) -> ExaminedPassage | None:
        return _examined(candidate, explainer, store, start_s)

    def passages(candidates: Sequence[Candidate]) -> tuple[ExaminedPassage, ...]:
        return tuple(filter(None, map(examine, candidates)))

    best, fingerprint = explainer.best, explainer.fingerprint
    candidate = best if track_id is None else explainer.in_track(track_id)
    tracks = _tracks_to_examine(explainer, candidate)
    examined, own = None, [] if candidate is None else tracks[candidate.track_id]
    if passages(own):
        details = [explainer.alignment_detail(one, start_s) for one in own if examine(one)]
        examined = ExaminedTrack(passages=passages(own), details=tuple(details))
    n_nearest = max(_N_NEAREST, len(explainer.answer))
    nearest = (_ranked(one, explainer, store, start_s) for one in explainer.candidates[:n_nearest])
    return Explanation(
        query=name,
        duration_s=round(fingerprint.duration_s, 3),
        audible_s=round(fingerprint.audible_s, 3),
        decision=explainer.decision(best),
        passages=passages(explainer.answer),
        nearest=tuple(filter(None, nearest)),
        examined=examined,
        planes=tuple(
            TrackPlane(passages=passages(some), cosines=explainer.plane(some).later(start_s))
            for some in tracks.values()
            if passages(some)
        ),
        timings_ms=explainer.searcher.context.stopwatch.timings_ms,
    )


def _tracks_to_examine(
    explainer: Explainer, candidate: Candidate | None
) -> dict[int, list[Candidate]]:
    """Choose the tracks to show, by their ids, with the passages of each or its best candidate."""
    tracks: dict[int, list[Candidate]] = {}
    for one in explainer.answer:
        if one.track_id in tracks or len(tracks) < _MAX_PLANES:
            tracks.setdefault(one.track_id, []).append(one)
    if candidate is not None:
        tracks.setdefault(candidate.track_id, [candidate])
    for one in explainer.candidates:
        if len(tracks) < _N_PLANES:
            tracks.setdefault(one.track_id, [one])
    return tracks


def _examined(
    candidate: Candidate, explainer: Explainer, store: Store, start_s: float
) -> ExaminedPassage | None:
    from engine.search.explanation import ExaminedPassage

    ranked = _ranked(candidate, explainer, store, start_s)
    if ranked is None:
        return None
    start, end = explainer.ends(candidate)
    return ExaminedPassage(
        candidate=ranked,
        decision=explainer.decision(candidate),
        start=start,
        end=end,
        trace=explainer.trace(candidate).later(start_s),
    )


def _ranked(
    candidate: Candidate, explainer: Explainer, store: Store, start_s: float
) -> RankedCandidate | None:
    """Join a candidate with its track; None if the track has just been deleted."""
    from engine.search.explanation import RankedCandidate

    tracks = store.tracks([candidate.track_id])
    if not tracks:
        return None
    return RankedCandidate(
        match=to_match(explainer.rank(candidate), candidate, tracks[0], start_s),
        evidence=round(candidate.evidence, 4),
        others=round(candidate.others, 4),
    )


def to_entry(passage: Candidate, track: Track, start_s: float) -> Entry:
    """Join a passage of a scan with its track.

    Parameters
    ----------
    passage : Candidate
    track : Track
    start_s : float
        Where in the recording the scan began, in seconds; the times of an entry are those of the
        recording.
    """
    return Entry(**_place(passage.later(start_s), track))


def to_similar_tracks(scores: Sequence[tuple[int, float]], store: Store) -> list[SimilarTrack]:
    """Join pairs of track id and clip score with their tracks; leave out deleted tracks."""
    tracks = {track.id: track for track in store.tracks([track_id for track_id, _ in scores])}
    present = [(tracks[track_id], score) for track_id, score in scores if track_id in tracks]
    return [
        SimilarTrack(
            rank=rank,
            track_id=track.id,
            path=track.path,
            title=track.title,
            artist=track.artist,
            duration_s=track.duration_s,
            clip_score=round(score, 4),
        )
        for rank, (track, score) in enumerate(present, 1)
    ]


# -- JSON objects ----------------------------------------------------------------------------


def record_object(record: Match | Entry | ServiceKey | SimilarTrack | Track) -> JsonObject:
    """Return the fields of a record; text that is not valid UTF-8, such as a path, is escaped."""
    return _printable_fields(record)


def _printable_fields(record: Any) -> JsonObject:
    fields = asdict(record).items()
    return {key: printable(value) if isinstance(value, str) else value for key, value in fields}


def track_object(track: Track) -> JsonObject:
    """Return the JSON object of a track."""
    return record_object(track) | {
        "added_at": track.added_at.isoformat(timespec="seconds"),
        "metadata": dict(track.metadata),
    }


def track_version(track: Track) -> str:
    """Return a short hash of what is noted about a track; any change gives another one."""
    content = json.dumps(track_object(track), sort_keys=True)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def key_object(key: ServiceKey) -> JsonObject:
    """Return the JSON object of a key of the service."""
    return record_object(key) | {"created_at": key.created_at.isoformat(timespec="seconds")}


def job_object(job: Job, *, with_result: bool = True) -> JsonObject:
    """Return the JSON object of a job of the service."""
    times = ("created_at", "started_at", "cancelled_at", "finished_at")
    fields = {key: value for key, value in vars(job).items() if key != "upload"}
    for key in times:
        fields[key] = fields[key] and fields[key].isoformat(timespec="seconds")
    if not with_result:
        del fields["result"]
    return fields


def report_object(report: IngestReport) -> JsonObject:
    """Return the JSON object of the report of an ingest."""
    lists: dict[str, Sequence[Any]] = {"added": report.added, "skipped": report.skipped}
    lists |= {"failed": report.failed, "warned": report.warned}
    counts = {f"n_{key}": len(records) for key, records in lists.items()}
    return (
        {"n_files": report.n_files}
        | counts
        | {"audio_s": round(report.audio_s, 3), "elapsed_s": round(report.elapsed_s, 3)}
        | {key: [_printable_fields(record) for record in lists[key]] for key in lists}
    )


def duplicates_object(
    duplicates: Sequence[Duplicate], clusters: Sequence[Cluster], tracks: Mapping[int, Track]
) -> JsonObject:
    """Return the JSON object of pairs of duplicates and clusters of full duplicates.

    Parameters
    ----------
    duplicates : sequence of Duplicate
    clusters : sequence of Cluster
    tracks : mapping
        Their tracks by id.
    """
    keepers = {cluster.keeper_id: cluster.keeper_id for cluster in clusters}
    keepers |= {id_: cluster.keeper_id for cluster in clusters for id_ in cluster.other_ids}
    return {
        "duplicates": [_duplicate_object(pair, tracks, keepers) for pair in duplicates],
        "clusters": [asdict(cluster) for cluster in clusters],
    }


def _duplicate_object(
    pair: Duplicate, tracks: Mapping[int, Track], keepers: Mapping[int, int]
) -> JsonObject:
    passages = [
        {
            "first_start_s": passage.query_start_s,
            "first_end_s": passage.query_end_s,
            "second_start_s": passage.reference_start_s,
            "second_end_s": passage.reference_end_s,
            "score": passage.score,
            "speed": passage.speed,
        }
        for passage in pair.passages
    ]
    return {
        "kind": pair.kind,
        "first_id": pair.first_id,
        "first_path": printable(tracks[pair.first_id].path),
        "second_id": pair.second_id,
        "second_path": printable(tracks[pair.second_id].path),
        "first_share": round(pair.first_share, 3),
        "second_share": round(pair.second_share, 3),
        "keeper_id": keepers[pair.first_id] if pair.kind == "full" else None,
        "passages": [
            {key: round(value, 4) for key, value in passage.items()} for passage in passages
        ],
    }


def result_object(result: QueryResult) -> JsonObject:
    """Return the JSON object of a query result."""
    made: JsonObject = {
        "query": printable(result.query),
        "status": result.status,
        "duration_s": result.duration_s,
        "matches": [record_object(match) for match in result.matches],
        "warnings": list(result.warnings),
        "timings_ms": dict(result.timings_ms),
    }
    return made | ({"error": dict(result.error)} if result.error else {})


def entry_object(recording: str, entry: Entry) -> JsonObject:
    """Return the JSON object of one entry, which stands by itself in a stream of entries."""
    return {"recording": printable(recording), "status": "entry"} | record_object(entry)


def timeline_object(timeline: Timeline) -> JsonObject:
    """Return the JSON object of a timeline."""
    made: JsonObject = {
        "recording": printable(timeline.recording),
        "status": "error" if timeline.error else "done",
        "start_s": timeline.start_s,
        "duration_s": timeline.duration_s,
        "n_entries": len(timeline.entries),
        "entries": [record_object(entry) for entry in timeline.entries],
        "gaps": [asdict(gap) for gap in timeline.gaps],
        "warnings": list(timeline.warnings),
    }
    return made | ({"error": dict(timeline.error)} if timeline.error else {})


def to_timeline(made: JsonObject) -> Timeline:
    """Return the timeline that :func:`timeline_object` made an object of."""
    names = {field.name for field in fields(Timeline)}
    return to_record(Timeline, {key: value for key, value in made.items() if key in names})


def explanation_object(explanation: Explanation) -> JsonObject:
    """Return the JSON object of an explanation; NaN becomes null."""
    examined = explanation.examined
    return {
        "query": printable(explanation.query),
        "status": "match" if explanation.decision.accepted else "no_match",
        "duration_s": explanation.duration_s,
        "heard_s": explanation.audible_s,
        "verdict": _decision_object(explanation.decision),
        "passages": [_passage_object(passage) for passage in explanation.passages],
        "nearest": [_ranked_object(ranked) for ranked in explanation.nearest],
        "subject": None if examined is None else _examined_object(examined),
        "timings_ms": dict(explanation.timings_ms),
    }


def _decision_object(decision: Decision) -> JsonObject:
    costs = [
        {key: round(value, 4) if key != "rule" else value for key, value in asdict(cost).items()}
        for cost in decision.costs
    ]
    return {
        "accepted": decision.accepted,
        "rule": decision.rule,
        "reason": decision.reason,
        "confidence": round(decision.confidence, 4),
        "min_confidence": decision.min_confidence,
        "costs": costs,
    }


def _ranked_object(ranked: RankedCandidate) -> JsonObject:
    return record_object(ranked.match) | {"evidence": ranked.evidence, "others": ranked.others}


def _passage_object(passage: ExaminedPassage) -> JsonObject:
    trace = passage.trace
    columns = {
        "query_s": _numbers(trace.query_s),
        "reference_s": _numbers(trace.reference_s),
        "similarity": _numbers(trace.similarity),
    }
    return _judged_object(passage) | {
        "min_similarity": round(trace.min_similarity, 4),
        "segments": _rows(columns),
    }


def _judged_object(passage: ExaminedPassage) -> JsonObject:
    return _ranked_object(passage.candidate) | {
        "verdict": _decision_object(passage.decision),
        "start": _end_object(passage.start),
        "end": _end_object(passage.end),
    }


def _end_object(end: PassageEnd) -> JsonObject:
    similarity = None if end.similarity is None else round(end.similarity, 4)
    return {"reason": end.reason, "similarity": similarity, "rank": end.rank}


def _rows(columns: JsonObject) -> list[JsonObject]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _examined_object(examined: ExaminedTrack) -> JsonObject:
    detail = examined.detail
    columns = {
        "query_s": _numbers(detail.query_s),
        "reference_s": _numbers(detail.reference_s),
        "similarity": _numbers(detail.similarity),
        "agrees": detail.agrees.tolist(),
        "n_neighbours": detail.n_neighbours.tolist(),
        "votes": detail.votes.tolist(),
    }
    return _judged_object(examined.passages[0]) | {
        "segments": _rows(columns),
        "votes_near": _votes_object(detail.votes_near),
        "votes_in_track": _votes_object(detail.votes_in_track),
    }


def _votes_object(votes: VoteHistogram) -> JsonObject:
    offsets_s, counts = _numbers(votes.offsets_s), votes.counts.tolist()
    return {"bin_s": votes.bin_s, "offsets_s": offsets_s, "counts": counts}


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(x) else round(x, 4) + 0.0 for x in values.tolist()]
