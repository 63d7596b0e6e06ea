from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from astound.service import uploads
from astound.service.schemas import RefusedError
from astound.service.uploads import file_name, make_upload_folder, receive_files, received
from engine.config import ServiceConfig


def request(chunks: list[bytes], headers: dict[str, str] | None = None, pause_s: float = 0.0):
    """A request whose body comes in chunks; counts how many were taken."""
    left = list(chunks)

    async def receive() -> dict[str, object]:
        await asyncio.sleep(pause_s)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    lines = [(key.encode(), value.encode()) for key, value in (headers or {}).items()]
    made = Request({"type": "http", "method": "POST", "headers": lines}, receive)
    made.state.left = left
    return made


def receive(made: Request, folder: Path | None, **config: Any) -> bytes:
    """Receive a body and return the file that was made of it."""

    async def read() -> bytes:
        async with received(made, folder, ServiceConfig(**config)) as upload:
            if folder:
                assert Path(upload.path).parent == folder
            return Path(upload.path).read_bytes()

    return asyncio.run(read())


def form(*parts: tuple[str, str, bytes]) -> bytes:
    """The body of a form with the boundary `b`."""
    made = b""
    for name, file, content in parts:
        line = f'content-disposition: form-data; name="{name}"; filename="{file}"'
        made += b"--b\r\n" + line.encode() + b"\r\n\r\n" + content + b"\r\n"
    return made + b"--b--\r\n"


FORM = {"content-type": "multipart/form-data; boundary=b"}


def test_body_arrives_as_a_file_that_is_removed_afterwards(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    pieces = [content[i : i + 70_000] for i in range(0, len(content), 70_000)]
    assert receive(request(pieces), tmp_path) == content
    body = form(("file", "a.wav", content), ("other", "b.wav", b"x"))
    pieces = [body[i : i + 70_000] for i in range(0, len(body), 70_000)]
    assert receive(request(pieces, FORM), tmp_path) == content
    assert receive(request([content]), None) == content
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("parts", "n_files"),
    [([], 0), ([("x", "a", b"1")], 0), ([("file", "a", b"1"), ("file", "b", b"2")], 2)],
)
def test_form_needs_exactly_one_file(
    tmp_path: Path, parts: list[tuple[str, str, bytes]], n_files: int
) -> None:
    with pytest.raises(RefusedError, match=f"{n_files} files in the form") as caught:
        receive(request([form(*parts)], FORM), tmp_path)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "multipart/form-data"}, b"x"),
        (FORM, b"no form"),
        (FORM, b"--b\r\nno header\r\n\r\n"),
        (FORM, form(("file", "a.wav", b"x"))[:60]),
    ],
)
def test_damaged_form_is_refused(tmp_path: Path, headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        receive(request([body], headers), tmp_path)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("headers", [{}, FORM])
def test_too_large_a_body_is_neither_read_nor_written_to_its_end(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    start = form(("file", "a.wav", b""))[: -len(b"\r\n--b--\r\n")] if headers else b""
    made = request([start, *[b"x" * 100] * 50], headers)
    with pytest.raises(RefusedError, match=r"larger than 0\.001 MB") as caught:
        receive(made, tmp_path, max_upload_bytes=1000)
    assert caught.value.status == 413
    assert len(made.state.left) > 35
    assert list(tmp_path.iterdir()) == []


def test_too_large_a_body_is_refused_before_it_is_read(tmp_path: Path) -> None:
    made = request([b"x"], {"content-length": "1001"})
    with pytest.raises(RefusedError) as caught:
        receive(made, tmp_path, max_upload_bytes=1000)
    assert caught.value.status == 413
    assert made.state.left == [b"x"]


def test_body_that_stops_coming_is_given_up(tmp_path: Path) -> None:
    made = request([b"x", b"x"], pause_s=60.0)
    with pytest.raises(RefusedError) as caught:
        receive(made, tmp_path, max_pause_s=0.05)
    assert caught.value.status == 408


def test_full_disk_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        receive(request([b"x"]), tmp_path / "gone")
    assert caught.value.status == 507


def test_old_uploads_are_removed_and_new_ones_kept(tmp_path: Path) -> None:
    folder = make_upload_folder(tmp_path)
    assert folder
    (folder / "of a job").mkdir()
    for name, age_s in (("old", 25 * 3600), ("new", 3600), ("of a job", 25 * 3600)):
        (folder / name).touch()
        os.utime(folder / name, times=(time.time() - age_s,) * 2)
    assert make_upload_folder(tmp_path) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["new", "of a job"]


def test_catalog_that_cannot_be_written_has_no_folder_of_uploads(tmp_path: Path) -> None:
    (tmp_path / "uploads").touch()
    assert make_upload_folder(tmp_path) is None


# -- several files -------------------------------------------------------------------------------


def test_empty_file_of_a_job_is_refused(tmp_path: Path) -> None:
    pair = form(("file", "a.wav", b"x"), ("file", "b.wav", b""))
    for number, (body, headers) in enumerate([(b"", {}), (pair, FORM)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(RefusedError, match="is empty") as caught:
            receive_all(request([body], headers), folder)
        assert (caught.value.status, caught.value.code) == (400, "invalid_request")


def receive_all(made: Request, folder: Path, name: str | None = None, **config: Any) -> list[str]:
    return asyncio.run(receive_files(made, folder, ServiceConfig(**config), name))


def test_files_arrive_under_safe_names_that_differ(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    given = ["a.mp3", "b/c.mp3", "../../a.mp3", "\\\\x\\a.mp3", "..", "/", "ü" * 200 + ".mp3", "."]
    body = form(
        ("other", "x", b"1"), *(("file", name, content[i:]) for i, name in enumerate(given))
    )
    pieces = [body[i : i + 70_000] for i in range(0, len(body), 70_000)]
    names = receive_all(request(pieces, FORM), tmp_path)
    assert names[:4] == ["a.mp3", "c.mp3", "a (2).mp3", "a (3).mp3"]
    assert names[4:6] == ["upload", "upload (2)"]
    assert (names[6], names[7]) == ("ü" * 90 + ".mp3", "upload (3)")
    assert sorted(names) == sorted(path.name for path in tmp_path.iterdir())
    assert all((tmp_path / name).read_bytes() == content[i:] for i, name in enumerate(names))
    assert file_name("\0a\n\x1b.mp3") == ("a", ".mp3")


def test_one_file_is_the_body(tmp_path: Path) -> None:
    assert receive_all(request([b"1", b"2"]), tmp_path, "x/mix.wav") == ["mix.wav"]
    assert (tmp_path / "mix.wav").read_bytes() == b"12"


@pytest.mark.parametrize("headers", [{}, FORM])
def test_files_that_are_too_large_together_are_not_written_to_their_end(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    first = form(("file", "a", b"x" * 500_000), ("file", "b", b""))[: -len(b"\r\n--b--\r\n")]
    made = request([first, *[b"x" * 100_000] * 50], headers)
    with pytest.raises(RefusedError) as caught:
        receive_all(made, tmp_path, max_job_upload_bytes=1_000_000)
    assert caught.value.status == 413
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1_000_000
    assert len(made.state.left) > 40


def test_form_without_files_or_with_too_many_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MAX_FILES", 2)
    for parts in ([], [("other", "a", b"1")], [("file", "a", b"1")] * 3):
        with pytest.raises(RefusedError) as caught:
            receive_all(request([form(*parts)], FORM), tmp_path)
        assert caught.value.status == 400
