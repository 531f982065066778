"""The requests of a soak, encoded beforehand, and what each has to be answered."""

import io
import json
import math
import os
import random
import subprocess
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import httpx
import numpy as np
import numpy.typing as npt

from benchmarks.pictures import photo
from benchmarks.server import COMMAND
from service.codec import Format, Header, Picture, encode
from service.tiling import plan
from tests.heic_grid import grid_heic

SIZES: Final[Mapping[str, tuple[int, int, float, Sequence[Format]]]] = {
    "64x64": (64, 64, 22, ("jpeg", "png", "webp", "tiff", "bmp", "heic", "avif")),
    "160x120": (120, 160, 15, ("jpeg", "png", "webp", "tiff", "bmp", "heic", "avif")),
    "256x256": (256, 256, 20, ("jpeg", "png", "webp", "tiff", "bmp", "heic", "avif")),
    "640x480": (480, 640, 20, ("jpeg", "png", "webp", "tiff", "bmp", "heic", "avif")),
    "1024x768": (768, 1024, 12, ("jpeg", "png", "webp", "heic", "avif")),
    "2 megapixels": (1080, 1920, 7, ("jpeg", "webp", "heic", "avif")),
    "6 megapixels": (2112, 2816, 2, ("jpeg", "png", "heic", "avif")),
    "12 megapixels": (3072, 4096, 0.4, ("jpeg", "heic")),
    "24 megapixels": (4000, 6000, 0.1, ("jpeg",)),
}
"""Height, width, how often, and the formats that pictures come in."""

OPTIONS: Final[Sequence[Mapping[str, str]]] = (
    {},
    {"strength": "0.5", "overlap": "fast"},
    {"overlap": "max"},
    {"camera": "sony"},
    {"camera": "blackberry", "format": "png"},
    {"format": "webp"},
)

BARELY: Final = 0.001
"""A strength at which a change of up to 255 levels rounds to none: the answer is the picture, by way of every tile. At
strength 0 nothing would be computed."""

_OVERLAPS: Final = {"fast": 16, "max": 64}
_SUFFIXES: Final = {"jpeg": "jpg", "tiff": "tif"}

Kind = Literal["picture", "unique", "zip", "evaluate", "bad"]


@dataclass(frozen=True)
class Ask:
    """One kind of request.

    Attributes:
        name: for people.
        kind: how its answer is checked.
        weight: how often it is sent, relative to the others.
        tiles: how many its answer takes.
        path, headers, body: of the request.
        expected: the whole answer: of a picture its bytes, of a zip its entries' by name, of /evaluate the scores, of a
            bad request the statuses that are right.
    """

    name: str
    kind: Kind
    weight: float
    tiles: int
    path: str
    headers: Mapping[str, str]
    body: bytes
    expected: Any = None


@dataclass
class Mix:
    """All kinds of requests, and one drawn at a time."""

    asks: Sequence[Ask]
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    @property
    def tiles(self) -> float:
        """Tiles of a request, on average."""
        return sum(ask.weight * ask.tiles for ask in self.asks) / sum(ask.weight for ask in self.asks)

    def draw(self) -> Ask:
        """Return the next request; one of the kind `unique` gets pixels of its own."""
        (ask,) = self.rng.choices(self.asks, [ask.weight for ask in self.asks])
        return unique(ask, self.rng.getrandbits(32)) if ask.kind == "unique" else ask

    def good(self) -> "Mix":
        """The same without what is refused for its own sake."""
        return Mix([ask for ask in self.asks if ask.kind != "bad"], self.rng)


def unique(ask: Ask, seed: int) -> Ask:
    """Return the request with pixels that no other has; at strength `BARELY` they are the answer as well."""
    height, width = ask.expected
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    body = cv2.imencode(".bmp", pixels)[1].tobytes()
    return Ask(ask.name, "unique", ask.weight, ask.tiles, ask.path, ask.headers, body, pixels)


def make_mix(folder: Path, largest: float) -> Mix:
    """Make the pictures, let `pix2dslr enhance` answer them one tile at a time, and wrap both up.

    Args:
        folder: an empty one, for the files.
        largest: megapixels of the largest picture.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    made: list[tuple[str, float, tuple[int, int], Mapping[str, str], Path]] = []
    seed = 0
    for size, (height, width, weight, formats) in SIZES.items():
        if height * width > largest * 1e6:
            continue
        for format_ in formats:
            seed += 1
            options = OPTIONS[seed % len(OPTIONS)]
            source = folder / f"in-{seed % len(OPTIONS)}" / f"{seed}.{_SUFFIXES.get(format_, format_)}"
            source.parent.mkdir(exist_ok=True)
            source.write_bytes(_file(photo(height, width, seed), format_))
            made.append((f"{size} {format_}", weight / len(formats), (height, width), options, source))
    asks = []
    for number, options in enumerate(OPTIONS):
        _answer(folder, number, options)
    for number, (name, weight, size_, options, source) in enumerate(made):
        tiles = plan(*size_, _OVERLAPS.get(options.get("overlap", ""), 32)).tiles
        expected = _answer_to(source).read_bytes()
        # a form and a raw body in turns
        headers, path, body = (_form, _raw)[number % 2](source, options)
        asks.append(Ask(name, "picture", weight, tiles, path, headers, body, expected))
    asks += [
        Ask(f"unique {edge}", "unique", 5, plan(edge, edge).tiles, f"/enhance?strength={BARELY}",
            {"Content-Type": "image/bmp"}, b"", (edge, edge + 3))
        for edge in (48, 130, 300)
    ]  # fmt: skip
    asks += [_zip([each for each in made if each[3] is OPTIONS[0]][:4]), _evaluate(folder)]
    return Mix(asks + bad())


def _file(pixels: npt.NDArray[np.uint8], format_: Format) -> bytes:
    """Write a picture; a large HEIC as a grid of tiles, as phones do."""
    height, width = pixels.shape[:2]
    if format_ == "heic" and height * width > 1e6:
        return grid_heic(pixels, math.gcd(height, width))
    return encode(Picture(pixels, Header(format_, height, width)), format_, 90)


def _answer(folder: Path, number: int, options: Mapping[str, str]) -> None:
    """Let the command enhance a folder, one tile at a time."""
    arguments = [f"--{name}={value}" for name, value in options.items()]
    environment = os.environ | {"PIX2DSLR_BATCH_SIZES": "[1]"}
    subprocess.run(
        [COMMAND, "enhance", str(folder / f"in-{number}"), "--out", str(folder / f"out-{number}"), *arguments],
        check=True, env=environment, capture_output=True,
    )  # fmt: skip


def _answer_to(source: Path) -> Path:
    (answer,) = source.parent.with_name(source.parent.name.replace("in", "out")).glob(f"{source.stem}.*")
    return answer


def _form(source: Path, options: Mapping[str, str]) -> tuple[dict[str, str], str, bytes]:
    return _multipart("/enhance", [("image", source.read_bytes())], options)


def _multipart(
    path: str, files: Sequence[tuple[str, bytes]], data: Mapping[str, str]
) -> tuple[dict[str, str], str, bytes]:
    parts = [(name, (f"{number}", content)) for number, (name, content) in enumerate(files)]
    request = httpx.Request("POST", "http://localhost", files=parts, data=dict(data))
    return {"Content-Type": request.headers["Content-Type"]}, path, request.read()


def _raw(source: Path, options: Mapping[str, str]) -> tuple[dict[str, str], str, bytes]:
    query = str(httpx.QueryParams(dict(options)))
    return {"Content-Type": "application/octet-stream"}, f"/enhance?{query}", source.read_bytes()


def _zip(made: Sequence[tuple[str, float, tuple[int, int], Mapping[str, str], Path]]) -> Ask:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for _, _, _, _, source in made:
            archive.write(source, source.name)
    expected = {source.name: _answer_to(source).read_bytes() for _, _, _, _, source in made}
    tiles = sum(plan(*size).tiles for _, _, size, _, _ in made)
    return Ask("zip", "zip", 3, tiles, "/enhance", {"Content-Type": "application/zip"}, buffer.getvalue(), expected)


def _evaluate(folder: Path) -> Ask:
    phone, dslr = photo(300, 400, 901), photo(300, 400, 902)
    sources = [folder / "phone.png", folder / "dslr.png"]
    for source, pixels in zip(sources, (phone, dslr), strict=True):
        source.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    told = subprocess.run([COMMAND, "evaluate", *map(str, sources), "--json", "-"], check=True, capture_output=True)
    (row,) = json.loads(told.stdout)["pictures"]
    expected = {name: row[name] for name in ("input", "output")}
    files = [("image", sources[0].read_bytes()), ("reference", sources[1].read_bytes())]
    headers, path, body = _multipart("/evaluate", files, {})
    return Ask("evaluate", "evaluate", 3, plan(300, 400).tiles, path, headers, body, expected)


def bad() -> list[Ask]:
    """Requests that have to be refused, each with the statuses that say why."""
    png = cv2.imencode(".png", photo(200, 200, 903))[1].tobytes()
    jpeg = cv2.imencode(".jpg", photo(200, 200, 903))[1].tobytes()
    # a header that claims 65535 x 65535 pixels; its checksum is made right, so that the size is what is wrong
    ihdr = b"IHDR" + (65_535).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    bomb = png[:12] + ihdr + _crc(ihdr) + png[33:]
    raw = {"Content-Type": "application/octet-stream"}
    half = png[: len(png) // 2]

    def made(name: str, statuses: Sequence[int], body: bytes, path: str = "/enhance", **headers: str) -> Ask:
        return Ask(name, "bad", 1, 0, path, headers or raw, body, tuple(statuses))

    return [
        made("half a PNG", [400], half),
        made("a JPEG's first bytes", [400], jpeg[:30]),
        made("a PNG of 65535x65535", [422], bomb),
        made("text", [415], b"no picture " * 1000),
        made("a GIF", [415], b"GIF89a" + bytes(500)),
        made("JSON", [415], b"{}", **{"Content-Type": "application/json"}),
        made("strength 2", [422], png, "/enhance?strength=2"),
        made("no such camera", [422], png, "/enhance?camera=kodak"),
        made("no picture", [400], b""),
        made("a broken form", [400], b"nonsense", **{"Content-Type": "multipart/form-data; boundary=b"}),
        # answered as soon as the length is known; the client sends no more than this
        made("a length of 1 TB", [413], b"", **{"Content-Type": "image/png", "Content-Length": str(10**12)}),
    ]


def _crc(chunk: bytes) -> bytes:
    return zlib.crc32(chunk).to_bytes(4, "big")
