"""What the service and its workers say to each other: JSON behind its length, and bytes behind that.

Of metadata and profiles the JSON says only how long they are: within it, 56 MB of EXIF kept the interpreter's lock, and
so the event loop, for 260 ms. Files and pixels come last.

A worker that a hostile file has taken over can answer whatever it likes, so nothing that it says is unpickled: each
message is read into one of these models, or refused.
"""

import json
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from service import picture
from service.picture import Format, Header, PictureLimits

_LENGTH: Final = struct.Struct("!Q")
_MOST_TEXT: Final = 1 << 20
"""Bytes of a message's JSON: a thousand texts are told of in a tenth."""
_MOST_BYTES: Final = 256 << 20
"""Of metadata and profiles behind it, which are no longer than a request's body."""
_BYTES: Final = "$bytes"
"""Stands in the JSON for bytes, with their length."""
_PIECE: Final = 1 << 20
_BUSY: Final = 5
"""How often as much by the clock a file may take as of CPU."""


class Disconnected(Exception):
    """The other side is gone, or says what makes no sense."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Task(_Message):
    """What a worker shall do with the file that follows.

    Attributes:
        length: bytes of the file.
        seconds: of CPU that it may take.
        memory: bytes of resident memory that it may take; the service sees to it.
        limits: read the header, within these.
        header: decode the picture that this was said of.
    """

    length: int
    seconds: float
    memory: int
    limits: PictureLimits | None = None
    header: Header | None = None

    @property
    def until_stalled(self) -> float:
        """Seconds by the clock that it may take: others may have the CPUs meanwhile."""
        return _BUSY * self.seconds


class Failure(_Message):
    """An exception of `picture`, or a MemoryError.

    Attributes:
        kind: its class.
        message: its text.
        facts: its attributes.
    """

    kind: str
    message: str = ""
    facts: dict[str, int | str] = {}


class Decoded(_Message):
    """How the picture's samples follow: its pixels, and its alpha behind them.

    Attributes:
        bits: of a sample.
        alpha: whether there is any.
        converted: whether it was converted to sRGB, so that its header's profile no longer holds.
    """

    bits: Literal[8, 16]
    alpha: bool
    converted: bool


class Ready(_Message):
    """A worker waits for its next task, and has returned the memory of the last one.

    Attributes:
        formats: those of whose known good files it decodes; only the first message names them.
        lacks: as `containment.contain` returns it, likewise.
    """

    formats: frozenset[Format] = frozenset()
    lacks: tuple[str, ...] = ()


class Answer(_Message):
    """What came of a task; one of them.

    Attributes:
        header: what `codec.read_header` returned.
        decoded: how the samples follow that `codec.decode` returned.
        failure: what either raised.
        unfit: the file could not be decoded, and neither could the known good file of its format, or there is too
            little memory.
    """

    header: Header | None = None
    decoded: Decoded | None = None
    failure: Failure | None = None
    unfit: bool = False


Message = TypeVar("Message", bound=_Message)
Came = TypeVar("Came", int, bytes)

_FAILURES: Final[dict[str, type[Exception]]] = {
    name: value
    for name, value in vars(picture).items()
    if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == picture.__name__
} | {MemoryError.__name__: MemoryError}


def failure_of(error: Exception) -> Failure:
    """Describe an exception for the other side; one that is none of ours is a file that can't be decoded."""
    if type(error).__name__ not in _FAILURES:
        error = picture.MalformedPicture("it can't be decoded")
    return Failure(kind=type(error).__name__, message=str(error), facts=dict(vars(error)))


def exception_of(failure: Failure) -> Exception:
    """Return the exception that was described.

    Raises:
        Disconnected: there is none like that.
    """
    try:
        kind = _FAILURES[failure.kind]
        if not failure.facts:
            return kind(failure.message)
        hints = get_type_hints(kind.__init__)
        facts = {
            name: TypeAdapter(hints[name]).validate_python(fact, strict=True) for name, fact in failure.facts.items()
        }
        return kind(**facts)
    except (KeyError, TypeError, ValidationError):
        raise Disconnected from None


def packed(message: _Message) -> tuple[bytes, list[bytes]]:
    """Return a message's JSON, and the bytes that follow it."""
    behind: list[bytes] = []
    return json.dumps(_without_bytes(message.model_dump(exclude_defaults=True), behind)).encode(), behind


def _without_bytes(value: Any, behind: list[bytes]) -> Any:
    """Put lengths in the place of bytes, and lists in that of sets; the bytes are added to `behind` in their order."""
    match value:
        case bytes():
            behind.append(value)
            return {_BYTES: len(value)}
        case dict():
            return {name: _without_bytes(each, behind) for name, each in value.items()}
        case list() | tuple() | frozenset():
            return [_without_bytes(each, behind) for each in value]
        case _:
            return value


def send(
    connection: socket.socket,
    message: _Message,
    *payload: bytes | memoryview,
    on_wait: Callable[[], None] | None = None,
) -> None:
    """Send a message, and bytes behind it; `on_wait` and what is raised as for `receive_into`."""
    text, behind = packed(message)
    for part in (_LENGTH.pack(len(text)), text, *behind, *payload):
        rest = memoryview(part)
        while rest:
            try:
                rest = rest[connection.send(rest) :]
            except TimeoutError:
                if on_wait is None:
                    raise
            except OSError:
                raise Disconnected from None
            if on_wait is not None:
                on_wait()


def receive(connection: socket.socket, kind: type[Message], on_wait: Callable[[], None] | None = None) -> Message:
    """Receive the next message; raises as `receive_into`, and Disconnected where it is of no such kind."""
    (length,) = _LENGTH.unpack(receive_bytes(connection, _LENGTH.size, on_wait))
    if length > _MOST_TEXT:
        raise Disconnected
    text = receive_bytes(connection, length, on_wait)
    return parsed(kind, text, lambda more: receive_bytes(connection, more, on_wait))


def receive_bytes(connection: socket.socket, length: int, on_wait: Callable[[], None] | None = None) -> bytes:
    """Receive so many bytes; raises as `receive_into`."""
    pieces = []
    while length:
        pieces.append(_came(partial(connection.recv, min(length, _PIECE)), on_wait))
        length -= len(pieces[-1])
    return b"".join(pieces)  # of pieces it gives the interpreter's lock away for so long, of one large bytearray not


def receive_into(connection: socket.socket, room: memoryview, on_wait: Callable[[], None] | None = None) -> None:
    """Receive as many bytes as there is room for.

    Args:
        connection: where from.
        room: where to.
        on_wait: called at every step, and whenever nothing came within the socket's timeout; what it raises ends the
            waiting.

    Raises:
        Disconnected: the other side is gone.
        TimeoutError: nothing came within the socket's timeout, and there is no `on_wait`.
    """
    while room:
        room = room[_came(partial(connection.recv_into, room, min(len(room), _PIECE)), on_wait) :]


def _came(read: Callable[[], Came], on_wait: Callable[[], None] | None) -> Came:
    """Read from the socket once something is there; raises as `receive_into`."""
    while True:
        try:
            came = read()
        except TimeoutError:
            if on_wait is None:
                raise
            on_wait()
            continue
        except OSError:
            raise Disconnected from None
        if not came:
            raise Disconnected
        if on_wait is not None:
            on_wait()
        return came


def parsed(kind: type[Message], text: bytes, next_bytes: Callable[[int], bytes]) -> Message:
    """Read a message of a kind.

    Args:
        kind: of which it has to be.
        text: its JSON.
        next_bytes: gives so many of the bytes that follow it.

    Raises:
        Disconnected: it is none.
        Exception: whatever `next_bytes` raises.
    """
    left = _MOST_BYTES

    def with_bytes(members: dict[str, Any]) -> Any:
        nonlocal left
        if members.keys() != {_BYTES}:
            return members
        length = members[_BYTES]
        if type(length) is not int or not 0 <= length <= left:
            raise Disconnected
        left -= length
        return next_bytes(length)

    try:
        return kind.model_validate(json.loads(text, object_hook=with_bytes))
    except (ValueError, RecursionError):  # ValidationError is one of the first
        raise Disconnected from None
