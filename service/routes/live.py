"""WS /live: pictures in and enhanced pictures out over one connection, with progress between.

The client sends text and binary messages, in any order and number:

- text, JSON options: those of POST /enhance, and `mode` (`photo` or `live`) and `seam_index` (measure it too). They
  hold for every picture after them; what they leave out takes its default.
- binary: a picture file, a frame. Frames are counted from 1. Photos are done in their order; of live frames only the
  latest waits, and a late one is dropped.
- text, `{"type": "cancel"}`, with `"frame": n` for one alone: the work is given up, its tiles leave the queue. Closing
  the connection does the same.

The server sends text messages, JSON events with a `type`. All but `ready` carry the frame's number, which is null
where a problem is no frame's:

- `ready`, once: `formats`, `max_bytes`, `max_pixels`.
- `accepted`: `tiles`, none at strength 0. The picture has its place.
- `progress`, in photo mode: `done` and `total` tiles. Told only as fast as the client reads.
- `result`: `camera`, `device`, `tiles`, `width`, `height`, `media_type`, `bytes`, `timings` in seconds by stage, and
  `seam_index` where it was asked for. The next binary message is the enhanced picture.
- `dropped`: a newer live frame came before this one was begun.
- `cancelled`: as asked.
- `problem`: `problem` holds the fields of problem+json, `retry_after` seconds where there are any. The connection
  stays usable.

It closes with 1001 when the service shuts down, after the frame that is under way; 1009 when a message has more bytes
than a body may have, 1008 when one comes too slowly; 3000 at once where there is no valid API key, and later when it is
revoked. Where the service takes no pictures it closes at once with 1013 and the reason.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from fastapi import APIRouter, WebSocket
from starlette.types import Message
from starlette.websockets import WebSocketDisconnect

from service.caller import Caller, Cancellation, Cancelled
from service.codec import FORMATS, encode, media_type
from service.edge.clients import client_of
from service.edge.errors import NoRoom, RateLimited, Unauthorized
from service.edge.house import house_of
from service.edge.keys import key_of
from service.edge.refusal import taken_subprotocol
from service.edge.rooms import Held
from service.live import Frame, Frames, TooManyWait
from service.observation import record_of
from service.pipeline import Ticket
from service.problems import MalformedRequest, NotReady, name_of, response_to, without_frames
from service.quality import seam_index
from service.routes.threads import Threads
from service.schemas import LiveCancel, LiveOptions
from service.state import State, state_of
from service.telemetry import Stopwatch
from service.tiling import to_8_bit

router = APIRouter()

_MOST_WAIT: Final = 4
"""Photos that may wait on one connection: each is held in memory as it came."""

_MOST_CHARACTERS: Final = 10_000
"""Of a text message: options take a few hundred, and parsing blocks everyone."""

_GOING_AWAY: Final = 1001
_UNAUTHORIZED: Final = 3000


@router.websocket("/live")
async def live(websocket: WebSocket) -> None:
    """Serve one connection; the module's docstring is its protocol."""
    await websocket.accept(taken_subprotocol(websocket.scope))
    await _Connection(websocket, state_of(websocket)).run()


@dataclass(frozen=True)
class _Task:
    """A frame's file and the options that held when it came."""

    data: bytes
    options: LiveOptions


@dataclass
class _Reports:
    """What a worker thread tells its connection; of progress only the latest counts."""

    loop: asyncio.AbstractEventLoop
    caller: Caller
    news: asyncio.Event = field(default_factory=asyncio.Event)
    tiles: int = 0
    done: int = 0
    told: int = -1  # tiles done when the client was told last; -1 before `accepted`

    def on_place(self, tiles: int) -> None:
        self.tiles = tiles
        self.loop.call_soon_threadsafe(self.news.set)

    def on_progress(self, done: int, _: int) -> None:
        self.done = done
        self.loop.call_soon_threadsafe(self.news.set)


class _Connection:
    """One client: a task reads, another works through the frames."""

    def __init__(self, websocket: WebSocket, state: State) -> None:
        self._websocket = websocket
        self._state = state
        self._options = LiveOptions()
        self._frames: Frames[_Task] = Frames(_MOST_WAIT)
        self._came = 0
        self._changed = asyncio.Event()
        self._sending = asyncio.Lock()  # nothing may come between a result and its picture
        self._running: tuple[int, Cancellation] | None = None
        self._gone = False
        self._house = house_of(websocket)
        self._client = client_of(websocket.scope)
        self._key = key_of(websocket.scope)
        self._held: dict[int, Held] = {}
        self._record = record_of(websocket)

    async def run(self) -> None:
        """Serve until the client leaves or the service drains."""
        self._state.live += 1
        try:
            async with anyio.create_task_group() as group:
                await self._send("ready", **self._limits())
                group.start_soon(self._work_until_drained, group.cancel_scope)
                group.start_soon(self._watch_drain)
                await self._read()
                self._give_up(None)
                group.cancel_scope.cancel()
        finally:
            self._state.live -= 1
            for held in self._held.values():
                held.close()

    def _limits(self) -> dict[str, Any]:
        settings = self._state.settings
        return {"formats": FORMATS, "max_bytes": settings.max_body_bytes, "max_pixels": settings.max_pixels}

    async def _read(self) -> None:
        while await self._take(await self._websocket.receive()):
            pass  # and nothing of a message is kept while the next one is waited for

    async def _take(self, message: Message) -> bool:
        """Take a message in; return False where it is the last one."""
        await asyncio.sleep(0)  # thousands may have come at once, and each may be taken without waiting
        if message["type"] == "websocket.disconnect":
            return False
        data, text = message.get("bytes"), message.get("text")
        if data is None:
            try:
                await self._follow(text or "")
            except Exception as error:  # noqa: BLE001  each is answered
                await self._send_problem(None, error)
            return True
        if self._key is not None and not self._house.keys.holds(self._key):
            self._state.metrics.rejected(name_of(Unauthorized()))
            await self._close(_UNAUTHORIZED, "The API key is no longer valid.")
            return False
        self._came += 1
        refused: Exception | None = None
        try:
            await self._take_in(self._came, data)
        except (MalformedRequest, NotReady, NoRoom) as error:
            refused = without_frames(error)
        del message, data  # which nobody counts while the answer waits for the client to read
        if refused is not None:
            await self._send_problem(self._came, refused)
        return True

    async def _take_in(self, number: int, data: bytes) -> None:
        if self._state.draining:
            raise NotReady("It is shutting down; try again soon.")
        if not data:
            raise MalformedRequest("The message is empty: send a picture file.")
        held = self._held[number] = self._house.rooms.open(self._client)
        held.body.need(len(data))
        frame = Frame(number, self._options.mode == "live", _Task(data, self._options))
        try:
            late = self._frames.add(frame)
        except TooManyWait as error:
            raise MalformedRequest(
                f"No more than {error.limit} photos may wait on a connection: send the next after an answer."
            ) from None
        self._changed.set()
        for each in late:
            await self._send_end("dropped", each)

    async def _follow(self, text: str) -> None:
        try:
            message = json.loads(text) if len(text) <= _MOST_CHARACTERS else None
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise MalformedRequest("Send options as a JSON object, and pictures as binary messages.")
        if message.get("type") == "cancel":
            for number in self._give_up(LiveCancel.model_validate(message).frame):
                await self._send_end("cancelled", number)
        else:
            self._options = LiveOptions.model_validate(message)

    def _give_up(self, number: int | None) -> list[int]:
        """Cancel a frame, or with None all; return those that waited: who runs says so itself."""
        if self._running is not None and number in (None, self._running[0]):
            self._running[1].cancel()
        return self._frames.remove(number)

    async def _watch_drain(self) -> None:
        await self._state.drain_began.wait()
        for number in self._frames.remove():
            await self._send_problem(number, NotReady("It is shutting down; try again soon."))
        self._changed.set()

    async def _work_until_drained(self, scope: anyio.CancelScope) -> None:
        while True:
            frame = self._frames.take()
            if frame is not None:
                await self._answer(frame)
            elif self._state.drain_began.is_set():
                break
            else:
                self._changed.clear()
                await self._changed.wait()
        await self._close(_GOING_AWAY, "The service is shutting down.")
        scope.cancel()

    async def _close(self, code: int, reason: str) -> None:
        async with self._sending:
            if not self._gone:
                self._gone = True
                await self._websocket.close(code, reason)

    async def _answer(self, frame: Frame[_Task]) -> None:
        try:
            self._house.limits.count(self._client)  # here, where frames that were dropped cost nothing
        except RateLimited as refused:
            await self._send_problem(frame.number, refused)
            return
        reports = _Reports(asyncio.get_running_loop(), Caller(self._client))
        self._running = frame.number, reports.caller.cancellation
        error: Exception | None = None
        result: list[tuple[Mapping[str, Any], bytes]] = []

        async def tell() -> None:
            while True:
                await reports.news.wait()
                reports.news.clear()
                await self._tell_news(frame, reports)

        # the group would wrap what the work raises, so it is carried out by hand
        async with anyio.create_task_group() as group:
            group.start_soon(tell)
            try:
                result.append(await self._enhance(frame.item, reports))
            except Exception as raised:  # noqa: BLE001
                error = without_frames(raised)
            group.cancel_scope.cancel()
        self._running = None
        try:
            await self._tell_end(frame, reports, error, result)
        finally:
            error = None  # it holds this frame, and the file with it: no circle is left for the collector

    async def _tell_end(
        self,
        frame: Frame[_Task],
        reports: _Reports,
        error: Exception | None,
        result: list[tuple[Mapping[str, Any], bytes]],
    ) -> None:
        if isinstance(error, Cancelled):
            await self._send_end("cancelled", frame.number)
        elif error is not None:
            await self._send_problem(frame.number, error)
        else:
            await self._tell_news(frame, reports)
            ((facts, picture),) = result
            self._held[frame.number].answer(len(picture))
            await self._send_end("result", frame.number, picture, **facts)

    async def _enhance(self, task: _Task, reports: _Reports) -> tuple[Mapping[str, Any], bytes]:
        threads: Threads = self._websocket.app.state.threads
        options, pipeline = task.options, self._state.pipeline

        def admit() -> Ticket:
            ticket = pipeline.admit(
                task.data,
                options.camera,
                options.overlap,
                options.format,
                reports.caller,
                strength=options.strength,
            )
            reports.on_place(ticket.job.tiles)
            return ticket

        with self._record.picture("frame") as watch:
            return await threads.enhance(
                reports.caller, admit, lambda ticket: _work(self._state, ticket, options, reports, watch)
            )

    async def _tell_news(self, frame: Frame[_Task], reports: _Reports) -> None:
        if reports.told < 0:
            await self._send("accepted", frame=frame.number, tiles=reports.tiles)
            reports.told = 0
        done = reports.done
        if done > reports.told and not frame.live:
            await self._send("progress", frame=frame.number, done=done, total=reports.tiles)
            reports.told = done

    async def _send_problem(self, number: int | None, error: Exception) -> None:
        response = response_to(error)
        self._state.metrics.rejected(response.problem.type)
        retry_after = response.headers.get("retry-after")
        facts: dict[str, Any] = {} if retry_after is None else {"retry_after": int(retry_after)}
        await self._send_end("problem", number, problem=json.loads(bytes(response.body)), **facts)

    async def _send_end(self, type_: str, number: int | None, picture: bytes | None = None, **facts: object) -> None:
        """Send the last event of a frame, and count it; what is held for it is until the client has read it."""
        if number is not None:
            self._state.metrics.live_frames.labels(type_).inc()
        await self._send(type_, picture, frame=number, **facts)
        if number is not None and (held := self._held.pop(number, None)) is not None:
            held.close()

    async def _send(self, type_: str, picture: bytes | None = None, /, **facts: object) -> None:
        async with self._sending:
            if self._gone:
                return
            try:
                await self._websocket.send_text(json.dumps({"type": type_, **facts}, separators=(",", ":")))
                if picture is not None:
                    await self._websocket.send_bytes(picture)
            except WebSocketDisconnect:
                self._gone = True  # the reader is told as well, and ends it all


def _work(
    state: State, ticket: Ticket, options: LiveOptions, reports: _Reports, watch: Stopwatch
) -> tuple[Mapping[str, Any], bytes]:
    outcome = state.pipeline.enhance(
        ticket, watch, options.strength, reports.on_progress, keep_source=options.seam_index
    )
    output = outcome.enhancement.picture
    height, width = output.pixels.shape[:2]
    seams = {}
    if outcome.source is not None:
        with watch.stage("quality"):
            before, after = to_8_bit(outcome.source.pixels), to_8_bit(output.pixels)
            seams = {"seam_index": seam_index(before, after, outcome.enhancement.layout)}
    ticket.caller.cancellation.check()
    with watch.stage("encode"):
        body = encode(output, outcome.format, options.encoder_quality, options.metadata == "keep", spend=True)
    state.metrics.picture_done(watch)
    return {
        "camera": outcome.camera,
        "device": outcome.generator.device,
        "tiles": outcome.enhancement.tiles,
        "width": width,
        "height": height,
        "media_type": media_type(outcome.format),
        "bytes": len(body),
        "timings": dict(watch.seconds),
        **seams,
    }, body
