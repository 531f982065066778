"""What one app holds: its parts, and whether it is ready."""

import asyncio
import gc
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, get_args

from starlette.requests import HTTPConnection

from service.catalogue import Catalogue, Stopped
from service.codec import PictureLimits
from service.decoding.pool import DecodePool, Ending, NoDecodeWorker, decode_workers
from service.enhancer import Enhancer
from service.generator import DeviceUnavailable
from service.memory import resident_bytes
from service.metrics import Metrics
from service.model_files import ModelUnusable
from service.pipeline import Decoder, InProcess, Pipeline
from service.scheduler import DeviceFailed, Scheduler, Trouble
from service.sessions import GpuOptions
from service.settings import Settings
from service.tracing import Tracing
from service.warmup import LARGEST_ON_GPU, find_batch_sizes, lanes_for, warm_up

log = logging.getLogger(__name__)

_LEAVE_WITHIN_S: Final = 1.0
"""Seconds that loading gets to notice that nobody needs it any more."""

_TROUBLE: Final[Mapping[Trouble, str]] = {
    "ended": "without an inference thread",
    "failed": "without a working device",
    "hangs": "waiting for a device that does not answer",
}


@dataclass
class State:
    """The parts of one app; `start` makes those that take time.

    Attributes:
        settings, metrics: there from the beginning.
        loaded: the generators, None until `start` is done.
        draining: set on SIGTERM; what runs is finished, nothing new is begun.
        drain_began: set soon after `draining`, for those who wait for it in the event loop.
        failure: why `start` failed, in one line.
        running: how many requests are being answered, and connections of WS /live are open.
        live: how many of those are connections of WS /live.
        tracing: exports spans where it is asked for.
    """

    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    draining: bool = False
    drain_began: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str | None = None
    running: int = 0
    live: int = 0
    tracing: Tracing | None = None
    loaded: Catalogue | None = None
    _decoding: DecodePool | None = None
    _scheduler: Scheduler | None = None
    _pipeline: Pipeline | None = None
    _starter: threading.Thread | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        metrics = self.metrics
        metrics.in_flight.set_function(lambda: self.running)
        metrics.live_connections.set_function(lambda: self.live)
        metrics.ready.set_function(lambda: not self.not_ready)
        metrics.draining.set_function(lambda: self.draining)
        metrics.body_limit.set(self.settings.max_buffered_bytes)
        metrics.queue_limit.set(self.settings.max_queued_tiles)

    def start(self) -> None:
        """Load and warm the generators and start the lanes; a failure is kept as `failure`."""
        try:
            self._start()
        except Stopped:
            log.info("stopped while loading")
        except (ModelUnusable, DeviceUnavailable, DeviceFailed) as error:
            self.failure = str(error)
        except NoDecodeWorker:
            self.failure = None if self._stopping.is_set() else "no decode worker can be started"
        except Exception as error:  # a bug, whatever it is; without a word the process would load forever
            log.exception("unexpected")
            self.failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if self.failure is not None:
            log.error("can't start: %s", self.failure)

    def _start(self) -> None:
        settings = self.settings
        decoder = self._start_decoding()
        largest = max(settings.batch_sizes or (LARGEST_ON_GPU,))
        gpu = GpuOptions(graphs=settings.cuda_graphs, tensorrt_cache=settings.tensorrt_cache, largest_batch=largest)
        # one thread a session: each lane brings its own
        catalogue = Catalogue(
            settings.models,
            settings.camera,
            settings.device,
            1,
            gpu,
            settings.verify_models,
            self._stopping.is_set,
            settings.devices,
        )
        default, devices = catalogue[catalogue.default], catalogue.devices
        graphs = settings.cuda_graphs and default.device == "cuda"
        lanes = 1 if graphs else lanes_for(default, settings.threads, len(devices))
        sizes = self._warm_up(catalogue, lanes)
        log.info("%d batches at a time, of up to %d tiles", lanes * len(devices), sizes[-1])
        if self._decoding is not None:
            self._decoding.wait_until_ready()
        metrics = [self.metrics.device(name, lanes) for name in devices]
        scheduler = Scheduler(
            [catalogue.on(number) for number in range(len(devices))],
            sizes,
            settings.max_queued_tiles,
            lambda batch: metrics[batch.device].batch_done(batch.tiles, batch.seconds),
            lanes,
            lambda number, _: metrics[number].failed.inc(),
            settings.batch_timeout_s,
        )
        if self._stopping.is_set():
            scheduler.close()
            raise Stopped
        self._scheduler = scheduler
        self.metrics.waiting.set_function(lambda: scheduler.waiting)
        self.metrics.drain.set_function(lambda: scheduler.drain_s)
        for number, name in enumerate(devices):
            metrics[number].up.set_function(partial(_working, scheduler, number))
            for camera in catalogue.cameras:
                generator = catalogue.on(number)(camera)
                labels = (camera, generator.spec.architecture, name, generator.provider)
                self.metrics.generator.labels(*labels, generator.spec.weights_sha256).set(1)
                log.info("%s: %s on %s (%s)", *labels)
        limits = PictureLimits(settings.max_pixels, settings.max_frames, settings.max_scans)
        self._pipeline = Pipeline(decoder, catalogue, Enhancer(scheduler), limits, settings.request_timeout_s)
        self.loaded = catalogue
        log.info("ready")

    def _start_decoding(self) -> Decoder:
        """Begin to start the decode workers; they are ready about when the generators are."""
        count = self.settings.decode_workers
        if count is None:
            count = decode_workers() if DecodePool.possible() else 0
        if count == 0:
            log.info("files are decoded in this process")
            return InProcess()
        settings, ends = self.settings, self.metrics.decode_workers_ended
        for ending in get_args(Ending):
            ends.labels(ending)  # shown at 0: what rises from nothing is no rise for Prometheus
        self._decoding = DecodePool(
            count, settings.decode_timeout_s, settings.request_timeout_s, lambda ending: ends.labels(ending).inc()
        )
        pool = self._decoding
        self.metrics.decode_workers.set_function(lambda: len(pool.processes))
        self.metrics.decode_workers_memory.set_function(lambda: resident_bytes(pool.processes))
        return pool

    def _warm_up(self, catalogue: Catalogue, lanes: int) -> Sequence[int]:
        """Run a first batch of each generator in each size, and return the sizes."""
        try:
            sizes = self.settings.batch_sizes or find_batch_sizes(catalogue[catalogue.default], lanes)
            for camera in catalogue.cameras:
                if not self._stopping.is_set():
                    warm_up([catalogue.on(number)(camera) for number in range(len(catalogue.devices))], sizes, lanes)
        except Exception as error:  # ONNX Runtime raises types of its own C++ layer
            raise DeviceFailed(f"the device fails on a first batch: {' '.join(str(error).split())}") from error
        if self._stopping.is_set():
            raise Stopped
        return sizes

    def start_in_thread(self) -> None:
        """As `start`, in a thread that keeps no process from ending: loading can take minutes."""

        def start_and_stay() -> None:
            self.start()
            # what is there now stays: a full collection took 42 ms over it, in which nobody is answered
            gc.collect()
            gc.freeze()

        self._starter = threading.Thread(target=start_and_stay, name="start", daemon=True)
        self._starter.start()

    def stop(self) -> None:
        """Stop loading, the lanes and the decode workers; whoever still waits gets an error.

        What hangs is not waited for.
        """
        self._stopping.set()
        if self.loaded is None and self._decoding is not None:
            self._decoding.close()  # loading waits for them
        if self._starter is not None:
            self._starter.join(_LEAVE_WITHIN_S)
        if self._scheduler is not None:
            self._scheduler.close()
        if self._decoding is not None:
            self._decoding.close()

    @property
    def devices(self) -> Mapping[str, bool]:
        """Of each device whether it works, by name; empty before the service is ready."""
        if self.loaded is None or self._scheduler is None:
            return {}
        return dict(zip(self.loaded.devices, self._scheduler.working, strict=True))

    @property
    def stuck(self) -> bool:
        """Whether a thread is left, after `stop`, that loads or waits for a device."""
        starting = self._starter is not None and self._starter.is_alive()
        return starting or (self._scheduler is not None and self._scheduler.trouble == "hangs")

    @property
    def catalogue(self) -> Catalogue:
        """The generators; asked for only once the service is ready."""
        assert self.loaded is not None
        return self.loaded

    @property
    def pipeline(self) -> Pipeline:
        """What enhances files; asked for only once the service is ready."""
        assert self._pipeline is not None
        return self._pipeline

    @property
    def alive(self) -> bool:
        """Whether every lane runs and the device works, as far as is known, or have yet to be started."""
        return self._scheduler is None or self._scheduler.alive

    @property
    def not_ready(self) -> list[str]:
        """Why no work is taken now; empty when it is."""
        reasons = []
        if self.failure is not None:
            reasons.append("without a usable generator or device")
        elif self.loaded is None:
            reasons.append("loading")
        elif self._scheduler is not None and (trouble := self._scheduler.trouble) is not None:
            reasons.append(_TROUBLE[trouble])
        elif self._decoding is not None and not self._decoding.works:
            reasons.append("without a process that decodes pictures")
        if self.draining:
            reasons.append("shutting down")
        return reasons


def _working(scheduler: Scheduler, device: int) -> bool:
    return scheduler.working[device]


def state_of(connection: HTTPConnection) -> State:
    """Return the state of the app that a request came to."""
    state: State = connection.app.state.parts
    return state
