"""HTTP/1.1 as h11 reads it, with bounds on what a request may cost, and a stricter look at its head (RFC 9112)."""

import re
from collections.abc import Collection
from typing import Final

import h11

from service.edge.wire import Pieces

_MOST_FIELDS: Final = 100
"""Of a head, or a trailer. Browsers and proxies send about 20."""

_LEAST_CHUNK: Final = 100
"""Bytes that chunks have on average: less costs h11 more than a request does. Clients that stream send some kB."""

_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")

_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
_AUTHORITY: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)(?::[0-9]*)?")
"""A host, and perhaps a port; a name of a user is refused (RFC 9110, 4.2.4)."""


class Connection(h11.Connection):
    """h11's connection, with a look at each request's head, at its chunks and at its trailer.

    Attributes:
        came: bytes of the request's body that came.
        left: bytes of a body with Content-Length that are still to come.
        why: what is wrong with the request, for the client; empty where h11 says it.
        only: paths that may be asked for; any where None.
        unwanted: whether another one was.
    """

    def __init__(self, role: type[h11.SERVER], most_head_bytes: int) -> None:
        super().__init__(role, most_head_bytes)
        self._most_head_bytes = most_head_bytes
        self._chunks = Pieces(_LEAST_CHUNK)
        self.came = 0
        self.left = 0
        self.why = ""
        self.only: Collection[str] | None = None
        self.unwanted = False

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return the next event; a target in absolute form is turned into the other one and a Host header.

        Raises:
            h11.RemoteProtocolError: what came is no request, or one that `plain_request` refuses, or takes too much.
        """
        if self.their_state is h11.IDLE:
            self._look_at_head()
        event = super().next_event()
        if isinstance(event, h11.Request):
            event = plain_request(event)
            if self.only is not None and event.target.partition(b"?")[0].decode() not in self.only:
                self.unwanted = True
                raise h11.RemoteProtocolError("there are too many connections")
            self.came = 0
            self.left = next((int(value) for name, value in event.headers if name == b"content-length"), 0)
        elif isinstance(event, h11.Data):
            self.came += len(event.data)
            self.left = max(0, self.left - len(event.data))
            if not self._chunks.add(event.chunk_start, len(event.data)):
                raise self._refused("Its chunks are too small: send some kB in each.")
        elif isinstance(event, h11.EndOfMessage) and len(event.headers) > _MOST_FIELDS:
            raise self._refused(f"It has more than {_MOST_FIELDS} trailer fields.")
        return event

    def _look_at_head(self) -> None:
        # before h11 parses it, which takes 10 ms of 16 kB in fields of 5 bytes
        waiting, _ = self.trailing_data
        end = _END_OF_HEAD.search(waiting)
        size = len(waiting) if end is None else end.start()
        if size > self._most_head_bytes:
            raise self._refused(f"Its head has more than {self._most_head_bytes} bytes.")
        if waiting.count(b"\n", 0, size + 1) > 1 + _MOST_FIELDS:
            raise self._refused(f"It has more than {_MOST_FIELDS} header fields.")

    def _refused(self, why: str) -> h11.RemoteProtocolError:
        self.why = why
        return h11.RemoteProtocolError(why)


def plain_request(request: h11.Request) -> h11.Request:
    """Check a request's framing and target, and return it with its target in origin form.

    Content-Length beside Transfer-Encoding, and Transfer-Encoding in HTTP/1.0, are refused: where a proxy before us
    reads the one and we the other, the rest of a body is taken for a request (RFC 9112, 6.1; nginx refuses both too).

    Raises:
        h11.RemoteProtocolError: the request is one of these, or its target is none of a server's.
    """
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" in names and (b"content-length" in names or request.http_version < b"1.1"):
        raise h11.RemoteProtocolError("the framing is ambiguous")
    target = request.target
    if target.startswith(b"/") or (target == b"*" and request.method == b"OPTIONS"):
        return request
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not _AUTHORITY.fullmatch(absolute[1]):
        raise h11.RemoteProtocolError("the target is no server's")
    authority, path = absolute.groups()
    if not path.startswith(b"/"):
        path = b"*" if request.method == b"OPTIONS" and not path else b"/" + path
    headers = [(name, value) for name, value in request.headers if name != b"host"]
    return h11.Request(
        method=request.method,
        target=path,
        headers=[(b"host", authority), *headers],
        http_version=request.http_version,
    )
