"""What a server counts of itself, in the text that Prometheus reads."""

import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from parfocal.serving.engine import Engine

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Measured:
    """Counts of requests by address and status, and how long they took."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._within = [0] * (len(_SECONDS) + 1)
        self._seconds = 0.0
        self._unreadable = 0
        self._started = time.time()

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count one answered request; `path` is one of the application's own, never what a client made up."""
        self._requests[path, status] += 1
        self._within[bisect_left(_SECONDS, seconds)] += 1
        self._seconds += seconds

    def unreadable(self, count: int) -> None:
        """Count images that could not be read."""
        self._unreadable += count

    def text(self, engine: Engine, held: int) -> str:
        """Return everything in the text format of Prometheus."""
        return "\n".join([*self._lines(engine, held), ""])

    def _lines(self, engine: Engine, held: int) -> Iterator[str]:
        yield from _told("requests_total", "counter", "Requests by address and status.")
        for (path, status), count in sorted(self._requests.items()):
            yield f'parfocal_requests_total{{path="{_escaped(path)}",status="{status}"}} {count}'
        yield from self._durations()
        for name, kind, meaning in (
            ("answered_total", "counter", "Images that a network answered for."),
            ("batches_total", "counter", "Batches that a network answered for."),
        ):
            yield from _told(name, kind, meaning)
            for network in engine.networks.values():
                value = network.answered if name == "answered_total" else network.batches
                yield f'parfocal_{name}{{network="{_escaped(network.name)}"}} {value}'
        for name, kind, value, meaning in (
            ("unreadable_total", "counter", self._unreadable, "Images that could not be read."),
            ("waiting_images", "gauge", engine.waiting, "Images that are accepted and not answered."),
            ("held_bytes", "gauge", held, "Bytes of uploads in memory."),
            ("resident_bytes", "gauge", resident(), "Memory of the process."),
            ("started_seconds", "gauge", round(self._started, 3), "When the server started, in Unix time."),
        ):
            yield from _told(name, kind, meaning)
            yield f"parfocal_{name} {value}"

    def _durations(self) -> Iterator[str]:
        yield from _told("request_seconds", "histogram", "How long requests took, from their head to their answer.")
        total = 0
        for bound, count in zip((*map(str, _SECONDS), "+Inf"), self._within, strict=True):
            total += count
            yield f'parfocal_request_seconds_bucket{{le="{bound}"}} {total}'
        yield f"parfocal_request_seconds_sum {self._seconds:.6f}"
        yield f"parfocal_request_seconds_count {total}"


def resident() -> int:
    """Return the bytes of memory that the process has; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.is_file() else 0


def _told(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP parfocal_{name} {meaning}"
    yield f"# TYPE parfocal_{name} {kind}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
