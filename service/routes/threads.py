"""Runs a request's blocking work in threads: first what decides on it, then what takes long, until the client hangs up.

What decides, the header and the place in the queue, never waits for pictures that are under way: a full queue is told
at once, and not when a thread is free.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.to_thread
from starlette.types import Receive

from service.caller import Caller, Cancellation, Cancelled
from service.edge.rooms import Rooms
from service.pipeline import Ticket
from service.problems import EXPECTED, without_frames

Result = TypeVar("Result")

_SMALL: Final = 64
"""Tiles of a small picture, up to 0.8 megapixels. Its thread needs little memory, and none that larger ones have."""


class Threads:
    """How many threads work at a time; those of an app."""

    def __init__(self, workers: int, rooms: Rooms) -> None:
        """Set the limits.

        Args:
            workers: pictures that are decoded, blended or encoded at a time; as many small ones besides, and as many
                that wait for no tiles.
            rooms: a picture that is admitted waits for memory there.
        """
        self._rooms = rooms
        self._workers = workers
        self._deciding = anyio.CapacityLimiter(workers)
        self._small = anyio.CapacityLimiter(workers)
        self._large = anyio.CapacityLimiter(workers)
        self._without_tiles = anyio.CapacityLimiter(workers)

    async def enhance(
        self, caller: Caller, admit: Callable[[], Ticket | Result], work: Callable[[Ticket], Result]
    ) -> Result:
        """Enhance a picture in two steps, and give its place back whatever happens.

        Args:
            caller: for whom.
            admit: reads what decides and gives the picture its place, or has the answer already.
            work: does the rest.

        Raises:
            QueueFull: as many pictures wait for a thread already as work in one. More would hold their files for
                minutes, and be late in spite of their place: it is given for tiles, which are served in fair turns.
                One without tiles waits for others without, which take little time.
            Exception: whatever either raises.
        """
        admitted = await anyio.to_thread.run_sync(_let_go, admit, limiter=self._deciding)
        if not isinstance(admitted, Ticket):
            return admitted
        with admitted.job as job:
            async with self._rooms.picture(caller.client, admitted.memory, job.check):
                return await self._enhance(admitted, work)

    async def _enhance(self, admitted: Ticket, work: Callable[[Ticket], Result]) -> Result:
        job = admitted.job
        if not job.tiles:
            return await anyio.to_thread.run_sync(_let_go, partial(work, admitted), limiter=self._without_tiles)
        limiter = self._small if job.tiles <= _SMALL else self._large
        if limiter.statistics().tasks_waiting >= self._workers:
            raise job.turned_away()
        return await anyio.to_thread.run_sync(_let_go, partial(work, admitted), limiter=limiter)


def _let_go(work: Callable[[], Result]) -> Result:
    """Do work; an error that is expected holds nothing of it."""
    try:
        return work()
    except EXPECTED as error:
        raise without_frames(error) from None


async def until_hung_up(receive: Receive, work: Callable[[], Awaitable[Result]], cancellation: Cancellation) -> Result:
    """Await work until it is done, or until the client hangs up, which cancels it.

    Raises:
        Cancelled: the client hung up.
        Exception: whatever the work raises.
    """
    error: Exception | None = None
    result: list[Result] = []

    async def watch_client() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        cancellation.cancel()
        group.cancel_scope.cancel()  # it may still wait for a thread

    # the group would wrap what the work raises, so it is carried out by hand
    async with anyio.create_task_group() as group:
        group.start_soon(watch_client)
        try:
            result.append(await work())
        except Exception as raised:  # noqa: BLE001
            error = raised
        group.cancel_scope.cancel()
    try:
        if error is not None:
            raise without_frames(error)
        if not result:
            raise Cancelled
        return result[0]
    finally:
        error = None  # it holds this frame, and the file that came with it: no circle is left for the collector
