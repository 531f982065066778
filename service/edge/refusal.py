"""How a refusal is told, over HTTP and over a WebSocket."""

import json
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from service.problems import PROBLEM, response_to

SUBPROTOCOL: Final = "pix2dslr"
"""What is answered to a WebSocket that offers it: browsers need one of theirs taken."""

_CLOSE_CODES: Final = {401: 3000, 429: 1013, 503: 1013}
"""Registered with IANA: 3000 unauthorized, 1013 try again later; 1008 policy violation for the rest."""
_POLICY_VIOLATION: Final = 1008
_LONGEST_REASON: Final = 123  # bytes, RFC 6455, 5.5


def taken_subprotocol(scope: Scope) -> str | None:
    """Return the subprotocol to answer a WebSocket with, None where it does not offer ours."""
    return SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", ()) else None


async def refuse(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with the problem that an exception is.

    A WebSocket is accepted and closed again with a code and the detail: a browser tells its page neither the status nor
    the body of a refused handshake. But where a proxy stands between and the service is not ready, the handshake is
    refused: a load balancer then asks another replica, while of an accepted one it learns nothing, and would choose the
    replica again and again for having the fewest connections.
    """
    response = response_to(error)
    if scope["type"] == "http":
        await response(scope, receive, send)
        return
    await receive()
    if response.status_code == 503 and "x-forwarded-for" in Headers(scope=scope):
        await response(scope, receive, send)
        return
    reason = str(json.loads(bytes(response.body))["detail"]).encode()[:_LONGEST_REASON].decode(errors="ignore")
    code = _CLOSE_CODES.get(response.status_code, _POLICY_VIOLATION)
    await send({"type": "websocket.accept", "subprotocol": taken_subprotocol(scope)})
    await send({"type": "websocket.close", "code": code, "reason": reason, PROBLEM: response.problem.type})
