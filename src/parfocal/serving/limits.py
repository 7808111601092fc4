"""Limits on what clients may send and request. The server rejects everything above them and states the reason."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of a server. Those of an image and a request apply to each; the others to all clients together."""

    max_upload_bytes: int = 48 << 20
    """Size of an image file."""
    max_request_bytes: int = 96 << 20
    """Size of a request."""
    max_images: int = 64
    """Images in a request."""
    max_pixels: int = 40_000_000
    """Pixels of a decoded image."""
    max_waiting_images: int = 256
    """Images that are accepted and not yet predicted, of all clients together."""
    max_buffered_bytes: int = 512 << 20
    """Uploads in memory, of all clients together."""
    max_requests: int = 256
    """Requests that are in progress."""
    max_connections: int = 384
    """Open connections."""
    timeout_seconds: float = 20.0
    """Time for the head of a request, for its body in addition to what its size explains, and for the client to read
    the response."""
    min_bytes_per_second: int = 64 << 10
    """Lowest speed of a large upload."""


class RequestError(Exception):
    """A request that is rejected with a status (4xx, 500 or 503) and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
