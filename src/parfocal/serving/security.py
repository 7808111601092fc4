"""Checks on every request (token, host, origin, number of requests at once) and headers on every response.

It is a plain ASGI middleware around the application, so that every path passes it, even if it is unknown.
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
"""Paths that need no token, because they reveal nothing. Those below /static need none either."""

SECURITY_HEADERS = {
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
    """Pass requests to an application; with a `token`, only those that have it.

    Without a token, only requests to localhost and 127.0.0.1 are accepted. Otherwise a page of
    another site whose host name resolves to 127.0.0.1 (DNS rebinding) could read the responses.
    """

    def __init__(self, app: ASGIApp, limits: Limits, telemetry: Telemetry, token: str = "") -> None:
        self._app = app
        self._limits = limits
        self._telemetry = telemetry
        self._token = token
        self._n_running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send)
        started = time.perf_counter()
        self._n_running += 1
        try:
            rejection = self._find_rejection(scope)
            if rejection is None:
                await self._app(scope, exchange.receive, exchange.send)
            else:
                await exchange.reject(*rejection)
        finally:
            self._n_running -= 1
            # Unknown paths are counted together: clients can invent any number of them.
            path = getattr(scope.get("route"), "path", "other")
            self._telemetry.count_request(path, exchange.status, time.perf_counter() - started)

    def _find_rejection(self, scope: Scope) -> tuple[int, str] | None:
        headers, path = Headers(scope=scope), scope["path"]
        if self._n_running > self._limits.max_requests:
            return 503, "Too many requests at once. Try again in a moment."
        if scope["method"] != "GET" and is_cross_origin(headers):
            return 403, "Requests from pages of other sites are not allowed."
        if not self._token:
            host = headers.get("host", "")
            name = host[: host.rindex("]") + 1] if "]" in host else host.partition(":")[0]
            if name and not is_local(name.lower()):
                return 403, "This server accepts requests to localhost only. Start it with a token to use another name."
            return None
        if path in PUBLIC_PATHS or path.startswith("/static/") or has_token(headers, self._token):
            return None
        return 401, "The token is missing or wrong. Send the header: Authorization: Bearer TOKEN"


class Exchange:
    """A request and its response: track whether the body was read, and add the security headers."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self._receive = receive
        self._send = send
        self.status = 500
        self._has_unread_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self._awaits_continue = headers.get("expect", "").lower() == "100-continue"

    async def receive(self) -> Message:
        """Receive a chunk of the request body."""
        message = await self._receive()
        self._awaits_continue = False
        self._has_unread_body = (
            self._has_unread_body and message["type"] == "http.request" and message.get("more_body", False)
        )
        return message

    async def send(self, message: Message) -> None:
        """Send a chunk of the response, with the security headers."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            self.status = message["status"]
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            if message["status"] == 503:
                headers.setdefault("retry-after", "1")
            if self._has_unread_body and message["status"] != 408 and not self._awaits_continue:
                await self._drain()
            if self._has_unread_body:
                headers["connection"] = "close"
        await self._send(message)

    async def reject(self, status: int, reason: str) -> None:
        """Respond with a reason instead of passing the request on."""
        body = json.dumps({"detail": reason}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def _drain(self) -> None:
        """Read the rest of the body for a moment: a client whose upload is cut off would not see the reason."""
        left = _DRAIN_BYTES
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while self._has_unread_body and left > 0:
                    left -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            return


def has_token(headers: Mapping[str, str], token: str) -> bool:
    """Return whether a request has the token, as a bearer token or in the page's cookie."""
    scheme, _, bearer_token = headers.get("authorization", "").partition(" ")
    candidates = [bearer_token.strip()] if scheme.lower() == "bearer" else []
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        cookie = None
    candidates += [cookie.value] if cookie is not None else []
    # The time of the comparison must not depend on how much of a candidate is right.
    return any(secrets.compare_digest(text.encode("utf-8", "replace"), token.encode()) for text in candidates)


def is_cross_origin(headers: Mapping[str, str]) -> bool:
    """Return whether a browser sent a request from a page of another origin. Other programs send neither header."""
    if site := headers.get("sec-fetch-site"):
        return site not in ("same-origin", "none")
    # Older browsers, and all browsers if the connection to another machine is not encrypted, send the origin only. The
    # scheme is not compared: behind a proxy this server does not see that the connection to the proxy is encrypted.
    origin = headers.get("origin")
    return origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower()


def is_local(host: str) -> bool:
    """Return whether a host name or address is a loopback address, which other machines cannot reach."""
    name = host.strip("[]")
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
