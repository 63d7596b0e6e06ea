"""The fields of passages never contradict each other, whatever is queried, scanned or compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astound.catalog import Catalog
from astound.results import to_entry, to_match
from engine.audio.resample import change_speed
from engine.compare.passages import passages
from engine.compare.repeats import repeats
from engine.config import DedupConfig, ScanConfig, SearchConfig
from engine.records import Candidate, Entry, Match, Passage, Waveform
from tests.astound.test_results import TRACK
from tests.audio_files import cached_tune, write_wav
from tests.catalogs import ONE_A_SHARD, RATE, Spectra, open_catalog

LENGTHS_S = (3.0, 5.0, 9.0, 16.0, 24.0)  # of the tracks, in the order of their seeds
ROUNDING_S = 0.003
NOISE, SILENCE = -1, -2
SEARCH = SearchConfig(query_hop_s=0.25, speeds=(2 ** (-1 / 12), 2 ** (1 / 12)))
SCAN = ScanConfig(search=SEARCH, min_confidence=0.0)

Piece = tuple[int, float, float, float]
"""Number of a track, where it begins in it, its length in seconds and its speed."""

PIECES = st.lists(
    st.tuples(
        st.integers(SILENCE, len(LENGTHS_S) - 1),
        st.floats(-2.0, 12.0),
        st.floats(0.5, 9.0),
        st.sampled_from([1.0, 1.0, 0.97, 1.015, 2 ** (1 / 12)]),
    ),
    min_size=1,
    max_size=4,
)


def sound(piece: Piece, seed: int) -> Waveform:
    """Play a piece; before and after its track there is other sound."""
    number, start_s, length_s, speed = piece
    rng = np.random.default_rng(seed)
    if number == SILENCE:
        return np.zeros(round(length_s * RATE), np.float32)
    noise = rng.normal(0, 0.1, round((length_s * speed + 1) * RATE)).astype(np.float32)
    if number != NOISE:
        track, first = cached_tune(number, LENGTHS_S[number]), round(start_s * RATE)
        part = track[max(first, 0) : max(first + len(noise), 0)]
        at = max(-first, 0)
        noise[at : at + len(part)] = part[: len(noise) - at]
    played = noise if speed == 1.0 else change_speed(noise, RATE, speed)
    return played[: round(length_s * RATE)]


def together(pieces: Sequence[Piece]) -> Waveform:
    made = np.concatenate([sound(piece, seed) for seed, piece in enumerate(pieces)])
    made[:RATE] += cached_tune(99, 1.0)[: len(made)] * 0.01  # never silent
    return np.pad(made, (0, max(2 * RATE - len(made), 0)))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    folder = tmp_path_factory.mktemp("fields")
    for number, length_s in enumerate(LENGTHS_S):
        write_wav(folder / f"{number}.wav", cached_tune(number, length_s), RATE)
    with open_catalog(folder / "catalog") as catalog:
        catalog.add(folder, config=ONE_A_SHARD)
        yield catalog


def check_line(one: Match | Entry | Passage, rounding_s: float = ROUNDING_S) -> None:
    query_s = one.query_end_s - one.query_start_s
    reference_s = one.reference_end_s - one.reference_start_s
    assert reference_s == pytest.approx(one.speed * query_s, abs=rounding_s)
    assert query_s >= 0


def check(one: Match | Entry, begin_s: float, end_s: float, duration_s: float) -> None:
    """Check a match in the part of a recording that was queried, and in its track."""
    check_line(one)
    line_s = one.offset_s + one.speed * one.query_start_s
    assert line_s == pytest.approx(one.reference_start_s, abs=ROUNDING_S)
    assert begin_s - ROUNDING_S <= one.query_start_s
    assert one.query_end_s <= end_s + ROUNDING_S
    assert one.reference_start_s >= 0
    assert one.reference_end_s <= duration_s + ROUNDING_S
    assert 0 <= one.confidence <= 1


# -- joined with tracks ------------------------------------------------------------------------


@settings(max_examples=200)
@given(
    offset_s=st.floats(-100.0, 100.0),
    speed=st.floats(0.5, 2.0),
    span_s=st.tuples(st.floats(0.0, 90.0), st.floats(0.0, 90.0)).map(sorted),
    start_s=st.sampled_from([0.0, 3.0, 1000.25]),
    also=st.lists(st.floats(-100.0, 100.0), max_size=2),
)
def test_passage_is_cut_at_both_ends_of_its_track_alike(
    offset_s: float, speed: float, span_s: list[float], start_s: float, also: list[float]
) -> None:
    begin_s, end_s = span_s
    candidate = Candidate(
        track_id=TRACK.id, offset_s=offset_s, votes=1, evidence=1.0, score=0.9, coverage=1.0,
        query_start_s=begin_s, query_end_s=end_s, speed=speed, also=tuple(also),
    )  # fmt: skip
    places_s = [offset_s + speed * time_s for time_s in span_s]
    if places_s[0] > TRACK.duration_s or places_s[1] < 0:
        return  # no part of the track
    for one in (to_match(1, candidate, TRACK, start_s), to_entry(candidate, TRACK, start_s)):
        check(one, start_s + begin_s, start_s + end_s, TRACK.duration_s)
        cut_s = np.clip(places_s, 0.0, TRACK.duration_s)
        found_s = [one.reference_start_s, one.reference_end_s]
        assert found_s == pytest.approx(cut_s.tolist(), abs=ROUNDING_S)


# -- query and scan ----------------------------------------------------------------------------


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(pieces=PIECES, start_s=st.sampled_from([0.0, 0.0, 0.7, 2.5]))
def test_fields_of_matches_and_entries_agree(
    catalog: Catalog, pieces: list[Piece], start_s: float
) -> None:
    waveform = together(pieces)
    duration_s = len(waveform) / RATE
    start_s = start_s if duration_s - start_s > 1.1 else 0.0
    durations_s = {track.id: track.duration_s for track in catalog.tracks()}
    result = catalog.query(
        waveform, RATE, start_s=start_s, max_matches=50, min_confidence=0.0, search=SEARCH
    )
    timeline = catalog.scan(waveform, RATE, start_s=start_s, config=SCAN)
    found: list[Match | Entry] = [*result.matches, *timeline.entries]
    for one in found:
        check(one, start_s, duration_s, durations_s[one.track_id])
    assert result.status == "match"


def test_pieces_of_the_property_test_are_found(catalog: Catalog) -> None:
    """Otherwise it would say little."""
    waveform = together([(3, 2.0, 8.0, 1.0), (NOISE, 0.0, 6.0, 1.0), (4, 11.0, 9.0, 1.015)])
    result = catalog.query(waveform, RATE, max_matches=50, min_confidence=0.0, search=SEARCH)
    ranked = sorted(result.matches, key=lambda one: one.score)
    found = {Path(one.path).stem: one for one in ranked}
    assert found["3"].offset_s == pytest.approx(2.0, abs=0.1)
    assert found["4"].offset_s + 14.0 * found["4"].speed == pytest.approx(11.0, abs=0.2)


# -- recordings compared -----------------------------------------------------------------------


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(both=st.tuples(PIECES, PIECES), min_length=st.integers(4, 12))
def test_fields_of_shared_passages_agree(
    both: tuple[list[Piece], list[Piece]], min_length: int
) -> None:
    first, second = (Spectra().fingerprint([together(pieces)], 0.5) for pieces in both)
    for one in passages(first, second, min_length):
        check_line(one)
        assert 0 <= one.query_start_s <= one.query_end_s <= first.duration_s + ROUNDING_S
        assert 0 <= one.reference_start_s <= one.reference_end_s <= second.duration_s + ROUNDING_S


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([(1, 0.0, 8.0, 1.0)], [(NOISE, 0.0, 3.0, 1.0)]),
        ([(0, 0.0, 7.0, 1.0)], [(0, 0.0, 1.0, 1.0), (0, 0.0, 7.0, 1.0)]),
        ([(0, 0.0, 4.0, 1.0)], [(0, 0.25, 2.0, 1.0)]),
    ],
)
def test_shared_passages_of_two_directions_are_mirror_images(
    one: list[Piece], other: list[Piece]
) -> None:
    first, second = (Spectra().fingerprint([together(pieces)], 0.5) for pieces in (one, other))
    ahead, back = passages(first, second, 4), passages(second, first, 4)
    assert sorted((one.query_start_s, one.query_end_s) for one in ahead) == [
        pytest.approx(span, abs=ROUNDING_S)
        for span in sorted((one.reference_start_s, one.reference_end_s) for one in back)
    ]


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(recordings=st.lists(PIECES, min_size=1, max_size=3))
def test_occurrences_of_a_repeat_have_one_length_and_lie_in_their_recordings(
    recordings: list[list[Piece]],
) -> None:
    straight = [[(*piece[:3], 1.0) for piece in pieces] for pieces in recordings]
    prints = [Spectra().fingerprint([together(pieces)], 0.5) for pieces in straight]
    for repeat in repeats(prints, 6, lambda n_done, n_all: None):
        lengths_s = [one.end_s - one.start_s for one in repeat.occurrences]
        assert lengths_s == pytest.approx([lengths_s[0]] * len(lengths_s), abs=0.05)
        for one in repeat.occurrences:
            assert -1e-6 <= one.start_s < one.end_s
            assert one.end_s <= prints[one.recording].duration_s + ROUNDING_S


def test_fields_of_duplicates_agree(tmp_path: Path) -> None:
    music = tmp_path / "music"
    music.mkdir()
    whole = together([(4, 0.0, 24.0, 1.0)])
    write_wav(music / "whole.wav", whole, RATE)
    write_wav(music / "cut.wav", np.concatenate([whole[: 8 * RATE], whole[13 * RATE :]]), RATE)
    with open_catalog(tmp_path / "catalog") as catalog:
        catalog.add(music, config=ONE_A_SHARD)
        (pair,), _ = catalog.dedup(DedupConfig(min_length_s=4.0))
    assert len(pair.passages) == 2
    for one in pair.passages:
        check_line(one)
        assert one.speed == 1.0
