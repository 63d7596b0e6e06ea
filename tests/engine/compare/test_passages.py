from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.compare.passages import (
    drop_covered,
    merge_spans,
    passages,
    shared_s,
    similarity,
    swapped,
)
from engine.errors import ConfigError, RecipeMismatchError
from engine.model.fingerprinter import Fingerprinter
from engine.records import Fingerprint, Passage, Vectors
from tests.audio_files import Waveform, cached_tune
from tests.engine.compare.synthetic import at_speed, fingerprint, sound, stretch

DIM = 64
HOP_S = 0.5
SEGMENT_S = 1.0
RATE = 8000
BORDER_S = 0.6

quick = settings(max_examples=30)
seeds = st.integers(0, 2**32 - 1)


def _unit(seed: int, n: int) -> Vectors:
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _made(embeddings: Vectors, hop_s: float = HOP_S) -> Fingerprint:
    return Fingerprint(
        embeddings=embeddings,
        clip_embeddings=embeddings[:1],
        segment_hop_s=hop_s,
        segment_s=SEGMENT_S,
        duration_s=(len(embeddings) - 1) * hop_s + SEGMENT_S,
        recipe_id="r",
    )


def _noisy(embeddings: Vectors, seed: int, amount: float) -> Vectors:
    mixed = embeddings + amount * _unit(seed, len(embeddings))
    return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), np.float32)


def _rows(one: Passage, hop_s: float = HOP_S) -> tuple[float, ...]:
    """Its first and last segments, in hops: query's, then reference's."""
    return (
        one.query_start_s / hop_s,
        (one.query_end_s - SEGMENT_S) / hop_s,
        one.reference_start_s / hop_s,
        (one.reference_end_s - SEGMENT_S) / hop_s,
    )


def _near(*rows: tuple[float, ...]) -> list[object]:
    """Rows whose borders are near to these segments."""
    return [pytest.approx(row, abs=BORDER_S / HOP_S) for row in rows]


def _check_mirrored(query: Fingerprint, reference: Fingerprint) -> list[Passage]:
    """Check that both directions give the same passages, and return them."""
    there, back = passages(query, reference), passages(reference, query)
    assert len(there) == len(back)
    for one in (*there, *back):
        length_s = one.speed * (one.query_end_s - one.query_start_s)
        assert one.reference_end_s - one.reference_start_s == pytest.approx(length_s, abs=0.05)
    by_query = sorted(
        map(swapped, back), key=lambda one: (one.query_start_s, one.reference_start_s)
    )
    for one, other in zip(there, by_query, strict=True):
        assert asdict(one) == pytest.approx(asdict(other), abs=1e-9)
    return there


def _longest_run(query: Vectors, reference: Vectors) -> tuple[int, int, int, int]:
    """The longest unbroken diagonal of agreeing pairs, pair by pair."""
    agree = query @ reference.T > 0.55
    best = (0, 0, 0)
    for i, j in np.argwhere(agree):
        length = 0
        while i + length < len(query) and j + length < len(reference):
            if not agree[i + length, j + length]:
                break
            length += 1
        best = max(best, (length, int(i), int(j)))
    length, i, j = best
    return i, i + length - 1, j, j + length - 1


# -- passages --------------------------------------------------------------------------------


@given(seeds, st.integers(14, 60), st.integers(0, 40), st.integers(0, 40), st.floats(0, 0.4))
@quick
def test_planted_run_is_found_where_brute_force_finds_it(
    seed: int, n_planted: int, query_at: int, at: int, noise: float
) -> None:
    query, reference = _unit(seed, n_planted + 60), _unit(seed + 1, n_planted + 60)
    planted = reference[at : at + n_planted]
    query[query_at : query_at + n_planted] = _noisy(planted, seed + 2, noise)
    (found,) = passages(_made(query), _made(reference))
    # What begins near to the start of a recording begins there.
    expected = _longest_run(query, reference)
    assert _rows(found) == pytest.approx(expected, abs=0.75 / HOP_S)
    assert found.speed == pytest.approx(1.0, abs=0.05)
    assert found.score == pytest.approx(1 / np.hypot(1, noise), abs=0.1)


@given(seeds, st.integers(8, 20))
@quick
def test_run_is_found_from_its_length_on(seed: int, n_planted: int) -> None:
    query, reference = _unit(seed, 50), _unit(seed + 1, 50)
    query[12 : 12 + n_planted] = reference[20 : 20 + n_planted]
    assert passages(_made(query), _made(reference), n_planted + 3) == []
    rows = [_rows(one) for one in passages(_made(query), _made(reference), n_planted - 2)]
    assert rows == _near((12, 11 + n_planted, 20, 19 + n_planted))


def test_one_equal_segment_is_no_passage_of_any_length() -> None:
    query, reference = _unit(1, 50), _unit(2, 50)
    query[12] = reference[20]
    assert passages(_made(query), _made(reference), 1) == []


@given(seeds, st.floats(0.965, 1.035), st.floats(0, 0.4), st.sampled_from([0.0, 7.375]))
@settings(quick, max_examples=15)
def test_swapped_sides_give_mirrored_passages(
    seed: int, speed: float, noise: float, before_s: float
) -> None:
    whole = sound(seed, 65.0)
    part = at_speed(stretch(whole, 5.0, 45.0), speed)
    query = fingerprint(sound(seed + 1, before_s), part, noise=noise, seed=seed)
    assert len(_check_mirrored(query, fingerprint(whole))) == 1


def test_recordings_that_begin_alike_and_are_as_long_are_mirrored() -> None:
    begins, one, other = sound(1, 40.0), sound(2, 20.0), sound(3, 20.0)
    first, second = fingerprint(begins, one, other), fingerprint(begins, other, one)
    assert len(_check_mirrored(first, second)) == 3


@given(seeds, st.floats(0.965, 1.035))
@settings(quick, max_examples=15)
def test_speed_of_a_resampled_run_is_right_within_half_a_percent(seed: int, speed: float) -> None:
    whole = sound(seed, 75.0)
    query = fingerprint(at_speed(stretch(whole, 5.0, 65.0), speed))
    (found,) = passages(query, fingerprint(whole))
    assert found.speed == pytest.approx(speed, rel=0.005)
    spans = found.query_start_s, found.query_end_s, found.reference_start_s, found.reference_end_s
    assert spans == pytest.approx((0.0, query.duration_s, 5.0, 65.0), abs=0.3)


@pytest.mark.parametrize("swapped", [False, True])
def test_what_occurs_twice_is_two_passages(swapped: bool) -> None:
    once, twice = _unit(1, 60), _unit(2, 120)
    for at in (20, 70):
        twice[at : at + 30] = once[10:40]
    query, reference = (twice, once) if swapped else (once, twice)
    rows = [_rows(one) for one in passages(_made(query), _made(reference))]
    wanted = [(10, 39, 20, 49), (10, 39, 70, 99)]
    assert rows == _near(*((c, d, a, b) if swapped else (a, b, c, d) for a, b, c, d in wanted))


@pytest.mark.parametrize("gap_s", [0.5, 3.0, 12.0])
def test_silence_in_both_is_bridged(gap_s: float) -> None:
    whole = sound(1, 70.0)
    stretch(whole, 30.0, 30.0 + gap_s)[:] = 0
    (found,) = passages(fingerprint(stretch(whole, 10.0), noise=0.2), fingerprint(whole))
    spans = found.query_start_s, found.query_end_s, found.reference_start_s, found.reference_end_s
    assert spans == pytest.approx((0.0, 60.0, 10.0, 70.0), abs=0.1)


@pytest.mark.parametrize(("gap_s", "n_passages"), [(0.5, 1), (3.0, 2), (12.0, 2)])
def test_only_short_gaps_of_other_sound_are_bridged(gap_s: float, n_passages: int) -> None:
    whole = sound(1, 70.0)
    query = fingerprint(stretch(whole, 0, 30.0), sound(2, gap_s), stretch(whole, 30.0 + gap_s))
    assert len(passages(query, fingerprint(whole))) == n_passages


@pytest.mark.parametrize("seed", range(3))
def test_slowly_changing_music_is_one_passage(seed: int) -> None:
    loose = _unit(seed, 105)
    sums = np.stack([loose[i : i + 16].sum(axis=0) for i in range(90)])
    slow = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
    query = _noisy(slow[20:70], seed + 100, 0.4)
    (found,) = passages(_made(query, 0.25), _made(slow, 0.25))
    assert _rows(found, 0.25) == pytest.approx((0, 49, 20, 69), abs=1)


@pytest.mark.parametrize(("n_planted", "n_passages"), [(12, 0), (90, 1)])
def test_weak_agreement_must_last(n_planted: int, n_passages: int) -> None:
    reference, query = _unit(1, 180), _unit(3, 140)
    query[:n_planted] = _noisy(reference[:n_planted], 2, 0.85)  # cosines of 0.76
    assert len(passages(_made(query), _made(reference))) == n_passages


def test_passages_are_sorted_by_the_query() -> None:
    query, reference = _unit(1, 100), _unit(2, 100)
    query[5:25], query[60:95] = reference[70:90], reference[10:45]
    starts = [_rows(one)[0] for one in passages(_made(query), _made(reference))]
    assert starts == pytest.approx([5, 60], abs=BORDER_S / HOP_S)


def test_passage_at_the_end_of_both_is_found_whole() -> None:
    query, reference = _unit(1, 40), _unit(2, 30)
    query[-15:] = reference[-15:]
    (found,) = passages(_made(query), _made(reference))
    assert [_rows(found)] == _near((25, 39, 15, 29))
    assert (found.query_end_s, found.reference_end_s) == pytest.approx((20.5, 15.5), abs=0.01)


@pytest.mark.parametrize("finer", ["query", "reference"])
def test_hops_may_differ_by_a_whole_factor(finer: str) -> None:
    whole = sound(1, 40.0)
    fine = fingerprint(whole, hop_s=0.125)
    coarse = fingerprint(stretch(whole, 21 * 0.125), hop_s=0.5)
    sides = fine, coarse
    (found,) = passages(*(sides if finer == "query" else sides[::-1]))
    fine_s, coarse_s = found.query_start_s, found.reference_start_s
    if finer == "reference":
        fine_s, coarse_s = coarse_s, fine_s
    assert (fine_s, coarse_s) == pytest.approx((21 * 0.125, 0.0), abs=0.05)
    assert found.speed == pytest.approx(1.0, abs=0.005)


def test_min_match_length_counts_hops_of_the_query() -> None:
    whole = sound(1, 11.0)
    fine, coarse = fingerprint(whole, hop_s=0.125), fingerprint(whole, hop_s=0.5)
    assert passages(fine, coarse, 85)
    assert not passages(fine, coarse, 90)
    assert passages(coarse, fine, 21)
    assert not passages(coarse, fine, 23)


def test_unrelated_music_has_no_passage() -> None:
    assert passages(_made(_unit(1, 200)), _made(_unit(2, 200))) == []


def test_silence_is_in_no_passage() -> None:
    silent = _made(np.zeros((50, DIM), np.float32))
    assert passages(silent, silent) == []
    assert similarity(silent, silent) == 0.0


@pytest.mark.parametrize("compare", [similarity, passages])
def test_foreign_fingerprints_are_refused(compare: object) -> None:
    one = _made(_unit(1, 20))
    assert callable(compare)
    with pytest.raises(RecipeMismatchError) as caught:
        compare(one, replace(one, recipe_id="s"))
    assert (caught.value.expected, caught.value.found) == ("r", "s")
    with pytest.raises(ConfigError, match="must be a multiple"):
        compare(one, replace(one, segment_hop_s=0.3))


@pytest.mark.parametrize("length", [0, -3])
def test_min_match_length_must_be_positive(length: int) -> None:
    one = _made(_unit(1, 20))
    with pytest.raises(ConfigError, match="min_match_length"):
        passages(one, one, length)


# -- edits -----------------------------------------------------------------------------------

WHOLE_S = 70.0
# Stretches of the original, one after the other.
EDITS = {
    "cut out": [(0.0, 20.125), (32.25, 70.0)],
    "cut out twice": [(3.125, 15.0), (24.25, 41.5), (52.0, 66.875)],
    "repeated": [(0.0, 30.375), (14.25, 70.0)],
    "reordered": [(40.0, 70.0), (0.0, 40.0)],
    "three reordered": [(45.125, 70.0), (20.25, 45.125), (0.0, 20.25)],
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("noise", [0.0, 0.15])
def test_edit_has_the_pieces_of_its_original(name: str, noise: float) -> None:
    original = sound(1, WHOLE_S)
    edit = fingerprint(*(stretch(original, *piece) for piece in EDITS[name]), noise=noise)
    found = _check_mirrored(edit, fingerprint(original))
    assert len(found) == len(EDITS[name])
    begins_s = 0.0
    for one, (start_s, end_s) in zip(found, EDITS[name], strict=True):
        times_s = one.query_start_s, one.query_end_s, one.reference_start_s, one.reference_end_s
        expected_s = begins_s, begins_s + end_s - start_s, start_s, end_s
        assert times_s == pytest.approx(expected_s, abs=0.5)
        assert one.speed == 1.0
        begins_s += end_s - start_s
    assert similarity(edit, fingerprint(original)) >= 0.995
    assert similarity(fingerprint(original), edit) == similarity(edit, fingerprint(original))


@given(seeds, st.sampled_from([8.0, 30.0, 90.0]))
@settings(quick, max_examples=15)
def test_unrelated_sound_has_nothing_in_common(seed: int, length_s: float) -> None:
    one, other = fingerprint(sound(seed, length_s)), fingerprint(sound(seed + 1, 60.0))
    assert passages(one, other) == passages(other, one) == []
    assert similarity(one, other) < 0.2


# -- similarity ------------------------------------------------------------------------------


@given(seeds, st.integers(1, 50), st.integers(1, 50), st.floats(0, 1))
@quick
def test_similarity_is_symmetric_and_in_its_range(seed: int, n: int, m: int, noise: float) -> None:
    first = _unit(seed, n)
    second = np.resize(_noisy(first, seed + 1, noise), (m, DIM))
    value = similarity(_made(first), _made(second))
    assert value == similarity(_made(second), _made(first))
    assert 0 <= value <= 1


@given(seeds, st.integers(1, 50))
@quick
def test_same_fingerprint_has_similarity_one(seed: int, n: int) -> None:
    one = _unit(seed, n)
    one[: n // 2] *= np.random.default_rng(seed).random(n // 2)[:, None] > 0.5  # some silence
    assert similarity(_made(one), _made(one)) == 1.0


def test_excerpt_has_similarity_one_and_half_an_excerpt_about_half() -> None:
    whole = _unit(1, 200)
    assert similarity(_made(whole[90:130]), _made(whole)) == 1.0
    half = np.concatenate([whole[90:130], _unit(2, 40)])
    assert 0.05 < similarity(_made(half), _made(whole)) < 0.6


def test_similarity_falls_with_noise() -> None:
    one = _unit(1, 80)
    values = [similarity(_made(one), _made(_noisy(one, 2, x))) for x in (0.2, 0.5, 1.0, 10.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.9
    assert values[-1] == 0.0


def test_similarity_is_that_of_the_best_thinned_fingerprint() -> None:
    fine = _unit(1, 81)
    assert similarity(_made(fine, 0.125), _made(fine[3::4], 0.5)) == 1.0


# -- with the shipped encoder ----------------------------------------------------------------


@pytest.fixture(scope="module")
def fingerprinter() -> Fingerprinter:
    return Fingerprinter.load(device="cpu")


def _of(fingerprinter: Fingerprinter, *waveforms: Waveform) -> Fingerprint:
    return fingerprinter.fingerprint([np.concatenate(waveforms)], HOP_S)


def test_degraded_tunes_lie_between_the_same_and_others(fingerprinter: Fingerprinter) -> None:
    tune, other = cached_tune(3, 10.0), cached_tune(4, 10.0)
    rng = np.random.default_rng(0)
    whole = _of(fingerprinter, tune)
    noise = rng.standard_normal(len(tune)).astype(np.float32)
    noise *= np.linalg.norm(tune) / np.linalg.norm(noise)
    light, loud = (_of(fingerprinter, tune + gain * noise) for gain in (0.3, 3.0))
    late = _of(fingerprinter, tune[round(HOP_S / 2 * RATE) :])
    unlike = similarity(whole, _of(fingerprinter, other))
    assert similarity(whole, _of(fingerprinter, tune)) == 1.0
    assert similarity(whole, late) > 0.8
    assert 1 >= similarity(whole, light) > similarity(whole, loud) > unlike + 0.1
    assert unlike < 0.2


def test_part_of_a_tune_after_another_is_found(fingerprinter: Fingerprinter) -> None:
    first, second = cached_tune(5, 10.0), cached_tune(6, 20.0)
    mixed = _of(fingerprinter, first, np.zeros(3 * RATE, np.float32), second[10 * RATE :])
    (found,) = passages(mixed, _of(fingerprinter, second))
    assert (found.query_start_s, found.query_end_s) == pytest.approx((13, 23), abs=0.75)
    assert (found.reference_start_s, found.reference_end_s) == pytest.approx((10, 20), abs=0.75)
    assert found.speed == pytest.approx(1.0, abs=0.01)


def passage_between(
    query: tuple[float, float], reference: tuple[float, float], score: float
) -> Passage:
    return Passage(
        query_start_s=query[0],
        query_end_s=query[1],
        reference_start_s=reference[0],
        reference_end_s=reference[1],
        score=score,
        speed=1.0,
    )


def test_passages_covered_by_a_better_one_are_dropped() -> None:
    whole = passage_between((0, 30), (10, 40), 0.9)
    echo = passage_between((0, 20), (20, 40), 0.8)
    again = passage_between((0, 30), (50, 80), 0.7)
    assert drop_covered([echo, whole, again]) == [whole, again]
    assert drop_covered([]) == []


def test_shared_and_merged_spans() -> None:
    assert shared_s((0, 4), (3, 9)) == 1
    assert shared_s((0, 4), (4, 9)) == shared_s((0, 4), (6, 9)) == 0
    assert merge_spans([(5, 6), (0, 2), (1, 4), (4, 4.5)]) == [(0, 4.5), (5, 6)]


@pytest.mark.parametrize("n_voice", [8, 16])
def test_passage_does_not_reach_into_speech_of_one_voice(n_voice: int) -> None:
    music, voice = _unit(1, 24), np.repeat(_unit(2, 1), n_voice, axis=0)
    spoken = [_noisy(voice, seed, 0.45) for seed in range(4)]  # a cosine of 0.83 with each other
    one, other = (
        _made(np.concatenate([_unit(seed, 12), spoken[2 * seed - 8], music, spoken[2 * seed - 7]]))
        for seed in (4, 5)
    )
    longest = max(passages(one, other), key=lambda found: found.score)
    first = 12 + n_voice
    assert _rows(longest) == pytest.approx((first, first + 23, first, first + 23), abs=2.0)
