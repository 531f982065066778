"""uvicorn with a drain: on SIGTERM not ready at once, running requests finish, new ones get 503, then exit 0."""

import asyncio
import contextlib
import contextvars
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Any, Final, Literal, cast

import uvicorn
from fastapi import FastAPI

from service.app import create_probes_app
from service.edge.clients import Forwarded
from service.edge.house import House
from service.edge.http import GuardedHttp
from service.edge.rlimit import room_for_connections
from service.edge.websocket import GuardedWebSocket
from service.edge.wire import Wire
from service.exhaustion import CalmAboutExhaustion
from service.settings import Settings
from service.state import State

log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 0.05
_CLOSE_WITHIN_S: Final = 5
"""Seconds that clients get to read their last answers once everything is answered."""

_BACKLOG: Final = 2048
"""Connections that may wait in the kernel."""

_TAKEN_AT_ONCE: Final = 16
"""Connections that asyncio takes from there in a turn, before it looks at any of them. Where no file descriptor is left
it fails that often a second."""

_MOST_PROBES: Final = 100
"""Connections of the port for metrics and health."""

_ANSWER_PING_WITHIN_S: Final = 120
"""Patient: on a slow line a browser's answer may wait behind the photo that it is sending."""


class _Server(uvicorn.Server):
    """A server with a longer queue in the kernel than what is taken from there in a turn."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(_BACKLOG)


class DrainingServer(_Server):
    """A server that keeps listening while it drains, so that new requests get an answer and probes see why.

    Attributes:
        failed: whether it stopped because the service could not start.
    """

    def __init__(
        self, config: uvicorn.Config, state: State, beside: tuple[uvicorn.Server, socket.socket] | None = None
    ) -> None:
        """Prepare to serve.

        Args:
            config: of the server.
            state: of its app.
            beside: another server and its listener, which runs as long as this one.
        """
        super().__init__(config)
        self._beside = beside
        self.failed = False
        self._state = state
        self._drain_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to drain on the first signal; a second one ends at once."""
        if self._state.draining:
            self._end_at_once(sig)
            return
        # before the line: who reads it may send the second one while it is still being written
        self._state.draining = True
        self._drain_until = time.monotonic() + self._state.settings.drain_timeout_s
        # in an empty context: the signal comes in the middle of some request, whose id is not this line's
        contextvars.Context().run(log.info, "%s: requests to finish: %d", signal.Signals(sig).name, self._state.running)

    @staticmethod
    def _end_at_once(sig: int) -> None:
        contextvars.Context().run(log.warning, "%s again: ending at once", signal.Signals(sig).name)
        logging.shutdown()
        signal.signal(sig, signal.SIG_DFL)
        signal.raise_signal(sig)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        asyncio.get_running_loop().set_exception_handler(CalmAboutExhaustion())
        await super().startup(sockets)

    async def main_loop(self) -> None:
        """Run until drained."""
        watcher = asyncio.create_task(self._watch())
        beside = None
        if self._beside is not None:
            other, listener = self._beside
            beside = asyncio.create_task(other.serve([listener]))
        try:
            await super().main_loop()
        finally:
            watcher.cancel()
            if self._beside is not None and beside is not None:
                self._beside[0].should_exit = True
                await beside

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if self._drain_until is not None:
                self._state.drain_began.set()
            if self._state.failure is not None:
                self.failed = True
                self.should_exit = True
            elif self._drain_until is not None and not self._state.running:
                self.should_exit = True
            elif self._drain_until is not None and time.monotonic() > self._drain_until:
                # what still runs is answered with a problem instead of a broken connection
                await asyncio.to_thread(self._state.stop)
                self.should_exit = True


class _Beside(_Server):
    """A second server in the same event loop, which leaves signals to the first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def serve(app: FastAPI, host: str, port: int) -> int:
    """Serve an app until a signal ends it; return the process's exit code.

    Raises:
        OSError: an address can't be listened on.
    """
    state: State = app.state.parts
    house: House = app.state.house
    settings = state.settings
    most = room_for_connections(settings.max_connections)
    if most < settings.max_connections:
        log.warning("no more than %d connections: the process may not open more files", most)
    listener = _listen(host, port)
    refused = state.metrics.rejected

    def draining() -> bool:
        return state.draining

    config = _config(app, settings, house.wire(settings, most, refused, draining))
    beside = None
    if settings.metrics_port is not None:
        probes = _listen(settings.metrics_host or host, settings.metrics_port)
        log.info("metrics and health on %s", _shown(settings.metrics_host or host, probes))
        beside = (
            _Beside(
                _config(create_probes_app(app), settings, house.wire(settings, _MOST_PROBES, refused, draining), "off")
            ),
            probes,
        )
    log.info("listening on %s%s", _shown(host, listener), " (API reference: /docs)" if settings.docs else "")
    server = DrainingServer(config, state, beside)
    server.run([listener])
    code = 1 if server.failed else 0
    if state.stuck:
        # a thread in the depths of ONNX Runtime can't be told to leave, and the interpreter would crash or wait for it
        log.warning("ending without a thread that loads, or waits for the device")
        logging.shutdown()
        os._exit(code)
    return code


def _listen(host: str, port: int) -> socket.socket:
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (TypeError, UnicodeError) as error:  # how Python tells that a name can be none
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from error
    # inherited by every connection: asyncio sets it only on sockets that name their protocol, and without it each
    # answer on a kept-alive connection waited 40 ms for the client's delayed acknowledgement
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _shown(host: str, listener: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _config(app: FastAPI, settings: Settings, wire: Wire, lifespan: Literal["auto", "off"] = "auto") -> uvicorn.Config:
    # service/observation.py writes lines of its own, without what clients send
    return uvicorn.Config(
        Forwarded(cast(Any, app), list(settings.trusted_proxies)) if settings.trusted_proxies else app,
        http=cast(type[asyncio.Protocol], partial(GuardedHttp, wire=wire)),
        ws=cast(type[asyncio.Protocol], partial(GuardedWebSocket, wire=wire)),
        lifespan=lifespan,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # ours reads them
        backlog=_TAKEN_AT_ONCE,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=_CLOSE_WITHIN_S,
        ws_max_size=settings.max_body_bytes,
        ws_per_message_deflate=False,  # pictures are compressed already
        ws_ping_timeout=_ANSWER_PING_WITHIN_S,
    )
