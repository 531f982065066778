"""Forms and bodies: the same parts however they come, within bounds."""

import itertools
import tracemalloc
from collections.abc import Sequence

import anyio
import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from service.edge.forms import BrokenForm, Part, TooManyParts, read_body, read_form

KIND = "multipart/form-data; boundary=x"


def request_of(pieces: Sequence[bytes], kind: str = KIND) -> Request:
    left = [*pieces, b""]

    async def receive() -> Message:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return Request({"type": "http", "headers": [(b"content-type", kind.encode())]}, receive)


def read(*pieces: bytes, kind: str = KIND, files: int = 10, fields: int = 10) -> list[Part]:
    return anyio.run(read_form, request_of(pieces, kind), files, fields)


def part(disposition: bytes, data: bytes, more: bytes = b"") -> bytes:
    return b"--x\r\nContent-Disposition: form-data" + disposition + more + b"\r\n\r\n" + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--x--\r\n"


SEVERAL = form(
    part(b'; name="image"; filename="a.jpg"', b"\r\n--y" * 2000, b"\r\nContent-Type: image/jpeg"),
    part(b"; name=camera", "Füße".encode()),
    part(b'; name="image"; filename="\xff.jpg"', b""),
)
PARTS = [
    Part("image", "a.jpg", b"\r\n--y" * 2000),
    Part("camera", None, "Füße".encode()),
    Part("image", "\xff.jpg", b""),
]


@given(st.lists(st.integers(0, len(SEVERAL)), max_size=20))
def test_a_form_in_any_pieces(places: list[int]) -> None:
    cuts = [0, *sorted(places), len(SEVERAL)]
    pieces = [SEVERAL[start:end] for start, end in itertools.pairwise(cuts)]
    assert read(*pieces) == PARTS
    assert anyio.run(read_body, request_of(pieces)) == SEVERAL


def test_a_form_in_single_bytes() -> None:
    assert read(*(SEVERAL[i : i + 1] for i in range(len(SEVERAL)))) == PARTS


def test_large_files_come_whole() -> None:
    large = bytes(range(256)) * 20_000
    assert read(form(part(b"; name=image; filename=a", large), part(b"; name=image; filename=b", large[1:]))) == [
        Part("image", "a", large),
        Part("image", "b", large[1:]),
    ]


def test_small_pieces_take_no_more_memory_than_large_ones() -> None:
    count = 20_000
    pieces = [b"z"] * count  # one object
    tracemalloc.start()
    assert len(anyio.run(read_body, request_of(pieces))) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * count, "the list of pieces, and twice the bytes"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (SEVERAL, "multipart/form-data"),
        (SEVERAL, "multipart/form-data; boundary=" + "x" * 300),
        (b"nothing of the kind", KIND),
        (form(part(b"", b"nameless")), KIND),
        (form(part(b"; name=camera", bytes(70_000))), KIND),
        (form(part(b"; name=camera" + b"; a=b" * 100, b"")), KIND),
        (form(part(b"; name=camera", b"", b"\r\nA: b" * 20)), KIND),
        (form(part(b"; name=camera", b"", b"\r\nA: " + b"b" * 10_000)), KIND),
    ],
)
def test_what_is_no_form(body: bytes, kind: str) -> None:
    with pytest.raises(BrokenForm):
        read(body, kind=kind)


@pytest.mark.parametrize(("filename", "files"), [(b"; filename=a", True), (b"", False)])
def test_more_parts_than_are_taken(filename: bytes, files: bool) -> None:
    one = part(b"; name=image" + filename, b"")
    assert len(read(form(*[one] * 10))) == 10
    with pytest.raises(TooManyParts) as caught:
        read(form(*[one] * 11))
    assert caught.value.files is files


@pytest.mark.parametrize("charset", ["punycode", "idna", "zlib", "utf-16", "nonsense"])
def test_a_codec_that_a_client_names_is_not_used(charset: str) -> None:
    # punycode takes time with the square of the length
    (only,) = read(form(part(b"; name=camera", b"a-" + b"9" * 60_000)), kind=f"{KIND}; charset={charset}")
    assert only.data == b"a-" + b"9" * 60_000
