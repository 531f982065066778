"""Files and pictures are gone with their request: no circle keeps them until the garbage collector comes."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial

import anyio
import numpy as np
import pytest
from starlette.types import Message

from service.archive import File, Limits, read_zip
from service.caller import Caller, Cancellation, Cancelled
from service.codec import Format
from service.decoding.pool import DecodePool
from service.edge.clients import ClientLimits
from service.edge.rooms import Rooms
from service.picture import DecodingTooCostly, Header
from service.pipeline import Ticket
from service.problems import response_to
from service.routes.batch import EnhancedZip
from service.routes.threads import Threads, until_hung_up
from tests.e2e.conftest import png
from tests.e2e.test_edge_room import zipped

MB = 1 << 20
SIZE = 16 * MB


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    made = DecodePool(2, timeout_s=0.01)
    made.wait_until_ready()
    yield made
    made.close()


@pytest.fixture
def left() -> Iterator[Callable[[], float]]:
    """Gives the MB that were allocated since and are not freed, with nothing collected."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0] / MB
    finally:
        tracemalloc.stop()
        gc.enable()


def too_costly(file: File, pool: DecodePool, caller: Caller) -> Ticket:
    # whose header is not the file's own, so that it has 10 ms
    pool.decode(file.read(), Header("png", 1, 1), caller)
    raise AssertionError


def given_up(file: File, _: DecodePool, caller: Caller) -> Ticket:
    data = file.read()
    assert len(data) == SIZE
    while not caller.cancellation.cancelled:
        pass
    raise Cancelled


def files() -> list[File]:
    archive = zipped([png(np.zeros((4000, 4000, 3), np.uint8)).ljust(SIZE, b"\0")] * 3)
    return read_zip(archive, Limits(3, SIZE, 3 * SIZE))


Admit = Callable[[File, DecodePool, Caller], Ticket]


@pytest.mark.parametrize("admit", [too_costly, given_up])
def test_of_a_zip_nothing_is_left(admit: Admit, pool: DecodePool, left: Callable[[], float]) -> None:
    async def main() -> None:
        threads, hung_up = Threads(4, ClientLimits(), Rooms(1 << 30, 1 << 30, 1 << 30)), anyio.Event()

        async def receive() -> Message:
            if admit is given_up:
                await anyio.sleep(0.3)
                return {"type": "http.disconnect"}
            await hung_up.wait()
            raise AssertionError

        async def send(_: Message) -> None:
            pass

        async def enhance(file: File, cancellation: Cancellation) -> tuple[bytes, Format]:
            caller = Caller("a", cancellation)
            return await threads.enhance(caller, partial(admit, file, pool, caller), lambda _: (b"", "png"))

        with anyio.fail_after(30):
            await EnhancedZip(files(), enhance, 10)({"type": "http"}, receive, send)
        assert left() < 1

    anyio.run(main)


@pytest.mark.parametrize("admit", [too_costly, given_up])
def test_of_a_picture_nothing_is_left(admit: Admit, pool: DecodePool, left: Callable[[], float]) -> None:
    async def main() -> None:
        threads = Threads(4, ClientLimits(), Rooms(1 << 30, 1 << 30, 1 << 30))

        async def receive() -> Message:
            await anyio.sleep(0.3 if admit is given_up else 60)
            return {"type": "http.disconnect"}

        async def request() -> None:
            caller = Caller()
            (file, *_) = files()
            await until_hung_up(
                receive,
                lambda: threads.enhance(caller, partial(admit, file, pool, caller), lambda _: b""),
                caller.cancellation,
            )

        with anyio.fail_after(30):
            try:
                await request()
            except (DecodingTooCostly, Cancelled) as error:
                response_to(error)
        assert left() < 1

    anyio.run(main)
