"""What the service says about itself: metrics, stage times, the log."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""Id of the request that this task or thread works on."""

_BATCH_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
_STAGE_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """The Prometheus metrics of one app, in a registry of its own so that two apps in a process don't meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("pix2dslr_requests", "Answered requests.", ["route", "status"], registry=self.registry)
        self.in_flight = Gauge("pix2dslr_requests_in_flight", "Requests being answered.", registry=self.registry)
        self.live_frames = Counter(
            "pix2dslr_live_frames",
            "Pictures that came over WS /live, by what became of them.",
            ["end"],
            registry=self.registry,
        )
        device, registry = ["device"], self.registry
        self._tiles = Counter("pix2dslr_tiles", "Enhanced tiles.", device, registry=registry)
        self._failed_batches = Counter(
            "pix2dslr_failed_batches",
            "Batches that the device failed on; most are run again.",
            device,
            registry=registry,
        )
        self._batch_tiles = Histogram(
            "pix2dslr_batch_tiles",
            "Tiles in a batch.",
            device,
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        )
        self._batch_seconds = Histogram(
            "pix2dslr_batch_seconds",
            "Seconds that a batch took on the device.",
            device,
            registry=registry,
            buckets=_BATCH_BUCKETS,
        )
        self._device_up = Gauge(
            "pix2dslr_device_up", "1 while the device works, 0 once it is given up.", device, registry=registry
        )
        self._device_lanes = Gauge(
            "pix2dslr_device_lanes", "Batches that the device runs at a time.", device, registry=registry
        )
        self.waiting = Gauge(
            "pix2dslr_queue_tiles", "Admitted tiles that are not yet enhanced.", registry=self.registry
        )
        self.body_bytes = Gauge(
            "pix2dslr_body_bytes", "Bytes of request bodies that are in memory.", registry=self.registry
        )
        self.decode_workers_ended = Counter(
            "pix2dslr_decode_workers_ended",
            "Decode workers that were replaced: they died, or took too long for a file.",
            ["reason"],
            registry=self.registry,
        )
        self.stages = Histogram(
            "pix2dslr_stage_seconds",
            "Seconds of a picture's stages.",
            ["stage"],
            registry=self.registry,
            buckets=_STAGE_BUCKETS,
        )
        self.generator = Gauge(
            "pix2dslr_generator_info",
            "Always 1; the labels say what is loaded.",
            ["camera", "architecture", "device", "provider"],
            registry=self.registry,
        )

    def device(self, name: str, lanes: int) -> "DeviceMetrics":
        """Return the metrics of a device, by its name, that runs so many batches at a time."""
        self._device_lanes.labels(name).set(lanes)
        return DeviceMetrics(
            self._tiles.labels(name),
            self._failed_batches.labels(name),
            self._batch_tiles.labels(name),
            self._batch_seconds.labels(name),
            self._device_up.labels(name),
        )

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)


@dataclass(frozen=True)
class DeviceMetrics:
    """One device's metrics.

    Attributes:
        tiles: counts those that are enhanced.
        failed: counts batches that it failed on.
        batch_tiles, batch_seconds: of its batches.
        up: whether it works.
    """

    tiles: Counter
    failed: Counter
    batch_tiles: Histogram
    batch_seconds: Histogram
    up: Gauge

    def batch_done(self, tiles: int, seconds: float) -> None:
        """Count a batch of so many tiles that took so many seconds."""
        self.tiles.inc(tiles)
        self.batch_tiles.observe(tiles)
        self.batch_seconds.observe(seconds)


class Stopwatch:
    """Seconds that one picture spent in each stage."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block as a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds that were measured elsewhere."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds by stage, in the order of their first use, and their `total` since the start."""
        return {**self._seconds, "total": time.perf_counter() - self._start}

    def server_timing(self) -> str:
        """Return the `Server-Timing` header's value, durations in milliseconds (W3C Server Timing)."""
        return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in self.seconds.items())

    def observe(self, metrics: Metrics) -> None:
        """Add each stage to the metrics."""
        for name, seconds in self.seconds.items():
            metrics.stages.labels(name).observe(seconds)


class _WithRequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


def set_up_log(level: str) -> None:
    """Write the log to standard error, a line an event, with the request's id.

    Args:
        level: of the service's own lines. Libraries tell no more than warnings: in detail they would write file names,
            headers and pieces of pictures.
    """
    handler = logging.StreamHandler()
    handler.addFilter(_WithRequestId())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s"))
    logging.basicConfig(level="WARNING", handlers=[handler], force=True)
    logging.getLogger("service").setLevel(level)
    logging.getLogger().setLevel(max(logging.WARNING, logging.getLevelName(level)))
