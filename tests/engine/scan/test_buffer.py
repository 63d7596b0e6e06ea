from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from engine.audio import decode
from engine.audio.decode import Waveform
from engine.errors import SilentAudioError
from engine.records import Fingerprint, Vectors
from engine.scan.buffer import AudioBuffer
from tests.audio_files import cached_tune
from tests.catalogs import Spectra, _bands

RATE, SEGMENT_S = 8000, 1.0
HOP_S, PIECE_S = 0.25, 4.0
PER_PIECE = 16
SEMITONE = 2 ** (1 / 12)
END_S = 1e6


class CountingSpectra(Spectra):
    """Zeros for silent segments, as of a real encoder; counts the recordings it embeds."""

    def __init__(self) -> None:
        self.n_calls = 0

    def fingerprint(
        self, blocks: Iterable[Waveform], segment_hop_s: float, source: str = "array"
    ) -> Fingerprint:
        self.n_calls += 1
        waveform = np.concatenate(list(blocks))
        embeddings = embed(waveform, segment_hop_s)
        if not embeddings.any():
            raise SilentAudioError(source, "silent")
        return Fingerprint(
            embeddings=embeddings,
            clip_embeddings=embeddings[:1],
            segment_hop_s=segment_hop_s,
            segment_s=SEGMENT_S,
            duration_s=len(waveform) / RATE,
            recipe_id=self.recipe_id,
        )


def embed(waveform: Waveform, hop_s: float) -> Vectors:
    """Embed all segments within a recording; zeros for silent ones."""
    windows = np.lib.stride_tricks.sliding_window_view(waveform, RATE)[:: round(hop_s * RATE)]
    embeddings = np.zeros((len(windows), 0), np.float32)
    audible = windows.any(axis=1)
    if audible.any():
        of_audible = _bands(windows[audible])
        embeddings = np.zeros((len(windows), of_audible.shape[1]), np.float32)
        embeddings[audible] = of_audible
    return embeddings


def filled(waveform: Waveform, block: int = 3000, *, end: bool = True) -> AudioBuffer:
    buffer = AudioBuffer(CountingSpectra(), HOP_S, PIECE_S)
    for first in range(0, len(waveform), block):
        buffer.append(waveform[first : first + block])
    if end:
        buffer.end()
    return buffer


@pytest.fixture(scope="module")
def music() -> Waveform:
    """18.3 s of music: four pieces and a rest."""
    return cached_tune(0, 20.0)[: round(18.3 * RATE)]


@pytest.mark.parametrize("block", [777, 8000, 10**6])
def test_segments_are_those_of_the_whole_recording(music: Waveform, block: int) -> None:
    buffer = filled(music, block)
    middles_s, embeddings = buffer.segments(0.0, END_S, 1.0)
    whole = embed(music, HOP_S)
    assert middles_s == pytest.approx(np.arange(len(middles_s)) * HOP_S + SEGMENT_S / 2)
    assert len(middles_s) >= len(whole)
    np.testing.assert_allclose(embeddings[: len(whole)], whole, atol=1e-5)
    assert not embeddings[len(whole) :].any()  # they reach beyond the end


@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 1.0), (3.6, 4.7), (5.5, 9.0), (-3.0, 0.6)])
def test_segments_have_their_middles_in_the_stretch(
    music: Waveform, start_s: float, end_s: float
) -> None:
    middles_s, embeddings = filled(music).segments(start_s, end_s, 1.0)
    every_s = np.arange(80) * HOP_S + SEGMENT_S / 2
    assert middles_s.tolist() == every_s[(every_s >= start_s) & (every_s < end_s)].tolist()
    rows = np.rint((middles_s - SEGMENT_S / 2) / HOP_S).astype(int)
    np.testing.assert_allclose(embeddings, embed(music, HOP_S)[rows], atol=1e-5)


def test_only_whole_pieces_are_embedded_before_the_end(music: Waveform) -> None:
    buffer = filled(music[: round(9.2 * RATE)], end=False)
    assert buffer.position_s == pytest.approx(9.2)
    assert buffer.n_pieces == 1  # the last segments of the second may need 1.25 s beyond it
    middles_s, _ = buffer.segments(0.0, END_S, 1.0)
    assert len(middles_s) == PER_PIECE
    buffer.append(music[round(9.2 * RATE) : round(9.3 * RATE)])
    assert buffer.n_pieces == 2
    buffer.end()
    assert buffer.n_pieces == 3


@pytest.mark.parametrize("speed", [1 / SEMITONE, SEMITONE, 1.2])
def test_segments_at_another_speed_are_those_of_the_resampled_recording(
    music: Waveform, speed: float
) -> None:
    buffer = filled(music)
    nearest = buffer.nearest_speed(speed)
    assert nearest == pytest.approx(speed, rel=0.04)
    assert PIECE_S / (nearest * HOP_S) == pytest.approx(round(PIECE_S / (speed * HOP_S)))
    middles_s, embeddings = buffer.segments(0.0, 16.0, speed)
    assert middles_s == pytest.approx((np.arange(len(middles_s)) * HOP_S + SEGMENT_S / 2) * nearest)
    whole = embed(decode.change_speed(music, RATE, nearest), HOP_S)[: len(embeddings)]
    assert (embeddings * whole).sum(axis=1).min() > 0.99
    as_recorded = embed(music, HOP_S)[: len(embeddings)]
    assert (embeddings * as_recorded).sum(axis=1).mean() < 0.97


@pytest.mark.parametrize("speed", [1.0, SEMITONE])
def test_window_contains_the_segments_of_its_stretch(music: Waveform, speed: float) -> None:
    buffer = filled(music)
    window = buffer.window(6.0, speed)
    assert window is not None
    nearest = buffer.nearest_speed(speed)
    assert len(window.embeddings) == round(PIECE_S / (HOP_S * nearest))
    start_s = round(6.0 / (HOP_S * nearest)) * HOP_S * nearest
    first_middle_s = start_s + SEGMENT_S * nearest / 2
    middles_s, embeddings = buffer.segments(first_middle_s - 1e-6, 99.0, speed)
    assert middles_s[0] == pytest.approx(first_middle_s)
    np.testing.assert_array_equal(window.embeddings, embeddings[: len(window.embeddings)])
    assert window.segment_hop_s == HOP_S
    assert window.duration_s == pytest.approx((len(window.embeddings) - 1) * HOP_S + SEGMENT_S)


def test_silent_stretch_has_no_window_and_zero_segments(music: Waveform) -> None:
    silence = np.zeros(9 * RATE, np.float32)
    buffer = filled(np.concatenate([music[: 4 * RATE], silence, music[: 8 * RATE]]))
    assert buffer.window(6.0, 1.0) is None
    _, embeddings = buffer.segments(6.0, 11.0, 1.0)
    assert len(embeddings) == 20
    assert not embeddings.any()
    assert buffer.window(13.0, 1.0) is not None


def test_each_piece_is_embedded_once_a_speed(music: Waveform) -> None:
    buffer = filled(music)
    fingerprinter = buffer.fingerprinter
    assert isinstance(fingerprinter, CountingSpectra)
    for _ in range(3):
        buffer.segments(0.0, 8.0, 1.0)
    assert fingerprinter.n_calls == 2
    buffer.window(2.0, 1.0)
    assert fingerprinter.n_calls == 2
    buffer.segments(0.0, 8.0, SEMITONE)
    assert fingerprinter.n_calls == 4


def test_discarded_pieces_are_left_out_and_the_others_stay(music: Waveform) -> None:
    buffer = filled(music)
    all_s, every = buffer.segments(0.0, END_S, 1.0)
    n_held = buffer.n_held
    buffer.discard(9.0)  # the first two pieces end before that
    assert buffer.n_held < n_held
    kept_s, kept = buffer.segments(0.0, END_S, 1.0)
    assert kept_s.tolist() == all_s[2 * PER_PIECE :].tolist()
    np.testing.assert_array_equal(kept, every[2 * PER_PIECE :])
    _, resampled = buffer.segments(8.6, 16.0, SEMITONE)  # not embedded before
    _, expected = filled(music).segments(8.6, 16.0, SEMITONE)
    np.testing.assert_allclose(resampled, expected, atol=1e-5)
    assert buffer.position_s == pytest.approx(18.3)


def test_memory_does_not_grow_with_the_recording(music: Waveform) -> None:
    buffer = AudioBuffer(CountingSpectra(), HOP_S, PIECE_S)
    held = []
    for _ in range(8):
        buffer.append(music)
        buffer.segments(buffer.position_s - 10.0, buffer.position_s, 1.0)
        buffer.discard(buffer.position_s - 12.0)
        held.append(buffer.n_held)
    assert max(held) <= (12 + PIECE_S) * RATE + 5 * PER_PIECE * 32
