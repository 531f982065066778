"""`pix2dslr enhance` as its users run it: real files, real processes, real signals."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.e2e.conftest import COMMAND, Run, environment_with, noise, pixels_of, png
from tests.hostile.good import heic

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def photos(tmp_path: Path, photo: npt.NDArray[np.uint8]) -> Path:
    """A folder with pictures in two folders, a text, a hidden file and a damaged picture's place left free."""
    folder = tmp_path / "photos"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "a.png").write_bytes(png(photo))
    (folder / "sub" / "b.PNG").write_bytes(png(photo[::-1]))
    Image.fromarray(photo[:, ::-1]).save(folder / "sub" / "deep" / "c.jpg", quality=95)
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"no picture either")
    return folder


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command and leave it running; what still runs in the end is killed."""
    running = []

    def begin(*arguments: object, **settings: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment_with(settings),
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def written(folder: Path) -> list[str]:
    """Pictures below a folder, by their places in it."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


def half_written(folder: Path) -> list[Path]:
    return list(folder.rglob(".pix2dslr-partial-*"))


def stamps(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in written(folder)}


def test_enhance_gives_what_the_server_gives(
    run: Run, client: httpx.Client, tmp_path: Path, photo: npt.NDArray[np.uint8]
) -> None:
    names = ["a.png", "b.png"]
    for name, pixels in zip(names, (photo, photo[::-1]), strict=True):
        (tmp_path / name).write_bytes(png(pixels))
    # one of them named twice, which is once
    done = run("enhance", *(tmp_path / name for name in [*names, "a.png"]), "-o", tmp_path / "out" / "deep")
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == (b"", "")
    assert written(tmp_path / "out" / "deep") == names
    for name in names:
        served = client.post("/enhance", files={"image": (tmp_path / name).read_bytes()})
        np.testing.assert_array_equal(
            pixels_of((tmp_path / "out" / "deep" / name).read_bytes()), pixels_of(served.content)
        )


def test_a_folder_is_mirrored_and_what_fails_costs_nothing_else(run: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "sub" / "bad.jpg").write_bytes((photos / "sub" / "deep" / "c.jpg").read_bytes()[:300])
    (photos / "text.webp").write_text("no picture")
    done = run("enhance", photos, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert done.stdout == b""
    assert written(tmp_path / "out") == ["a.png", "sub/b.PNG", "sub/deep/c.jpg"]
    assert not half_written(tmp_path / "out")
    lines = sorted(line for line in done.stderr.splitlines() if "libpng" not in line)
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith(f"{photos}/sub/bad.jpg: The picture can't be decoded.")
    assert lines[1].startswith(f"{photos}/text.webp: The picture's format is not supported.")


def test_a_pipe_in_a_folder_is_named_and_not_waited_for(run: Run, tmp_path: Path, identity_folder: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    os.mkfifo(source / "a.jpg")
    (source / "b.png").write_bytes(png(noise(20, 30)))
    (source / "c.HIF").write_bytes(heic())
    said = f"{source}/a.jpg: It is no file but a pipe, a socket or a device\n"
    done = run("enhance", source, "-o", tmp_path / "out", models=identity_folder)
    assert (done.returncode, done.stderr, written(tmp_path / "out")) == (1, said, ["b.png", "c.HIF"])
    named = run("enhance", source / "a.jpg", source / "b.png", "-o", tmp_path / "two", models=identity_folder)
    assert (named.returncode, named.stderr, written(tmp_path / "two")) == (1, said, ["b.png"])
    measured = run("evaluate", source, source, models=identity_folder)
    assert (measured.returncode, set(measured.stderr.splitlines(keepends=True))) == (1, {said})


def test_a_pipe_that_is_named_alone_is_read(run: Run, tmp_path: Path, identity_folder: Path) -> None:
    out = tmp_path / "out.png"
    done = run("enhance", "/dev/stdin", "-o", out, stdin=png(noise(20, 30)), models=identity_folder)
    assert (done.returncode, done.stderr) == (0, "")
    np.testing.assert_array_equal(pixels_of(out.read_bytes()), noise(20, 30))


def test_names_of_formats_and_cameras_in_any_case(run: Run, tmp_path: Path, identity_folder: Path) -> None:
    source = tmp_path / "in.png"
    source.write_bytes(png(noise(20, 30)))
    for name in ("jpg", "JPEG", "Jpg"):
        arguments = ("-o", tmp_path / name, "--format", name, "--camera", "iPhone")
        assert run("enhance", source, *arguments, models=identity_folder).returncode == 0
        assert written(tmp_path / name) == ["in.jpg"]
    answers = {(tmp_path / name / "in.jpg").read_bytes() for name in ("jpg", "JPEG", "Jpg")}
    assert len(answers) == 1


def test_listed_files_that_fail_are_named(run: Run, tmp_path: Path, identity_folder: Path) -> None:
    (tmp_path / "good.png").write_bytes(png(noise(40, 50)))
    (tmp_path / "bad.png").write_bytes(png(noise(40, 50))[:100])
    (tmp_path / "big.png").write_bytes(png(noise(50, 50)))
    files = [tmp_path / name for name in ("bad.png", "gone.png", "big.png", "good.png")]
    arguments = ("--format", "webp", "--quality", 100)
    done = run("enhance", *files, "-o", tmp_path / "out", *arguments, models=identity_folder, max_pixels=2000)
    assert done.returncode == 1
    assert written(tmp_path / "out") == ["good.webp"]
    with Image.open(tmp_path / "out" / "good.webp") as image:
        np.testing.assert_array_equal(np.asarray(image), noise(40, 50))
    lines = sorted(line for line in done.stderr.splitlines() if "libpng" not in line)
    assert len(lines) == 3, done.stderr
    assert lines[0].startswith(f"{files[0]}: The picture can't be decoded.")
    assert lines[1].startswith(f"{files[2]}: The picture has too many pixels.")
    assert lines[1].endswith("PIX2DSLR_MAX_PIXELS=2500 allows it.")
    assert lines[2] == f"{files[1]}: No such file or directory"


def test_a_second_run_passes_over_what_is_done(run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("enhance", photos, "-o", out).returncode == 0
    before = stamps(out)
    # a device that is not there would be noticed if a generator were loaded
    again = run("enhance", photos, "-o", out, device="cuda")
    assert (again.returncode, again.stderr) == (0, "")
    assert stamps(out) == before
    moved = photos.rename(tmp_path / "moved")
    assert run("enhance", moved, "-o", out, device="cuda").returncode == 0, "a folder that moved is still the same"

    (moved / "new.png").write_bytes(png(noise(30, 40)))
    (moved / "a.png").write_bytes(png(noise(40, 40)))
    assert run("enhance", moved, "-o", out).returncode == 0
    after = stamps(out)
    assert after.keys() - before.keys() == {"new.png"}
    assert {name for name in before if before[name] != after[name]} == {"a.png"}

    assert run("enhance", moved, "-o", out, "--strength", 0.5).returncode == 0
    assert all(stamp > after[name] for name, stamp in stamps(out).items()), "other options, other answers"
    assert run("enhance", moved, "-o", out, "--strength", 0.5, device="cuda").returncode == 0


def test_nothing_of_anybody_else_is_replaced(run: Run, tmp_path: Path, identity_folder: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for folder in (source, out):
        folder.mkdir()
    for name in ("mine.png", "touched.png"):
        (source / name).write_bytes(png(noise(20, 20)))
    (out / "mine.png").write_text("precious")
    done = run("enhance", source, "-o", out, models=identity_folder)
    assert done.returncode == 1
    assert done.stderr == (
        f"{source}/mine.png: {out}/mine.png is there already and was not made from it: --force replaces it\n"
    )
    assert (out / "mine.png").read_text() == "precious"
    assert pixels_of((out / "touched.png").read_bytes()).shape == (20, 20, 3)

    (out / "touched.png").write_text("retouched by hand")
    (source / "touched.png").write_bytes(png(noise(30, 30)))
    assert run("enhance", source, "-o", out, models=identity_folder).returncode == 1
    assert (out / "touched.png").read_text() == "retouched by hand"

    assert run("enhance", source, "-o", out, "--force", models=identity_folder).returncode == 0
    np.testing.assert_array_equal(pixels_of((out / "mine.png").read_bytes()), noise(20, 20))
    np.testing.assert_array_equal(pixels_of((out / "touched.png").read_bytes()), noise(30, 30))

    # an answer to another picture of the same name is somebody else's too
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.png").write_bytes(png(noise(50, 50)))
    assert run("enhance", other, "-o", out, models=identity_folder).returncode == 1
    assert pixels_of((out / "mine.png").read_bytes()).shape == (20, 20, 3)


def test_no_file_replaces_its_own_source(run: Run, tmp_path: Path, identity_folder: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "x.png").write_bytes(png(noise(10, 10)))
    (folder / "y.webp").write_bytes(cv2.imencode(".webp", noise(10, 10))[1].tobytes())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for arguments in (
        [folder / "x.png", "-o", folder],
        [folder, "-o", folder],
        [folder / "x.png", "-o", folder / "x.png"],
    ):
        assert run("enhance", *arguments, "--force", models=identity_folder).returncode == 2
    (tmp_path / "link").symlink_to(folder)
    assert run("enhance", folder / "x.png", "-o", tmp_path / "link", "-f", models=identity_folder).returncode == 2
    # beside it in another format is fine, and twice is not thrice as many
    for _ in range(2):
        done = run("enhance", folder, "-o", folder, "--format", "webp", "--force", models=identity_folder)
        assert done.returncode == 1
        assert done.stderr == f"{folder}/y.webp: its answer would replace it: name another folder or format\n"
    assert written(folder) == ["x.png", "x.webp", "y.webp"]
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_two_files_with_one_name_are_wrong_usage(run: Run, tmp_path: Path, identity_folder: Path) -> None:
    files = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"]
    for seed, file in enumerate(files):
        file.parent.mkdir()
        file.write_bytes(png(noise(10, 10, seed)))
    clash = run("enhance", *files, "-o", tmp_path / "out")
    assert clash.returncode == 2
    assert "two files would get one name" in clash.stderr
    assert not (tmp_path / "out").exists()
    # among the many of two folders it costs one file
    done = run("enhance", *(file.parent for file in files), "-o", tmp_path / "out", models=identity_folder)
    assert done.returncode == 1
    assert done.stderr == f"{files[1]}: {files[0]} gets the same name: enhance them into different folders\n"
    np.testing.assert_array_equal(pixels_of((tmp_path / "out" / "x.png").read_bytes()), noise(10, 10))


def test_answers_in_the_same_tree_are_not_enhanced_again(run: Run, photos: Path, identity_folder: Path) -> None:
    for _ in range(2):
        assert run("enhance", photos, "-o", photos / "enhanced", models=identity_folder).returncode == 0
        assert written(photos / "enhanced") == ["a.png", "sub/b.PNG", "sub/deep/c.jpg"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_goes_on(
    run: Run, start: Start, tmp_path: Path, photo: npt.NDArray[np.uint8], number: signal.Signals, code: int
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    large = np.tile(photo, (2, 2, 1))
    for i in range(8):
        (source / f"{i}.png").write_bytes(png(np.roll(large, i, axis=1)))
    # one thread of a CPU is nowhere done before it is interrupted
    process = start("enhance", source, "-o", out, "--jobs", 2, device="cpu", threads=1)
    until(lambda: out.exists() and len(written(out)) >= 2)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    done = written(out)
    assert process.returncode == code
    assert 2 <= len(done) < 8, "it was interrupted in the middle"
    assert (stdout, stderr) == ("", f"pix2dslr: interrupted: {len(done)} of 8 done; run it again to go on\n")
    assert not half_written(out)
    for name in done:
        assert pixels_of((out / name).read_bytes()).shape == large.shape
    before = stamps(out)
    assert run("enhance", source, "-o", out).returncode == 0
    assert written(out) == [f"{i}.png" for i in range(8)]
    assert {name: stamp for name, stamp in stamps(out).items() if name in before} == before, "done is done"


def test_a_killed_run_goes_on(run: Run, start: Start, tmp_path: Path, photo: npt.NDArray[np.uint8]) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for i in range(8):
        (source / f"{i}.png").write_bytes(png(np.roll(np.tile(photo, (2, 2, 1)), i, axis=1)))
    process = start("enhance", source, "-o", out, device="cpu", threads=1)
    until(lambda: out.exists() and len(written(out)) >= 1)
    process.kill()
    process.wait()
    # as if it had been in the middle of a file, and of a line of what it remembers
    (out / f".pix2dslr-partial-{process.pid}-1").write_bytes(b"half")
    with (out / ".pix2dslr.jsonl").open("a") as file:
        file.write('{"target": "7.png", "sou')
    assert run("enhance", source, "-o", out).returncode == 0
    assert written(out) == [f"{i}.png" for i in range(8)]
    assert not half_written(out)
    assert run("enhance", source, "-o", out, device="cuda").returncode == 0, "all of it is remembered"


def test_standard_input_to_standard_output(run: Run, tmp_path: Path, photo: npt.NDArray[np.uint8]) -> None:
    (tmp_path / "a.png").write_bytes(png(photo))
    assert run("enhance", tmp_path / "a.png", "-o", tmp_path / "out").returncode == 0
    done = run("enhance", "-", stdin=png(photo))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (tmp_path / "out" / "a.png").read_bytes(), "the picture, and nothing else"
    jpeg = run("enhance", "-", "--format", "jpeg", "-o", "-", stdin=png(photo))
    assert jpeg.stdout.startswith(b"\xff\xd8\xff")
    to_file = run("enhance", "-", "-o", tmp_path / "b.webp", stdin=png(photo))
    assert (to_file.returncode, to_file.stdout) == (0, b"")
    assert (tmp_path / "b.webp").read_bytes()[8:12] == b"WEBP", "as its name says"


def test_a_broken_picture_on_standard_input_gives_nothing(run: Run, identity_folder: Path) -> None:
    done = run("enhance", "-", stdin=png(noise(20, 20))[:80], models=identity_folder)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.splitlines()[-1].startswith("-: The picture can't be decoded.")


def test_one_file_to_one_file(run: Run, tmp_path: Path, identity_folder: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(noise(20, 20)))
    arguments = ("enhance", tmp_path / "a.png", "-o", tmp_path / "new" / "b.jpg")
    assert run(*arguments, models=identity_folder).returncode == 0
    assert (tmp_path / "new" / "b.jpg").read_bytes().startswith(b"\xff\xd8\xff")
    before = stamps(tmp_path / "new")
    again = run(*arguments, models=identity_folder)
    assert (again.returncode, again.stderr) == (
        1,
        f"pix2dslr: {tmp_path}/new/b.jpg is there already: --force replaces it\n",
    )
    assert stamps(tmp_path / "new") == before
    assert run(*arguments, "--force", models=identity_folder).returncode == 0
    assert written(tmp_path / "new") == ["b.jpg"]
    assert stamps(tmp_path / "new") != before


def test_a_watched_folder(start: Start, run: Run, tmp_path: Path, identity_folder: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "first.png").write_bytes(png(noise(20, 20)))
    process = start("enhance", source, "-o", out, "--watch", models=identity_folder)
    until((out / "first.png").exists)

    busy = run("enhance", source, "-o", out, models=identity_folder)
    assert (busy.returncode, busy.stderr) == (
        1,
        f"pix2dslr: another pix2dslr writes to {out}: wait for it, or name another folder\n",
    )

    # a file that is copied piece by piece is taken once it is whole
    data = png(noise(200, 200))
    with (source / "slow.png").open("wb") as file:
        for place in range(0, len(data), 10_000):
            file.write(data[place : place + 10_000])
            file.flush()
            assert not (out / "slow.png").exists()
    # a folder that comes with what is in it, and a text that is none of our business
    album = tmp_path / "album"
    (album / "day").mkdir(parents=True)
    (album / "day" / "late.png").write_bytes(png(noise(20, 20, 1)))
    album.rename(source / "album")
    (source / "notes.txt").write_text("no picture")
    os.mkfifo(source / "a.jpg")  # a pipe is reported and not waited for
    assert process.stderr is not None
    assert process.stderr.readline() == f"{source}/a.jpg: It is no file but a pipe, a socket or a device\n"
    until(lambda: written(out) == ["album/day/late.png", "first.png", "slow.png"])
    np.testing.assert_array_equal(pixels_of((out / "slow.png").read_bytes()), noise(200, 200))

    (source / "first.png").write_bytes(png(noise(30, 30)))
    until(lambda: pixels_of((out / "first.png").read_bytes()).shape == (30, 30, 3))
    (source / "bad.png").write_bytes(png(noise(20, 20))[:100])
    said = process.stderr.readline()
    while "libpng" in said:
        said = process.stderr.readline()
    assert said.startswith(f"{source}/bad.png: The picture can't be decoded.")

    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr == "pix2dslr: interrupted: 4 of 5 done\n"
    assert not half_written(out)


# for root too the permission bits of files hold then, as for everybody else:
# prctl(PR_CAPBSET_DROP) of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
DROP = "import ctypes, os, sys; drop = ctypes.CDLL(None).prctl; drop(24, 1, 0, 0, 0); drop(24, 2, 0, 0, 0)"
AS_EVERYBODY = (sys.executable, "-c", f"{DROP}; os.execv(sys.argv[1], sys.argv[1:])")


def test_a_target_that_can_not_be_written(run: Run, tmp_path: Path, identity_folder: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "sub/b.png", "sub/secret/c.png"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(png(noise(20, 20)))
    (out / "sub").mkdir(parents=True)
    for folder in (out / "sub", source / "sub" / "secret"):
        folder.chmod(0o555 if folder.name == "sub" else 0o000)
    try:
        done = run("enhance", source, "-o", out, models=identity_folder, through=AS_EVERYBODY)
        assert done.returncode == 1
        assert written(out) == ["a.png"]
        assert sorted(done.stderr.splitlines()) == [
            f"{source}/sub/b.png: can't write {out}/sub/b.png: Permission denied",
            f"{source}/sub/secret: Permission denied",
        ]
        for hidden in (source / "sub" / "secret" / "c.png", source / "sub" / "secret"):
            unseen = run("enhance", hidden, "-o", tmp_path / "x", models=identity_folder, through=AS_EVERYBODY)
            assert (unseen.returncode, unseen.stderr) == (1, f"{hidden}: Permission denied\n")
        inside = out / "sub" / "answers"
        denied = run("enhance", source, "-o", inside, models=identity_folder, through=AS_EVERYBODY)
        assert (denied.returncode, denied.stderr) == (1, f"pix2dslr: can't write to {inside}: Permission denied\n")
    finally:
        for folder in (out / "sub", source / "sub" / "secret"):
            folder.chmod(0o755)
    again = run("enhance", source, "-o", out, models=identity_folder, through=AS_EVERYBODY)
    assert (again.returncode, written(out)) == (0, ["a.png", "sub/b.png", "sub/secret/c.png"])


def test_a_full_disk_of_a_stream_is_told(tmp_path: Path, identity_folder: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(noise(20, 20)))
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [COMMAND, "enhance", str(tmp_path / "a.png"), "-o", "-"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment_with({"models": identity_folder}),
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}/a.png: can't write standard output: No space left on device\n"


def test_a_terminal_sees_how_far_it_is(tmp_path: Path, photos: Path) -> None:
    ours, theirs = pty.openpty()
    environment = environment_with({}) | {"TERM": "xterm", "COLUMNS": "120"}
    arguments = [COMMAND, "enhance", str(photos), "-o", str(tmp_path / "out"), "--jobs", "1"]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    text = seen.decode()
    assert "of 3 pictures" in text
    assert "tiles/s" in text
    assert "a.png" in text
    assert "3 done, 1 other file passed over: 0.7 megapixels in " in text.rstrip().splitlines()[-1]


def test_neither_queue_nor_deadline_is_in_the_way(run: Run, tmp_path: Path, identity_folder: Path) -> None:
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(png(noise(600, 600, i)))
    files = sorted(tmp_path.glob("*.png"))
    strict = {"models": identity_folder, "max_queued_tiles": 1, "request_timeout_s": 0.001}
    assert run("enhance", *files, "-o", tmp_path / "out", "--jobs", 4, **strict).returncode == 0
    assert len(written(tmp_path / "out")) == 4


def test_metadata_is_stripped_where_asked(run: Run, tmp_path: Path, identity_folder: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    Image.fromarray(noise(30, 30)).save(tmp_path / "a.jpg", exif=exif)
    for choice in ("keep", "strip"):
        out = tmp_path / choice
        assert (
            run("enhance", tmp_path / "a.jpg", "-o", out, "--metadata", choice, models=identity_folder).returncode == 0
        )
        with Image.open(out / "a.jpg") as image:
            assert image.getexif().get(0x010F) == ("Maker" if choice == "keep" else None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.png"], "name a folder for the answers"),
        (["x.png", "-o", "out", "--strength", "2"], "less than or equal to 1"),
        (["x.png", "-o", "out", "--camera", "nokia"], "there are: blackberry, iphone, sony"),
        (["x.png", "-o", "out", "--watch"], "there is no folder to watch"),
        (["x.png", "y.png", "-o", "out.png"], "no folder, which several pictures need"),
        (["x.png", "-o", "out.png", "--format", "jpeg"], "out.png is no name for jpeg"),
        (["-", "y.png", "-o", "out"], "- stands for one picture"),
        (["-", "-o", "out"], "needs the name of a file"),
    ],
)
def test_wrong_usage_exits_with_2(run: Run, tmp_path: Path, arguments: list[str], words: str) -> None:
    done = run("enhance", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    # the words are broken over lines, in a frame
    assert words in " ".join(done.stderr.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_what_is_remembered_can_be_read(run: Run, photos: Path, tmp_path: Path, identity_folder: Path) -> None:
    assert run("enhance", photos, "-o", tmp_path / "out", models=identity_folder).returncode == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / ".pix2dslr.jsonl").read_text().splitlines()]
    assert {row["target"]: row["source"] for row in rows} == {
        name: f"../photos/{name}" for name in ("a.png", "sub/b.PNG", "sub/deep/c.jpg")
    }
    assert rows[0]["options"]["camera"] == "iphone"
    shutil.rmtree(tmp_path / "out")
