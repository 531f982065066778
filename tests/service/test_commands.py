"""The parts of the command line that need no process of their own to be tried."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.caller import Caller, Cancelled
from service.codec import Format, PictureTooLarge, UnsupportedFormat
from service.commands.common import complete_camera, explain, shown
from service.commands.files import CantWrite, NotOurs, Stamp, find, format_of, sweep, target_name, write_whole
from service.commands.interruption import Interruption
from service.commands.ledger import NAME, Entry, FolderInUse, Ledger
from service.commands.matching import match
from service.commands.parallel import in_parallel
from service.scheduler import InferenceFailed, Scheduler

OPTIONS = {"camera": "iphone", "strength": 1.0, "format": None}


def entry_for(file: Path, source: str = "../a.png") -> Entry:
    return Entry(source, Stamp(1, 2), OPTIONS, Stamp.of(file))


def test_a_ledger_knows_what_it_was_told(tmp_path: Path) -> None:
    file = tmp_path / "out" / "sub" / "a.png"
    with Ledger(tmp_path / "out") as ledger:
        write_whole(file, b"one", replace=False)
        assert ledger.made(file) is None
        ledger.add(file, entry_for(file))
        assert ledger.made(file) == entry_for(file)
    with Ledger(tmp_path / "out") as ledger:
        assert ledger.made(file) == entry_for(file)
        assert ledger.holds(file)
        assert not ledger.holds(tmp_path / "a.png")
        ledger.add(file, entry_for(file, "../b.png"))
        assert ledger.made(file) == entry_for(file, "../b.png"), "the last word counts"
        file.write_bytes(b"three")
        assert ledger.made(file) is None, "somebody else wrote it"
        file.unlink()
        assert ledger.made(file) is None


@pytest.mark.parametrize("damage", ['{"target": "x', "no JSON", "[1, 2]", '{"target": "x"}', "\x00\xff\n\n"])
def test_a_damaged_ledger_loses_only_what_is_damaged(tmp_path: Path, damage: str) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in files:
        file.write_bytes(b"data")
    with Ledger(tmp_path) as ledger:
        ledger.add(files[0], entry_for(files[0]))
    with (tmp_path / NAME).open("ab") as appended:
        appended.write(damage.encode("latin-1"))
    with Ledger(tmp_path) as ledger:
        ledger.add(files[1], entry_for(files[1]))
    with Ledger(tmp_path) as ledger:
        assert [ledger.made(file) is not None for file in files] == [True, True]


def test_names_of_any_characters_are_remembered(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9 \xe2\x80\xa8 'line'\n.png")
    file.write_bytes(b"data")
    with Ledger(tmp_path) as ledger:
        ledger.add(file, entry_for(file))
    with Ledger(tmp_path) as ledger:
        assert ledger.made(file) == entry_for(file)
    assert len((tmp_path / NAME).read_bytes().splitlines()) == 1


def test_one_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    with Ledger(tmp_path), pytest.raises(FolderInUse), Ledger(tmp_path):
        pass
    with Ledger(tmp_path):
        pass


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "new" / ("x" * 250 + ".png")
    told: list[Stamp] = []
    write_whole(file, b"one", replace=False, before=told.append)
    assert told == [Stamp.of(file)]
    with pytest.raises(NotOurs):
        write_whole(file, b"two", replace=False)
    assert file.read_bytes() == b"one"
    write_whole(file, b"two", replace=True)
    assert file.read_bytes() == b"two"

    def refuse(_: Stamp) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(CantWrite, match="No space left on device"):
        write_whole(file, b"three", replace=True, before=refuse)
    assert file.read_bytes() == b"two"
    assert list(file.parent.iterdir()) == [file]


def test_only_what_the_dead_left_is_swept(tmp_path: Path) -> None:
    ours = tmp_path / f".pix2dslr-partial-{os.getpid()}-1"
    # process ids end far below it
    dead = tmp_path / "sub" / ".pix2dslr-partial-99999999-1"
    dead.parent.mkdir()
    for file in (ours, dead):
        file.touch()
    sweep(tmp_path)
    assert ours.exists()
    assert not dead.exists()


def test_what_looks_like_a_picture(tmp_path: Path) -> None:
    assert [format_of(Path(name)) for name in ("a.jpg", "a.JPEG", "a.Png", "a.webp", "a.txt", "png", ".png")] == [
        "jpeg",
        "jpeg",
        "png",
        "webp",
        None,
        None,
        None,
    ]
    assert target_name(Path("sub/a.JPG"), None) == Path("sub/a.JPG")
    assert target_name(Path("sub/a.JPG"), "jpeg") == Path("sub/a.JPG")
    assert target_name(Path("sub/a.b.png"), "jpeg") == Path("sub/a.b.jpg")
    for name in ("b.png", "a.jpg", "x.txt", ".c.png", ".git/d.png", "sub/e.webp", "out/f.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    found = find(tmp_path, without=tmp_path / "out")
    assert [path.relative_to(tmp_path).as_posix() for path in found.pictures] == ["a.jpg", "b.png", "sub/e.webp"]
    assert found.others == 1


@pytest.mark.parametrize(
    ("format_", "suffixes"),
    [
        ("jpeg", "jpg JPG jpeg jpe jfif jif jfi"),
        ("heic", "heic HEIC heif hif HIF heics heifs"),
        ("tiff", "tif tiff"),
        ("avif", "avif avifs"),
        ("png", "png apng"),
        ("bmp", "bmp dib"),
        ("webp", "webp"),
    ],
)
def test_suffixes_of_cameras_and_programs(format_: Format, suffixes: str) -> None:
    assert {format_of(Path(f"a.{suffix}")) for suffix in suffixes.split()} == {format_}
    assert target_name(Path("DSC0001.HIF"), "heic") == Path("DSC0001.HIF")


def test_what_is_no_file_is_found_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("/dev/zero")
    (tmp_path / "c.jpg").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "d.jpg"))
        found = find(tmp_path)
    assert [path.name for path in found.pictures] == ["c.jpg"]
    assert [(path.name, explain(error)) for path, error in found.failed] == [
        (name, "It is no file but a pipe, a socket or a device") for name in ("a.jpg", "b.jpg", "d.jpg")
    ]


def test_matching_by_place_and_name(tmp_path: Path) -> None:
    for name in ("p/a.png", "p/b.jpg", "p/sub/a.png", "p/c.png", "p/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("r/a.jpg", "r/a.png", "r/b.png", "r/sub/a.webp", "r/c.jpg", "r/c.webp", "r/z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    matches = match(tmp_path / "p", tmp_path / "r")
    assert [(p.relative_to(tmp_path).as_posix(), r.relative_to(tmp_path).as_posix()) for p, r in matches.pairs] == [
        ("p/a.png", "r/a.png"),
        ("p/b.jpg", "r/b.png"),
        ("p/sub/a.png", "r/sub/a.webp"),
    ]
    assert [(path.name, str(error)) for path, error in matches.failed] == [
        ("c.png", "more than one reference has that name: c.jpg, c.webp"),
        ("d.png", "there is no reference of that name"),
    ]
    assert matches.left == 4


def test_several_are_under_way_at_once_and_no_more() -> None:
    together = threading.Barrier(3)
    lock = threading.Lock()
    now, most = 0, 0

    def work(item: int, _: Caller) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait(30)  # nobody passes it alone
        with lock:
            now -= 1
        if item == 4:
            raise ValueError
        return item * item

    with Interruption() as interruption:
        outcomes = list(in_parallel(work, range(9), 3, interruption))
    assert most == 3
    assert sorted(item for item, _ in outcomes) == list(range(9))
    assert {item: future.result() for item, future in outcomes if item != 4} == {i: i * i for i in range(9) if i != 4}
    assert [type(future.exception()) for item, future in outcomes if item == 4] == [ValueError]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_cancels_what_waits_for_the_device(
    identity_scheduler: Scheduler, number: signal.Signals, code: int
) -> None:
    begun: list[int] = []

    def work(item: int, caller: Caller) -> None:
        begun.append(item)
        with identity_scheduler.admit(1, "test", 60) as job:
            caller.cancellation.attach(job)
            if item == 1:
                os.kill(os.getpid(), number)
            # without an end but by the cancellation
            while True:
                job.wait(job.submit(1, lambda _, out: out.fill(0)))

    def items() -> Iterator[int]:
        yield from range(100)

    before = signal.getsignal(number)
    with Interruption() as interruption:
        outcomes = list(in_parallel(work, items(), 2, interruption))
        assert interruption.exit_code == code
    assert signal.getsignal(number) == before
    assert sorted(begun) == [0, 1]
    assert [type(future.exception()) for _, future in outcomes] == [Cancelled, Cancelled]


def test_names_can_not_speak_to_the_terminal() -> None:
    assert shown("a\x1b[2Jb\nc é.png") == "a\\x1b[2Jb\\nc é.png"
    assert shown(os.fsdecode(b"\xff")) == "\\udcff"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(13, "Permission denied"), "Permission denied"),
        (NotOurs(Path("a.png")), "a.png is there already and was not made from it: --force replaces it"),
        (MemoryError(), "There is not enough memory for it."),
        (UnsupportedFormat("x"), "The picture's format is not supported."),
        (PictureTooLarge(300, 200), "PIX2DSLR_MAX_PIXELS=300 allows it."),
        (InferenceFailed(), "PIX2DSLR_LOG_LEVEL=ERROR shows why."),
        (KeyError("a bug"), "It failed unexpectedly (KeyError); PIX2DSLR_LOG_LEVEL=ERROR shows why."),
    ],
)
def test_every_failure_is_one_line(error: Exception, words: str) -> None:
    assert words in explain(error)
    assert "\n" not in explain(error)


def test_cameras_are_completed_without_loading_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("iphone", "ipad", "sony"):
        (tmp_path / f"{name}.onnx").touch()
    monkeypatch.setenv("PIX2DSLR_MODELS", str(tmp_path))
    assert complete_camera("ip") == ["ipad", "iphone"]
    monkeypatch.setenv("PIX2DSLR_PORT", "none")
    assert complete_camera("ip") == []
