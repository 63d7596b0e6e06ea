from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from astound.service.server import Address, listening
from tests.astound.commands.conftest import Run, start_process

Serve = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def serve(home: Path) -> Iterator[Serve]:
    """Give serve(*options): a process that serves the catalog, and its URL."""
    processes = []

    def begin(*options: str) -> tuple[subprocess.Popen[str], str]:
        process = start_process(home, "serve", "--port", "0", *options)
        processes.append(process)
        assert process.stderr
        line = process.stderr.readline()
        assert line.startswith("astound: serving http"), line
        return process, line.split()[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def wait_until_ready(url: str, context: ssl.SSLContext | None = None) -> None:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        try:
            with urlopen(f"{url}readyz", context=context) as response:
                assert response.status == 200
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("not ready")


def test_sigterm_answers_what_runs_and_exits_with_0(home: Path, serve: Serve) -> None:
    process, url = serve()
    wait_until_ready(url)
    content = (home / "known.wav").read_bytes()
    answers: list[dict[str, object]] = []
    half_sent = threading.Event()

    def body() -> Iterator[bytes]:
        yield content[:1000]
        half_sent.set()
        while process.poll() is None and not stopping.wait(0.05):
            pass
        yield content[1000:]

    stopping = threading.Event()

    def ask() -> None:
        request = Request(f"{url}v1/query", body(), {"content-length": str(len(content))})
        with urlopen(request) as response:
            answers.append(json.load(response))

    asking = threading.Thread(target=ask)
    asking.start()
    assert half_sent.wait(30)
    time.sleep(0.2)  # until the service has read it
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    stopping.set()
    asking.join()
    assert process.wait(60) == 0
    assert answers[0]["status"] == "match"
    assert process.stderr
    assert process.stderr.read() == ""
    assert list((home / "catalog" / "uploads").iterdir()) == []


def test_sigterm_refuses_queries_that_take_too_long(home: Path) -> None:
    code = (
        "import time; from astound.catalog import Catalog; query = Catalog.query; "
        "Catalog.query = lambda self, source, *given, **options: time.sleep(600) "
        "if isinstance(source, str) else query(self, source, *given, **options); "
        "from astound.service import server; server._QUERIES_S = 0.5; "
        "from astound.commands.main import main; main()"
    )
    process = start_process(home, "serve", "--port", "0", "--jobs", "1", code=code)
    content, refused = (home / "known.wav").read_bytes(), []

    def ask(url: str) -> None:
        with pytest.raises(HTTPError) as caught:
            urlopen(Request(f"{url}v1/query", content))
        with caught.value:
            refused.append((caught.value.code, json.load(caught.value)["code"]))

    def n_received() -> int:
        files = (home / "catalog" / "uploads").iterdir()
        return sum(file.stat().st_size == len(content) for file in files)

    try:
        assert process.stderr
        url = process.stderr.readline().split()[-1]
        wait_until_ready(url)
        with ThreadPoolExecutor(2) as threads:
            asking = [threads.submit(ask, url) for _ in range(2)]  # one runs, and one waits
            while n_received() < 2:
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            for one in asking:
                one.result()
        assert refused == [(503, "not_ready")] * 2
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_sigterm_does_not_wait_for_a_client_that_sends_nothing_more(
    serve: Callable[..., tuple[subprocess.Popen[str], str]],
) -> None:
    process, url = serve()
    wait_until_ready(url)
    with socket.create_connection(("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]))) as sender:
        sender.sendall(b"POST /v1/query HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nx")
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.parametrize("loading_s", [0.0, 0.4])
@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_interrupt_exits_as_every_command(serve: Serve, loading_s: float, handler: Any) -> None:
    """Shells start a program with SIGINT ignored if it runs in the background of a script."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        process, url = serve("--root-path", "/music")
    finally:
        signal.signal(signal.SIGINT, before)
    assert url.endswith("/music/")
    time.sleep(loading_s)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130


def test_https_with_a_certificate(home: Path, serve: Serve) -> None:
    subprocess.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 "
        "-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1".split(),
        cwd=home,
        check=True,
        capture_output=True,
    )
    _, url = serve("--tls-cert", "cert.pem", "--tls-key", "key.pem")
    assert url.startswith("https://127.0.0.1:")
    wait_until_ready(url, context=ssl.create_default_context(cafile=home / "cert.pem"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--host", "0.0.0.0"], "invalid host='0.0.0.0': must be 127.0.0.1, ::1 or localhost"),
        (["--host", "192.0.2.1"], "invalid host='192.0.2.1'"),
        (["--tls-cert", "known.wav"], "tls: needs both a certificate and a key"),
        (["--tls-cert", "known.wav", "--tls-key", "known.wav"], "tls: cannot use known.wav"),
        (["--tls-cert", "none.pem", "--tls-key", "none.pem"], "No such file"),
        (["--port", "99999"], "99999"),
    ],
)
def test_wrong_address_is_one_sentence(
    home: Path, run: Run, options: list[str], sentence: str
) -> None:
    result = run("serve", *options)
    assert result.exit_code in (1, 2)
    assert sentence in result.stderr


def test_taken_port_is_one_sentence(home: Path, run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("serve", "--port", port)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}: cannot serve (Address already in use)" in result.stderr


def test_answers_are_sent_at_once() -> None:
    with (
        listening(Address(port=0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_missing_catalog_is_one_sentence(run: Run, tmp_path: Path) -> None:
    result = run("--catalog", tmp_path / "none", "serve")
    assert result.exit_code == 1
    assert "no catalog here" in result.stderr


def test_missing_extra_is_one_sentence(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.sys.modules, "astound.service.server", None)  # type: ignore[attr-defined]
    result = run("serve")
    assert result.exit_code == 1
    assert "pip install 'astound[serve]'" in result.stderr


def test_other_addresses_are_served_once_there_is_a_key(home: Path, run: Run, serve: Serve) -> None:
    secret = run("key", "create", "--scope", "query").stdout.strip()
    _, url = serve("--host", "0.0.0.0")
    url = url.replace("0.0.0.0", "127.0.0.1")
    wait_until_ready(url)
    content = (home / "known.wav").read_bytes()
    with pytest.raises(HTTPError) as caught:
        urlopen(Request(f"{url}v1/query", content))
    caught.value.close()
    assert caught.value.code == 401
    with urlopen(
        Request(f"{url}v1/query", content, {"authorization": f"Bearer {secret}"})
    ) as answer:
        assert json.load(answer)["status"] == "match"
