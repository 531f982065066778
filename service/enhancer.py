"""The main job: Picture -> Picture."""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

from service.codec import Picture
from service.scheduler import Enhanced, Job, Scheduler
from service.tiling import Blender, Plan, context_of, cut_tile, plan


@dataclass(frozen=True)
class Enhancement:
    """What became of a picture.

    Attributes:
        picture: the enhanced picture, same size and depth as the source.
        layout: where its tiles lay.
        queue_s, inference_s, blend_s: seconds that its tiles waited (on average), that at least one of them was on
            the device, and that they were blended.
    """

    picture: Picture
    layout: Plan
    queue_s: float
    inference_s: float
    blend_s: float


class Enhancer:
    """Enhances pictures on a scheduler; one instance serves any number of threads."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def admit(self, height: int, width: int, camera: str, overlap: int, seconds: float) -> Job:
        """Give a picture of that size its place, before it is decoded.

        Args:
            height, width: pixels.
            camera: whose generator.
            overlap: of tiles, in pixels.
            seconds: how long it may take.

        Raises:
            QueueFull, Closed: as `Scheduler.admit`.
        """
        return self._scheduler.admit(plan(height, width, overlap).tiles, camera, seconds)

    def enhance(
        self,
        picture: Picture,
        job: Job,
        overlap: int = 32,
        strength: float = 1.0,
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> Enhancement:
        """Enhance a picture; blocks until it is done.

        Args:
            picture: uint8 or uint16 RGB; alpha passes through.
            job: its place, from `admit` with the same size and overlap.
            overlap: pixels that neighbouring tiles share at least.
            strength: 0 (the source as it is) to 1 (the generator's answer).
            progress: called with (tiles done, all tiles).

        Raises:
            Cancelled, DeadlineExceeded, InferenceFailed, Closed: as `Job.wait`.
        """
        height, width = picture.pixels.shape[:2]
        layout = plan(height, width, overlap)
        job.set_context(context_of(picture.pixels))
        blender = Blender(picture.pixels, layout, strength)
        in_row = len(layout.columns.starts)
        # so that the device never waits for the blending
        ahead = max(1, -(-self._scheduler.tiles_ahead // in_row))
        under_way: deque[Future[list[Enhanced]]] = deque()
        blend_s, done = 0.0, 0

        def blend_next() -> None:
            nonlocal blend_s, done
            enhanced = job.wait(under_way.popleft())
            start = time.perf_counter()
            blender.add_row(enhanced)
            blend_s += time.perf_counter() - start
            done += in_row
            progress(done, layout.tiles)

        for row in range(len(layout.rows.starts)):
            under_way.append(job.submit(in_row, partial(cut_tile, picture.pixels, layout, row)))
            if len(under_way) > ahead:
                blend_next()
        while under_way:
            blend_next()
        enhanced = replace(picture, pixels=blender.output)
        return Enhancement(enhanced, layout, job.queue_s, job.inference_s, blend_s)
