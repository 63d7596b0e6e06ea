"""The command `astound serve`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from astound.commands.options import Session, echo_err
from engine.config import ServiceConfig
from engine.errors import AstoundError

_FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(epilog="Example: astound serve, then curl -F file=@clip.wav localhost:8765/v1/query")
@click.option(
    "--host", default="127.0.0.1", show_default=True,
    help="Address to serve on; others than this machine's own need a key.",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8765, show_default=True,
    help="Port; 0 for any free one.",
)  # fmt: skip
@click.option("--root-path", default="", metavar="PATH", help="Path below which a proxy serves it.")
@click.option(
    "--allowed-host", "allowed_hosts", multiple=True, metavar="NAME",
    help="Another name under which it is reached, such as that of a proxy; repeatable.",
)  # fmt: skip
@click.option("--tls-cert", type=_FILE, metavar="FILE", help="Certificate chain (PEM), for HTTPS.")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="Its private key (PEM).")
@click.option(
    "--jobs", "n_jobs", type=click.IntRange(1), metavar="N", help="Answer N queries at a time."
)
@click.option(
    "--max-upload", type=click.FloatRange(0, min_open=True), metavar="MB",
    default=ServiceConfig.max_upload_bytes / 1e6, show_default=True,
    help="Largest clip in megabytes.",
)  # fmt: skip
@click.option(
    "--max-length", "max_clip_s", type=click.FloatRange(0, min_open=True), metavar="S",
    default=ServiceConfig.max_clip_s, show_default=True, help="Longest clip in seconds.",
)  # fmt: skip
@click.option(
    "--media", type=_FOLDER, metavar="DIR",
    help="Folder of this machine whose recordings clients may add and scan.",
)  # fmt: skip
@click.option(
    "--max-job-upload", type=click.FloatRange(0, min_open=True), metavar="MB",
    default=ServiceConfig.max_job_upload_bytes / 1e6, show_default=True,
    help="Most megabytes of the recordings of a job.",
)  # fmt: skip
@click.option(
    "--max-rate", type=click.FloatRange(0, min_open=True), metavar="N",
    help="Requests of one client per minute.",
)  # fmt: skip
@click.option(
    "--share-audio", is_flag=True, help="Also send the files of tracks, to listen to them."
)
@click.pass_obj
def serve(session: Session, /, max_upload: float, max_job_upload: float, **options: Any) -> None:
    """Serve the catalog over HTTP, until SIGTERM or Ctrl-C."""
    try:
        from astound.service.server import Address
        from astound.service.server import serve as run
    except ModuleNotFoundError as error:
        reason = "the service needs FastAPI and uvicorn: pip install 'astound[serve]'"
        raise AstoundError(reason) from error
    where = Address(**{field.name: options.pop(field.name) for field in fields(Address)})
    config = ServiceConfig(
        max_upload_bytes=round(max_upload * 1e6),
        max_job_upload_bytes=round(max_job_upload * 1e6),
        **options,
    )
    with session.open() as catalog:
        run(catalog, where, config, on_start=lambda url: echo_err(f"serving {url}"))
