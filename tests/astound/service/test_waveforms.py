from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from astound.catalog import Catalog
from astound.service.schemas import RefusedError
from astound.service.waveforms import Waveforms
from engine.audio import child
from engine.config import ServiceConfig
from tests.astound.commands.conftest import TUNE_S
from tests.astound.service.conftest import problem, start
from tests.audio_files import cached_tune


@pytest.fixture
def own_file(catalog: Catalog, home: Path) -> Path:
    """A copy of the file of track 1, which the catalog takes for the file that was added."""
    path = home / "own.wav"
    shutil.copy2(catalog.track(1).path, path)
    catalog.update(1, path=str(path))
    return path


@pytest.fixture
def sharing(catalog: Catalog, own_file: Path) -> Iterator[TestClient]:
    with start(catalog, ServiceConfig(share_audio=True)) as client:
        yield client


@pytest.mark.parametrize("n_bins", [1, 100, 4000])
def test_peaks_are_the_largest_samples_of_the_parts(
    client: TestClient, catalog: Catalog, n_bins: int
) -> None:
    track = catalog.track(1)
    tune = cached_tune(int(Path(track.path).stem), TUNE_S)
    answer = client.get("/v1/tracks/1/peaks", params={"n-bins": n_bins}).json()
    assert (answer["track_id"], answer["duration_s"]) == (1, track.duration_s)
    assert answer["shares_audio"] is False
    part = np.arange(len(tune)) * n_bins // len(tune)
    expected = np.array([np.abs(tune[part == i]).max() for i in range(n_bins)])
    assert answer["peaks"] == pytest.approx((expected / expected.max()).tolist(), abs=2e-3)


def test_peaks_are_decoded_once(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, own_file: Path
) -> None:
    first = client.get("/v1/tracks/1/peaks").json()
    assert len(first["peaks"]) == 800
    monkeypatch.setattr(child, "blocks", None)
    assert client.get("/v1/tracks/1/peaks").json() == first
    assert len(client.get("/v1/tracks/1/peaks?n-bins=10").json()["peaks"]) == 10
    own_file.unlink()
    assert problem(client.get("/v1/tracks/1/peaks")) == (404, "audio_unavailable")


def test_file_that_is_not_what_was_added_is_neither_drawn_nor_sent(
    sharing: TestClient, own_file: Path, catalog: Catalog
) -> None:
    ways = ("/v1/tracks/1/peaks", "/v1/tracks/1/audio")
    assert [sharing.get(way).status_code for way in ways] == [200, 200]
    status = own_file.stat()
    os.utime(own_file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    for way in ways:
        assert problem(sharing.get(way)) == (404, "audio_unavailable")
        assert "has changed since it was added" in sharing.get(way).json()["detail"]
    os.utime(own_file, ns=(status.st_atime_ns, status.st_mtime_ns))
    own_file.write_bytes(b"x" * status.st_size * 2)
    os.utime(own_file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [sharing.get(way).status_code for way in ways] == [404, 404]
    own_file.unlink()
    os.mkfifo(own_file)  # reading it would never end
    assert [sharing.get(way).status_code for way in ways] == [404, 404]
    assert problem(sharing.get("/v1/tracks/99/peaks")) == (404, "track_not_found")
    assert problem(sharing.get("/v1/tracks/99/audio")) == (404, "track_not_found")


def test_file_without_sound_is_a_problem(sharing: TestClient, own_file: Path) -> None:
    status = own_file.stat()
    own_file.write_bytes(b"x" * status.st_size)
    os.utime(own_file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert problem(sharing.get("/v1/tracks/1/peaks")) == (422, "unreadable_audio")


def test_waveform_that_is_decoded_does_not_delay_the_end(catalog: Catalog) -> None:
    waveforms = Waveforms(catalog)
    waveforms.close()
    with pytest.raises(RefusedError, match="is ending"):
        waveforms.peaks(1, 10)


# -- audio ---------------------------------------------------------------------------------------


def test_audio_is_sent_only_if_it_is_shared(client: TestClient, catalog: Catalog) -> None:
    assert problem(client.get("/v1/tracks/1/audio")) == (404, "audio_not_shared")


def test_audio_is_sent_whole_and_in_ranges(sharing: TestClient, own_file: Path) -> None:
    content = own_file.read_bytes()
    whole = sharing.get("/v1/tracks/1/audio")
    assert (whole.content, whole.status_code) == (content, 200)
    assert whole.headers["content-type"].startswith("audio/")
    assert whole.headers["accept-ranges"] == "bytes"
    for ranges, part in {
        "bytes=0-9": content[:10],
        "bytes=100-": content[100:],
        "bytes=-7": content[-7:],
        f"bytes=5-{10**15}": content[5:],
    }.items():
        answer = sharing.get("/v1/tracks/1/audio", headers={"range": ranges})
        assert (answer.status_code, answer.content) == (206, part)
        assert answer.headers["content-range"].endswith(f"/{len(content)}")
    two = sharing.get("/v1/tracks/1/audio", headers={"range": "bytes=0-9, 20-29"})
    assert (two.status_code, content[20:30] in two.content) == (206, True)


@pytest.mark.parametrize(
    "ranges", ["bytes=9-5", "bytes=-0", "bytes=-", "bytes=", "lines=1-2", "x", f"bytes={10**15}-"]
)
def test_range_outside_of_the_file_is_a_problem(sharing: TestClient, ranges: str) -> None:
    answer = sharing.get("/v1/tracks/1/audio", headers={"range": ranges})
    assert problem(answer) == (416, "invalid_range")


def test_track_is_never_sent_as_a_page(
    sharing: TestClient, catalog: Catalog, own_file: Path
) -> None:
    page = own_file.rename(own_file.with_suffix(".html"))
    catalog.update(1, path=str(page))
    answer = sharing.get("/v1/tracks/1/audio")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
