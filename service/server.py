"""uvicorn with a drain: on SIGTERM not ready at once, running requests finish, new ones get 503, then exit 0."""

import asyncio
import contextvars
import logging
import os
import signal
import socket
import time
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from service.state import State

log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 0.05
_CLOSE_WITHIN_S: Final = 5
"""Seconds that clients get to read their last answers once everything is answered."""

_ANSWER_PING_WITHIN_S: Final = 120
"""Patient: on a slow line a browser's answer may wait behind the photo that it is sending."""


class DrainingServer(uvicorn.Server):
    """A server that keeps listening while it drains, so that new requests get an answer and probes see why.

    Attributes:
        failed: whether it stopped because the service could not start.
    """

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self.failed = False
        self._state = state
        self._drain_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begin to drain on the first signal; a second one ends at once."""
        if self._state.draining:
            self._end_at_once(sig)
            return
        # in an empty context: the signal comes in the middle of some request, whose id is not this line's
        contextvars.Context().run(log.info, "%s: requests to finish: %d", signal.Signals(sig).name, self._state.running)
        self._state.draining = True
        self._drain_until = time.monotonic() + self._state.settings.drain_timeout_s

    @staticmethod
    def _end_at_once(sig: int) -> None:
        contextvars.Context().run(log.warning, "%s again: ending at once", signal.Signals(sig).name)
        logging.shutdown()
        signal.signal(sig, signal.SIG_DFL)
        signal.raise_signal(sig)

    async def main_loop(self) -> None:
        """Run until drained."""
        watcher = asyncio.create_task(self._watch())
        try:
            await super().main_loop()
        finally:
            watcher.cancel()

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


def serve(app: FastAPI, host: str, port: int) -> int:
    """Serve an app until a signal ends it; return the process's exit code.

    Raises:
        OSError: the address can't be listened on.
    """
    state: State = app.state.parts
    listener = _listen(host, port)
    # inherited by every connection: asyncio sets it only on sockets that name their protocol, and without it each
    # answer on a kept-alive connection waited 40 ms for the client's delayed acknowledgement
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    shown = f"[{host}]" if ":" in host else host
    log.info("listening on http://%s:%d (API reference: /docs)", shown, listener.getsockname()[1])
    # access lines are the proxy's business; ours are counted in /metrics
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=state.settings.keep_alive_s,
        timeout_graceful_shutdown=_CLOSE_WITHIN_S,
        ws="websockets-sansio",
        ws_max_size=state.settings.max_body_bytes,
        ws_per_message_deflate=False,  # pictures are compressed already
        ws_ping_timeout=_ANSWER_PING_WITHIN_S,
    )
    server = DrainingServer(config, state)
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
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (TypeError, UnicodeError) as error:  # how Python tells that a name can be none
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from error
