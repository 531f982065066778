import asyncio
import logging
import time

import pytest

from service.watchdog import watched_steps


def busy(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


async def step(secret: str) -> None:
    assert secret
    busy(0.03)
    await asyncio.sleep(0)


async def outer() -> None:
    await step("what a client sent")


def test_a_step_that_takes_long_is_named_without_what_it_works_on(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        await outer()
        asyncio.get_running_loop().call_soon(busy, 0.03)
        await asyncio.sleep(0.01)

    with caplog.at_level(logging.WARNING), watched_steps(0.02):
        asyncio.run(main())
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("the event loop was busy for 3")
    assert first.endswith("main > outer > step > sleep")
    assert second.endswith(": busy")


def test_a_step_that_only_waits_is_not(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        time.sleep(0.05)  # noqa: ASYNC251  as where others have the processor, or Python's lock
        await asyncio.sleep(0.05)

    with watched_steps(0.02):
        asyncio.run(main())
    assert not caplog.records


def test_nothing_is_measured_where_it_is_off_and_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    run = asyncio.Handle._run
    with watched_steps(0):
        assert asyncio.Handle._run is run
        asyncio.run(outer())
    with watched_steps(0.02):
        assert asyncio.Handle._run is not run
    assert asyncio.Handle._run is run
    assert not caplog.records
