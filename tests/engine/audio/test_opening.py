from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from engine.audio import opening
from engine.audio.opening import as_path, needs_copy, opened
from engine.errors import AudioError

CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@contextmanager
def writer(path: Path, write: Callable[[io.BufferedWriter], object]) -> Iterator[None]:
    """Write to a pipe in a thread."""

    def run() -> None:
        with path.open("wb") as pipe:
            write(pipe)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(10)
    assert not thread.is_alive()


def test_opened_file_is_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    with opened(tmp_path / "file") as file:
        assert file.read() == CONTENT


def test_opened_pipe_is_read_to_its_end_and_can_seek(fifo: Path) -> None:
    def write(pipe: io.BufferedWriter) -> None:
        for first in range(0, len(CONTENT), 100_000):
            pipe.write(CONTENT[first : first + 100_000])
            pipe.flush()
            time.sleep(0.01)

    with writer(fifo, write), opened(fifo) as file:
        assert file.read() == CONTENT
        file.seek(1000)
        assert file.read(10) == CONTENT[1000:1010]


def test_opened_pipe_waits_for_a_writer_that_thinks(fifo: Path) -> None:
    def write(pipe: io.BufferedWriter) -> None:
        time.sleep(2.0)
        pipe.write(b"at last")

    with writer(fifo, write), opened(fifo) as file:
        assert file.read() == b"at last"


def test_opened_pipe_whose_writer_falls_asleep_is_refused(
    fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_IDLE_S", 0.3)
    done = threading.Event()
    with writer(fifo, lambda pipe: done.wait(10)):
        with pytest.raises(AudioError, match="nothing was written"), opened(fifo):
            pass
        done.set()


def refused(path: Path) -> str:
    """Why a path cannot be opened, within two seconds."""
    began = time.monotonic()
    with pytest.raises(AudioError) as caught, opened(path):
        pass
    assert time.monotonic() - began < 2.0
    assert caught.value.source == path
    return caught.value.reason


def test_opened_pipe_without_a_writer_is_refused(fifo: Path) -> None:
    assert refused(fifo) == "nothing writes to this pipe"


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_opened_device_is_refused(device: str) -> None:
    assert refused(Path(device)) == "a device, not a file"


def test_opened_socket_and_folder_are_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        assert refused(tmp_path / "socket") == "a socket, not a file"
    assert refused(tmp_path) == "a folder, not a file"


def test_opened_pipe_longer_than_the_limit_is_refused(
    fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "MAX_SPOOLED_BYTES", 100_000)

    def write(pipe: io.BufferedWriter) -> None:
        with suppress(BrokenPipeError):
            pipe.raw.write(CONTENT)

    with writer(fifo, write):
        assert "longer than" in refused(fifo)


# -- paths for other processes -----------------------------------------------------------------


def test_as_path_of_a_file_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(CONTENT)
    with as_path("file") as path:
        assert path == str(tmp_path / "file")


def test_as_path_of_a_pipe_is_a_copy_that_goes_away(fifo: Path) -> None:
    with writer(fifo, lambda pipe: pipe.write(CONTENT)), as_path(fifo) as path:
        assert Path(path).read_bytes() == CONTENT
    assert not os.path.exists(path)


def test_as_path_of_an_open_file_is_a_copy_from_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    with (tmp_path / "file").open("rb") as file:
        file.read(100)
        for source in (file, io.BytesIO(CONTENT)):
            with as_path(source) as path:
                assert Path(path).read_bytes() == CONTENT


def test_needs_copy_of_what_only_this_process_can_read(fifo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert needs_copy(fifo)
    assert needs_copy("/dev/stdin")
    assert needs_copy("/dev/fd/63")
    assert not needs_copy(tmp_path / "file")


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_standard_input_is_read(kind: str, tmp_path: Path) -> None:
    script = (
        "from engine.audio.opening import as_path\n"
        "with as_path('/dev/stdin') as path: print(len(open(path, 'rb').read()))"
    )
    (tmp_path / "file").write_bytes(CONTENT)
    with (tmp_path / "file").open("rb") as file:
        given = {"input": CONTENT} if kind == "pipe" else {"stdin": file}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, check=True, **given
        )
    assert int(done.stdout) == len(CONTENT)
