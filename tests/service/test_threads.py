import threading
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import anyio.to_thread
import pytest

from service.routes.threads import FairThreads


class Work:
    """Work that stays in its thread until it is let go."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self._changed = threading.Condition()
        self._go = threading.Semaphore(0)

    def of(self, client: str) -> str:
        with self._changed:
            self.began.append(client)
            self._changed.notify_all()
        assert self._go.acquire(timeout=30)
        return client

    def let_go(self, count: int = 1) -> None:
        self._go.release(count)

    async def wait_for(self, count: int) -> None:
        def wait() -> None:
            with self._changed:
                assert self._changed.wait_for(lambda: len(self.began) >= count, 30)

        await anyio.to_thread.run_sync(wait)
        await anyio.wait_all_tasks_blocked()


def in_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        with anyio.fail_after(30):
            await test()

    anyio.run(main)


def test_one_client_leaves_as_many_threads_as_it_has() -> None:
    async def test() -> None:
        threads, work = FairThreads(8), Work()
        async with anyio.create_task_group() as group:
            for _ in range(24):
                group.start_soon(threads.run, "many", partial(work.of, "many"))
            await work.wait_for(4)
            assert threads.waiting("many") == 20
            for client in ("a", "b"):
                group.start_soon(threads.run, client, partial(work.of, client))
            await work.wait_for(6)
            assert sorted(work.began[4:]) == ["a", "b"]  # threads of their own begin in any order
            work.let_go(26)

    in_loop(test)


def test_who_has_fewest_is_next() -> None:
    async def test() -> None:
        threads, work = FairThreads(1), Work()
        async with anyio.create_task_group() as group:
            for client in ("a", "a", "a", "b", "c"):
                group.start_soon(threads.run, client, partial(work.of, client))
                await anyio.wait_all_tasks_blocked()
            for count in range(1, 6):
                await work.wait_for(count)
                work.let_go()
        assert sorted(work.began) == ["a", "a", "a", "b", "c"]
        assert threads.waiting("a") == 0

    in_loop(test)


def test_who_is_cancelled_leaves_the_line_and_takes_no_thread_along() -> None:
    async def test() -> None:
        threads, work = FairThreads(1), Work()
        async with anyio.create_task_group() as group:
            group.start_soon(threads.run, "a", partial(work.of, "a"))
            await work.wait_for(1)
            async with anyio.create_task_group() as impatient:
                impatient.start_soon(threads.run, "b", partial(work.of, "b"))
                await anyio.wait_all_tasks_blocked()
                assert threads.waiting("b") == 1
                impatient.cancel_scope.cancel()
            assert threads.waiting("b") == 0
            with anyio.CancelScope() as scope:
                scope.cancel()
                await threads.run("c", partial(work.of, "c"))
            work.let_go(2)
            assert await threads.run("d", partial(work.of, "d")) == "d"
        assert work.began == ["a", "d"]

    in_loop(test)


def test_what_fails_gives_its_thread_back() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    async def test() -> None:
        threads = FairThreads(1)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await threads.run("a", fail)
        assert await threads.run("a", lambda: 7) == 7

    in_loop(test)
