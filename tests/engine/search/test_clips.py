"""Clips of recordings whose segments are their samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from engine.errors import AudioTooShortError, SilentAudioError
from engine.records import Fingerprint, Waveform
from engine.search.clips import CLIP_S, OVERLAP_S, Clip, every, fingerprint_clips, refined
from engine.search.context import Stopwatch

RATE, HOP_S, SEGMENT_S = 8, 0.5, 1.0


class Samples:
    """Fingerprints of which each segment is what it is made of."""

    recipe_id = "recipe"
    sample_rate = RATE
    segment_s = SEGMENT_S

    def metadata(self) -> Mapping[str, Any]:
        return {}

    def hop_within(self, hop_s: float, whole_s: float) -> float:
        return hop_s

    def fingerprint(
        self, blocks: Iterable[Waveform], segment_hop_s: float, source: str = "array"
    ) -> Fingerprint:
        waveform = np.concatenate(list(blocks))
        if len(waveform) < RATE:
            raise AudioTooShortError(source, len(waveform) / RATE, SEGMENT_S)
        if not waveform.any():
            raise SilentAudioError(source, "silent")
        windows = np.lib.stride_tricks.sliding_window_view(waveform, RATE)
        embeddings = windows[:: round(segment_hop_s * RATE)].astype(np.float32)
        return Fingerprint(
            embeddings=embeddings,
            clip_embeddings=embeddings[:1],
            segment_hop_s=segment_hop_s,
            segment_s=SEGMENT_S,
            duration_s=len(waveform) / RATE,
            recipe_id=self.recipe_id,
        )


def cut(
    blocks: Iterable[Waveform], hop_s: float = HOP_S, short_hop_s: float | None = None
) -> Iterator[Clip]:
    return fingerprint_clips(blocks, Samples(), hop_s, "a.wav", Stopwatch(), short_hop_s)


def sound(duration_s: float, seed: int = 0) -> Waveform:
    return np.random.default_rng(seed).normal(0, 1, round(duration_s * RATE)).astype(np.float32)


def in_blocks(waveform: Waveform, n_samples: int) -> Iterator[Waveform]:
    return (waveform[i : i + n_samples] for i in range(0, len(waveform), n_samples))


@pytest.mark.parametrize("hop_s", [0.125, 0.5, 3.0])
@pytest.mark.parametrize("duration_s", [1.0, 127.0, 128.0, 128.125, 240.0, 241.0, 1000.0])
def test_clips_cover_the_recording(duration_s: float, hop_s: float) -> None:
    waveform = sound(duration_s)
    clips = list(cut([waveform], hop_s))
    assert (clips[0].start_s, clips[-1].end_s) == (0.0, duration_s)
    for clip in clips:
        first, last = round(clip.start_s * RATE), round(clip.end_s * RATE)
        assert np.array_equal(clip.waveform, waveform[first:last])
        assert clip.start_s / hop_s == round(clip.start_s / hop_s)
    for one, other in pairwise(clips):
        assert one.end_s - one.start_s == CLIP_S
        assert one.end_s - other.start_s == pytest.approx(OVERLAP_S, abs=hop_s / 2)
        assert other.end_s > one.end_s


def test_segments_of_clips_are_those_of_the_recording() -> None:
    waveform = sound(500.0)
    whole = Samples().fingerprint([waveform], HOP_S).embeddings
    n_clips = 0
    for clip in cut([waveform]):
        first = round(clip.start_s / HOP_S)
        embeddings = clip.fingerprint.embeddings
        assert np.array_equal(embeddings, whole[first : first + len(embeddings)])
        n_clips += 1
    assert n_clips == 5


@pytest.mark.parametrize("n_samples", [1, 97, 1024, 3000, 10**6])
def test_size_of_blocks_changes_no_clip(n_samples: int) -> None:
    waveform = sound(400.0)
    expected, found = list(cut([waveform])), list(cut(in_blocks(waveform, n_samples)))
    assert [one.start_s for one in found] == [one.start_s for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.waveform, other.waveform)
        assert np.array_equal(one.fingerprint.embeddings, other.fingerprint.embeddings)


def test_silent_clips_are_left_out() -> None:
    """Between 100 s and 500 s there is nothing, so three of the five clips are silent."""
    waveform = sound(560.0)
    waveform[100 * RATE : 500 * RATE] = 0
    assert [one.start_s for one in cut([waveform])] == [0.0, 448.0]


def test_recording_that_begins_in_silence_has_the_times_of_the_whole() -> None:
    waveform = np.concatenate([np.zeros(300 * RATE, np.float32), sound(40.0)])
    (clip,) = cut([waveform])
    assert (clip.start_s, clip.end_s) == (224.0, 340.0)
    assert np.array_equal(clip.waveform, waveform[224 * RATE :])


@pytest.mark.parametrize("duration_s", [2.0, 400.0])
def test_silent_recording_has_no_clips(duration_s: float) -> None:
    assert list(cut([np.zeros(round(duration_s * RATE), np.float32)])) == []


@pytest.mark.parametrize("blocks", [[], [sound(0.5)], [sound(0.5), sound(0.25)]])
def test_recording_shorter_than_a_segment_is_an_error(blocks: list[Waveform]) -> None:
    with pytest.raises(AudioTooShortError, match=r"a\.wav"):
        list(cut(blocks))


def test_clips_come_as_the_recording_does() -> None:
    n_read = 0

    def endless() -> Iterator[Waveform]:
        nonlocal n_read
        while True:
            n_read += 1
            yield sound(10.0, seed=n_read)

    clips = cut(endless())
    assert (next(clips).start_s, n_read) == (0.0, 13)
    assert (next(clips).start_s, n_read) == (112.0, 25)


def test_encoding_is_measured_and_reading_is_not() -> None:
    stopwatch = Stopwatch()
    list(fingerprint_clips([sound(300.0)], Samples(), HOP_S, "a.wav", stopwatch))
    assert stopwatch.timings_ms.keys() == {"encode"}


@pytest.mark.parametrize(("duration_s", "hop_s"), [(5.0, 0.5), (12.0, 0.5), (12.5, 0.25)])
def test_short_recording_has_few_segments(duration_s: float, hop_s: float) -> None:
    (clip,) = cut([sound(duration_s)], 0.25, 0.5)
    assert clip.fingerprint.segment_hop_s == hop_s


@pytest.mark.parametrize("duration_s", [1.0, 1.2, 1.25, 1.4, 1.5, 4.875, 5.0, 5.125])
def test_refined_fingerprint_is_that_of_half_the_hop(duration_s: float) -> None:
    waveform = sound(duration_s)
    found = refined(Samples().fingerprint([waveform], 0.5), waveform, Samples())
    expected = Samples().fingerprint([waveform], 0.25)
    assert np.array_equal(found.embeddings, expected.embeddings)
    assert (found.segment_hop_s, found.duration_s) == (0.25, expected.duration_s)


def test_refined_fingerprint_is_zero_where_it_is_silent() -> None:
    waveform = np.zeros(2 * RATE, np.float32)
    waveform[0] = 1.0  # in the first segment only
    found = refined(Samples().fingerprint([waveform], 0.5), waveform, Samples())
    assert found.audible.tolist() == [True, False, False, False, False]


def test_every_other_segment_has_twice_the_hop() -> None:
    waveform = sound(5.0)
    fine, coarse = (Samples().fingerprint([waveform], hop_s) for hop_s in (0.25, 0.5))
    found = every(fine, 2)
    assert np.array_equal(found.embeddings, coarse.embeddings)
    assert found.segment_hop_s == 0.5
