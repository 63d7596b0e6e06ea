"""A catalog served by a process of its own, and requests to it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import urllib3

from engine.errors import AstoundError

_TIMEOUT_S = 600.0
_POLL_S = 0.01
_MAIN = "from astound.commands.main import main; main()"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to a request.

    Parameters
    ----------
    status : int
        0 if the connection broke off.
    content : dict
    elapsed_ms : float
        From the connection, or the first byte sent, to the last one received.
    """

    status: int
    content: dict[str, Any]
    elapsed_ms: float


class Served:
    """A service that runs.

    Parameters
    ----------
    process : Popen
    url : str
        Address of the service, with a slash at the end.
    """

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url
        self._http = urllib3.PoolManager(maxsize=100, timeout=_TIMEOUT_S, retries=False)

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request; the body is sent in chunks if it is an iterable."""
        start = time.perf_counter()
        status, content = 0, {}
        try:
            response = self._http.request(method, self.url + path, body=body, headers=headers or {})
            status, content = response.status, json.loads(response.data)
        except (urllib3.exceptions.HTTPError, ValueError):
            pass
        return Answer(
            status=status, content=content, elapsed_ms=(time.perf_counter() - start) * 1000
        )

    def query_at_once(self, clips: Sequence[bytes]) -> list[Answer]:
        """Query clips at the same moment, each on a connection of its own.

        One thread does so: as many threads would wait for each other, and measure that.
        """
        return asyncio.run(self._query_at_once(clips))

    async def _query_at_once(self, clips: Sequence[bytes]) -> list[Answer]:
        address = urlsplit(self.url)
        assert address.hostname
        assert address.port
        asked = [_query(address.hostname, address.port, clip) for clip in clips]
        return list(await asyncio.gather(*asked))

    def query(self, clip: bytes) -> Answer:
        """Query a clip."""
        return self.send("POST", "v1/query", clip)

    def events(self, job_id: int) -> Iterator[bytes]:
        """Open the events of a job, and yield what comes until the stream ends."""
        path = f"{self.url}v1/jobs/{job_id}/events"
        response = self._http.request("GET", path, preload_content=False)
        yield from response.stream()

    def wait_until_ready(self) -> None:
        """Wait until queries are answered."""
        while self.send("GET", "readyz").status != 200:
            if self.process.poll() is not None:
                raise AstoundError(f"astound serve ended with exit code {self.process.returncode}")
            time.sleep(0.1)

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM; return the exit code and the seconds until the process has ended."""
        start = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_TIMEOUT_S), time.perf_counter() - start

    @contextmanager
    def watching_memory(self) -> Iterator[list[int]]:
        """Yield a list that has the rise of the process's resident memory after the block."""
        process, risen = psutil.Process(self.process.pid), [0]
        before, done = process.memory_info().rss, threading.Event()

        def watch() -> None:
            while not done.wait(_POLL_S):
                risen[0] = max(risen[0], process.memory_info().rss - before)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield risen
        finally:
            done.set()
            thread.join()

    @property
    def n_written(self) -> int:
        """Bytes that the process has written to files so far."""
        return int(psutil.Process(self.process.pid).io_counters().write_chars)


async def _query(host: str, port: int, clip: bytes) -> Answer:
    head = f"POST /v1/query HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(clip)}\r\n\r\n"
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, port)
    status, content = 0, b"{}"
    try:
        writer.write(head.encode() + clip)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(answer.split()[1])
        n_bytes = int(answer.partition("content-length:")[2].split()[0])
        content = await reader.readexactly(n_bytes)
    except (OSError, EOFError):
        pass
    elapsed_ms = (time.perf_counter() - start) * 1000
    writer.close()
    return Answer(status=status, content=json.loads(content), elapsed_ms=elapsed_ms)


@contextmanager
def serving(folder: Path, *options: str, model: Path | None, device: str) -> Iterator[Served]:
    """Serve a catalog until the block ends.

    Parameters
    ----------
    folder : Path
        The catalog.
    options : str
        Of `astound serve`.
    model : Path or None
        Weights to encode with; the shipped ones by default.
    device : str
    """
    command = [sys.executable, "-c", _MAIN, "--catalog", str(folder), "--device", device]
    command += [] if model is None else ["--model", str(model)]
    process = subprocess.Popen(
        [*command, "serve", "--port", "0", *options],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        if "serving" not in line:
            raise AstoundError(f"astound serve: {line.strip()}")
        service = Served(process, line.split()[-1])
        service.wait_until_ready()
        yield service
    finally:
        process.kill()
        process.communicate()
