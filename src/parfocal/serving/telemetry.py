"""Counters and durations of the server, for Prometheus."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from parfocal.serving.engine import Engine
    from parfocal.serving.uploads import Uploads

_DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Telemetry(Collector):
    """Count requests by path and status, and report the state of the engine and of the process."""

    def __init__(self, engine: "Engine", uploads: "Uploads") -> None:
        self._engine = engine
        self._uploads = uploads
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "parfocal_requests", "Requests by path and status.", ("path", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "parfocal_request_seconds",
            "How long requests took, from their head to their response.",
            registry=self._registry,
            buckets=_DURATION_BUCKETS,
        )
        self._unreadable = Counter("parfocal_unreadable", "Images that could not be read.", registry=self._registry)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a finished request; `path` is a path of the application, never a path that a client invented."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.observe(seconds)

    def count_unreadable(self, n_images: int) -> None:
        """Count images that could not be read."""
        self._unreadable.inc(n_images)

    def render(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics that the engine and the uploads count themselves."""
        predictions = CounterMetricFamily("parfocal_predictions", "Predicted images.", labels=["network"])
        batches = CounterMetricFamily("parfocal_batches", "Predicted batches.", labels=["network"])
        for network in self._engine.networks.values():
            predictions.add_metric([network.name], network.n_predicted)
            batches.add_metric([network.name], network.n_batches)
        yield predictions
        yield batches
        waiting = "Images that are accepted and not yet predicted."
        yield GaugeMetricFamily("parfocal_waiting_images", waiting, self._engine.n_waiting)
        yield GaugeMetricFamily("parfocal_buffered_bytes", "Bytes of uploads in memory.", self._uploads.buffered_bytes)
