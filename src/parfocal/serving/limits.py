"""What one client, and all of them together, may ask of a server; everything above is refused with a reason."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    max_upload_bytes: int = 48 << 20
    """One image file."""
    max_request_bytes: int = 96 << 20
    """One request."""
    max_images: int = 64
    """The images of one request."""
    max_pixels: int = 40_000_000
    """One image, once decoded."""
    max_waiting_images: int = 256
    """Images that are accepted and not answered yet, of all clients together."""
    max_buffered_bytes: int = 512 << 20
    """Uploads in memory, of all clients together."""
    max_requests: int = 256
    """Requests that are being received or answered."""
    max_connections: int = 384
    """Open connections."""
    timeout_seconds: float = 20.0
    """How long the head of a request may take, how long its body beyond what its size explains, and how long an
    answer may wait to be fetched."""
    min_bytes_per_second: int = 64 << 10
    """Bytes a second: the slowest that a large upload may be."""


class RequestError(Exception):
    """A request that is answered with a status of 4xx or 503 and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
