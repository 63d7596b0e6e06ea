from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import AlignConfig, SearchConfig
from engine.errors import ModelError
from engine.records import Candidate
from engine.search.calibration import (
    N_FEATURES,
    Answer,
    Calibration,
    features,
    fit,
    learn,
    threshold_for,
)

CALIBRATION = Calibration(
    recipe_id="recipe", weights=(-2.0, 4.0, 4.0, -1.0, 1.0, 0.5, -1.0, 0.0, 0.0), min_confidence=0.5
)


def candidate(evidence: float, margin: float = 0.0) -> Candidate:
    return Candidate(
        track_id=1,
        offset_s=0.0,
        votes=1,
        evidence=evidence,
        score=0.5,
        coverage=1.0,
        query_start_s=0.0,
        query_end_s=1.0,
        margin=margin,
    )


def probabilities(inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(inputs @ weights)))


def test_features_are_evidence_margin_length_score_speed_and_direction() -> None:
    resampled = replace(candidate(0.0, -1.0), others=0.9, score=1.0, direction=0.7, resampled=1.06)
    found = features([candidate(3.0, 1.0), resampled], [1.0, 100.0])
    expected = [
        [1, np.log(3.0), np.log(3 / 2), np.log(0.6), 0, np.log(2), 0, 0, 0],
        [1, *np.log([1e-3, 1e-3, 0.9, 100, 50]), 1, 0.5, np.log(1e-3) * np.log(100)],
    ]
    np.testing.assert_allclose(found, expected)


def test_features_of_no_candidates_are_empty() -> None:
    assert features([], []).shape == (0, N_FEATURES)


def test_features_query_without_audible_segments_is_finite() -> None:
    assert np.isfinite(features([candidate(0.5)], [0])).all()


def test_fit_overlapping_data_recovers_the_curve(rng: np.random.Generator) -> None:
    inputs = np.stack([np.ones(20_000), rng.uniform(-1, 1, 20_000)], axis=1)
    true = np.array([-1.0, 4.0])
    right = rng.random(20_000) < probabilities(inputs, true)
    np.testing.assert_allclose(fit(inputs, right), true, atol=0.2)


def test_fit_separable_data_stays_finite_and_separates() -> None:
    score = np.concatenate([np.linspace(0, 0.4, 50), np.linspace(0.6, 1, 50)])
    right = score > 0.5
    inputs = np.stack([np.ones(100), score], axis=1)
    weights = fit(inputs, right)
    assert np.isfinite(weights).all()
    assert ((probabilities(inputs, weights) > 0.5) == right).all()


@pytest.mark.parametrize("right", [True, False])
def test_fit_only_one_kind_of_answer_stays_finite(right: bool, rng: np.random.Generator) -> None:
    inputs = np.stack([np.ones(50), rng.random(50)], axis=1)
    weights = fit(inputs, np.full(50, right))
    assert np.isfinite(weights).all()
    assert ((probabilities(inputs, weights) > 0.5) == right).all()


def test_fit_on_features_gives_a_calibration_that_is_right_as_often_as_it_says(
    rng: np.random.Generator,
) -> None:
    evidence, lengths = rng.uniform(0, 2, 8000), rng.integers(5, 100, 8000)
    inputs = features([candidate(one, one / 2) for one in evidence], lengths.tolist())
    right = rng.random(8000) < probabilities(inputs, np.array([-4.0, 2, 3, 0, 0.7, 0.3, 0, 0, 0]))
    fitted = probabilities(inputs, fit(inputs, right))
    for low in np.arange(0.1, 0.9, 0.2):
        within = (fitted >= low) & (fitted < low + 0.2)
        assert within.sum() > 200
        assert right[within].mean() == pytest.approx(fitted[within].mean(), abs=0.08)


@given(
    st.floats(0, 10),
    st.floats(-2, 10),
    st.floats(0, 100_000),
    st.lists(st.floats(-1e3, 1e3), min_size=N_FEATURES, max_size=N_FEATURES),
)
def test_confidence_is_a_probability(
    evidence: float, margin: float, audible_s: float, weights: list[float]
) -> None:
    calibration = Calibration(recipe_id="r", weights=tuple(weights), min_confidence=0.5)
    assert 0 <= calibration.confidence(candidate(evidence, margin), audible_s) <= 1


def test_confidence_rises_with_evidence_and_margin() -> None:
    by_evidence = [CALIBRATION.confidence(candidate(s), 30) for s in np.linspace(0.1, 2, 21)]
    by_margin = [CALIBRATION.confidence(candidate(0.5, m), 30) for m in np.linspace(0, 0.35, 21)]
    for confidences in (by_evidence, by_margin):
        assert all(a < b for a, b in itertools.pairwise(confidences))


@pytest.mark.parametrize("false_accept_rate", [0.0, 0.001, 0.01, 0.1, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("n", [1, 10, 1000])
def test_threshold_keeps_the_false_accept_rate(
    rng: np.random.Generator, n: int, false_accept_rate: float
) -> None:
    for confidences in (rng.random(n), np.full(n, 0.25), rng.integers(0, 3, n) / 2):
        threshold = threshold_for(confidences, false_accept_rate)
        assert (confidences >= threshold).mean() <= false_accept_rate


def test_threshold_is_no_higher_than_needed(rng: np.random.Generator) -> None:
    confidences = rng.random(1000)
    threshold = threshold_for(confidences, 0.01)
    assert (confidences >= threshold).sum() == 10


def test_threshold_without_data_accepts_all() -> None:
    assert threshold_for(np.zeros(0), 0.01) == 0.0


# -- from answers to curve and threshold -----------------------------------------------------


def answer(*evidences: float, is_known: bool) -> Answer:
    candidates = tuple(candidate(one) for one in evidences)
    right = (is_known,) * len(candidates)
    return Answer(candidates=candidates, right=right, audible_s=1.5, is_known=is_known)


RIGHT = [answer(0.8 + k / 1000, is_known=True) for k in range(50)]
ABSENT = [answer(0.3 + k / 1000, is_known=False) for k in range(200)]


def test_learnt_threshold_separates_right_from_absent() -> None:
    curve = learn([*RIGHT, *ABSENT], "abc", search=SearchConfig(), alignment=AlignConfig())
    assert curve.recipe_id == "abc"
    right, absent = ([one.best(curve)[0] for one in some] for some in (RIGHT, ABSENT))
    assert min(right) > curve.min_confidence
    n_accepted = sum(one >= curve.min_confidence for one in absent)
    assert 0 < n_accepted <= 0.01 * len(absent)


@pytest.mark.parametrize("answers", [RIGHT, ABSENT, []], ids=["all right", "none right", "none"])
def test_one_sided_answers_still_give_a_curve(answers: list[Answer]) -> None:
    assert (
        0
        <= learn(answers, "abc", search=SearchConfig(), alignment=AlignConfig()).min_confidence
        <= 1
    )


def test_music_in_reverse_does_not_raise_the_threshold() -> None:
    alike = [replace(answer(0.8, is_known=False), is_reversed=True)] * 20
    plain, both = (
        learn([*RIGHT, *ABSENT, *some], "r", search=SearchConfig(), alignment=AlignConfig())
        for some in ([], alike)
    )
    assert all(one.best(plain)[0] > plain.min_confidence for one in alike)
    assert all(one.best(both)[0] < both.min_confidence for one in ABSENT[:-2])
    assert both.min_confidence < alike[0].best(both)[0]


def test_small_catalogs_do_not_lower_the_threshold() -> None:
    """Wrong answers of 300 tracks have more evidence than those of 10 and of 100."""
    large = [replace(one, n_tracks=300) for one in [*RIGHT, *ABSENT]]
    small = [
        replace(answer(0.1, is_known=False), n_tracks=n) for n in (10, 100) for _ in range(2000)
    ]
    curve = learn([*large, *small], "r", search=SearchConfig(), alignment=AlignConfig())
    n_accepted = sum(one.best(curve)[0] >= curve.min_confidence for one in ABSENT)
    assert 0 < n_accepted <= 0.01 * len(ABSENT)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_learnt_threshold_keeps_the_rate_on_unseen_answers(
    rate: float, rng: np.random.Generator
) -> None:
    def drawn(n: int) -> list[Answer]:
        known = [answer(one, is_known=True) for one in rng.normal(1.0, 0.25, n)]
        return known + [answer(one, is_known=False) for one in rng.normal(0.5, 0.2, n)]

    curve = learn(drawn(3000), "abc", rate, search=SearchConfig(), alignment=AlignConfig())
    unknown = [one.best(curve)[0] for one in drawn(3000) if not one.is_known]
    deviation = np.sqrt(2 * rate * (1 - rate) / 3000)  # of the choice, and of the count
    assert np.mean(np.array(unknown) >= curve.min_confidence) == pytest.approx(
        rate, abs=4 * deviation
    )


def test_best_of_an_answer_is_the_candidate_with_most_confidence() -> None:
    candidates = candidate(0.5), candidate(1.5), candidate(1.0)
    several = Answer(candidates=candidates, right=(True, False, True), audible_s=2.0, is_known=True)
    assert several.best(CALIBRATION) == (CALIBRATION.confidence(candidates[1], 2.0), False)


def test_answer_without_candidates_is_wrong_with_confidence_0() -> None:
    assert answer(is_known=True).best(CALIBRATION) == (0.0, False)


def test_sound_that_agrees_as_well_backwards_is_less_sure() -> None:
    curve = replace(CALIBRATION, weights=(*CALIBRATION.weights[:-2], 2.0, 0.0))
    forwards, steady, reverse = (
        curve.confidence(replace(candidate(1.0, 0.5), direction=one), 5.0)
        for one in (1.0, 0.0, -1.0)
    )
    assert forwards > steady > reverse


@pytest.mark.parametrize(
    ("direction", "score", "audible_s", "is_doubtful"),
    [
        (0.15, 0.95, 5.0, True),
        (-0.5, 0.95, 3.0, True),
        (0.21, 0.95, 5.0, False),
        (0.1, 0.99, 5.0, False),  # steady music
        (0.1, 0.95, 2.0, False),  # too short to have a direction
    ],
)
def test_sound_that_agrees_as_well_backwards_is_no_match_however_much_it_agrees(
    direction: float, score: float, audible_s: float, is_doubtful: bool
) -> None:
    agreeing = replace(candidate(3.0, 2.0), direction=direction, score=score)
    forwards = replace(agreeing, direction=1.0)
    doubtful, plain = CALIBRATION.logits([agreeing, forwards], [audible_s] * 2)
    assert (doubtful < plain - 5) == is_doubtful
    assert CALIBRATION.confidence(forwards, audible_s) > 0.99


@pytest.mark.parametrize(
    ("n_weights", "direction"),
    [(7, 0.0), (8, 3.0)],  # its direction was at most 0.3, which is 0.5 now
)
def test_calibration_of_an_older_version_is_converted(
    tmp_path: Path, n_weights: int, direction: float
) -> None:
    path, first = tmp_path / "calibration.json", CALIBRATION.weights[:-2]
    CALIBRATION.save(path)
    values = json.loads(path.read_text())
    del values["terms_version"]
    path.write_text(json.dumps(values | {"weights": [*first, 5.0][:n_weights]}))
    converted = Calibration.load(path)
    assert converted.weights == pytest.approx((*first, direction, 0.0))
    assert replace(converted, weights=()) == replace(CALIBRATION, weights=())
    converted.save(path)
    assert Calibration.load(path) == converted


def test_calibration_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    CALIBRATION.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"terms_version": 3}))
    with pytest.raises(ModelError, match="terms_version=3: must be at most 2"):
        Calibration.load(path)


# -- the settings it was fitted for ----------------------------------------------------------


@pytest.mark.parametrize(
    ("search", "alignment", "is_fitted"),
    [
        (SearchConfig(), AlignConfig(), True),
        (SearchConfig(query_hop_s=0.25), AlignConfig(), False),
        (SearchConfig(speeds=()), AlignConfig(), False),
        (SearchConfig(), AlignConfig(n_tilted=0), False),
    ],
)
def test_calibration_is_fitted_for_its_settings_only(
    search: SearchConfig, alignment: AlignConfig, is_fitted: bool
) -> None:
    assert CALIBRATION.is_fitted_for(search, alignment) == is_fitted
    curve = learn([*RIGHT, *ABSENT], "abc", search=search, alignment=alignment)
    assert curve.is_fitted_for(search, alignment)
    assert curve.is_fitted_for(SearchConfig(), AlignConfig()) == is_fitted


# -- on disk ---------------------------------------------------------------------------------


def test_calibration_survives_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    CALIBRATION.save(path)
    CALIBRATION.save(path)  # over itself
    assert list(tmp_path.iterdir()) == [path]
    again = Calibration.load(path)
    assert again == CALIBRATION
    assert again.confidence(candidate(0.5, 0.2), 9) == CALIBRATION.confidence(
        candidate(0.5, 0.2), 9
    )


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "5",
        "null",
        "[" * 9999,
        "{}",
        '{"weights": 5}',
        '{"weights": [1]}',
        "\x00\x01",
    ],
)
def test_load_anything_else_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(content)
    with pytest.raises(ModelError, match="not a calibration"):
        Calibration.load(path)


def test_load_returns_the_settings_that_were_saved(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    search = SearchConfig(k=20, nprobe=8, speeds=(1.1, 2 ** (1 / 12)))
    saved = replace(CALIBRATION, search=search, alignment=AlignConfig(max_tilt=0.1))
    saved.save(path)
    assert Calibration.load(path) == saved
    assert not Calibration.load(path).is_fitted_for(SearchConfig(), AlignConfig())


@pytest.mark.parametrize("part", ["search", "alignment"])
def test_load_without_settings_or_with_unknown_ones_is_refused(tmp_path: Path, part: str) -> None:
    path = tmp_path / "calibration.json"
    CALIBRATION.save(path)
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {part: values[part] | {"no_such_setting": 1}}))
    with pytest.raises(ModelError, match=rf"{part}\.no_such_setting"):
        Calibration.load(path)
    del values[part]
    path.write_text(json.dumps(values))
    with pytest.raises(ModelError, match="not a calibration"):
        Calibration.load(path)


@pytest.mark.parametrize("weights", [[1.0, 2.0], ["a"] * 7, "12345"])
def test_load_weights_that_cannot_work_are_refused(tmp_path: Path, weights: object) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"recipe_id": "r", "weights": weights, "min_confidence": 0.5}))
    with pytest.raises(ModelError, match="not a calibration"):
        Calibration.load(path)


def test_load_unknown_entry_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    CALIBRATION.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"more": 1}))
    with pytest.raises(ModelError, match="more"):
        Calibration.load(path)


def test_load_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        Calibration.load(tmp_path / "calibration.json")


WRONG_VALUES: list[tuple[str, object]] = [
    *(("min_confidence", value) for value in (None, "0.5", True, float("inf"), 10**400)),
    *(("recipe_id", value) for value in (7, None, "\ud800")),
    *(("weights", value) for value in ([float("inf")] * 7, [None] * 7, "1234567", [1.0])),
    *(("search", value) for value in (5, "[]", None)),
    *(("search.k", value) for value in (None, "5", 2**63, -1, 1.5)),
    *(("search.speeds", value) for value in (None, "1", [None], [float("nan")])),
    ("alignment.min_cosine", "0"),
]


@pytest.mark.parametrize(("key", "value"), WRONG_VALUES)
def test_load_names_the_field_of_a_wrong_value(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "calibration.json"
    CALIBRATION.save(path)
    values = json.loads(path.read_text())
    *outer, name = key.split(".")
    (values[outer[0]] if outer else values)[name] = value
    path.write_text(json.dumps(values))
    with pytest.raises(ModelError, match=rf"not a calibration \(invalid ({key}|{name})"):
        Calibration.load(path)
