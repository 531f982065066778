"""The Prometheus metrics: their names, units and labels, and how they are written."""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from service.telemetry import Stopwatch
from service.versions import onnxruntime_version, package_version

# a second series for each counter and histogram, which says when the process began to count it
disable_created_metrics()  # type: ignore[no-untyped-call]

_REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_BATCH_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
_STAGE_BUCKETS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """The metrics of one app, in a registry of its own so that two apps in a process don't meet.

    Every label has few values: routes and not paths, problems and not their words.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter("requests", "Answered requests.", "route", "status")
        self._seconds = self._histogram(
            "request_seconds",
            "Seconds from a request's head to the last byte of its answer; WebSockets are left out.",
            _REQUEST_BUCKETS,
            "route",
        )
        self.in_flight = self._gauge("requests_in_flight", "Requests being answered.")
        self._rejections = self._counter(
            "rejections",
            "Problems that were answered, by the last part of their type; also for pictures of a zip, frames of "
            "WS /live, and what was refused before there was a request.",
            "reason",
        )
        self.live_connections = self._gauge("live_connections", "Open connections of WS /live.")
        self.live_frames = self._counter(
            "live_frames", "Pictures that came over WS /live, by what became of them.", "end"
        )
        self.body_bytes = self._gauge(
            "body_bytes", "Bytes that are held for requests: bodies, files of zips once unzipped, answers."
        )
        self.body_limit = self._gauge("body_limit_bytes", "Bytes of request bodies that may be in memory.")
        self.picture_bytes = self._gauge(
            "picture_bytes", "Bytes that pictures under way are counted with, and answers that are not read yet."
        )
        self.picture_limit = self._gauge(
            "picture_limit_bytes", "Bytes that pictures under way and answers may take; others wait."
        )
        self.waiting_for_room = self._gauge("waiting_for_room", "Pictures and files of zips that wait for memory.")
        self.waiting = self._gauge("queue_tiles", "Admitted tiles that are not yet enhanced.")
        self.queue_limit = self._gauge("queue_limit_tiles", "Tiles that may be admitted at once.")
        self.drain = self._gauge("queue_drain_seconds", "Seconds that what waits will take, by what batches took.")
        self._tiles = self._counter("tiles", "Enhanced tiles.", "device")
        self._failed_batches = self._counter(
            "failed_batches", "Batches that the device failed on; most are run again.", "device"
        )
        self._batch_tiles = self._histogram("batch_tiles", "Tiles in a batch.", (1, 2, 4, 8, 16, 32, 64, 128), "device")
        self._batch_seconds = self._histogram(
            "batch_seconds", "Seconds that a batch took on the device.", _BATCH_BUCKETS, "device"
        )
        self._device_up = self._gauge("device_up", "1 while the device works, 0 once it is given up.", "device")
        self._device_lanes = self._gauge("device_lanes", "Batches that the device runs at a time.", "device")
        self._stages = self._histogram("stage_seconds", "Seconds of a picture's stages.", _STAGE_BUCKETS, "stage")
        self._pixels = self._counter("pixels", "Pixels of enhanced pictures.")
        self.ready = self._gauge("ready", "1 while the service takes pictures, as /readyz says.")
        self.draining = self._gauge("draining", "1 after SIGTERM.")
        self.generator = self._gauge(
            "generator_info",
            "Always 1; the labels say what is loaded.",
            *("camera", "architecture", "device", "provider", "weights_sha256"),
        )
        build = self._gauge("build_info", "Always 1; the labels are versions.", "version", "python", "onnxruntime")
        build.labels(package_version(), platform.python_version(), onnxruntime_version()).set(1)
        self.decode_workers = self._gauge("decode_workers", "Decode workers that run.")
        self.decode_workers_memory = self._gauge(
            "decode_workers_resident_memory_bytes", "Resident memory of all decode workers together."
        )
        self.decode_workers_ended = self._counter(
            "decode_workers_ended",
            "Decode workers that were replaced: they died, took too long (timeout) or too much memory for a file, kept "
            "too much memory (grown), could not decode a known good file (unfit), were in the middle of a file whose "
            "client was gone (cancelled), or had had enough files (worn).",
            "reason",
        )
        # shown at 0: what rises from nothing is no rise for Prometheus
        for end in ("result", "problem", "dropped", "cancelled"):
            self.live_frames.labels(end)
        for stage in ("decode", "queue", "inference", "blend", "encode", "quality", "total"):
            self._stages.labels(stage)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"pix2dslr_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"pix2dslr_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"pix2dslr_{name}", text, labels, registry=self.registry, buckets=buckets)

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

    def request_done(self, route: str, status: int, seconds: float | None, trace: str | None = None) -> None:
        """Count an answered request.

        Args:
            route: its pattern, never the path that was asked for.
            status: what was answered.
            seconds: how long it took; None leaves it out.
            trace: id of its trace where that is recorded, for an exemplar.
        """
        self._requests.labels(route, status).inc()
        if seconds is not None:
            self._seconds.labels(route).observe(seconds, None if trace is None else {"trace_id": trace})

    def rejected(self, reason: str) -> None:
        """Count a problem that was answered, by the last part of its type."""
        self._rejections.labels(reason).inc()

    def expect_rejections(self, *reasons: str) -> None:
        """Show these at 0, too."""
        for reason in reasons:
            self._rejections.labels(reason)

    def picture_done(self, watch: Stopwatch) -> None:
        """Count an enhanced picture; its watch is stopped."""
        watch.stop()
        for name, seconds in watch.seconds.items():
            self._stages.labels(name).observe(seconds)
        self._pixels.inc(int(watch.facts.get("pixels", 0)))

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """Return everything, and its media type: OpenMetrics where an Accept header asks for it, else Prometheus'."""
        encode: Callable[[CollectorRegistry], bytes]
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type


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
