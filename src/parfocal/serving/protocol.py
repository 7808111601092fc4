"""Timeouts and a limit for connections: uvicorn by itself waits forever for a client that sends or reads nothing."""

import json
from asyncio import TimerHandle, Transport
from http import HTTPStatus

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from parfocal.serving.limits import Limits
from parfocal.serving.security import SECURITY_HEADERS, Exchange


def build_protocol(limits: Limits) -> type[H11Protocol]:
    """Return uvicorn's HTTP protocol with timeouts for request and response, and a limit on connections."""

    async def reject_connection(scope: Scope, receive: Receive, send: Send) -> None:
        await Exchange(scope, receive, send).reject(503, "Too many connections at once. Try again in a moment.")

    class LimitedProtocol(H11Protocol):
        _request_timer: TimerHandle | None = None
        _response_timer: TimerHandle | None = None

        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.max_connections:
                self.app = reject_connection
            if len(self.connections) > 2 * limits.max_connections:
                # A process may open only a limited number of sockets. Beyond that, not even a reason can be sent.
                transport.abort()
            self._update_request_timer()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._update_request_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._request_timer, self._response_timer):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._response_timer = self.loop.call_later(limits.timeout_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._response_timer is not None:
                self._response_timer.cancel()

        def _update_request_timer(self) -> None:
            is_waiting = self.conn.their_state is h11.IDLE
            if is_waiting and self._request_timer is None:
                self._request_timer = self.loop.call_later(limits.timeout_seconds, self._time_out)
            elif not is_waiting and self._request_timer is not None:
                self._request_timer.cancel()
                self._request_timer = None

        def _time_out(self) -> None:
            self._reject(408, "The request was too slow.")

        def send_400_response(self, msg: str) -> None:
            self._reject(400, "The request is not valid HTTP.")

        def _reject(self, status: int, reason: str) -> None:
            if not self.transport.is_closing():
                # The rest of a response that has begun must not be followed by another.
                if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    self.transport.write(_build_response(status, reason))
                self.transport.close()

    return LimitedProtocol


def _build_response(status: int, reason: str) -> bytes:
    """Return the response to a request that does not reach the application."""
    body = json.dumps({"detail": reason}).encode()
    headers = {
        **SECURITY_HEADERS,
        "content-type": "application/json",
        "connection": "close",
        "content-length": str(len(body)),
    }
    lines = (f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers.items()))
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
