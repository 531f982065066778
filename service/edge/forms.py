"""Multipart forms, read into memory within bounds."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final

from fastapi import Request
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartParser

_MOST_FIELD_BYTES: Final = 64 << 10
"""Of a part that is no file: options take a few bytes. A part's headers python-multipart bounds itself: 8 of 4 kB."""


class _InMemory(MultiPartParser):
    # Files stay in memory, where they are needed whole a moment later: a full or slow disk can't hurt, and how much
    # they take together is bounded by max_buffered_bytes. 0 means never to a file.
    spool_max_size = 0


@asynccontextmanager
async def read_form(request: Request, most_files: int, most_fields: int) -> AsyncIterator[FormData]:
    """Read a request's multipart form.

    Args:
        request: the request.
        most_files: parts with a file name that it may have.
        most_fields: parts without one.

    Raises:
        MultiPartException: it is no form, or exceeds a bound.
    """
    async with aclosing(request.stream()) as stream:
        parser = _InMemory(
            request.headers,
            stream,
            max_files=most_files,
            max_fields=most_fields,
            max_part_size=_MOST_FIELD_BYTES,
        )
        form = await parser.parse()
    try:
        yield form
    finally:
        await form.close()
