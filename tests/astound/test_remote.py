from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import astound
from astound.catalog import Catalog
from astound.remote import RemoteCatalog
from astound.service.app import create_app
from engine.config import ServiceConfig
from engine.errors import (
    AstoundError,
    AudioError,
    AudioTooLongError,
    AudioTooShortError,
    ConfigError,
    RecipeMismatchError,
    ServiceError,
    SilentAudioError,
    TrackChangedError,
    TrackNotFoundError,
)
from engine.records import QueryResult, Track
from engine.validation import to_values
from tests.astound.commands.conftest import CLIP_AT_S, RATE, TUNE_S, Run, home, library, run
from tests.astound.service.conftest import catalog, serving
from tests.audio_files import CODECS, cached_tune, write_audio, write_wav

__all__ = ["catalog", "home", "library", "run"]


@pytest.fixture
def url(catalog: Catalog) -> Iterator[str]:
    with serving(create_app(catalog)) as address:
        yield address


@pytest.fixture
def remote(url: str) -> RemoteCatalog:
    return astound.connect(url)


def untimed(result: QueryResult) -> QueryResult:
    return replace(result, timings_ms=dict.fromkeys(sorted(result.timings_ms), 0.0))


def test_results_equal_those_of_a_local_catalog(
    remote: RemoteCatalog, catalog: Catalog, home: Path
) -> None:
    first = round(CLIP_AT_S * RATE)
    for ending in CODECS:
        write_audio(home / f"clip{ending}", cached_tune(1, TUNE_S)[first : first + 4 * RATE], RATE)
    clips = sorted(path.name for path in home.glob("*.*") if path.name != "broken.wav")
    assert len(clips) > 10
    for clip in clips:
        assert untimed(remote.query(clip)) == untimed(catalog.query(clip))
    parts: list[dict[str, Any]] = [{"start_s": 1.0, "end_s": 3.0}, {"max_matches": 1}]
    for part in [*parts, {"min_confidence": 0.0}]:
        found, expected = remote.query("known.wav", **part), catalog.query("known.wav", **part)
        assert untimed(found) == untimed(expected)


def test_open_files_and_paths_are_sent(remote: RemoteCatalog, catalog: Catalog, home: Path) -> None:
    content = (home / "known.wav").read_bytes()
    for source in (home / "known.wav", io.BytesIO(content)):
        assert untimed(remote.query(source)) == untimed(catalog.query(source))
    with open(home / "known.wav", "rb") as file:
        assert remote.query(file).status == "match"


@pytest.mark.parametrize("kind", [np.float32, np.int16])
def test_arrays_are_sent(remote: RemoteCatalog, catalog: Catalog, kind: type) -> None:
    first = round(CLIP_AT_S * RATE)
    part = cached_tune(1, TUNE_S)[first : first + 4 * RATE]
    array = part if kind is np.float32 else (part * 32767).astype(np.int16)
    found, expected = remote.query(array, RATE), catalog.query(array, RATE)
    assert (found.query, found.status, found.duration_s) == ("array", "match", 4.0)
    assert found.best
    assert expected.best
    assert found.best.offset_s == expected.best.offset_s
    assert found.best.score == pytest.approx(expected.best.score, abs=1e-3)
    with pytest.raises(ConfigError, match="sample_rate"):
        remote.query(array)


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("broken.wav", AudioError),
        ("missing.wav", AudioError),
        (".", AudioError),
        ("a\0b", AudioError),
        ("short.wav", AudioTooShortError),
        ("silent.wav", SilentAudioError),
    ],
)
def test_errors_equal_those_of_a_local_catalog(
    remote: RemoteCatalog, catalog: Catalog, home: Path, file: str, kind: type[AudioError]
) -> None:
    write_wav(home / "short.wav", cached_tune(1)[:2000], RATE)
    write_wav(home / "silent.wav", np.zeros(4 * RATE, np.float32), RATE)
    found: list[AudioError] = []
    for queried in (remote, catalog):
        with pytest.raises(AudioError) as caught:
            queried.query(file)
        found.append(caught.value)
    assert [type(error) for error in found] == [kind, kind]
    assert str(found[0]) == str(found[1])
    assert (found[0].source, found[0].reason) == (found[1].source, found[1].reason)


def test_clip_longer_than_the_service_takes_is_refused(catalog: Catalog, home: Path) -> None:
    with (
        serving(create_app(catalog, ServiceConfig(max_clip_s=2.0))) as address,
        pytest.raises(AudioTooLongError, match=r"^known\.wav: longer than 2 s"),
    ):
        astound.connect(address).query("known.wav")


def whole_seconds(track: Track) -> Track:
    return replace(track, added_at=track.added_at.replace(microsecond=0))


# -- fingerprints and explanations ---------------------------------------------------------------


def test_fingerprints_of_clean_clips_have_the_results_of_their_audio(
    url: str, catalog: Catalog, home: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = astound.connect(url, sends_audio=False, model=tiny_weights)
    monkeypatch.setattr("astound.service.app.received", None)  # no audio arrives
    write_wav(home / "whole.wav", cached_tune(2, TUNE_S), RATE)
    pause = np.zeros(130 * RATE, np.float32)
    long = np.concatenate([cached_tune(3, TUNE_S), pause, cached_tune(2, TUNE_S)])
    write_wav(home / "long.wav", long, RATE)
    parts: list[dict[str, Any]] = [{}, {"start_s": 1.0, "end_s": 3.5}, {"max_matches": 1}]
    for clip in ("known.wav", "unknown.wav", "whole.wav"):
        for part in [*parts, {"name": "ä"}]:
            found, expected = private.query(clip, **part), catalog.query(clip, **part)
            assert untimed(found) == untimed(expected)
    assert private.query("known.wav").status == "match"
    found = private.query("long.wav")
    assert found.duration_s == catalog.query("long.wav").duration_s
    tunes = sorted(found.matches[:2], key=lambda match: match.query_start_s)
    assert [Path(one.path).stem for one in tunes] == ["3", "2"]
    assert tunes[1].query_start_s == pytest.approx(TUNE_S + 130, abs=0.5)
    write_wav(home / "silent.wav", np.zeros(4 * RATE, np.float32), RATE)
    for clip in ("silent.wav", "broken.wav"):
        with pytest.raises(AudioError) as caught:
            private.query(clip)
        with pytest.raises(AudioError) as local:
            catalog.query(clip)
        assert str(caught.value) == str(local.value)


def test_fingerprint_of_another_recipe_is_refused(url: str, catalog: Catalog) -> None:
    with pytest.raises(RecipeMismatchError) as caught:
        astound.connect(url, sends_audio=False).query("known.wav")  # by the shipped encoder
    assert catalog.recipe_id in str(caught.value)


def test_explanation_needs_the_audio(url: str) -> None:
    with pytest.raises(ConfigError, match="sends_audio"):
        astound.connect(url, sends_audio=False).explain("known.wav")


@pytest.mark.parametrize("clip", ["known.wav", "unknown.wav", "silent.wav"])
@pytest.mark.parametrize("options", [{}, {"track": 2, "start_s": 0.5}])
def test_explanations_equal_those_of_a_local_catalog(
    remote: RemoteCatalog, catalog: Catalog, home: Path, clip: str, options: dict[str, Any]
) -> None:
    write_wav(home / "silent.wav", np.zeros(4 * RATE, np.float32), RATE)
    found, expected = remote.explain(clip, **options), catalog.explain(clip, **options)
    assert found.match == expected.match
    assert len(found.planes) == len(expected.planes)
    found, expected = (replace(one, timings_ms={}) for one in (found, expected))
    assert to_values(found) == to_values(expected)


# -- tracks --------------------------------------------------------------------------------------


def test_tracks_are_those_of_the_catalog(
    remote: RemoteCatalog, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("astound.remote._PAGE", 3)
    first, second, third, _ = tracks = [whole_seconds(track) for track in catalog.tracks()]
    assert remote.tracks() == tracks
    assert remote.tracks(max_tracks=2) == [first, second]
    assert remote.tracks(after_id=1, max_tracks=2) == [second, third]
    assert remote.tracks("1.wav") == [one for one in tracks if one.path.endswith("1.wav")]
    assert remote.stats() == catalog.stats()
    assert remote.track(first.id) == remote.track(first.path) == first


def test_tracks_are_changed_and_removed(remote: RemoteCatalog, catalog: Catalog) -> None:
    changed = remote.update(1, title="New", artist="", metadata={"mood": "calm"})
    assert changed == whole_seconds(catalog.track(1))
    assert (changed.title, changed.artist, changed.metadata) == ("New", None, {"mood": "calm"})
    for key in (99, "/no/such.wav"):
        with pytest.raises(TrackNotFoundError) as caught:
            remote.track(key)
        assert caught.value.tracks == (key,)
    several: list[list[int | str]] = [[1, 99, 98], ["/no", 1, "/such"]]
    for keys in several:
        with pytest.raises(TrackNotFoundError) as caught:
            remote.delete(keys)
        assert caught.value.tracks == tuple(key for key in keys if key != 1)
        assert whole_seconds(catalog.track(1)) == changed
    remote.update(1, expected=changed, title="Newer")
    with pytest.raises(TrackChangedError) as refused:
        remote.update(1, expected=changed, title="Newest")
    assert refused.value.code == "track_changed"
    with pytest.raises(TrackChangedError):  # a local catalog compares under its write lock
        catalog.update(1, expected=changed, title="Newest")
    with pytest.raises(TrackChangedError):
        catalog.delete([1], expected=[changed])
    changed = remote.track(1)
    assert changed.title == "Newer"
    other = whole_seconds(catalog.track(3))
    assert remote.delete([]) == []
    assert remote.delete([1, other.path, 3]) == [changed, other]
    with pytest.raises(TrackNotFoundError):
        catalog.track(1)


# -- the service ---------------------------------------------------------------------------------


def test_key_is_sent(url: str, catalog: Catalog) -> None:
    _, secret = catalog.keys.create("query")
    assert astound.connect(url, secret).query("known.wav").status == "match"
    with pytest.raises(ServiceError, match="a key is needed") as caught:
        astound.connect(url).query("known.wav")
    assert caught.value.service_code == "key_needed"
    with pytest.raises(ServiceError, match="read is needed"):
        astound.connect(url, secret).tracks()


def test_loading_service_is_waited_for(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(catalog)
    with serving(app) as address:
        service = app.state.service
        service.unready = "loading"
        monkeypatch.setattr(
            "astound.remote.time.sleep", lambda _: setattr(service, "unready", None)
        )
        assert astound.connect(address).query("known.wav").status == "match"
        service.unready = "damaged"
        monkeypatch.setattr("astound.remote._MAX_WAIT_S", 0.0)
        with pytest.raises(ServiceError, match="damaged"):
            astound.connect(address).query("known.wav")


def test_unreachable_service_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ServiceError) as caught:
        astound.connect(f"http://127.0.0.1:{port}/").stats()
    assert str(caught.value).startswith(f"http://127.0.0.1:{port}: cannot be reached (")


@pytest.mark.parametrize("url", ["", "localhost:8765", "ftp://localhost", "file:///etc", "http://"])
def test_wrong_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="must begin with http"):
        astound.connect(url)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nlocation: http://localhost:1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n<ok>",
        b"HTTP/1.1 500 Bad\r\ncontent-length: 4\r\n\r\n<ok>",
        b"no HTTP\r\n\r\n",
        b"",
    ],
)
def test_other_servers_are_one_sentence(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def respond() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(answer)

        thread = threading.Thread(target=respond)
        thread.start()
        with pytest.raises(AstoundError) as caught:
            astound.connect(f"http://127.0.0.1:{server.getsockname()[1]}", "secret").stats()
        thread.join()
    assert isinstance(caught.value, ServiceError)
    assert "\n" not in str(caught.value)


def test_wrong_port_is_refused() -> None:
    with pytest.raises(ConfigError, match="port from 0 to 65535"):
        astound.connect("http://localhost:99999")


def test_refusal_before_the_clip_is_sent_is_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(
                    b'HTTP/1.1 413 Large\r\ncontent-length: 22\r\n\r\n{"detail":"too large"}'
                )

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(ServiceError, match="too large"):
            astound.connect(f"http://127.0.0.1:{server.getsockname()[1]}").query(
                io.BytesIO(bytes(20_000_000))
            )
        thread.join()


@pytest.fixture
def proxy(url: str) -> Iterator[tuple[str, list[str]]]:
    """Address of a proxy that forwards to the service, and the first lines of its requests."""
    lines: list[str] = []
    port = int(url.rstrip("/").rpartition(":")[2])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lines.append(self.path)
            kept = {"authorization": self.headers.get("authorization", "")}
            connection = HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/" + self.path.split("/", 3)[3], headers=kept)
            with connection.getresponse() as answer:
                content = answer.read()
            connection.close()
            self.send_response(answer.status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}", lines
        server.shutdown()
        thread.join()


def test_proxy_of_the_environment_is_used(
    proxy: tuple[str, list[str]], url: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, lines = proxy
    for name in ("http_proxy", "no_proxy", "HTTP_PROXY", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    for given in (address, f"http://user:secret@{address}/"):
        monkeypatch.setenv("http_proxy", given)
        assert astound.connect(url).stats() == catalog.stats()
    assert lines == [f"{url}v1/stats?"] * 2
    monkeypatch.setenv("no_proxy", "localhost")
    assert astound.connect(url).stats() == catalog.stats()
    assert len(lines) == 2


# -- the command line ----------------------------------------------------------------------------


def test_command_line_writes_the_same_with_a_server(url: str, home: Path, run: Run) -> None:
    def objects(before: list[str], after: list[str]) -> list[object]:
        clips = ["known.wav", "unknown.wav", "broken.wav"]
        result = run(*before, "query", *clips, "--format", "jsonl", *after)
        assert result.exit_code == 1
        assert result.stderr.count("broken.wav") == 1
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        return [one | {"timings_ms": sorted(one["timings_ms"])} for one in lines]

    assert objects(["--catalog", "none"], ["--server", url]) == objects(
        ["--catalog", "catalog"], []
    )


def test_connections_of_many_threads_are_kept(
    remote: RemoteCatalog, caplog: pytest.LogCaptureFixture
) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: remote.tracks(), range(32)))
    assert "pool is full" not in caplog.text


def test_command_line_takes_the_key_of_the_environment(
    url: str, catalog: Catalog, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = catalog.keys.create("query")
    refused = run("query", "known.wav", "--server", url)
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert "a key is needed" in refused.stderr
    assert "$ASTOUND_KEY" in refused.stderr
    monkeypatch.setenv("ASTOUND_KEY", secret)
    assert run("query", "known.wav", "--server", url).exit_code == 0


def test_command_line_sends_fingerprints(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("astound.service.app.received", None)
    result = run("query", "known.wav", "--format", "jsonl", "--server", url, "--fingerprint")
    assert (result.exit_code, json.loads(result.stdout)["status"]) == (0, "match")
    refused = run("query", "known.wav", "--fingerprint")
    assert refused.exit_code == 2
    assert "--fingerprint needs --server" in refused.stderr


def test_command_line_explains_with_a_server(url: str, home: Path, run: Run) -> None:
    pytest.importorskip("matplotlib")
    options = ["explain", "known.wav", "--format", "json"]
    local = json.loads(run(*options).stdout)
    result = run("--catalog", "none", *options, "--server", url, "-o", "why.png")
    assert json.loads(result.stdout) | {"timings_ms": 0} == local | {"timings_ms": 0}
    assert (home / "why.png").stat().st_size > 1000
