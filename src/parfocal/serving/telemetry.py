"""What a server counts of itself, in the text that Prometheus reads."""

import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from parfocal.serving.engine import Engine

_DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Telemetry:
    """Counts of requests by address and status, and how long they took."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._bucket_counts = [0] * (len(_DURATION_BUCKETS) + 1)
        self._total_seconds = 0.0
        self._n_unreadable = 0
        self._started = time.time()

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count one answered request; `path` is one of the application's own, never what a client made up."""
        self._requests[path, status] += 1
        self._bucket_counts[bisect_left(_DURATION_BUCKETS, seconds)] += 1
        self._total_seconds += seconds

    def count_unreadable(self, count: int) -> None:
        """Count images that could not be read."""
        self._n_unreadable += count

    def render(self, engine: Engine, buffered_bytes: int) -> str:
        """Return everything in the text format of Prometheus."""
        return "\n".join([*self._lines(engine, buffered_bytes), ""])

    def _lines(self, engine: Engine, buffered_bytes: int) -> Iterator[str]:
        yield from _header_lines("requests_total", "counter", "Requests by address and status.")
        for (path, status), count in sorted(self._requests.items()):
            yield f'parfocal_requests_total{{path="{_escape(path)}",status="{status}"}} {count}'
        yield from self._duration_lines()
        for name, kind, meaning in (
            ("answered_total", "counter", "Images that a network answered for."),
            ("batches_total", "counter", "Batches that a network answered for."),
        ):
            yield from _header_lines(name, kind, meaning)
            for network in engine.networks.values():
                value = network.n_predicted if name == "answered_total" else network.n_batches
                yield f'parfocal_{name}{{network="{_escape(network.name)}"}} {value}'
        for name, kind, value, meaning in (
            ("unreadable_total", "counter", self._n_unreadable, "Images that could not be read."),
            ("waiting_images", "gauge", engine.n_waiting, "Images that are accepted and not answered."),
            ("held_bytes", "gauge", buffered_bytes, "Bytes of uploads in memory."),
            ("resident_bytes", "gauge", read_resident_bytes(), "Memory of the process."),
            ("started_seconds", "gauge", round(self._started, 3), "When the server started, in Unix time."),
        ):
            yield from _header_lines(name, kind, meaning)
            yield f"parfocal_{name} {value}"

    def _duration_lines(self) -> Iterator[str]:
        yield from _header_lines(
            "request_seconds", "histogram", "How long requests took, from their head to their answer."
        )
        total = 0
        for bound, count in zip((*map(str, _DURATION_BUCKETS), "+Inf"), self._bucket_counts, strict=True):
            total += count
            yield f'parfocal_request_seconds_bucket{{le="{bound}"}} {total}'
        yield f"parfocal_request_seconds_sum {self._total_seconds:.6f}"
        yield f"parfocal_request_seconds_count {total}"


def read_resident_bytes() -> int:
    """Return the bytes of memory that the process has; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.is_file() else 0


def _header_lines(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP parfocal_{name} {meaning}"
    yield f"# TYPE parfocal_{name} {kind}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
