import io
import shutil
import stat
import struct
import subprocess
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.archive import (
    Limits,
    MalformedZip,
    Names,
    TooManyFiles,
    UnusableEntry,
    UnzippedTooLarge,
    ZipWriter,
    is_zip,
    read_zip,
    safe_name,
)

LIMITS = Limits(files=10, file_bytes=1000, total_bytes=5000)


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_files_come_with_their_names_and_what_systems_leave_does_not() -> None:
    data = zipped(
        {
            "a.jpg": b"1",
            "in/": b"",
            "in/b.jpg": b"2",
            "__MACOSX/in/._b.jpg": b"x",
            "in/.DS_Store": b"x",
            "Thumbs.db": b"x",
        }
    )
    files = read_zip(data, LIMITS)
    assert [(file.name, file.read()) for file in files] == [("a.jpg", b"1"), ("in/b.jpg", b"2")]


def test_a_file_without_a_name() -> None:
    # the directory's copy of the name counts; found by tests/fuzz
    (file,) = read_zip(_unnamed(zipped({"a": b"1"})), LIMITS)
    assert Names().take(file.name, (".jpg",)) == "picture.jpg"


def _unnamed(data: bytes) -> bytes:
    """Take the name of the only file out of a zip's directory."""
    start = data.index(b"PK\x01\x02")
    entry = data[start : start + 28] + b"\0\0" + data[start + 30 : start + 46]
    end = data[data.index(b"PK\x05\x06") :]
    return data[:start] + entry + end[:12] + struct.pack("<I", len(entry)) + end[16:]


@pytest.mark.parametrize(
    "data", [b"PK\x03\x04", b"PK\x05\x06" + b"\0" * 18, zipped({"a": b"1"})[:-8], zipped({"a/": b""})]
)
def test_a_zip_that_is_none_or_holds_nothing(data: bytes) -> None:
    assert is_zip(data)
    with pytest.raises(MalformedZip):
        read_zip(data, LIMITS)


def test_limits_are_checked_before_anything_is_unzipped() -> None:
    with pytest.raises(TooManyFiles):
        read_zip(zipped({f"{i}": b"" for i in range(11)}), LIMITS)
    with pytest.raises(UnzippedTooLarge) as caught:
        read_zip(zipped({f"{i}": b"\0" * 900 for i in range(6)}), LIMITS)
    assert (caught.value.claimed, caught.value.limit) == (5400, 5000)
    (file,) = read_zip(zipped({"a": b"\0" * 1001}), LIMITS)
    with pytest.raises(UnusableEntry, match="too large"):
        file.read()


def test_a_directory_of_a_million_is_refused_without_reading_it() -> None:
    entry = b"PK\1\2" + b"\0" * 42
    count = 200_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65_535, 65_535, len(entry) * count, 0, 0)
    data = entry * count + end
    tracemalloc.start()
    with pytest.raises(TooManyFiles):
        read_zip(data, LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_a_bomb_that_lies_about_its_size_is_not_inflated() -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = bomb.compress(b"\0" * 50_000_000) + bomb.flush()
    # a zip made by hand, whose only entry holds the bomb and claims 8 bytes
    name, size = b"a", struct.pack("<L", 8)
    crc = struct.pack("<L", zlib.crc32(b"\0" * 8))
    local = b"PK\3\4" + struct.pack("<5H", 20, 0, 8, 0, 33) + crc + struct.pack("<L", len(packed)) + size
    local += struct.pack("<2H", 1, 0) + name + packed
    central = b"PK\1\2" + struct.pack("<6H", 20, 20, 0, 8, 0, 33) + crc + struct.pack("<L", len(packed)) + size
    central += struct.pack("<5H2L", 1, 0, 0, 0, 0, 0, 0) + name
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local), 0)
    (file,) = read_zip(local + central + end, LIMITS)
    tracemalloc.start()
    assert file.read() == b"\0" * 8, "what was claimed, and no more"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_each_file_that_can_not_be_had_says_why() -> None:
    encrypted = bytearray(zipped({"a": b"x" * 30}, zipfile.ZIP_STORED))
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        encrypted[encrypted.index(signature) + flags] |= 1
    link = io.BytesIO()
    with zipfile.ZipFile(link, "w") as archive:
        entry = zipfile.ZipInfo("a.jpg")
        entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    damaged = bytearray(zipped({"a": bytes(range(200))}, zipfile.ZIP_STORED))
    damaged[60] ^= 1
    for data, words in (
        (bytes(encrypted), "encrypted"),
        (link.getvalue(), "link"),
        (zipped({"a": b"x" * 300}, zipfile.ZIP_BZIP2), "compressed in a way"),
        (zipped({"a": b"x" * 300}, zipfile.ZIP_LZMA), "compressed in a way"),
        (zipped({"a.zip": zipped({"b": b"1"})}), "a zip itself"),
        (bytes(damaged), "damaged"),
    ):
        (file,) = read_zip(data, LIMITS)
        with pytest.raises(UnusableEntry, match=words):
            file.read()


def test_names_that_are_too_long_are_refused() -> None:
    assert len(read_zip(zipped({"a" * 4096: b""}), LIMITS)) == 1
    with pytest.raises(MalformedZip, match="4096 characters"):
        read_zip(zipped({"a" * 4097: b""}), LIMITS)


def test_a_directory_that_is_too_long_is_refused_without_reading_it() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(10):
            entry = zipfile.ZipInfo(f"{number}")
            entry.comment = bytes(60_000)
            archive.writestr(entry, b"")
    data = file.getvalue()
    tracemalloc.start()
    with pytest.raises(MalformedZip, match="too long"):
        read_zip(data, LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


def test_entries_that_overlap_are_refused_whatever_python_says() -> None:
    data = bytearray(zipped({"a": b"1" * 500, "b": b"2" * 500, "c": b"3" * 500}, zipfile.ZIP_STORED))
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    data[second + 42 : second + 46] = bytes(4)  # it begins where the first does
    first_, second_, third = read_zip(bytes(data), LIMITS)
    assert third.read() == b"3" * 500
    with pytest.raises(UnusableEntry, match="overlaps"):
        first_.read()
    with pytest.raises(UnusableEntry):  # its name is another one there
        second_.read()


def test_a_large_file_is_unzipped_whole() -> None:
    noise = np.random.default_rng(0).bytes(3_000_001)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        (file,) = read_zip(zipped({"a": noise}, method), Limits(1, 1 << 22, 1 << 22))
        assert file.read() == noise


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
def test_a_damaged_zip_is_told_and_nothing_else(place: int, bytes_: bytes) -> None:
    data = bytearray(zipped({"in/a.jpg": bytes(range(256)), "b": b"2" * 500}))
    place %= len(data)
    data[place : place + len(bytes_)] = bytes_
    try:
        for file in read_zip(bytes(data), LIMITS):
            file.read()
    except (MalformedZip, TooManyFiles, UnzippedTooLarge, UnusableEntry):
        pass


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("holiday/a.jpg", "holiday/a.jpg"),
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("C:\\Windows\\win.ini", "Windows/win.ini"),
        ("\\\\host\\share\\a.jpg", "host/share/a.jpg"),
        ("a/./b/../c.jpg", "a/b/c.jpg"),
        ("..", "picture"),
        ("", "picture"),
        ("nul.jpg", "_nul.jpg"),
        ("a\nb\0.jpg", "a_b_.jpg"),
        ('what?"<>|*.jpg', "what______.jpg"),
        ("dots. . .", "dots"),
        ("Füße 足.jpg", "Füße 足.jpg"),
        ("\udcff.jpg", "_.jpg"),
    ],
)
def test_safe_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@given(st.text(max_size=400) | st.text(alphabet="./\\:ac~ \0", max_size=40))
def test_no_name_leads_out_of_its_folder(name: str) -> None:
    path = PurePosixPath(safe_name(name))
    assert not path.is_absolute()
    assert path.parts
    assert all(part not in ("..", ".") and len(part.encode()) <= 200 for part in path.parts)
    assert "\\" not in str(path)
    assert safe_name(str(path)) == str(path)


def test_names_are_numbered_and_get_the_right_suffix() -> None:
    names = Names()
    jpeg = (".jpg", ".jpeg")
    assert names.take("a.jpg", jpeg) == "a.jpg"
    assert names.take("A.JPG", jpeg) == "A (2).JPG"
    assert names.take("a.jpg", jpeg) == "a (3).jpg"
    assert names.take("a.jpeg", jpeg) == "a.jpeg"
    assert names.take("a.png", jpeg) == "a (4).jpg"
    assert names.take("in/a.jpg", jpeg) == "in/a.jpg"
    assert names.take("errors.json") == "errors (2).json"
    assert names.take("no suffix", (".png",)) == "no suffix.png"


@given(
    st.lists(st.sampled_from(["a.jpg", "A.jpg", "a (2).jpg", "a (3).jpg", "a (2) (2).jpg", "a", "a (2)", "ß", "SS"]))
)
def test_each_name_is_given_once(asked: list[str]) -> None:
    names = Names()
    given_ = [names.take(name).casefold() for name in asked]
    assert len(set(given_)) == len(asked)


@pytest.mark.parametrize(
    "name",
    [
        lambda _: "a.jpg",
        lambda i: "a.jpg" if i % 2 else f"a ({i // 2}).jpg",
        lambda i: "a.jpg" if i > 10_000 else f"a ({i}).jpg",
        lambda i: "/".join(["é" * 60] * 30 + [f"{i % 3}.jpg"]),
    ],
)
def test_names_take_time_in_proportion_to_how_many_they_are(name: Callable[[int], str]) -> None:
    names, count = Names(), 20_000
    began = time.thread_time()
    given_ = {names.take(name(i)) for i in range(count)}
    assert len(given_) == count
    assert time.thread_time() - began < 20, "2 s; with the square of their number it was minutes"


def test_a_name_costs_no_more_than_its_end() -> None:
    began = time.thread_time()
    for name in ("a/" * 1_000_000, "?" * 2_000_000, "./" * 1_000_000, "\\" * 2_000_000):
        for _ in range(100):
            safe_name(name)
    assert time.thread_time() - began < 5
    assert safe_name("/".join(f"{i}" for i in range(1000))) == "/".join(f"{i}" for i in range(984, 1000))
    assert safe_name("a" * 10_000 + ".jpeg") == "a" * 195 + ".jpeg"


def test_what_is_written_is_read_by_others(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(3_000_000)
    files = {"a.jpg": noise, "in/Füße.jpg": b"2", "empty": b""}
    writer = ZipWriter()
    pieces = [piece for name, data in files.items() for piece in writer.add(name, data)]
    pieces += writer.close()
    (tmp_path / "out.zip").write_bytes(b"".join(pieces))
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-qq", "out.zip", "-d", "out"], cwd=tmp_path, check=True)
        assert (tmp_path / "out" / "a.jpg").read_bytes() == noise
    assert sum(map(len, pieces)) < 3_010_000


def test_each_entry_is_whole_before_the_next_is_there() -> None:
    """What streaming readers do: a local header, deflated data to their own end, the sizes after them."""
    writer = ZipWriter()
    data = b"".join(writer.add("a.jpg", b"0123456789"))
    assert data.startswith(b"PK\3\4")
    flags, method = struct.unpack("<2H", data[6:10])
    assert flags & 8
    assert method == zipfile.ZIP_DEFLATED
    inflater = zlib.decompressobj(-15)
    assert inflater.decompress(data[30 + len("a.jpg") :]) == b"0123456789"
    assert inflater.eof
    assert inflater.unused_data == struct.pack("<4s3L", b"PK\7\x08", zlib.crc32(b"0123456789"), 15, 10)
