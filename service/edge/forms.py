"""Bodies, whole and as multipart forms, read into memory within bounds and in steps that cost nobody else anything."""

import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, TypeVar

import anyio.lowlevel
import anyio.to_thread
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

Result = TypeVar("Result")

_MOST_FIELD_BYTES: Final = 64 << 10
"""Of a part that is no file: options take a few bytes. A part's headers python-multipart bounds itself: 8 of 4 kB."""
_MOST_TYPE: Final = 1000
"""Characters of a form's Content-Type: a boundary has up to 70."""
_MOST_SEMICOLONS: Final = 100
"""Of a part's Content-Disposition, which take time with the square of their number; there are two, and a name's own."""
_STEP: Final = 16 << 10
"""Bytes that are parsed without a look at the clock: the smallest parts there are take 10 ms."""
_TURN_S: Final = 0.002
"""Seconds of parsing after which others have their turn."""
_SMALL: Final = 1 << 10
"""Bytes of a piece that is not worth an object of its own."""
_LARGE: Final = 1 << 20
"""Bytes that a thread puts together."""


class BrokenForm(Exception):
    """The body is no form, or one of its parts exceeds a bound."""


class TooManyParts(Exception):
    """The form has more files, or more fields, than it may.

    Attributes:
        files: whether it is files.
    """

    def __init__(self, *, files: bool) -> None:
        super().__init__(f"too many {'files' if files else 'fields'}")
        self.files = files


@dataclass(frozen=True)
class Part:
    """One part of a form.

    Attributes:
        name: of the field.
        filename: as it came, None where the part is no file.
        data: what it holds.
    """

    name: str
    filename: str | None
    data: bytes


async def read_body(request: Request) -> bytes:
    """Read a request's body whole."""
    pieces = _Pieces()
    async with aclosing(request.stream()) as stream:
        async for piece in stream:
            pieces.add(piece)
    return await _as_loop_allows(pieces.joined, pieces.length)


async def read_form(request: Request, most_files: int, most_fields: int) -> list[Part]:
    """Read a request's multipart form; names, and text that is no UTF-8, are taken for Latin-1.

    Args:
        request: the request.
        most_files: parts with a file name that it may have.
        most_fields: parts without one.

    Raises:
        BrokenForm, TooManyParts: see each.
    """
    form = _Form(request.headers.get("content-type", ""), most_files, most_fields)
    turn = time.monotonic()
    async with aclosing(request.stream()) as stream:
        async for piece in stream:
            for start in range(0, len(piece), _STEP):
                form.feed(piece[start : start + _STEP])
                if time.monotonic() - turn > _TURN_S:
                    await anyio.lowlevel.checkpoint()
                    turn = time.monotonic()

    def parts() -> list[Part]:
        return [Part(each.name, each.filename, each.pieces.joined()) for each in form.parts]

    return await _as_loop_allows(parts, sum(each.pieces.length for each in form.parts))


def text_of(data: bytes) -> str:
    """Read text in UTF-8, or in Latin-1 where it is none."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


class _Pieces:
    """Bytes as they came.

    Attributes:
        length: how many.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._small = bytearray()  # small pieces, put together
        self.length = 0

    def add(self, data: bytes) -> None:
        self.length += len(data)
        if len(data) >= _SMALL and not self._small:
            self._pieces.append(data)
            return
        self._small += data
        if len(self._small) >= _STEP:
            self._pieces.append(bytes(self._small))
            self._small.clear()

    def joined(self) -> bytes:
        """Return them as one."""
        return b"".join([*self._pieces, bytes(self._small)])


async def _as_loop_allows(work: Callable[[], Result], length: int) -> Result:
    """Do work on so many bytes here, or in a thread where they are many; Python gives its lock away to copy a MB."""
    return work() if length < _LARGE else await anyio.to_thread.run_sync(work)


@dataclass
class _Growing:
    """A part that is not whole yet."""

    name: str = ""
    filename: str | None = None
    disposition: bytes = b""
    pieces: _Pieces = field(default_factory=_Pieces)


class _Form:
    """A form as far as it came.

    Attributes:
        parts: those that are whole.
    """

    def __init__(self, content_type: str, most_files: int, most_fields: int) -> None:
        _, told = parse_options_header(content_type[:_MOST_TYPE])
        if b"boundary" not in told:
            raise BrokenForm
        self._left = {True: most_files, False: most_fields}
        self.parts: list[_Growing] = []
        self._part = _Growing()
        self._header = self._value = b""
        try:
            self._parser = MultipartParser(
                told[b"boundary"],
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._add_to_header,
                    "on_header_value": self._add_to_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._name,
                    "on_part_data": self._add,
                    "on_part_end": self._end,
                },
            )
        except FormParserError as error:
            raise BrokenForm from error

    def feed(self, data: bytes) -> None:
        """Go on with what came."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise BrokenForm from error

    def _begin(self) -> None:
        self._part = _Growing()

    def _add_to_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._part.disposition = self._value
        self._header = self._value = b""

    def _name(self) -> None:
        disposition = self._part.disposition
        if disposition.count(b";") > _MOST_SEMICOLONS:
            raise BrokenForm
        _, told = parse_options_header(disposition)
        if b"name" not in told:
            raise BrokenForm
        self._part.name = text_of(told[b"name"])
        is_file = b"filename" in told
        if is_file:
            self._part.filename = text_of(told[b"filename"])
        self._left[is_file] -= 1
        if self._left[is_file] < 0:
            raise TooManyParts(files=is_file)

    def _add(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        part.pieces.add(data[start:end])
        if part.filename is None and part.pieces.length > _MOST_FIELD_BYTES:
            raise BrokenForm

    def _end(self) -> None:
        self.parts.append(self._part)
