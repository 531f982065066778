"""The main job: Picture -> Picture."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from service.codec import Picture, Pixels
from service.scheduler import Enhanced, Job, Scheduler
from service.spec import TILE
from service.telemetry import Stage, Stopwatch
from service.tiling import Blender, Plan, cut_tile, plan
from service.view import View


@dataclass(frozen=True)
class Enhancement:
    """What became of a picture.

    Attributes:
        picture: the enhanced picture, same size and depth as the source.
        layout: where its tiles lie.
        tiles: how many of them were enhanced: all, or at strength 0 none.
    """

    picture: Picture
    layout: Plan
    tiles: int


class Enhancer:
    """Enhances pictures on a scheduler; one instance serves any number of threads."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def admit(
        self,
        height: int,
        width: int,
        camera: str,
        overlap: int,
        seconds: float,
        strength: float = 1.0,
        client: str = "",
    ) -> Job:
        """Give a picture of that size its place, before it is decoded.

        Args:
            height, width: pixels.
            camera: whose generator.
            overlap: of tiles, in pixels.
            seconds: how long it may take.
            strength: as `enhance` will get it; at 0 the picture needs no room in the queue.
            client: whose it is, as `Caller.client`.

        Raises:
            QueueFull, Closed: as `Scheduler.admit`.
        """
        tiles = plan(height, width, overlap).tiles if strength else 0
        return self._scheduler.admit(tiles, camera, seconds, client)

    def enhance(
        self,
        picture: Picture,
        job: Job,
        overlap: int = 32,
        strength: float = 1.0,
        progress: Callable[[int, int], None] = lambda *_: None,
        watch: Stopwatch | None = None,
    ) -> Enhancement:
        """Enhance a picture; blocks until it is done.

        Args:
            picture: uint8 or uint16 RGB in any space; alpha passes through, and what is clear is left as it is.
            job: its place, from `admit` with the same size, overlap and strength.
            overlap: pixels that neighbouring tiles share at least.
            strength: 0 (the source as it is, no tile is computed) to 1 (the generator's answer).
            progress: called with (tiles done, all tiles).
            watch: gets the stages `queue`, `inference` and `blend`, as far as they came where it fails.

        Raises:
            Cancelled, DeadlineExceeded, InferenceFailed, Closed: as `Job.wait`.
        """
        blending = Stopwatch()
        try:
            return self._enhance(picture, job, overlap, strength, progress, blending)
        finally:
            if watch is not None:
                for name, stage in {**_stages_of(job), **blending.stages}.items():
                    watch.add(name, stage)

    def _enhance(
        self,
        picture: Picture,
        job: Job,
        overlap: int,
        strength: float,
        progress: Callable[[int, int], None],
        watch: Stopwatch,
    ) -> Enhancement:
        height, width = picture.pixels.shape[:2]
        layout = plan(height, width, overlap)
        if not strength:
            return Enhancement(picture, layout, 0)
        view = View(picture)
        job.set_context(view.context())
        blender = Blender(picture.pixels, layout, strength, None if view.plain else view.merge)
        under_way: deque[tuple[int, Future[list[Enhanced]]]] = deque()
        submitted = done = 0

        def blend_next() -> None:
            nonlocal done
            count, future = under_way.popleft()
            enhanced = job.wait(future)
            with watch.stage("blend"):
                blender.add(enhanced)
            done += count
            progress(done, layout.tiles)

        top, strip = 0, picture.pixels
        for row, first, count in _pieces(layout, self._scheduler.largest_batch):
            # so far ahead that no lane waits for the blending, and no further: answers take 200 kB a tile
            while submitted + count - done > max(self._scheduler.tiles_ahead, count):
                blend_next()
            if first == 0:
                top = max(layout.rows.starts[row], 0)
                strip = view.rows(top, layout.rows.starts[row] + TILE)
            under_way.append((count, job.submit(count, partial(_cut, strip, layout, row, first, top))))
            submitted += count
        while under_way:
            blend_next()
        return Enhancement(replace(picture, pixels=blender.output), layout, layout.tiles)


def _stages_of(job: Job) -> Mapping[str, Stage]:
    """What a job says of the queue and of the device, as far as it came to either."""
    submitted, begun = job.queue_span
    if not submitted:
        return {}
    if not job.inference_span[0]:  # not one of its tiles had its turn
        now = time.monotonic()
        return {"queue": Stage(now - submitted, submitted, now)}
    return {"queue": Stage(job.queue_s, submitted, begun), "inference": Stage(job.inference_s, *job.inference_span)}


def _pieces(layout: Plan, largest: int) -> Iterator[tuple[int, int, int]]:
    """Split the rows of tiles: row, first column and count of up to `largest` tiles, in the order of blending."""
    in_row = len(layout.columns.starts)
    for row in range(len(layout.rows.starts)):
        for first in range(0, in_row, largest):
            yield row, first, min(largest, in_row - first)


def _cut(strip: Pixels, layout: Plan, row: int, first: int, top: int, i: int, out: npt.NDArray[np.uint8]) -> None:
    cut_tile(strip, layout, row, first + i, out, top)
