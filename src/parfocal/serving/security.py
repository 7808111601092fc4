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
from parfocal.serving.telemetry import Telemetry

COOKIE = "parfocal"
PUBLIC_PATHS = ("/", "/docs", "/healthz", "/v1/session")
"""Addresses that tell nothing and need no token; so do those below /static."""

_SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_DRAIN_SECONDS, _DRAIN_BYTES = 2.0, 64 << 20


class SecurityMiddleware:
    """Lets requests through to an application; with a `token` only those that carry it.

    Without a token only requests by this machine's own names are answered: a page from elsewhere that has its name
    pointed at 127.0.0.1 would otherwise read the answers.
    """

    def __init__(self, app: ASGIApp, limits: Limits, telemetry: Telemetry, token: str = "") -> None:
        self._app, self._limits, self._telemetry, self._token = app, limits, telemetry, token
        self._n_running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange, started = Exchange(scope, receive, send), time.perf_counter()
        self._n_running += 1
        try:
            refusal = self._find_rejection(scope)
            if refusal is None:
                await self._app(scope, exchange.receive, exchange.send)
            else:
                await exchange.reject(*refusal)
        finally:
            self._n_running -= 1
            # What a client made up as an address is not counted by its name.
            path = getattr(scope.get("route"), "path", "other")
            self._telemetry.count_request(path, exchange.status, time.perf_counter() - started)

    def _find_rejection(self, scope: Scope) -> tuple[int, str] | None:
        headers, path = Headers(scope=scope), scope["path"]
        if self._n_running > self._limits.max_requests:
            return 503, "Too many requests at once; try again in a moment."
        if headers.get("sec-fetch-site") == "cross-site" and scope["method"] != "GET":
            return 403, "Another site's page may not ask."
        if not self._token:
            if not _is_local_host_header(headers.get("host", "")):
                return 403, "This server answers to localhost only. Start it with a token to use another name."
            return None
        if path in PUBLIC_PATHS or path.startswith("/static/") or has_token(headers, self._token):
            return None
        return 401, "The token is missing or wrong. Send it as: Authorization: Bearer TOKEN"


class Exchange:
    """One request and its answer: keeps count of the body, and dresses the answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self._receive, self._send = receive, send
        self.status = 500
        self._has_unread_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._awaits_continue = headers.get("expect", "").lower() == "100-continue"

    async def receive(self) -> Message:
        """Pass on a piece of the body."""
        message = await self._receive()
        self._awaits_continue = False
        self._has_unread_body = (
            self._has_unread_body and message["type"] == "http.request" and message.get("more_body", False)
        )
        return message

    async def send(self, message: Message) -> None:
        """Pass on a piece of the answer, with the headers that make a page safe."""
        if message["type"] == "http.response.start":
            headers, self.status = MutableHeaders(scope=message), message["status"]
            for name, value in _SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            if message["status"] == 503:
                headers.setdefault("retry-after", "1")
            if self._has_unread_body and message["status"] != 408 and not self._awaits_continue:
                await self._drain()
            if self._has_unread_body:
                headers["connection"] = "close"
        await self._send(message)

    async def reject(self, status: int, reason: str) -> None:
        """Answer with a reason instead of passing the request on."""
        body = json.dumps({"detail": reason}).encode()
        kind = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        kind += [(b"www-authenticate", b"Bearer")] if status == 401 else []
        await self.send({"type": "http.response.start", "status": status, "headers": kind})
        await self.send({"type": "http.response.body", "body": body})

    async def _drain(self) -> None:
        """Read on for a little while: a client whose upload is cut off would never see why."""
        left = _DRAIN_BYTES
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while self._has_unread_body and left > 0:
                    left -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            return


def has_token(headers: Mapping[str, str], token: str) -> bool:
    """Tell whether a request has the token, as a bearer's or in the page's cookie."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and tokens_match(given.strip(), token):
        return True
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return False
    return cookie is not None and tokens_match(cookie.value, token)


def tokens_match(candidate: str, token: str) -> bool:
    """Compare two tokens in a time that tells nothing of where they differ."""
    return secrets.compare_digest(candidate.encode("utf-8", "replace"), token.encode())


def is_local(host: str) -> bool:
    """Tell whether a name or address is this machine's own, which no other reaches."""
    name = host.strip("[]")
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _is_local_host_header(host: str) -> bool:
    name = host[: host.rindex("]") + 1] if "]" in host else host.partition(":")[0]
    return is_local(name.lower()) or name == ""
