"""Several pictures in, one zip out, written while it is made."""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service import problems
from service.archive import File, Names, ZipWriter
from service.caller import Cancellation
from service.codec import Format
from service.copies import pieces_of
from service.edge.errors import RateLimited
from service.scheduler import QueueFull
from service.schemas import BatchError

log = logging.getLogger(__name__)

ERRORS: Final = "errors.json"
"""The zip's last entry."""

UNDER_WAY: Final = 4
"""Pictures of a request that are worked on at a time: one decoded and one encoded while others have the device."""

Work = Callable[[File, Cancellation], Awaitable[tuple[bytes, Format]]]
"""Enhances one file."""


@dataclass(frozen=True)
class _Done:
    index: int
    outcome: tuple[bytes, Format] | Exception


class EnhancedZip(StreamingResponse):
    """A zip of enhanced pictures, each in it as soon as it is done.

    No more results than `UNDER_WAY` wait for the client to read. A picture that fails is told in `errors.json`, the
    last entry, and costs the others nothing. A client that hangs up cancels what is under way.
    """

    media_type = "application/zip"

    def __init__(
        self,
        files: Sequence[File],
        work: Work,
        patience_s: float,
        format_: Format | None = None,
        headers: Mapping[str, str] | None = None,
        on_problem: Callable[[str], None] = lambda _: None,
        on_sent: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Prepare the answer; the work begins when it is sent.

        Args:
            files: the pictures.
            work: enhances one.
            patience_s: seconds that a picture may wait for room in the queue, beyond its own time.
            format_: what all are answered in, None where each is answered as it came.
            headers: of the answer.
            on_problem: called with the last part of the type of each picture's problem.
            on_sent: called with the bytes of each answer that is held no more.
        """
        super().__init__((), headers={"Content-Disposition": 'attachment; filename="enhanced.zip"', **(headers or {})})
        self._files = files
        self._work = work
        self._patience_s = patience_s
        self._on_problem = on_problem
        self._suffixes = () if format_ is None else suffixes_of(format_)
        self._on_sent = on_sent
        self._cancellation = Cancellation()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer; an ASGI application."""

        async def watch_client() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self._cancellation.cancel()
            group.cancel_scope.cancel()

        results, done = anyio.create_memory_object_stream[_Done](0)
        async with anyio.create_task_group() as group:
            group.start_soon(watch_client)
            try:
                todo = iter(enumerate(self._files))
                async with results, done:
                    for _ in range(min(UNDER_WAY, len(self._files))):
                        group.start_soon(self._enhance_next, todo, results.clone())
                    results.close()
                    await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                    await self._write(done, send)
            except OSError:  # how a server may tell that the client hung up
                log.debug("the client hung up")
            finally:
                self._cancellation.cancel()
            group.cancel_scope.cancel()

    async def _enhance_next(self, todo: Iterator[tuple[int, File]], results: MemoryObjectSendStream[_Done]) -> None:
        async with results:
            for index, file in todo:
                try:
                    outcome: tuple[bytes, Format] | Exception = await self._enhance(file)
                except Exception as error:  # noqa: BLE001  whatever it is, it costs one picture
                    outcome = problems.without_frames(error)
                try:
                    await results.send(_Done(index, outcome))
                except anyio.BrokenResourceError:  # nobody reads any more
                    return

    async def _enhance(self, file: File) -> tuple[bytes, Format]:
        waited = 0
        while True:
            try:
                return await self._work(file, self._cancellation)
            except (QueueFull, RateLimited) as full:
                # the client has sent all its pictures and can't come back with one: it is done here in its stead
                waited += full.retry_after
                if waited > self._patience_s:
                    raise
                await anyio.sleep(full.retry_after)

    async def _write(self, done: MemoryObjectReceiveStream[_Done], send: Send) -> None:
        writer, names = ZipWriter(), Names()
        errors: list[BatchError] = []

        async def send_all(make: Callable[[], list[bytes]]) -> None:
            for made in await anyio.to_thread.run_sync(make):
                for piece in pieces_of(made):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    await anyio.lowlevel.checkpoint()  # as `InPieces`

        def end() -> list[bytes]:
            errors.sort(key=lambda error: error.index)
            return writer.add(ERRORS, _listed(errors)) + writer.close()

        planned = await anyio.to_thread.run_sync(self._plan)
        async for result in done:
            if isinstance(result.outcome, Exception):
                name = self._files[result.index].name.encode(errors="replace").decode()
                errors.append(BatchError(index=result.index, name=name, **problems.details(result.outcome)))
                self._on_problem(problems.name_of(result.outcome))
                continue
            data, format_ = result.outcome
            name = planned[result.index]
            await send_all(lambda: writer.add(names.take(name, suffixes_of(format_)), data))  # noqa: B023  done at once
            self._on_sent(len(data))
        await send_all(end)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _plan(self) -> list[str]:
        """Name the files, numbered in the order that they came in, whichever is done first."""
        names = Names()
        return [names.take(file.name, self._suffixes) for file in self._files]


def _listed(errors: Sequence[BatchError]) -> bytes:
    """Return errors as `BatchErrors` in JSON; one by one, since the interpreter's lock is kept for each."""
    return b'{"errors": [\n' + b",\n".join([error.model_dump_json().encode() for error in errors]) + b"\n]}\n"


def suffixes_of(format_: Format) -> tuple[str, ...]:
    """Return the suffixes that files of a format have, the usual one first."""
    several = {
        "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
        "tiff": (".tif", ".tiff"),
        "heic": (".heic", ".heif", ".hif"),
    }
    return several.get(format_, (f".{format_}",))
