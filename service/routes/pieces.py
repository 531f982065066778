"""An answer that is sent in pieces."""

import anyio.lowlevel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.copies import pieces_of
from service.edge.rooms import HELD, Held


class InPieces(Response):
    """A large body, sent as fast as the client takes it in.

    Sent at once, all of it would be copied into the connection's buffer: for 60 MB tens of milliseconds in which the
    event loop answers nobody, and the memory for as long as the client reads.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer; an ASGI application. What is held for the request is the answer alone from now on."""
        held: Held | None = scope.get(HELD)
        if held is not None:
            held.answered(len(self.body))
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        left = len(self.body)
        for piece in pieces_of(self.body):
            left -= len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
            if left:  # a client that takes all in at once lets nobody else have a turn
                await anyio.lowlevel.checkpoint()
