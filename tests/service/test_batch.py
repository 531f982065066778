"""The zip that answers several pictures, as the ASGI application that it is."""

import io
import logging
import threading
import zipfile
from collections.abc import Callable
from functools import partial

import anyio
import anyio.to_thread
import pytest
from starlette.types import Message

from service.archive import File, Names, UnusableEntry, ZipWriter
from service.caller import Cancellation
from service.codec import Format
from service.routes.batch import UNDER_WAY, EnhancedZip
from service.scheduler import QueueFull
from service.schemas import BatchErrors


def named(count: int) -> list[File]:
    return [File(f"{i}.png", partial(bytes, [i])) for i in range(count)]


Work = Callable[[bytes, Cancellation], tuple[bytes, Format]]


def answer(files: list[File], work: Work, send: Callable[[Message], None], patience_s: float = 10) -> None:
    """Run the answer to its end, for a client that reads until `send` raises."""

    async def main() -> None:
        async def receive() -> Message:
            await anyio.sleep_forever()
            raise AssertionError

        async def send_async(message: Message) -> None:
            send(message)

        async def enhance(file: File, cancellation: Cancellation) -> tuple[bytes, Format]:
            return await anyio.to_thread.run_sync(work, file.read(), cancellation)

        with anyio.fail_after(30):
            await EnhancedZip(files, enhance, patience_s)({"type": "http"}, receive, send_async)

    anyio.run(main)


def unzipped(messages: list[Message]) -> tuple[set[str], BatchErrors]:
    assert messages[0]["status"] == 200
    body = b"".join(message["body"] for message in messages[1:])
    assert [message["more_body"] for message in messages[1:]] == [True] * (len(messages) - 2) + [False]
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        names = set(archive.namelist()) - {"errors.json"}
        return names, BatchErrors.model_validate_json(archive.read("errors.json"))


def test_no_more_than_a_few_are_under_way() -> None:
    lock, now, most = threading.Lock(), 0, 0
    together = threading.Barrier(UNDER_WAY)

    def work(data: bytes, _: Cancellation) -> tuple[bytes, Format]:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait(20)  # all of them at a time, or it breaks
        with lock:
            now -= 1
        return data, "png"

    messages: list[Message] = []
    answer(named(5 * UNDER_WAY), work, messages.append)
    names, errors = unzipped(messages)
    assert len(names) == 5 * UNDER_WAY
    assert errors.errors == []
    assert most == UNDER_WAY


def test_a_server_that_tells_by_an_exception_that_the_client_hung_up() -> None:
    begun: list[bytes] = []
    cancelled: list[Cancellation] = []
    sent = 0

    def work(data: bytes, cancellation: Cancellation) -> tuple[bytes, Format]:
        begun.append(data)
        cancelled.append(cancellation)
        return data, "png"

    def send(_: Message) -> None:
        nonlocal sent
        sent += 1
        if sent > 3:
            raise OSError("connection lost")

    answer(named(100), work, send)
    assert len(begun) < 20
    assert all(each.cancelled for each in cancelled)


def test_what_nobody_foresaw_costs_one_picture_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def work(data: bytes, _: Cancellation) -> tuple[bytes, Format]:
        if data == b"\1":
            raise ZeroDivisionError("a secret of /etc/passwd")
        return data, "png"

    messages: list[Message] = []
    with caplog.at_level(logging.ERROR):
        answer(named(3), work, messages.append)
    names, told = unzipped(messages)
    assert names == {"0.png", "2.png"}
    (error,) = told.errors
    assert (error.index, error.name, error.status) == (1, "1.png", 500)
    assert "secret" not in error.model_dump_json()
    assert "secret" in caplog.text


def test_who_finds_no_room_for_long_enough_is_told() -> None:
    def work(*_: object) -> tuple[bytes, Format]:
        raise QueueFull(100, 10, 2)

    messages: list[Message] = []
    answer(named(1), work, messages.append, patience_s=1)
    names, told = unzipped(messages)
    assert not names
    assert told.errors[0].type == "urn:pix2dslr:problem:queue-full"


def test_names_are_planned_and_errors_listed_outside_of_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    where: set[int] = set()
    take, add = Names.take, ZipWriter.add

    def noted_take(names: Names, name: str, suffixes: tuple[str, ...] = ()) -> str:
        where.add(threading.get_ident())
        return take(names, name, suffixes)

    def noted_add(writer: ZipWriter, name: str, data: bytes) -> list[bytes]:
        where.add(threading.get_ident())
        return add(writer, name, data)

    monkeypatch.setattr(Names, "take", noted_take)
    monkeypatch.setattr(ZipWriter, "add", noted_add)

    def work(data: bytes, _: Cancellation) -> tuple[bytes, Format]:
        if data == b"\1":
            raise UnusableEntry("\1" * 1000)
        return data * 3_000_000, "png"

    messages: list[Message] = []
    answer(named(3), work, messages.append)
    names, errors = unzipped(messages)
    assert names == {"0.png", "2.png"}
    assert [(each.index, each.name, each.detail) for each in errors.errors] == [(1, "1.png", "\1" * 1000)]
    assert threading.get_ident() not in where, "the loop runs in this thread"
    assert max(len(message.get("body", b"")) for message in messages) <= 1 << 20
