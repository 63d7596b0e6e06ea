"""Who may do what: keys, the site a request comes from, headers that protect a browser."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from astound.service.schemas import RefusedError
from engine.records import ServiceKey
from engine.store.keys import Keys

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "cache-control": "no-cache",
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


class Gate:
    """Checks the key of a request.

    Parameters
    ----------
    keys : Keys
    is_local : bool
        Only this machine is served; it needs no key as long as there is none.
    """

    def __init__(self, keys: Keys, *, is_local: bool) -> None:
        self._keys, self._is_local = keys, is_local

    def require(self, scope: str, secret: str | None) -> ServiceKey | None:
        """Return the key with a secret; None if no key is needed.

        Raises
        ------
        RefusedError
            The key is missing, unknown or revoked, or its scope does not include `scope`.
        """
        if secret is None:
            if self._is_local and not self._keys.exist():
                return None
            reason = "a key is needed: send the header `Authorization: Bearer KEY`"
            raise RefusedError(401, "key_needed", reason)
        key = self._keys.find(secret)
        if key is None:
            raise RefusedError(401, "unknown_key", "the key is unknown or was revoked")
        if not key.allows(scope):
            reason = f"the key has the scope {key.scope}; {scope} is needed"
            raise RefusedError(403, "scope_needed", reason)
        return key


_bearer = HTTPBearer(
    auto_error=False, description="Needed once `astound key create` has made a key."
)


def client_host(request: Request) -> str:
    """Return the address that a request comes from."""
    return request.client.host if request.client else ""


def needs(scope: str) -> Any:
    """Return the dependency that checks a request's key before its body is read."""

    def check(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    ) -> None:
        secret = credentials.credentials if credentials else None
        service = request.app.state.service
        request.state.key = key = service.gate.require(scope, secret)
        request.state.client = f"key {key.id}" if key else client_host(request)
        service.rate.count(request.state.client)

    return Depends(check)


class BrowserGuard:
    """Middleware that adds headers for browsers, and answers under known host names only.

    Parameters
    ----------
    app : ASGI application
    hosts : sequence of str
        Values of the header Host without ports; "*" is any, "*.a.b" any below a.b.
    on_refusal : callable
        Makes the response to a request under another name.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Sequence[str],
        on_refusal: Callable[[Request, RefusedError], Response],
    ) -> None:
        self.app, self._hosts, self._on_refusal = app, hosts, on_refusal

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

        app, host = self.app, Headers(scope=scope).get("host", "")
        if not _is_served(host, self._hosts):
            reason = f"invalid host {host!r}: must be one of this service; see --allowed-host"
            app = self._on_refusal(Request(scope), RefusedError(400, "unknown_host", reason))
        await app(scope, receive, send_with_headers)


def _is_served(host: str, hosts: Sequence[str]) -> bool:
    bracket = host.find("]") + 1  # colons before it are those of an address
    name = (host[:bracket] + host[bracket:].partition(":")[0]).lower()
    return any(
        known in ("*", name) or (known.startswith("*.") and name.endswith(known[1:]))
        for known in map(str.lower, hosts)
    )


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
