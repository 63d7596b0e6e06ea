from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.queries.conditions import CELL_SETS, make_cells
from benchmarks.queries.datasets import RATE, Waveform
from benchmarks.queries.questions import Question, questions

TONE_HZ = 1000.0


def draw(rng: np.random.Generator) -> Waveform:
    return rng.normal(size=RATE).astype(np.float32)


CELLS = {
    cell.name: cell for cell in make_cells(CELL_SETS["encoder"], {"noise": draw, "rooms": draw})
}


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> list[Question]:
    path = tmp_path_factory.mktemp("tone") / "tone.wav"
    tone = 0.5 * np.sin(2 * np.pi * TONE_HZ * np.arange(20 * RATE) / RATE)
    soundfile.write(path, tone.astype(np.float32), RATE, subtype="FLOAT")
    return list(questions("present", [Path(path)], 2, list(CELLS.values()), seed=1))


def peak_hz(waveform: Waveform) -> float:
    power = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.argmax(power)) * RATE / len(waveform)


def test_questions_are_numbered_within_their_kind(numbered: list[Question]) -> None:
    assert [question.query_id for question in numbered] == ["present-00000", "present-00001"]


def test_excerpt_is_long_enough_for_the_fastest_query(numbered: list[Question]) -> None:
    assert numbered[0].excerpt.cut.duration_s == pytest.approx(12.0)  # tempo+20, 10 s


@pytest.mark.parametrize("name", ["speed±3 2 s", "speed±3 5 s"])
def test_question_number_decides_the_sign(numbered: list[Question], name: str) -> None:
    peaks_hz = [peak_hz(question.waveform(CELLS[name], seed=1)) for question in numbered]
    assert peaks_hz == pytest.approx([1.03 * TONE_HZ, 0.97 * TONE_HZ], rel=0.002)


def test_noise_depends_on_the_question(numbered: list[Question]) -> None:
    def noise(question: Question, name: str) -> Waveform:
        clean = question.waveform(CELLS["clean 2 s"], seed=1)
        return question.waveform(CELLS[name], seed=1) - clean

    first = noise(numbered[0], "noise0 2 s")
    np.testing.assert_array_equal(first, noise(numbered[0], "noise0 2 s"))
    assert not np.allclose(first, noise(numbered[1], "noise0 2 s"), atol=0.01)
