"""Who may do what: the site a request comes from, and the headers that protect a browser."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from astound.service.schemas import RefusedError

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is that of this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def served_hosts(host: str, others: Sequence[str]) -> list[str]:
    """Return the values of the header Host that are answered.

    A page elsewhere can make a browser send requests here under its own name. They are refused
    where no key is needed.
    """
    if is_loopback(host):
        return [*LOOPBACK_HOSTS, f"[{host}]" if ":" in host else host, *others]
    return list(others) or ["*"]


class BrowserGuard:
    """Middleware that adds headers for browsers, and refuses changes by pages of other sites.

    Parameters
    ----------
    app : ASGI application
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def require_own_page(method: str, headers: Headers) -> None:
    """Refuse a request that a page of another site makes a browser send.

    Raises
    ------
    RefusedError
        The header Sec-Fetch-Site or Origin names another site.
    """
    if method in _SAFE_METHODS:
        return
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    is_own = site in ("same-origin", "none") if site else True
    if not site and origin:
        is_own = urlsplit(origin).netloc == headers.get("host")
    if not is_own:
        raise RefusedError(403, "other_site", "requests of pages of other sites are refused")
