"""What a hostile case is: its bytes, how they are sent, and what may be answered."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class File:
    """A picture file; sent as a form's file, or as the body where `raw`."""

    data: bytes
    kind: str = "image/jpeg"
    raw: bool = False
    suffix: str = ".bin"

    def stored(self) -> tuple[str, bytes]:
        """The suffix and the bytes to write to a folder."""
        return self.suffix, self.data


@dataclass(frozen=True)
class Body:
    """A whole body with its type, as it is."""

    data: bytes
    kind: str
    path: str = "/enhance"
    headers: tuple[tuple[str, str], ...] = ()

    def stored(self) -> tuple[str, bytes]:
        return ".zip" if "zip" in self.kind else ".body", self.data


@dataclass(frozen=True)
class Pair:
    """A good picture and a hostile reference, or the other way round."""

    image: bytes
    reference: bytes
    path: str = "/evaluate"

    def stored(self) -> tuple[str, bytes]:
        return ".reference", self.reference


@dataclass(frozen=True)
class Wire:
    """Bytes of a connection, where a client library would not send them; the connection is half closed after them."""

    data: bytes

    def stored(self) -> tuple[str, bytes]:
        return ".http", self.data


@dataclass(frozen=True)
class Talk:
    """Messages of one WebSocket, and what each of them is answered with: `None` where nothing is."""

    messages: tuple[str | bytes, ...]
    closes: bool = False

    def stored(self) -> tuple[str, bytes]:
        told = [each if isinstance(each, str) else {"hex": each.hex()} for each in self.messages]
        return ".json", json.dumps(told).encode()


Sent = File | Body | Pair | Wire | Talk


@dataclass(frozen=True)
class Case:
    """One hostile case.

    Attributes:
        name: unique in its group.
        sent: the bytes, and how they go.
        problems: names of the problems that may be answered.
        harmless: why a good service may as well answer the picture; empty where it may not.
        entries: how many problems `errors.json` lists, where the answer is a zip; their names are `problems`.
        seconds: most that the answer may take, on a slow machine.
        megabytes: most that the server's processes may grow by on the way to the answer.
        group: what it is about; `cases()` fills it in.
    """

    name: str
    sent: Sent
    problems: frozenset[str]
    harmless: str = ""
    entries: int = 0
    seconds: float = 10.0
    megabytes: float = 192.0
    group: str = field(default="")

    @property
    def identity(self) -> str:
        return f"{self.group}/{self.name}"


MALFORMED: Final = frozenset({"malformed-picture"})
FORMAT: Final = frozenset({"unsupported-format"})
LARGE: Final = frozenset({"picture-too-large"})
SCANS: Final = frozenset({"too-many-scans"})
FRAMES: Final = frozenset({"too-many-frames"})
SAMPLES: Final = frozenset({"unsupported-samples"})
REQUEST: Final = frozenset({"malformed-request"})
KIND: Final = frozenset({"unsupported-media-type"})
ZIP: Final = frozenset({"malformed-zip"})
ENTRY: Final = frozenset({"unusable-entry"})
MANY: Final = frozenset({"too-many-files"})
UNZIPPED: Final = frozenset({"unzipped-too-large"})
PARAMETER: Final = frozenset({"invalid-parameter"})
BYTES: Final = frozenset({"body-too-large"})
DIFFER: Final = frozenset({"sizes-differ"})

METADATA_LOST: Final = "what metadata claims must not cost the picture: what can't be read is left out"
PROFILE_LOST: Final = "a profile that can't be used is left out, and the picture is taken for sRGB"

Make = Callable[[], Iterator[Case]]


def truncated(name: str, data: bytes, places: list[tuple[str, int]], suffix: str) -> Iterator[Case]:
    """Cut a file at each named place."""
    for at, place in places:
        short = data[:place]
        problems = MALFORMED if len(short) >= 14 else MALFORMED | FORMAT
        yield Case(f"{name} cut {at}", File(short, suffix=suffix), problems)
