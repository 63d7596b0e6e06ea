from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.peers.chromaprint import ITEM_S, Alignment, Chromaprint, CodeIndex, Codes
from tests.audio_files import cached_tune

needs_fpcalc = pytest.mark.skipif(shutil.which("fpcalc") is None, reason="fpcalc is not installed")


@pytest.fixture
def tracks() -> list[Codes]:
    rng = np.random.default_rng(0)
    return [rng.integers(2**32, size=n, dtype=np.uint32) for n in (300, 50, 400)]


@pytest.fixture
def index(tracks: list[Codes]) -> CodeIndex:
    return CodeIndex(np.concatenate(tracks), np.cumsum([0, *map(len, tracks)]))


def _with_errors(codes: Codes, n_bits: int, seed: int) -> Codes:
    """Flip bits of each code."""
    rng = np.random.default_rng(seed)
    flips = [rng.choice(32, n_bits, replace=False) for _ in codes]
    masks = [np.bitwise_or.reduce(np.uint32(1) << flip.astype(np.uint32)) for flip in flips]
    return np.asarray(codes ^ np.array(masks, np.uint32), np.uint32)


def _brute_force(tracks: list[Codes], clip: Codes) -> Alignment:
    return min(
        (
            Alignment(i, at, float(np.bitwise_count(clip ^ codes[at : at + len(clip)]).mean()))
            for i, codes in enumerate(tracks)
            for at in range(len(codes) - len(clip) + 1)
        ),
        key=lambda one: one.n_bits,
    )


@pytest.mark.parametrize(("track", "offset"), [(0, 0), (0, 281), (1, 30), (2, 200), (2, 381)])
def test_index_finds_what_brute_force_finds(
    tracks: list[Codes], index: CodeIndex, track: int, offset: int
) -> None:
    clip = _with_errors(tracks[track][offset : offset + 19], 2, seed=offset)
    found = index.find(clip)
    assert found == _brute_force(tracks, clip)
    assert found == Alignment(track, offset, 2.0)


def test_clip_that_starts_before_the_track_has_a_negative_offset(
    tracks: list[Codes], index: CodeIndex
) -> None:
    before = np.arange(5, dtype=np.uint32)
    found = index.find(np.concatenate([before, tracks[1][:15]]))
    assert found == Alignment(1, -5, 0.0)


def test_alignments_do_not_cross_tracks(tracks: list[Codes], index: CodeIndex) -> None:
    across = np.concatenate([tracks[0][-5:], tracks[1][:14]])
    assert index.find(across) == Alignment(1, -5, 0.0)


def test_find_without_codes_is_none(index: CodeIndex) -> None:
    assert index.find(np.zeros(0, np.uint32)) is None


def test_find_in_an_empty_index_is_none(tracks: list[Codes]) -> None:
    nothing = CodeIndex(np.zeros(0, np.uint32), np.zeros(1, np.int64))
    assert nothing.find(tracks[0][:20]) is None


@needs_fpcalc
def test_chromaprint_finds_a_clip_and_its_offset(tmp_path: Path) -> None:
    peer, rate = Chromaprint(), 16_000
    references = [tmp_path / f"{seed}.wav" for seed in range(3)]
    for seed, path in enumerate(references):
        soundfile.write(path, cached_tune(seed, 20.0, rate), rate)
    clip, short, other = (tmp_path / f"{name}.wav" for name in ("clip", "short", "other"))
    soundfile.write(clip, cached_tune(1, 20.0, rate)[7 * rate : 14 * rate], rate)
    soundfile.write(short, cached_tune(1, 20.0, rate)[:rate], rate)
    soundfile.write(other, cached_tune(9, 7.0, rate), rate)
    (tmp_path / "index").mkdir()
    peer.build(references, tmp_path / "index", 2)
    found, nothing, unknown = peer.query([clip, short, other], tmp_path / "index")
    assert found.reference == references[1]
    assert found.offset_s == pytest.approx(7.0, abs=ITEM_S)
    assert nothing.reference is None
    assert unknown.reference is None
    peer.answer_batch([clip, short], tmp_path / "index", 2)
    assert peer.about().version.startswith("fpcalc version")
