"""Runs a request's blocking work in threads: first what decides on it, then what takes long, until the client hangs up.

What decides, the header and the place in the queue, never waits for pictures that are under way: a full queue is told
at once, and not when a thread is free.
"""

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.to_thread
from starlette.types import Receive

from service.caller import Caller, Cancellation, Cancelled
from service.edge.clients import ClientLimits
from service.edge.rooms import Rooms
from service.pipeline import Ticket
from service.problems import EXPECTED, without_frames

Result = TypeVar("Result")

_SMALL: Final = 64
"""Tiles of a small picture, up to 0.8 megapixels. Its thread needs little memory, and none that larger ones have."""


class FairThreads:
    """Threads for blocking work: a client has no more of them than it leaves free, or one. For one event loop.

    Of those that wait, the client with the fewest is next.
    """

    def __init__(self, most: int) -> None:
        """Begin with `most` threads that are free."""
        self._free = most
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[anyio.Event]] = {}
        self._limiter = anyio.CapacityLimiter(most)

    def waiting(self, client: str) -> int:
        """How much work of a client waits for a thread."""
        return len(self._waiting.get(client, ()))

    async def run(self, client: str, work: Callable[[], Result]) -> Result:
        """Do a client's work once there is a thread for it; whoever is cancelled before that leaves the line."""
        turn = anyio.Event()
        self._waiting.setdefault(client, deque()).append(turn)
        self._assign()
        try:
            await turn.wait()
            return await anyio.to_thread.run_sync(_let_go, work, limiter=self._limiter)
        finally:
            if turn.is_set():
                self._give_back(client)
            else:
                self._leave_line(client, turn)
            self._assign()

    def _assign(self) -> None:
        """Give free threads to those that may have one."""
        while self._free:
            may = [each for each in self._waiting if not self._held[each] or self._held[each] + 1 < self._free]
            if not may:
                return
            client = min(may, key=self._held.__getitem__)
            turn = self._waiting[client][0]
            self._leave_line(client, turn)
            self._held[client] += 1
            self._free -= 1
            turn.set()

    def _leave_line(self, client: str, turn: anyio.Event) -> None:
        self._waiting[client].remove(turn)
        if not self._waiting[client]:
            del self._waiting[client]

    def _give_back(self, client: str) -> None:
        self._free += 1
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]


class Threads:
    """How many threads work at a time; those of an app."""

    def __init__(self, workers: int, limits: ClientLimits, rooms: Rooms) -> None:
        """Set the limits.

        Args:
            workers: pictures that are decoded, blended or encoded at a time; as many small ones besides, and as many
                that wait for no tiles.
            limits: of each client.
            rooms: a picture that is admitted waits for memory there.
        """
        self._rooms = rooms
        self._workers = workers
        self._limits = limits
        self._deciding = FairThreads(workers)
        self._small = FairThreads(workers)
        self._large = FairThreads(workers)
        self._without_tiles = FairThreads(workers)

    async def enhance(
        self, caller: Caller, admit: Callable[[], Ticket | Result], work: Callable[[Ticket], Result]
    ) -> Result:
        """Enhance a picture in two steps, and give its place back whatever happens.

        Args:
            caller: for whom.
            admit: reads what decides and gives the picture its place, or has the answer already.
            work: does the rest.

        Raises:
            QueueFull: as many pictures of the client wait for a thread already as work in one at most. More would hold
                their files for minutes, and be late in spite of their place: it is given for tiles, which are served
                in fair turns. One without tiles waits for others without, which take little time.
            RateLimited: the client had too many tiles for now.
            Exception: whatever either raises.
        """
        client = caller.client
        admitted = await self._deciding.run(client, admit)
        if not isinstance(admitted, Ticket):
            return admitted
        with admitted.job as job:
            self._limits.count_tiles(client, job.tiles)
            async with self._rooms.picture(client, admitted.memory, job.check):
                if not job.tiles:
                    return await self._without_tiles.run(client, partial(work, admitted))
                threads = self._small if job.tiles <= _SMALL else self._large
                if threads.waiting(client) >= self._workers:
                    raise job.turned_away()
                return await threads.run(client, partial(work, admitted))


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
