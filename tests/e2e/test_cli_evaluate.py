"""`pix2dslr evaluate` and `pix2dslr cameras` as their users run them."""

import base64
import csv
import io
import json
import re
import signal
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean

import cv2
import httpx
import numpy as np
import numpy.typing as npt
import pytest
import skimage.data

from tests.e2e.conftest import COMMAND, Run, environment_with, noise, png

Image = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Dull pictures and good ones: matched by name, by stem, and not at all."""
    photo = np.asarray(skimage.data.coffee(), np.uint8)
    root = tmp_path_factory.mktemp("folders")
    dull, good = root / "dull", root / "good"
    for name, reference, pixels in (
        ("a.png", "a.png", photo),
        ("sub/b.png", "sub/b.webp", photo[:200, :300]),
        ("same.png", "same.png", noise(64, 64)),
    ):
        for folder, file, data in ((dull, name, (pixels * 0.6).astype(np.uint8)), (good, reference, pixels)):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            if file.endswith(".webp"):
                cv2.imwrite(str(folder / file), data[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])
            else:
                (folder / file).write_bytes(png(data))
    (dull / "same.png").write_bytes((good / "same.png").read_bytes())
    (dull / "alone.png").write_bytes(png(noise(30, 30)))
    (dull / "size.png").write_bytes(png(noise(30, 30)))
    (good / "size.png").write_bytes(png(noise(30, 31)))
    (good / "unused.png").write_bytes(png(noise(30, 30)))
    return dull, good


def test_one_file_gives_what_the_server_gives(run: Run, client: httpx.Client, folders: tuple[Path, Path]) -> None:
    dull, good = (folder / "a.png" for folder in folders)
    done = run("evaluate", dull, good, "--json", "-")
    assert (done.returncode, done.stderr) == (0, "")
    (ours,) = json.loads(done.stdout)["pictures"]
    served = client.post("/evaluate", files={"image": dull.read_bytes(), "reference": good.read_bytes()}).json()
    assert ours.pop("picture") == str(dull)
    assert ours.pop("timings").keys() == served.pop("timings").keys()
    assert ours == served


def test_two_folders_in_every_form(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    dull, good = folders
    files = {form: tmp_path / "reports" / f"r.{form}" for form in ("csv", "json", "html")}
    done = run("evaluate", dull, good, *(x for form, file in files.items() for x in (f"--{form}", file)))
    assert done.returncode == 1
    assert sorted(done.stderr.splitlines()) == [
        f"{dull}/alone.png: there is no reference of that name",
        (
            "size.png: The picture and its reference differ in size. "
            "The picture is 30x30 pixels and the reference 31x30: send two of one size."
        ),
    ]
    names = ["a.png", "same.png", "sub/b.png"]

    answer = json.loads(files["json"].read_text())
    assert [row["picture"] for row in answer["pictures"]] == names
    assert [failure["name"] for failure in answer["failed"]] == [f"{dull}/alone.png", "size.png"]
    by_name = {row["picture"]: row for row in answer["pictures"]}
    assert by_name["same.png"]["input"] == {"psnr": None, "ssim": pytest.approx(1), "colour_difference": 0}
    means = answer["mean"]
    assert means["pictures"] == 3
    assert means["output"]["ssim"] == pytest.approx(fmean(row["output"]["ssim"] for row in answer["pictures"]))
    measured = [by_name[name] for name in ("a.png", "sub/b.png")]  # what equals its reference has no PSNR to gain
    for part in ("input", "output", "gain"):
        assert means[part]["psnr"] == pytest.approx(fmean(row[part]["psnr"] for row in measured))
    assert means["gain"]["psnr"] == pytest.approx(means["output"]["psnr"] - means["input"]["psnr"])

    rows = list(csv.DictReader(io.StringIO(files["csv"].read_text())))
    assert [row["picture"] for row in rows] == names
    for row in rows:
        for part in ("input", "output", "gain"):
            for measure, value in by_name[row["picture"]][part].items():
                assert row[f"{part}_{measure}"] == ("" if value is None else str(value))

    lines = done.text.splitlines()
    assert re.split(r"\s{2,}", lines[0].strip()) == ["picture", "PSNR dB", "SSIM", "colour", "seams"]
    assert [line.split()[0] for line in lines[1:4]] == names
    row = by_name["a.png"]
    assert f"{row['input']['psnr']:.2f} → {row['output']['psnr']:.2f}" in lines[1]
    assert f"{means['input']['psnr']:.2f} → {means['output']['psnr']:.2f}" in lines[4]


class Page(HTMLParser):
    """Collects what a page shows and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.pictures: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "poster"):
                (self.pictures if (value or "").startswith("data:") else self.fetched).append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_has_thumbnails_and_asks_nobody(run: Run, tmp_path: Path, photo: Image) -> None:
    for folder in ("dull", "good"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "<b>x & y.png").write_bytes(png(photo))
    done = run("evaluate", tmp_path / "dull", tmp_path / "good", "--strength", 0.5, "--html", "-")
    assert done.returncode == 0, done.stderr
    page = Page()
    page.feed(done.text)
    assert not page.fetched
    assert "http" not in done.text
    assert "script" not in page.tags
    assert "url(" not in done.text
    assert "<b>x & y.png" in page.text, "names are text, not markup"
    assert "strength: 0.5" in page.text
    assert len(page.pictures) == 3
    for picture in page.pictures:
        head, _, data = picture.partition(",")
        assert head == "data:image/jpeg;base64"
        decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        assert decoded.shape == (213, 320, 3)


def test_a_reference_that_is_off_is_aligned(run: Run, tmp_path: Path, photo: Image) -> None:
    turn = cv2.getRotationMatrix2D((300, 200), 3, 1.05)
    turned = np.asarray(cv2.warpAffine(photo, turn, (600, 400), flags=cv2.INTER_CUBIC), np.uint8)
    (tmp_path / "a.png").write_bytes(png(photo))
    (tmp_path / "b.png").write_bytes(png(turned))
    off, aligned = (
        json.loads(run("evaluate", tmp_path / "a.png", tmp_path / "b.png", *more, "--json", "-").stdout)["pictures"][0]
        for more in ([], ["--align"])
    )
    assert off["alignment"] is None
    assert aligned["alignment"]["inliers"] > 50
    assert aligned["input"]["psnr"] > off["input"]["psnr"] + 5


def test_what_can_not_be_measured(run: Run, tmp_path: Path, folders: tuple[Path, Path], identity_folder: Path) -> None:
    mixed = run("evaluate", folders[0], folders[1] / "a.png")
    assert mixed.returncode == 2
    assert "name two pictures, or two folders" in mixed.stderr
    twice = run("evaluate", folders[0], folders[1], "--csv", "-", "--json", "-")
    assert twice.returncode == 2
    gone = run("evaluate", tmp_path / "x.png", tmp_path / "y.png", models=identity_folder)
    assert (gone.returncode, gone.stdout, gone.stderr) == (
        1,
        b"",
        f"{tmp_path}/x.png: No such file or directory\n",
    )
    no_reference = run("evaluate", folders[0] / "a.png", tmp_path / "y.png", models=identity_folder)
    assert no_reference.stderr == f"{folders[0]}/a.png: the reference {tmp_path}/y.png: No such file or directory\n"
    (tmp_path / "file").write_text("in the way")
    barred = run(
        "evaluate",
        folders[0] / "a.png",
        folders[1] / "a.png",
        "--csv",
        tmp_path / "file" / "x.csv",
        models=identity_folder,
    )
    assert barred.returncode == 1
    assert barred.stderr == f"pix2dslr: can't write {tmp_path}/file/x.csv: Not a directory\n"


def test_an_interruption_writes_nothing(tmp_path: Path, photo: Image) -> None:
    large = np.tile(photo, (3, 3, 1))
    for folder in ("dull", "good"):
        (tmp_path / folder).mkdir()
        for i in range(12):
            (tmp_path / folder / f"{i}.png").write_bytes(png(large))
    (tmp_path / "dull" / "0.png").write_bytes(b"no picture")
    process = subprocess.Popen(
        [COMMAND, "evaluate", str(tmp_path / "dull"), str(tmp_path / "good"), "--json", str(tmp_path / "r.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment_with({"device": "cpu", "threads": 1}),
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("0.png: "), "it has begun"
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 143
    assert stdout == ""
    assert re.fullmatch(r"pix2dslr: interrupted: \d+ of 12 measured, nothing is written\n", stderr), stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dull", "good"]


def test_cameras_are_those_of_the_server(run: Run, client: httpx.Client) -> None:
    as_json = run("cameras", "--json")
    assert as_json.returncode == 0
    served = client.get("/cameras").json()
    assert json.loads(as_json.stdout) == served
    table = run("cameras")
    assert table.returncode == 0
    lines = table.text.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [camera["name"] for camera in served["cameras"]]
    for line, camera in zip(lines[1:], served["cameras"], strict=True):
        assert f"{camera['psnr']:.2f}" in line
        assert camera["trained_on"] in line
        assert ("(default)" in line) == camera["default"]


def test_cameras_of_a_folder_without_any(run: Run, tmp_path: Path) -> None:
    done = run("cameras", models=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"pix2dslr: {tmp_path}/iphone.onnx is missing, the generator that is used by default\n"
