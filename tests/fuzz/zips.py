"""Valid zips by two writers, with all that zips may hold besides files."""

import io
import stat
import zipfile
from functools import cache

from service.archive import ZipWriter
from tests.fuzz import seeds


def _written(compression: int, names: tuple[str, ...], *, mode: int = 0) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for number, name in enumerate(names):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, seeds.pictures("png")[number % 4], compression)
    return file.getvalue()


@cache
def all_zips() -> tuple[bytes, ...]:
    """Return them all."""
    writer = ZipWriter()
    pieces = [*writer.add("ä/b.png", seeds.pictures("png")[0]), *writer.add("b.jpg", b"\xff\xd8\xff"), *writer.close()]
    with_comment = io.BytesIO()
    with zipfile.ZipFile(with_comment, "w") as archive:
        archive.comment = b"a comment"
        with archive.open("large.png", "w", force_zip64=True) as entry:
            entry.write(seeds.pictures("png")[1])
    return (
        _written(zipfile.ZIP_DEFLATED, ("a.png", "folder/b.png", "folder/")),
        _written(zipfile.ZIP_STORED, ("../a.png", "/b.png", "C:\\c.png", "con.png")),
        _written(zipfile.ZIP_BZIP2, ("a.png",)),
        _written(zipfile.ZIP_LZMA, ("a.png", "__MACOSX/._a.png")),
        _written(zipfile.ZIP_DEFLATED, ("link.png",), mode=stat.S_IFLNK | 0o777),
        with_comment.getvalue(),
        b"".join(pieces),
    )
