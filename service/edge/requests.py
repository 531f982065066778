"""Heads of requests: framing that is refused, and targets in absolute form (RFC 9112)."""

import re
from typing import Final

import h11

_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
_AUTHORITY: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]+)(?::[0-9]*)?")
"""A host, and perhaps a port; a name of a user is refused (RFC 9110, 4.2.4)."""


class Connection(h11.Connection):
    """h11's connection, with a stricter look at each request's head."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return the next event; a target in absolute form is turned into the other one and a Host header.

        Raises:
            h11.RemoteProtocolError: what came is no request, or one that `plain_request` refuses.
        """
        event = super().next_event()
        return plain_request(event) if isinstance(event, h11.Request) else event


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
