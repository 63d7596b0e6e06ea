"""Run the service: its address, TLS and signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from astound.catalog import Catalog
from astound.service.access import is_loopback, served_hosts
from astound.service.app import Service, create_app
from engine.config import ServiceConfig
from engine.errors import ConfigError, printable

# Service managers wait 10 s and more before they kill. Queries have the first time to end, all
# requests the second; then a job may be waited for.
_QUERIES_S, _DRAIN_S = 6.0, 7
_SWITCH_S = (
    0.001  # the loop waits so long for a thread that runs Python, at each of its system calls
)
_EXIT_INTERRUPTED = 130  # as every command
_N_PENDING = 512  # connections that wait to be accepted


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a service is reached.

    Parameters
    ----------
    host : str
        Name or address of this machine.
    port : int
        0 for any free one.
    root_path : str
        Path below which a proxy serves it.
    tls_cert, tls_key : Path or None
        Certificate chain and key, as PEM files; both or none.
    allowed_hosts : tuple of str
        Further names under which it is reached, such as that of a proxy.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    root_path: str = ""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allowed_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("tls", "needs both a certificate and a key")


def serve(
    catalog: Catalog,
    address: Address,
    config: ServiceConfig,
    *,
    on_start: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve a catalog until SIGTERM or Ctrl-C; queries that run are answered first.

    Parameters
    ----------
    catalog : Catalog
    address : Address
    config : ServiceConfig
    on_start : callable, optional
        Called with the URL once connections are accepted.

    Raises
    ------
    ConfigError
        The address cannot be used, or others reach it and there is no key.
    KeyboardInterrupt
        Ctrl-C ended it.
    """
    require_protection(address.host, catalog)
    require_tls(address)
    hosts = served_hosts(address.host, address.allowed_hosts)
    app = create_app(catalog, config, hosts=hosts, is_local=is_loopback(address.host))
    settings = uvicorn.Config(
        app,
        root_path=address.root_path,
        ssl_certfile=address.tls_cert,
        ssl_keyfile=address.tls_key,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    with listening(address) as listener, _signals(), _prompt():
        scheme = "https" if address.tls_cert else "http"
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        on_start(f"{scheme}://{shown}:{port}{address.root_path}/")
        with _leaving(app.state.service):
            Server(settings).run(sockets=[listener])


class Server(uvicorn.Server):
    """A server whose streams of events end when it shuts down: it waits for all connections."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no connections any more, and wait for requests that run."""
        app: Any = self.config.app
        service: Service = app.state.service
        service.jobs.worker.stop()
        asyncio.get_running_loop().call_later(_QUERIES_S, service.give_up)
        await super().shutdown(sockets)


@contextmanager
def _leaving(service: Service) -> Iterator[None]:
    """End the process in the end even if a job or a query is at something that takes long.

    That is safe: a job goes on at the next start even if the service is killed.
    """
    code = 1
    try:
        yield
        code = 0
    except KeyboardInterrupt:
        code = _EXIT_INTERRUPTED
        raise
    finally:
        if service.is_running:
            os._exit(code)


@contextmanager
def _signals() -> Iterator[None]:
    """Handle what uvicorn raises again after it has drained; a shell may have SIGINT ignored."""
    handlers = {signal.SIGTERM: lambda *_: None, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _prompt() -> Iterator[None]:
    """Let the event loop interrupt the threads that answer queries sooner than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def require_protection(host: str, catalog: Catalog) -> None:
    """Raise ConfigError if others reach a host and there is no key."""
    if not is_loopback(host) and not catalog.keys.exist():
        requirement = (
            "must be 127.0.0.1, ::1 or localhost as long as there is no key, or anybody could use "
            "it; `astound key create --scope query` makes one"
        )
        raise ConfigError.invalid("host", host, requirement)


def require_tls(address: Address) -> None:
    """Raise ConfigError unless certificate and key can be used."""
    if address.tls_cert is None or address.tls_key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(address.tls_cert, address.tls_key)
    except (OSError, ValueError) as error:
        paths = f"{printable(address.tls_cert)}, {printable(address.tls_key)}"
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError("tls", f"cannot use {paths} ({reason})") from error


def listening(address: Address) -> socket.socket:
    """Open the socket of an address.

    Raises
    ------
    ConfigError
        The host is unknown, or the port is taken or not allowed.
    """
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server(
            (address.host, address.port), family=family, backlog=_N_PENDING
        )
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else str(error)  # negative: of the resolver
        raise ConfigError(
            f"{address.host}:{address.port}",
            f"cannot serve ({reason}); choose another --port",
        ) from error
    # Connections inherit it. Without it an answer waits 40 ms for the acknowledgement of its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
