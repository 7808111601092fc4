"""What every request passes: who asks, from where, and how many at once; and what every answer carries.

A plain ASGI layer around the application, so that nothing behind it, not even an unknown address, is without it.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parfocal.serving.limits import Limits
from parfocal.serving.measured import Measured

COOKIE = "parfocal"
OPEN = ("/", "/docs", "/healthz", "/v1/session")
"""Addresses that tell nothing and need no token; so do those below /static."""

_SAFE = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_LINGER, _LINGER_BYTES = 2.0, 64 << 20


class Gate:
    """Lets requests through to an application; with a `token` only those that carry it.

    Without a token only requests by this machine's own names are answered: a page from elsewhere that has its name
    pointed at 127.0.0.1 would otherwise read the answers.
    """

    def __init__(self, app: ASGIApp, limits: Limits, measured: Measured, token: str = "") -> None:
        self._app, self._limits, self._measured, self._token = app, limits, measured, token
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange, started = Exchange(scope, receive, send), time.perf_counter()
        self._running += 1
        try:
            refusal = self._refusal(scope)
            if refusal is None:
                await self._app(scope, exchange.receive, exchange.send)
            else:
                await exchange.refuse(*refusal)
        finally:
            self._running -= 1
            # What a client made up as an address is not counted by its name.
            path = getattr(scope.get("route"), "path", "other")
            self._measured.request(path, exchange.status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers, path = Headers(scope=scope), scope["path"]
        if self._running > self._limits.requests:
            return 503, "Too many requests at once; try again in a moment."
        if headers.get("sec-fetch-site") == "cross-site" and scope["method"] != "GET":
            return 403, "Another site's page may not ask."
        if not self._token:
            if not _own_name(headers.get("host", "")):
                return 403, "This server answers to localhost only. Start it with a token to use another name."
            return None
        if path in OPEN or path.startswith("/static/") or carries(headers, self._token):
            return None
        return 401, "The token is missing or wrong. Send it as: Authorization: Bearer TOKEN"


class Exchange:
    """One request and its answer: keeps count of the body, and dresses the answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self._receive, self._send = receive, send
        self.status = 500
        self._unread = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._asked_first = headers.get("expect", "").lower() == "100-continue"

    async def receive(self) -> Message:
        """Pass on a piece of the body."""
        message = await self._receive()
        self._asked_first = False
        self._unread = self._unread and message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Pass on a piece of the answer, with the headers that make a page safe."""
        if message["type"] == "http.response.start":
            headers, self.status = MutableHeaders(scope=message), message["status"]
            for name, value in _SAFE.items():
                headers.setdefault(name, value)
            if message["status"] == 503:
                headers.setdefault("retry-after", "1")
            if self._unread and message["status"] != 408 and not self._asked_first:
                await self._drain()
            if self._unread:
                headers["connection"] = "close"
        await self._send(message)

    async def refuse(self, status: int, reason: str) -> None:
        """Answer with a reason instead of passing the request on."""
        body = json.dumps({"detail": reason}).encode()
        kind = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        kind += [(b"www-authenticate", b"Bearer")] if status == 401 else []
        await self.send({"type": "http.response.start", "status": status, "headers": kind})
        await self.send({"type": "http.response.body", "body": body})

    async def _drain(self) -> None:
        """Read on for a little while: a client whose upload is cut off would never see why."""
        left = _LINGER_BYTES
        try:
            async with asyncio.timeout(_LINGER):
                while self._unread and left > 0:
                    left -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            return


def carries(headers: Mapping[str, str], token: str) -> bool:
    """Tell whether a request has the token, as a bearer's or in the page's cookie."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and same(given.strip(), token):
        return True
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return False
    return cookie is not None and same(cookie.value, token)


def same(given: str, token: str) -> bool:
    """Compare two tokens in a time that tells nothing of where they differ."""
    return secrets.compare_digest(given.encode("utf-8", "replace"), token.encode())


def is_local(host: str) -> bool:
    """Tell whether a name or address is this machine's own, which no other reaches."""
    name = host.strip("[]")
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _own_name(host: str) -> bool:
    name = host[: host.rindex("]") + 1] if "]" in host else host.partition(":")[0]
    return is_local(name.lower()) or name == ""
