from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.compare.passages import drop_covered, merge_spans, passages, shared_s, similarity
from engine.errors import ConfigError, RecipeMismatchError
from engine.model.fingerprinter import Fingerprinter
from engine.records import Fingerprint, Passage, Vectors
from tests.audio_files import Waveform, cached_tune

DIM = 64
HOP_S = 0.5
SEGMENT_S = 1.0
RATE = 8000

quick = settings(deadline=None, max_examples=30)
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


def _mirrored(one: Passage) -> tuple[float, ...]:
    query_first, query_last, first, last = _rows(one)
    return first, last, query_first, query_last


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


@given(seeds, st.integers(10, 60), st.integers(0, 40), st.integers(0, 40), st.floats(0, 0.6))
@quick
def test_planted_run_is_found_where_brute_force_finds_it(
    seed: int, n_planted: int, query_at: int, at: int, noise: float
) -> None:
    query, reference = _unit(seed, n_planted + 60), _unit(seed + 1, n_planted + 60)
    planted = reference[at : at + n_planted]
    query[query_at : query_at + n_planted] = _noisy(planted, seed + 2, noise)
    (found,) = passages(_made(query), _made(reference))
    assert _rows(found) == pytest.approx(_longest_run(query, reference), abs=1)
    assert found.speed == pytest.approx(1.0, abs=0.05)
    assert found.score == pytest.approx(1 / np.hypot(1, noise), abs=0.1)


@given(seeds, st.integers(1, 20))
@quick
def test_run_is_found_from_its_length_on(seed: int, n_planted: int) -> None:
    query, reference = _unit(seed, 50), _unit(seed + 1, 50)
    query[12 : 12 + n_planted] = reference[20 : 20 + n_planted]
    assert passages(_made(query), _made(reference), n_planted + 1) == []
    rows = [_rows(one) for one in passages(_made(query), _made(reference), n_planted)]
    assert (12, 11 + n_planted, 20, 19 + n_planted) in rows


@given(seeds, st.floats(0.9, 1.1), st.floats(0, 0.5))
@quick
def test_swapped_sides_give_mirrored_passages(seed: int, speed: float, noise: float) -> None:
    reference = _unit(seed, 130)
    places = np.rint(10 + speed * np.arange(80)).astype(int)
    query = np.concatenate([_unit(seed + 1, 15), _noisy(reference[places], seed + 2, noise)])
    there = passages(_made(query), _made(reference), 20)
    back = passages(_made(reference), _made(query), 20)
    assert len(there) == len(back) == 1
    assert _rows(there[0]) == pytest.approx(_mirrored(back[0]), abs=1)
    assert there[0].speed * back[0].speed == pytest.approx(1.0, abs=0.02)


@given(seeds, st.floats(0.9, 1.1))
@quick
def test_speed_of_a_resampled_run_is_right_within_one_percent(seed: int, speed: float) -> None:
    reference = _unit(seed, 160)
    query = reference[np.rint(10 + speed * np.arange(120)).astype(int)]
    (found,) = passages(_made(query), _made(reference))
    assert found.speed == pytest.approx(speed, rel=0.01)
    assert _rows(found) == pytest.approx((0, 119, 10, 10 + 119 * speed), abs=1)


@pytest.mark.parametrize("swapped", [False, True])
def test_what_occurs_twice_is_two_passages(swapped: bool) -> None:
    once, twice = _unit(1, 60), _unit(2, 120)
    for at in (20, 70):
        twice[at : at + 30] = once[10:40]
    query, reference = (twice, once) if swapped else (once, twice)
    rows = [_rows(one) for one in passages(_made(query), _made(reference))]
    wanted = [(10, 39, 20, 49), (10, 39, 70, 99)]
    assert rows == [(c, d, a, b) if swapped else (a, b, c, d) for a, b, c, d in wanted]


@pytest.mark.parametrize(("n_missing", "n_passages"), [(3, 1), (12, 2)])
def test_only_short_gaps_are_bridged(n_missing: int, n_passages: int) -> None:
    reference = _unit(1, 100)
    query = reference.copy()
    query[50 : 50 + n_missing] = 0
    assert len(passages(_made(query), _made(reference))) == n_passages


@pytest.mark.parametrize("seed", range(3))
def test_slowly_changing_music_is_one_passage(seed: int) -> None:
    loose = _unit(seed, 105)
    sums = np.stack([loose[i : i + 16].sum(axis=0) for i in range(90)])
    slow = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
    query = _noisy(slow[20:70], seed + 100, 0.4)
    (found,) = passages(_made(query, 0.25), _made(slow, 0.25))
    assert _rows(found, 0.25) == pytest.approx((0, 49, 20, 69), abs=1)


@pytest.mark.parametrize(("n_planted", "n_passages"), [(12, 0), (60, 1)])
def test_weak_agreement_must_last(n_planted: int, n_passages: int) -> None:
    reference = _unit(1, 80)
    query = _noisy(reference[:n_planted], 2, 1.0)  # cosines of 0.7
    assert len(passages(_made(query), _made(reference))) == n_passages


def test_passages_are_sorted_by_the_query() -> None:
    query, reference = _unit(1, 100), _unit(2, 100)
    query[5:25], query[60:95] = reference[70:90], reference[10:45]
    assert [_rows(one)[0] for one in passages(_made(query), _made(reference))] == [5, 60]


def test_passage_at_the_end_of_both_is_found_whole() -> None:
    query, reference = _unit(1, 40), _unit(2, 30)
    query[-15:] = reference[-15:]
    (found,) = passages(_made(query), _made(reference))
    assert _rows(found) == (25, 39, 15, 29)


@pytest.mark.parametrize("finer", ["query", "reference"])
def test_hops_may_differ_by_a_whole_factor(finer: str) -> None:
    fine = _unit(1, 160)
    coarse = fine[21:161:4]
    sides = _made(fine, 0.125), _made(coarse, 0.5)
    (found,) = passages(*(sides if finer == "query" else sides[::-1]))
    fine_s, coarse_s = found.query_start_s, found.reference_start_s
    if finer == "reference":
        fine_s, coarse_s = coarse_s, fine_s
    assert (fine_s, coarse_s) == (21 * 0.125, 0.0)
    assert found.speed == pytest.approx(1.0, abs=0.005)


def test_min_match_length_counts_hops_of_the_query() -> None:
    fine = _unit(1, 81)
    coarse = fine[::4]  # 21 segments, over 81 of the finer
    assert passages(_made(fine, 0.125), _made(coarse, 0.5), 81)
    assert not passages(_made(fine, 0.125), _made(coarse, 0.5), 90)
    assert passages(_made(coarse, 0.5), _made(fine, 0.125), 21)
    assert not passages(_made(coarse, 0.5), _made(fine, 0.125), 22)


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
    light, loud = (_of(fingerprinter, tune + gain * noise) for gain in (0.3, 1.0))
    late = _of(fingerprinter, tune[round(HOP_S / 2 * RATE) :])
    unlike = similarity(whole, _of(fingerprinter, other))
    assert similarity(whole, _of(fingerprinter, tune)) == 1.0
    assert similarity(whole, late) > 0.8
    assert 1 > similarity(whole, light) > similarity(whole, loud) > unlike + 0.1
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
