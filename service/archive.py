"""Zips: one that comes in is read within limits, one that goes out is written piece by piece. No I/O, no threads."""

import io
import re
import stat
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Final

_SIGNATURES: Final = (b"PK\x03\x04", b"PK\x05\x06")
"""How a zip begins, and how an empty one does."""
_DIRECTORY_ENTRY: Final = b"PK\x01\x02"
_ENCRYPTED: Final = 1 << 0
_LONGEST_NAME: Final = 200
"""Bytes of a file's or folder's name; file systems hold 255 or more, and numbering needs a few."""
_DEEPEST: Final = 16
"""Names in a path; of a deeper one the last ones stay."""
_LONGEST_PATH: Final = 4096
"""Characters of a path as it came: more than systems take."""
_LONGEST_SUFFIX: Final = 10
_A_FILE: Final = 1 << 10
"""Bytes that a zip's directory may have for each file that it may hold: on average, and usually it has some 100."""
_A_DIRECTORY: Final = 64 << 10
"""Bytes that it may have besides."""
_LOCAL_HEADER: Final = 30
"""Bytes before each file of a zip, without its name."""
_PIECE: Final = 1 << 20

# what Windows forbids in names, and control characters, which no name needs
_FORBIDDEN: Final = re.compile(r'[\x00-\x1f\x7f<>:"|?*]')
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_LITTER: Final = re.compile(r"(^|/)(__MACOSX/|\._|\.DS_Store$|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)


class MalformedZip(Exception):
    """The zip can't be read; the message says why in words for the client."""


class TooManyFiles(Exception):
    """More files than are taken at once.

    Attributes:
        limit: how many are.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} files")
        self.limit = limit


class UnzippedTooLarge(Exception):
    """A zip's files claim more bytes than are allowed.

    Attributes:
        claimed: how many, all together.
        limit: how many are allowed.
    """

    def __init__(self, claimed: int, limit: int) -> None:
        super().__init__(f"{claimed} bytes unzipped, and {limit} are allowed")
        self.claimed = claimed
        self.limit = limit


class UnusableEntry(Exception):
    """One file of several can't be had; the message says why in words for the client."""


@dataclass(frozen=True)
class Limits:
    """What a zip may hold.

    Attributes:
        files: how many.
        file_bytes: of one of them, unzipped.
        total_bytes: of all together, unzipped.
    """

    files: int
    file_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class File:
    """A file that came with a request.

    Attributes:
        name: as it came; in an answer only through `Names`.
        read: gives its bytes; one of a zip is unzipped then. Raises `UnusableEntry` where it can't be had.
        unzips: bytes of memory that reading it takes: what the zip claims, where that is allowed.
    """

    name: str
    read: Callable[[], bytes]
    unzips: int = 0


def is_zip(data: bytes) -> bool:
    """Whether a file begins as a zip."""
    return data.startswith(_SIGNATURES)


def read_zip(data: bytes, limits: Limits) -> list[File]:
    """List a zip's files; nothing is unzipped yet. Folders and what systems leave in zips are passed over.

    Args:
        data: the whole zip.
        limits: what is checked by what the zip's directory claims; `File.read` gives no more than is claimed.

    Raises:
        MalformedZip, TooManyFiles, UnzippedTooLarge: see each.
    """
    source = _Source(data, limits.files)
    try:
        archive = zipfile.ZipFile(source)
    except (MalformedZip, TooManyFiles):
        raise
    except Exception as error:
        raise MalformedZip("Send the whole, undamaged zip.") from error
    source.opening = False
    whole = archive.infolist()
    if any(len(entry.filename) > _LONGEST_PATH for entry in whole):
        raise MalformedZip(f"A name in it has more than {_LONGEST_PATH} characters: use shorter ones.")
    # not is_dir(), which fails on an entry without a name
    files = [entry for entry in whole if not entry.filename.endswith("/")]
    entries = [entry for entry in files if not _LITTER.search(entry.filename)]
    if len(entries) > limits.files:
        raise TooManyFiles(limits.files)
    claimed = sum(entry.file_size for entry in entries)
    if claimed > limits.total_bytes:
        raise UnzippedTooLarge(claimed, limits.total_bytes)
    if not entries:
        raise MalformedZip("It holds no files.")
    overlapping, most = _overlapping(archive), limits.file_bytes

    def read_of(entry: zipfile.ZipInfo) -> Callable[[], bytes]:
        return _overlaps if entry in overlapping else partial(_unzip, archive, entry, most)

    return [
        File(entry.filename, read_of(entry), entry.file_size if entry.file_size <= most else 0) for entry in entries
    ]


class _Source(io.BytesIO):
    """A zip's bytes, of which `ZipFile` reads the directory as a whole while it opens.

    It makes an object of half a kilobyte of each of its entries, and looks through each one's extra fields.

    Attributes:
        opening: whether it still does.
    """

    def __init__(self, data: bytes, most_files: int) -> None:
        super().__init__(data)  # it is not copied
        self.opening = True
        self._most_files = most_files

    def read(self, size: int | None = -1, /) -> bytes:
        """Read.

        Raises:
            TooManyFiles, MalformedZip: it is a directory that is too long.
        """
        if not self.opening or size is None or size <= _A_DIRECTORY:
            return super().read(size)
        if size > _A_DIRECTORY + self._most_files * _A_FILE:
            beginning = super().read(_A_DIRECTORY)
            if beginning.count(_DIRECTORY_ENTRY) * _A_FILE > len(beginning):
                raise TooManyFiles(self._most_files)
            raise MalformedZip("Its names, or what else it says of its files, are too long: use shorter ones.")
        directory = super().read(size)
        # twice and a few more: folders are no files, and the four bytes may stand elsewhere by chance
        if directory.count(_DIRECTORY_ENTRY) > 2 * self._most_files + 100:
            raise TooManyFiles(self._most_files)
        return directory


def _overlapping(archive: zipfile.ZipFile) -> set[zipfile.ZipInfo]:
    """Return the entries that go on where another begins, which zips of a few bytes use to unzip to a great many.

    Python refuses them itself since 3.11.8 and 3.12.3 (CVE-2024-0450).
    """
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    ends = [*(entry.header_offset for entry in entries[1:]), archive.start_dir]
    return {
        entry
        for entry, end in zip(entries, ends, strict=True)
        if entry.header_offset + _LOCAL_HEADER + entry.compress_size > end
    }


def _overlaps() -> bytes:
    raise UnusableEntry("It overlaps another file of the zip: zip it again.")


def _unzip(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    if entry.flag_bits & _ENCRYPTED:
        raise UnusableEntry("It is encrypted: zip it without a password.")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise UnusableEntry("It is a link: put the picture itself into the zip.")
    # Python's other decompressors can't be told where to stop, and would unzip a bomb whole
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnusableEntry("It is compressed in a way that is not supported: use deflate, as zips usually do.")
    if entry.file_size > most:
        raise UnusableEntry(f"It is too large: send files of at most {most} bytes.")
    try:
        with archive.open(entry) as file:
            # no more than it claims is inflated, even where the directory lies; in pieces, since in one go zlib takes
            # twice the memory and the interpreter's lock is kept for each copy
            left, pieces = entry.file_size, []
            while left and (piece := file.read(min(left, _PIECE))):
                pieces.append(piece)
                left -= len(piece)
            data = b"".join(pieces)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise UnusableEntry("It is damaged: zip it again.") from error
    if len(data) < entry.file_size:
        raise UnusableEntry("It is damaged: zip it again.")
    if is_zip(data):
        raise UnusableEntry("It is a zip itself, which is not opened: put its pictures into the outer one.")
    return data


def safe_name(name: str) -> str:
    """Return a relative path that any system can unzip, inside the folder that it unzips to.

    Folders are kept, the last 16 of them; what leads out of them (`..`, a root, a drive) is left out.
    """
    parts = name[-_LONGEST_PATH:].replace("\\", "/").split("/")
    parts = [part for part in parts if part not in ("", ".", "..")][-_DEEPEST:]
    return "/".join(filter(None, map(_safe_part, parts))) or "picture"


def _safe_part(part: str) -> str:
    if len(part) > 2 * _LONGEST_NAME:  # before it is cleaned, which goes over each character
        part = part[:_LONGEST_NAME] + part[-_LONGEST_NAME:]
    clean = _FORBIDDEN.sub("_", part.encode(errors="replace").decode()).strip(" ").rstrip(". ")
    if re.fullmatch(r"[A-Za-z]_", clean) and part[1:2] == ":":  # a drive
        return ""
    if _DEVICE.fullmatch(clean):
        clean = f"_{clean}"
    if len(clean.encode()) > _LONGEST_NAME:
        suffix = PurePosixPath(clean).suffix[:_LONGEST_SUFFIX]
        clean = clean.encode()[: _LONGEST_NAME - len(suffix.encode())].decode(errors="ignore") + suffix
    return clean


class Names:
    """Gives out names for the files of a zip: safe, of the right suffix, each once whatever its case.

    All together take time in proportion to how many they are, whatever they are called.
    """

    def __init__(self) -> None:
        self._taken = {"errors.json"}
        self._numbers: dict[str, int] = {}
        """By a name that was asked for again, the number to try next."""

    def take(self, name: str, suffixes: tuple[str, ...] = ()) -> str:
        """Return a name for a file.

        Args:
            name: as it came.
            suffixes: those that fit what the file holds; the first one replaces any other. None stand for any.
        """
        path = PurePosixPath(safe_name(name))
        if suffixes and path.suffix.lower() not in suffixes:
            path = path.with_name(f"{path.stem}{suffixes[0]}")
        free = wanted = str(path)
        folded = wanted.casefold()
        if folded in self._taken:
            before, number = wanted.removesuffix(path.suffix), self._numbers.get(folded, 2)
            # each name in the way is stepped over once: it is this one's only with its number
            while (free := f"{before} ({number}){path.suffix}").casefold() in self._taken:
                number += 1
            self._numbers[folded] = number + 1
        self._taken.add(free.casefold())
        return free


class ZipWriter:
    """Writes a zip to nowhere in particular: each call gives the bytes that come next."""

    def __init__(self) -> None:
        self._sink = _Sink()
        # Nothing is compressed, since pictures are already; yet entries are deflated ones, of level 0: a stored entry
        # whose size follows it, as it must in a stream, is refused by Java's and other streaming readers.
        self._zip = zipfile.ZipFile(self._sink, "w")

    def add(self, name: str, data: bytes) -> list[bytes]:
        """Give an entry."""
        entry = zipfile.ZipInfo(name, time.localtime()[:6])
        entry.external_attr = (stat.S_IFREG | 0o644) << 16
        self._zip.writestr(entry, data, zipfile.ZIP_DEFLATED, compresslevel=0)
        return self._sink.take()

    def close(self) -> list[bytes]:
        """Give the directory, with which the zip ends."""
        self._zip.close()
        return self._sink.take()


class _Sink(io.RawIOBase):
    """A file that can't be sought in and forgets what was taken."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self._pieces.append(piece)
        return len(piece)

    def take(self) -> list[bytes]:
        taken, self._pieces = self._pieces, []
        return taken
