"""What is said when the system gives no more file descriptors for connections: one line a minute, not a flood."""

import asyncio
import errno
import logging
import os
import time
from typing import Any, Final

log = logging.getLogger(__name__)

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SAY_EVERY_S: Final = 60.0


class CalmAboutExhaustion:
    """An event loop's exception handler that says in one line a minute that no connection can be taken.

    asyncio itself tries again after a second, but calls its handler, which writes a traceback, for each connection that
    it meant to take in that turn: 2048 a second with uvicorn's backlog.
    """

    def __init__(self) -> None:
        self._said_at = -_SAY_EVERY_S

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle what the loop met; a `loop.set_exception_handler` handler."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _EXHAUSTED or "accept" not in context["message"]:
            loop.default_exception_handler(context)
            return
        now = time.monotonic()
        if now - self._said_at >= _SAY_EVERY_S:
            self._said_at = now
            log.error(
                "new connections wait: %s. Allow more open files (ulimit -n), or fewer connections in front",
                os.strerror(error.errno),
            )
