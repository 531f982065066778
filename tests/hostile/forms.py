"""Multipart bodies: boundaries, parts by the thousand, names of files (RFC 7578)."""

from collections.abc import Iterator

from tests.hostile import good
from tests.hostile.case import BYTES, DIFFER, FORMAT, KIND, MALFORMED, MANY, PARAMETER, REQUEST, Body, Case, Pair

FORM = "multipart/form-data; boundary=b"
PLAIN = "a file's name says nothing of the picture and is never used"


def part(name: str = "image", data: bytes = b"", *, file: str | bytes | None = "photo.png", more: bytes = b"") -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="' + name.encode() + b'"'
    if file is not None:
        head += b'; filename="' + (file.encode() if isinstance(file, str) else file) + b'"'
    return head + b"\r\n" + more + b"\r\n" + data + b"\r\n"


def form(*parts: bytes) -> Body:
    return Body(b"".join(parts) + b"--b--\r\n", FORM)


GOOD = good.png()


def _names() -> Iterator[Case]:
    for file in (
        "../../etc/passwd", "/etc/passwd", "C:\\boot.ini", "a" * 3000, "\u202egpj.png", "con", ".", "", "\u00e9\u4e2d",
        b"\xff\xfe\xfd", "a;b=c", "a%0d%0aX-Evil: 1", "<script>", "${jndi:ldap://127.0.0.1}", "a\tb", "'; DROP TABLE x",
    ):  # fmt: skip
        yield Case(f"a good file {file[:24]!r}", form(part(data=GOOD, file=file)), REQUEST, PLAIN)
        yield Case(f"no picture named {file[:24]!r}", form(part(data=b"no picture", file=file)), FORMAT | REQUEST)
    for file in (b"a\0b", b"a\nX-Evil: 1", b"a\rb", b'a"b', b"a\x1b[31m", b"x" * 100_000):
        yield Case(
            f"no picture of the raw name {file[:24]!r}", form(part(data=b"no picture", file=file)), FORMAT | REQUEST
        )


def _boundaries() -> Iterator[Case]:
    body = part(data=GOOD) + b"--b--\r\n"
    for kind in (
        "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=other",
        "multipart/form-data; boundary=" + "b" * 10_000, "multipart/form-data; boundary=\"",
        "multipart/form-data; bound=b",
        "multipart/form-data; boundary=b; boundary=c; boundary=d", "multipart/form-data; boundary=\xe9",
        "multipart/form-data;;;",
        'multipart/form-data; boundary="b', "multipart/form-data; boundary*=utf-8''b",
    ):  # fmt: skip
        yield Case(f"the type {kind[:60]!r}", Body(body, kind), REQUEST, "a reader may find the boundary")
    for kind in (
        "multipart/mixed; boundary=b",
        "multipart/related; boundary=b",
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/json",
        "x" * 3000,
        "image",
        "/",
        "text/html; charset=\xe9",
    ):
        yield Case(f"the type {kind[:60]!r}", Body(body, kind), KIND)
    for name, data in {
        "no boundary at the end": part(data=GOOD),
        "cut in the samples": part(data=GOOD)[:1000],
        "cut in the header": part(data=GOOD)[:30],
        "nothing but the end": b"--b--\r\n",
        "the boundary alone": b"--b",
        "a megabyte before the boundary": b"x" * 1_000_000 + b"\r\n" + body,
        "a boundary without a line": b"--b" * 100_000,
        "no header": b"--b\r\n\r\nx\r\n--b--\r\n",
        "a header without a colon": b"--b\r\nnonsense\r\n\r\nx\r\n--b--\r\n",
        "a header of a megabyte": b"--b\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\nx\r\n--b--\r\n",
        "100000 headers": b"--b\r\n" + b"X: y\r\n" * 100_000 + b"\r\nx\r\n--b--\r\n",
        "bytes that are no text in a header": b"--b\r\n\xff\xfe: \0\r\n\r\nx\r\n--b--\r\n",
        "line ends of Unix": body.replace(b"\r\n", b"\n"),
        "nothing": b"",
        "zeros": bytes(100_000),
        "no name": b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
        "no disposition": b"--b\r\nContent-Type: image/png\r\n\r\n" + GOOD + b"\r\n--b--\r\n",
    }.items():
        yield Case(name, Body(data, FORM), REQUEST)
    other = Body(body.replace(b"form-data;", b"attachment;"), FORM)
    yield Case("another disposition", other, REQUEST, "its name counts")
    inner = part(data=GOOD) + b"--b--\r\n"
    nested = b'--o\r\nContent-Disposition: form-data; name="image"\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n'
    yield Case("a form in a form", Body(nested + inner + b"\r\n--o--\r\n", "multipart/form-data; boundary=o"), REQUEST)
    packed = part(data=GOOD, more=b"Content-Transfer-Encoding: base64\r\n")
    yield Case("a part said to be base64", form(packed), REQUEST | FORMAT, "no one sends that any more (RFC 7578, 4.7)")


def _parts() -> Iterator[Case]:
    yield Case("1100 files", form(*[part(data=GOOD[:60])] * 1100), MANY)
    yield Case("100000 empty files", form(*[part()] * 100_000), MANY)
    yield Case("33 fields", form(part(data=GOOD), *[part("x", b"1", file=None)] * 33), REQUEST)
    yield Case("100000 fields", form(*[part("x", b"1", file=None)] * 100_000), REQUEST)
    yield Case("100000 equal options", form(part(data=GOOD), *[part("strength", b"1", file=None)] * 100_000), REQUEST)
    yield Case(
        "two strengths",
        form(part(data=GOOD), part("strength", b"x", file=None), part("strength", b"9", file=None)),
        PARAMETER,
    )
    yield Case(
        "a field of 2 MB", form(part(data=GOOD), part("strength", b"1" * 2_000_000, file=None)), REQUEST | PARAMETER
    )
    yield Case(
        "a field's name of a megabyte",
        form(part(data=GOOD), part("x" * 1_000_000, b"1", file=None)),
        REQUEST | PARAMETER,
    )
    yield Case("an empty file", form(part()), REQUEST)
    yield Case("the picture as text", form(part(data=GOOD, file=None)), REQUEST)
    yield Case("a file of another name", form(part("picture", GOOD)), REQUEST)
    yield Case("two references", form(part(data=GOOD), part("reference", GOOD), part("reference", GOOD)), REQUEST)
    yield Case("two pictures and a reference", form(part(data=GOOD), part(data=GOOD), part("reference", GOOD)), REQUEST)
    yield Case("70 MB in a part", form(part(data=bytes(70_000_000))), BYTES)
    for name, value in {
        "strength": b"nan", "overlap": b"../../x", "format": b"exe", "camera": b"../../etc/passwd", "metadata": b"\0",
        "encoder_quality": b"9" * 3000, "__class__": b"x", "camera ": b"iphone",
    }.items():  # fmt: skip
        problems = PARAMETER | frozenset({"unknown-camera"})
        yield Case(f"the option {name} {value[:20]!r}", form(part(data=GOOD), part(name, value, file=None)), problems)
    yield Case(
        "bytes that are no text for an option",
        form(part(data=GOOD), part("camera", b"\xff\xfe", file=None)),
        PARAMETER | REQUEST | frozenset({"unknown-camera"}),
    )
    for coding in ("gzip", "br", "deflate, gzip", "x" * 1000):
        yield Case(f"a body in {coding[:12]}", Body(GOOD, "image/png", headers=(("Content-Encoding", coding),)), KIND)
    for kind in ("image/png", "application/octet-stream", "image/*"):
        yield Case(f"no body of {kind}", Body(b"", kind), REQUEST)
    for query in (
        "strength=" + "9" * 5000,
        "strength=%00",
        "camera=%ff%fe",
        "x=1",
        "&".join(f"a{i}=1" for i in range(1000)),
        "strength=1e999",
    ):
        path = f"/enhance?{query}"
        problems = PARAMETER | frozenset({"unknown-camera"}) if query.count("&") < 32 else REQUEST
        yield Case(f"the query {query[:24]!r}", Body(GOOD, "image/png", path), problems)


def _references() -> Iterator[Case]:
    for name, data, problems in (
        ("half a PNG", GOOD[: len(GOOD) // 2], MALFORMED), ("half a JPEG", good.jpeg()[:1000], MALFORMED),
        ("SVG", b"<svg/>", FORMAT), ("a byte", b"x", FORMAT),
        ("another size", good.saved(good.pixels(41, 48), "PNG"), DIFFER),
    ):  # fmt: skip
        for path in ("/enhance", "/evaluate"):
            yield Case(f"{path} with a reference: {name}", Pair(GOOD, data, path), problems)
        yield Case(f"/evaluate of {name}", Pair(data, GOOD), problems)
    claims = GOOD[:16] + b"\0\0\xff\xff\0\0\xff\xff" + GOOD[24:]
    for path in ("/enhance", "/evaluate"):
        yield Case(
            f"{path} with a reference that claims 65535x65535",
            Pair(GOOD, claims, path),
            MALFORMED | frozenset({"picture-too-large"}),
        )
        yield Case(f"{path} with an empty reference", Pair(GOOD, b"", path), REQUEST)
        zip_ = b"PK\3\4" + bytes(100)
        yield Case(f"{path} with a zip for a reference", Pair(GOOD, zip_, path), FORMAT)


def cases() -> Iterator[Case]:
    yield from _names()
    yield from _boundaries()
    yield from _parts()
    yield from _references()
