"""Several pictures under way at once, so that the device never waits for one to be read, decoded or written."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Final, TypeVar

from service.caller import Caller
from service.commands.interruption import Interruption
from service.generator import cpu_threads

Item = TypeVar("Item")
Result = TypeVar("Result")

_LOOK_EVERY_S: Final = 0.1
_MOST: Final = 16
"""More pictures under way hold memory and gain nothing, even on a fast GPU."""


def default_jobs() -> int:
    """Return how many pictures should be under way: one more than the CPUs, so that a lane always finds tiles."""
    return min(cpu_threads() + 1, _MOST)


def in_parallel(
    work: Callable[[Item, Caller], Result],
    items: Iterable[Item | None],
    jobs: int,
    interruption: Interruption,
) -> Iterator[tuple[Item, Future[Result]]]:
    """Do work on items in threads and yield each with its finished future, in the order of finishing.

    An interruption begins nothing more, cancels what waits for the device, and ends once the threads are done.

    Args:
        work: called with an item and for whom it is.
        items: taken one at a time, as there is room; None stands for "none now", after a short wait.
        jobs: how many at once.
        interruption: is looked at ten times a second.
    """
    source, open_ = iter(items), True
    running: dict[Future[Result], tuple[Item, Caller]] = {}
    with ThreadPoolExecutor(jobs, thread_name_prefix="picture") as pool:
        while True:
            while open_ and interruption.received is None and len(running) < jobs:
                try:
                    item = next(source)
                except StopIteration:
                    open_ = False
                    break
                if item is None:
                    break
                its = Caller()
                running[pool.submit(work, item, its)] = item, its
            if interruption.received is not None:
                open_ = False
                for _, its in running.values():
                    its.cancellation.cancel()
            if not running and not open_:
                return
            for future in wait(running, _LOOK_EVERY_S, FIRST_COMPLETED).done:
                yield running.pop(future)[0], future
