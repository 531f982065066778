"""Names steps of the event loop that keep everybody else waiting; for tests and trials, not for a service at work."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)


@contextmanager
def watched_steps(most_s: float) -> Iterator[None]:
    """Write a warning for each step of any event loop that takes more processor time; 0 looks at none.

    A step is what the loop runs in one go: a callback, or a task until it waits again. Its thread's processor time is
    what counts: on a machine where others work too, the time on the clock would name steps that only had to wait. So it
    does not see what other threads do while they keep the interpreter's lock. asyncio's own debug mode has the clock
    alone, makes everything several times as slow, and writes arguments of callbacks into the log.

    Args:
        most_s: seconds of processor time that a step may take.
    """
    if not most_s:
        yield
        return
    run = asyncio.Handle._run  # asyncio has no other place for it

    def timed(handle: asyncio.Handle) -> None:
        callback: Callable[..., object] | None = handle._callback  # type: ignore[attr-defined]
        start = time.thread_time()
        run(handle)
        took = time.thread_time() - start
        if took > most_s:
            log.warning("the event loop was busy for %.0f ms: %s", took * 1e3, _name(callback))

    asyncio.Handle._run = timed  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]


def _name(callback: Callable[..., object] | None) -> str:
    """Say what ran, in names of the code: those of functions, and where a task waits now."""
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return getattr(callback, "__qualname__", type(callback).__name__)
    waits: Any = task.get_coro()
    names = []
    while hasattr(waits, "cr_await"):
        names.append(waits.__qualname__)
        waits = waits.cr_await
    return " > ".join(names)
