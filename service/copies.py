"""Copies of large bytes that keep Python's lock, and so the event loop, for no longer than a megabyte takes.

Python holds its lock for a copy of any length: for an answer of 300 MB a tenth of a second and more.
"""

from collections.abc import Iterator
from typing import Final

_PIECE: Final = 1 << 20
_AT_ONCE: Final = 8 << 20
"""Bytes that are not worth being copied twice: 2 ms."""


def pieces_of(data: bytes | memoryview) -> Iterator[bytes]:
    """Give bytes in pieces of up to a megabyte."""
    whole = memoryview(data)
    for start in range(0, len(whole), _PIECE):
        yield bytes(whole[start : start + _PIECE])


def joined(*parts: bytes | memoryview) -> bytes:
    """Return a copy of bytes, one part after the other; views are of single bytes."""
    if sum(map(len, parts)) <= _AT_ONCE:
        return b"".join(parts)
    # of bytes objects, and of nothing else, Python joins a megabyte or more without its lock
    return b"".join([piece for part in parts for piece in pieces_of(part)])
