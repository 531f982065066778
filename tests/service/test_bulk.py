"""Bulk runs without Ray: what is listed, what is known to be done, how places are reached, what an actor does."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import fsspec
import numpy as np
import pytest

from service.codec import Format
from service.commands.batch import Options
from service.commands.bulk_actor import CantStart, Enhancing, Work, problem_of, rows_of, table_of
from service.commands.bulk_ledger import Known, Made, Segment, digest_of
from service.commands.bulk_listing import ROWS_A_BLOCK, Listing, Row
from service.commands.bulk_places import OWN, Contents, LocalPlace, NoSuchPlace, Place, RemotePlace, open_place
from service.commands.common import file_sha256
from service.commands.files import CantWrite, Stamp
from service.commands.ledger import Entry, Ledger
from tests.e2e.conftest import noise, pixels_of, png
from tests.onnx_files import write_generator

pyarrow = pytest.importorskip("pyarrow.fs", reason="pip install 'pix2dslr[ray]'")

HOW = digest_of({"camera": "iphone"})


@pytest.fixture(params=["local", "memory"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A folder, and a file system that is reached through fsspec."""
    if request.param == "local":
        yield open_place(str(tmp_path / "out"))
    else:
        memory = fsspec.filesystem("memory")
        memory.store.clear()
        yield open_place("memory://out")
        memory.store.clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("b.png", "a.jpg", "sub/c.PNG"):
        (folder / name).write_bytes(name.encode())
    return folder


def rows(
    source: Path | Place, target: Place, *, force: bool = False, format_: Format | None = None, how: str = HOW
) -> list[Row]:
    place = open_place(str(source)) if isinstance(source, Path) else source
    listing = Listing(place, target, format_, how, force)
    return [row for block in listing.blocks() for row in block]


def said(found: list[Row]) -> list[tuple[str, str, str]]:
    return [(row.outcome, row.source, row.problem or row.target) for row in found]


def make(target: Place, found: list[Row], called: str = "../photos", how: str = HOW) -> None:
    """Write answers to rows, as an actor does."""
    segment = Segment(target)
    segment.begin(row.target for row in found)
    made = [
        Made(row.target, target.write(row.target, b"answer"), f"{called}/{row.source}", row.stamp, how) for row in found
    ]
    segment.end(made, [])


def test_a_tree_is_listed_by_name(source: Path, target: Place) -> None:
    (source / "notes.txt").write_text("no picture")
    (source / ".hidden.png").write_bytes(b"")
    (source / ".trash").mkdir()
    (source / ".trash" / "x.png").write_bytes(b"")
    (source / "gone.png").symlink_to("nowhere")
    os.mkfifo(source / "pipe.png")
    (source / "link.png").symlink_to("b.png")
    (source / "loop").symlink_to(source)
    assert said(rows(source, target)) == [
        ("todo", "a.jpg", "a.jpg"),
        ("todo", "b.png", "b.png"),
        ("failed", "gone.png", "unreadable"),
        ("todo", "link.png", "link.png"),
        ("failed", "pipe.png", "unreadable"),
        ("todo", "sub/c.PNG", "sub/c.PNG"),
        ("other", "", ""),
    ]


def test_answers_take_their_formats_name_and_the_second_of_one_name_is_refused(source: Path, target: Place) -> None:
    (source / "a.png").write_bytes(b"")
    assert said(rows(source, target, format_="webp")) == [
        ("todo", "a.jpg", "a.webp"),
        ("failed", "a.png", "same-name"),
        ("todo", "b.png", "b.webp"),
        ("todo", "sub/c.PNG", "sub/c.webp"),
    ]


def test_what_is_done_is_passed_over_until_its_picture_or_the_options_change(source: Path, target: Place) -> None:
    called = "../photos" if isinstance(target, LocalPlace) else str(source)
    make(target, rows(source, target), called)
    assert said(rows(source, target)) == [("already", "", "")]
    assert rows(source, target)[0].count == 3
    os.utime(source / "a.jpg", ns=(1, 1))
    assert said(rows(source, target)) == [("todo", "a.jpg", "a.jpg"), ("already", "", "")]
    assert [row.outcome for row in rows(source, target, how="another")] == ["todo"] * 3
    assert [row.outcome for row in rows(source, target, force=True)] == ["todo"] * 3


def test_what_something_else_made_is_not_replaced(source: Path, target: Place) -> None:
    target.write("a.jpg", b"a photo of somebody's")
    assert said(rows(source, target))[0] == ("failed", "a.jpg", "not-ours")
    assert said(rows(source, target, force=True))[0] == ("todo", "a.jpg", "a.jpg")
    # nor what was changed after it was made, nor an answer to another picture
    called = "../photos" if isinstance(target, LocalPlace) else str(source)
    make(target, [row for row in rows(source, target) if row.outcome == "todo"], called)
    target.write("b.png", b"changed by hand")
    assert ("failed", "b.png", "not-ours") in said(rows(source, target))
    other = source.with_name("others")
    (other / "sub").mkdir(parents=True)
    (other / "sub" / "c.PNG").write_bytes(b"another picture")
    assert said(rows(other, target)) == [("failed", "sub/c.PNG", "not-ours")]


def test_a_folder_of_photos_that_was_moved_is_still_the_same(source: Path, target: Place) -> None:
    make(target, rows(source, target))
    moved = source.rename(source.with_name("moved"))
    assert said(rows(moved, target)) == [("already", "", "")]


def test_what_a_killed_actor_had_begun_is_ours_and_done_again(source: Path, target: Place) -> None:
    segment = Segment(target)
    segment.begin(["a.jpg", "b.png"])
    target.write("a.jpg", b"answer")
    assert said(rows(source, target))[:2] == [("todo", "a.jpg", "a.jpg"), ("todo", "b.png", "b.png")]
    # one that failed after all: what comes to lie there later is somebody else's
    segment.end([], ["a.jpg", "b.png"])
    assert said(rows(source, target))[0] == ("failed", "a.jpg", "not-ours")


def test_a_line_that_a_power_cut_ended_costs_only_itself(source: Path, tmp_path: Path) -> None:
    target = open_place(str(tmp_path / "out"))
    make(target, rows(source, target))
    (ledger,) = (tmp_path / "out" / OWN).glob("*.jsonl")
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:2]) + lines[2][:40])
    # what was begun and not finished is done again; what has its line is not
    assert sorted(row.outcome for row in rows(source, target)) == ["already", "todo", "todo"]


def test_what_enhance_made_is_known(source: Path, tmp_path: Path) -> None:
    options = {**asdict(Options("iphone")), "model_sha256": "0" * 64}
    out = tmp_path / "out"
    out.mkdir()
    with Ledger(out) as ledger:
        for name in ("a.jpg", "b.png"):
            (out / name).write_bytes(b"answer")
            entry = Entry(f"../photos/{name}", Stamp.of(source / name), options, Stamp.of(out / name))
            ledger.add(out / name, entry)
    found = rows(source, open_place(str(out)), how=digest_of(options))
    assert said(found) == [("todo", "sub/c.PNG", "sub/c.PNG"), ("already", "", "")]
    assert found[1].count == 2


def test_a_target_inside_its_source_is_left_out(source: Path) -> None:
    target = open_place(str(source / "sub" / "out"))
    target.write("x.png", b"")
    assert [row.source for row in rows(source, target)] == ["a.jpg", "b.png", "sub/c.PNG"]


def test_answers_beside_their_pictures_are_no_pictures_the_next_time(source: Path) -> None:
    place = open_place(str(source))
    make(place, rows(source, place, format_="webp"), ".")
    assert [(row.outcome, row.count) for row in rows(source, place, format_="webp")] == [("already", 3)]


def test_a_picture_that_its_answer_would_replace_is_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.jpg").write_bytes(b"")
    (source / "a.jpg").unlink()
    (source / "a.jpg").symlink_to(out / "a.jpg")
    assert said(rows(source, open_place(str(out)), force=True))[0] == ("failed", "a.jpg", "own-source")


@pytest.mark.parametrize(
    "name", ["ö ü\n\t.png", "\x1b[31m.png", "'\"\\.png", os.fsdecode(b"\xff\xfe.png"), "a" * 251 + ".png"]
)
def test_any_name_travels(tmp_path: Path, name: str) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / name).write_bytes(b"")
    target = open_place(str(tmp_path / "out"))
    found = rows(tmp_path / "photos", target)
    assert rows_of(table_of(found)) == found
    make(target, rows_of(table_of(found)))
    assert (tmp_path / "out" / name).read_bytes() == b"answer"
    assert said(rows(tmp_path / "photos", target)) == [("already", "", "")]


def test_a_listing_comes_in_blocks(tmp_path: Path) -> None:
    count = 3 * ROWS_A_BLOCK + 1
    (tmp_path / "photos").mkdir()
    for i in range(count):
        (tmp_path / "photos" / f"{i}.png").touch()
    listing = Listing(open_place(str(tmp_path / "photos")), open_place(str(tmp_path / "out")), None, HOW, force=False)
    assert [len(block) for block in listing.blocks()] == [ROWS_A_BLOCK] * 3 + [1]


def test_a_source_that_is_not_there_is_no_empty_one(tmp_path: Path, target: Place) -> None:
    (tmp_path / "empty").mkdir()
    assert rows(tmp_path / "empty", target) == []
    for source in (open_place(str(tmp_path / "none")), open_place("memory://none")):
        with pytest.raises(NoSuchPlace, match="none is not there"):
            rows(source, target)


def test_folders_that_cant_be_read_are_named(source: Path, target: Place) -> None:
    place = open_place(str(source))

    class Partly(LocalPlace):
        def look(self, folder: str) -> Contents:
            if folder == "sub":
                raise PermissionError(13, "Permission denied")
            return place.look(folder)

    found = rows(Partly(str(source), source), target)
    assert [row.outcome for row in found] == ["todo", "todo", "failed"]
    assert (found[2].source, found[2].detail) == ("sub", "Permission denied")


def test_places(tmp_path: Path, target: Place) -> None:
    stamp = target.write("deep/er/a.png", b"1234")
    assert target.write("deep/er/a.png", b"12345") != stamp
    assert target.read("deep/er/a.png") == b"12345"
    assert target.look("deep").folders == ["er"]
    assert target.look("deep/er").files["a.png"] == target.write("deep/er/a.png", b"12345") or target.appends
    assert not target.look("nowhere").files
    with pytest.raises(OSError, match="nowhere"):
        target.read("nowhere")
    assert not target.look(f"{OWN}/partial").files
    assert target.below(target) == ""
    assert open_place(str(tmp_path / "x" / "y")).below(open_place(f"file://{tmp_path}")) == "x/y"
    assert open_place(str(tmp_path)).below(target) is None


def test_one_that_cant_be_written_says_so(tmp_path: Path) -> None:
    target = open_place(str(tmp_path))
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(CantWrite, match=r"Not a directory|File exists"):
        target.write("a/b.png", b"")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(CantWrite, match="Is a directory"):
        target.write("folder.png", b"")
    assert not list((tmp_path / OWN / "partial").iterdir())


def test_what_runs_that_were_killed_left_half_written_is_swept(tmp_path: Path) -> None:
    place = LocalPlace(str(tmp_path), tmp_path)
    place.write("a.png", b"")
    (tmp_path / OWN / "partial" / "half").write_bytes(b"ha")
    place.sweep()
    assert not list((tmp_path / OWN / "partial").iterdir())


def test_urls_that_nothing_can_open_say_why() -> None:
    with pytest.raises(NoSuchPlace, match=r"no library that is installed knows nonsense://"):
        open_place("nonsense://bucket/photos")


def test_a_key_in_a_url_is_never_shown() -> None:
    anywhere = pyarrow.LocalFileSystem()
    place = RemotePlace("s3://KEY:SECRET@bucket/photos/?region=x", anywhere, "bucket/photos/", objects=True)
    assert place.shown == "s3://bucket/photos"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inverting")
    write_generator(folder / "iphone.onnx", invert=True)
    return folder


def work_for(source: Path, out: Path, models: Path, **changed: object) -> Work:
    given = {"models": models, "device": "cpu", "decode_workers": 0, "batch_sizes": (1, 2)}
    sha256 = file_sha256(models / "iphone.onnx")
    facts = {"options": Options("iphone"), "settings": given, "how": HOW, "model_sha256": sha256, "cpus": 1, **changed}
    return Work(str(source), str(out), **facts)  # type: ignore[arg-type]


def test_an_actor_does_what_is_to_be_done_and_says_what_became_of_it(tmp_path: Path, models: Path) -> None:
    source, out = tmp_path / "photos", tmp_path / "out"
    source.mkdir()
    pictures = {f"{i}.png": noise(30, 40, i) for i in range(5)}
    for name, pixels in pictures.items():
        (source / name).write_bytes(png(pixels))
    (source / "bad.png").write_bytes(png(noise(30, 40))[:90])
    (out / "dir.png").mkdir(parents=True)
    todo = [*rows(source, open_place(str(out))), Row("todo", "gone.png", "gone.png"), Row("todo", "0.png", "dir.png")]
    actor = Enhancing(work_for(source, out, models))
    passed = [Row("other", count=7), Row("failed", "x", problem="not-ours")]
    outcomes = rows_of(actor(table_of([*passed, *todo])))
    assert outcomes[:2] == passed
    became = {row.target: (row.outcome, row.problem, row.pixels) for row in outcomes[2:]}
    assert became == {
        **dict.fromkeys(pictures, ("done", "", 1200)),
        "bad.png": ("failed", "malformed-picture", 0),
        "gone.png": ("failed", "unreadable", 0),
        "dir.png": ("failed", "cant-write", 0),
    }
    for name, pixels in pictures.items():
        np.testing.assert_array_equal(pixels_of((out / name).read_bytes()), 255 - pixels)
    assert [(row.outcome, row.count) for row in rows(source, open_place(str(out)))] == [("todo", 1), ("already", 5)]


def test_an_actor_on_a_node_with_another_generator_takes_no_part(tmp_path: Path, models: Path) -> None:
    with pytest.raises(CantStart, match=r"iphone\.onnx is another generator here"):
        Enhancing(work_for(tmp_path, tmp_path / "out", models, model_sha256="0" * 64))
    with pytest.raises(CantStart, match="No such file"):
        Enhancing(work_for(tmp_path, tmp_path / "out", models, settings={"models": tmp_path}))


def test_names_of_problems() -> None:
    assert problem_of(ValueError("a bug")) == "internal-error"
    assert problem_of(FileNotFoundError(2, "gone")) == "unreadable"


def test_the_ledgers_lines_are_plain(source: Path, tmp_path: Path) -> None:
    target = open_place(str(tmp_path / "out"))
    make(target, rows(source, target))
    (ledger,) = (tmp_path / "out" / OWN).glob("*.jsonl")
    begun, first, *_, failed = map(json.loads, ledger.read_text().splitlines())
    assert begun == {"begun": ["a.jpg", "b.png", "sub/c.PNG"]}
    assert first["target"] == "a.jpg"
    assert failed == {"failed": []}
    assert not Known(open_place(str(tmp_path / "nowhere"))).is_answer("a.jpg", Stamp(0, 0))
