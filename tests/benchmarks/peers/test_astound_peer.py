from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers.astound_peer import Astound


def test_astound_finds_a_track_and_rejects_a_broken_file(
    sounds: Path, tmp_path: Path, tiny_model: Path
) -> None:
    peer = Astound(model=tiny_model, device="cpu")
    references = sorted((sounds / "music").iterdir())
    peer.build(references, tmp_path, 1)
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no audio")
    found, failed = peer.query([references[1], broken], tmp_path)
    assert found.reference == references[1]
    assert found.offset_s == pytest.approx(0.0, abs=0.05)
    assert found.taken_s is not None
    assert "broken.wav" in (failed.error or "")
    peer.answer_batch([references[1], broken], tmp_path, 2)
    assert len(peer.recipe_id(tmp_path)) == 16
    assert peer.about().asked == "in-process"
