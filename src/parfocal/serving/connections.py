"""Connections with an end: what uvicorn leaves open for a client that says nothing, or fetches nothing."""

from asyncio import TimerHandle, Transport

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from parfocal.serving.limits import Limits
from parfocal.serving.security import Exchange

_TIMEOUT_BODY = b'{"detail":"The request came too slowly."}'
_TIMEOUT_RESPONSE = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_TIMEOUT_BODY), _TIMEOUT_BODY)
)


async def _reject_connection(scope: Scope, receive: Receive, send: Send) -> None:
    await Exchange(scope, receive, send).reject(503, "Too many connections at once; try again in a moment.")


def build_protocol(limits: Limits) -> type[H11Protocol]:
    """Return uvicorn's protocol with an end to waiting for a request or for an answer to be fetched, and to crowds."""

    class PatientProtocol(H11Protocol):
        _head: TimerHandle | None = None
        _fetch: TimerHandle | None = None

        def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.max_connections:
                self.app = _reject_connection
            if len(self.connections) > 2 * limits.max_connections:
                # A process may open only so many; beyond, not even a reason can be given.
                transport.abort()
            self._time_the_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._time_the_head()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._head, self._fetch):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._fetch = self.loop.call_later(limits.timeout_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._fetch is not None:
                self._fetch.cancel()

        def _time_the_head(self) -> None:
            waits = self.conn.their_state is h11.IDLE
            if waits and self._head is None:
                self._head = self.loop.call_later(limits.timeout_seconds, self._give_up)
            elif not waits and self._head is not None:
                self._head.cancel()
                self._head = None

        def _give_up(self) -> None:
            if not self.transport.is_closing():
                self.transport.write(_TIMEOUT_RESPONSE)
                self.transport.close()

    return PatientProtocol
