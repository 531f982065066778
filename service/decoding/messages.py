"""What the service and its workers say to each other: JSON behind its length, and files and pixels behind that.

A worker that a hostile file has taken over can answer whatever it likes, so nothing that it says is unpickled: each
message is read into one of these models, or refused.
"""

import socket
import struct
from collections.abc import Callable
from typing import Final, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from service import picture
from service.picture import Format, Header, PictureLimits

_LENGTH: Final = struct.Struct("!Q")
_MOST_BYTES: Final = 256 << 20
"""Of a message: its largest parts are metadata, which are no longer than a request's body, in base64."""
_PIECE: Final = 1 << 20
_BUSY: Final = 5
"""How often as much by the clock a file may take as of CPU."""


class Disconnected(Exception):
    """The other side is gone, or says what makes no sense."""


class _Message(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", extra="forbid")


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


def send(
    connection: socket.socket,
    message: _Message,
    *payload: bytes | memoryview,
    on_wait: Callable[[], None] | None = None,
) -> None:
    """Send a message, and bytes behind it; `on_wait` and what is raised as for `receive_into`."""
    text = message.model_dump_json(exclude_defaults=True).encode()
    for part in (_LENGTH.pack(len(text)), text, *payload):
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
    if length > _MOST_BYTES:
        raise Disconnected
    return parsed(kind, receive_bytes(connection, length, on_wait))


def receive_bytes(connection: socket.socket, length: int, on_wait: Callable[[], None] | None = None) -> bytes:
    """Receive so many bytes; raises as `receive_into`."""
    room = bytearray(length)
    receive_into(connection, memoryview(room), on_wait)
    return bytes(room)


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
        try:
            came = connection.recv_into(room, min(len(room), _PIECE))
        except TimeoutError:
            if on_wait is None:
                raise
        except OSError:
            raise Disconnected from None
        else:
            if not came:
                raise Disconnected
            room = room[came:]
        if on_wait is not None:
            on_wait()


def parsed(kind: type[Message], text: bytes) -> Message:
    """Read a message of a kind.

    Raises:
        Disconnected: it is none.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError:
        raise Disconnected from None
