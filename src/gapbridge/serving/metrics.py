"""What Prometheus is told, in a registry of its own."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters, gauges and histograms of one service."""

    def __init__(self, batch_size: int) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        sizes = sorted({size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size < batch_size} | {batch_size})
        self.requests = self._counter("requests", "Requests by path and status.", ["path", "status"])
        self.seconds = self._histogram("request_seconds", "From a request's head to the end of its answer.", _SECONDS)
        self.in_flight = self._gauge("requests_in_flight", "Chats that are read, waiting or answered.")
        self.batch_rows = self._histogram("batch_requests", "Requests answered together.", sizes)
        self.batch_seconds = self._histogram("batch_seconds", "The model's time for a batch.", _SECONDS)
        self.tokens = self._counter("tokens", "Tokens read and written.", ["kind"])
        self.model = self._gauge("model_info", "1 for the version that is served.", ["name", "version", "digest"])
        self.switches = self._counter("model_switches", "Times that a promoted version took over.")
        self.refused_version = self._gauge(
            "refused_version", "The alias's version, where it was tried and could not take over; 0 otherwise."
        )
        self.alias_reached = self._gauge("alias_reached", "1 when the registry's last answer could be had.")
        self.lost_embeddings = self._gauge("lost_embeddings", "Vectors that --log-embeddings could not write.")

    @contextmanager
    def batch(self, rows: int) -> Iterator[None]:
        """Count a batch, before any of its answers can be there, and its time."""
        started = time.monotonic()
        self.batch_rows.observe(rows)
        yield
        self.batch_seconds.observe(time.monotonic() - started)

    def show_model(self, name: str, version: str, digest: str) -> None:
        """Say which version is served, and no other."""
        self.model.clear()
        self.model.labels(name, version, digest).set(1)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, purpose: str, labels: list[str] | None = None) -> Counter:
        return Counter(f"gapbridge_{name}", purpose, labels or [], registry=self._registry)

    def _gauge(self, name: str, purpose: str, labels: list[str] | None = None) -> Gauge:
        return Gauge(f"gapbridge_{name}", purpose, labels or [], registry=self._registry)

    def _histogram(self, name: str, purpose: str, buckets: tuple[float, ...] | list[int]) -> Histogram:
        return Histogram(f"gapbridge_{name}", purpose, buckets=buckets, registry=self._registry)
