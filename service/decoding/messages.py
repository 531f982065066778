"""What the service and its workers say to each other: JSON behind its length, and file descriptors with it.

A worker that a hostile file has taken over can answer whatever it likes, so nothing that it says is unpickled: each
message is read into one of these models, or refused.
"""

import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from service import picture
from service.picture import Header, PictureLimits

_LENGTH: Final = struct.Struct("!Q")
_MOST_BYTES: Final = 256 << 20
"""Of a message: its largest parts are metadata, which are no longer than a request's body, in base64."""
_MOST_DESCRIPTORS: Final = 2


class Disconnected(Exception):
    """The other side is gone, or says what makes no sense."""


class _Message(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", extra="forbid")


class Task(_Message):
    """What a worker shall do with the file that comes along.

    Attributes:
        seconds: how long it may take.
        memory: bytes of address space that it may take beyond what the worker has.
        limits: read the header, within these.
        header: decode the picture that this was said of, into the shared memory that comes along behind the file.
    """

    seconds: float
    memory: int
    limits: PictureLimits | None = None
    header: Header | None = None


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
    """How a picture lies in the shared memory: its pixels, and its alpha behind them.

    Attributes:
        bits: of a sample.
        alpha: whether there is any.
        converted: whether it was converted to sRGB, so that its header's profile no longer holds.
    """

    bits: Literal[8, 16]
    alpha: bool
    converted: bool


class Answer(_Message):
    """What came of a task; one of them. When a worker has started, none: it is ready."""

    header: Header | None = None
    decoded: Decoded | None = None
    failure: Failure | None = None


Message = TypeVar("Message", bound=_Message)

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
        return kind(**failure.facts) if failure.facts else kind(failure.message)
    except (KeyError, TypeError):
        raise Disconnected from None


@dataclass(frozen=True)
class Received:
    """A message that came, and its file descriptors, which are the receiver's to close."""

    text: bytes
    descriptors: list[int]


def send(connection: socket.socket, message: _Message, descriptors: tuple[int, ...] = ()) -> None:
    """Send a message with up to two file descriptors, which stay open here.

    Raises:
        Disconnected: nobody is there.
        TimeoutError: the socket has a timeout, and it is over.
    """
    text = message.model_dump_json(exclude_defaults=True).encode()
    try:
        socket.send_fds(connection, [_LENGTH.pack(len(text))], descriptors)
        connection.sendall(text)
    except TimeoutError:
        raise
    except OSError:
        raise Disconnected from None


def receive(connection: socket.socket) -> Received:
    """Receive the next message; raises as `send`."""
    descriptors: list[int] = []
    try:
        # descriptors come with the first byte
        head, descriptors, _, _ = socket.recv_fds(connection, _LENGTH.size, _MOST_DESCRIPTORS)
        (length,) = _LENGTH.unpack(head + _exactly(connection, _LENGTH.size - len(head) if head else 0))
        return Received(_exactly(connection, min(length, _MOST_BYTES)), descriptors)
    except BaseException as error:
        close(descriptors)
        if isinstance(error, OSError | struct.error) and not isinstance(error, TimeoutError):
            raise Disconnected from None
        raise


def _exactly(connection: socket.socket, length: int) -> bytes:
    pieces = []
    while length and (piece := connection.recv(min(length, 1 << 20))):
        pieces.append(piece)
        length -= len(piece)
    if length:
        raise Disconnected
    return b"".join(pieces)


def parsed(kind: type[Message], text: bytes) -> Message:
    """Read a message of a kind.

    Raises:
        Disconnected: it is none.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError:
        raise Disconnected from None


def close(descriptors: list[int] | tuple[int, ...]) -> None:
    """Close file descriptors."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
