import csv
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from tests import profiles
from tests.e2e.conftest import Server
from tests.hostile import good

PROJECT = Path(__file__).parents[2]


def run_corpus(folder: Path, table: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.corpus", str(folder), "--csv", str(table), *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=300, check=False)


def rows_of(table: Path) -> dict[str, dict[str, str]]:
    with table.open(newline="") as lines:
        return {Path(row["path"]).name: row for row in csv.DictReader(lines)}


def fill(folder: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write a picture of each format, and some that are special."""
    folder.mkdir()
    picture = Image.fromarray(pixels)
    for suffix in ("jpg", "png", "webp", "bmp", "tif", "avif"):
        picture.save(folder / f"plain.{suffix}")
    if good.heic():
        (folder / "plain.heic").write_bytes(good.heic())
    (folder / "broken.jpg").write_bytes(good.jpeg()[:1500])
    (folder / "notes.txt").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    cv2.imwrite(str(folder / "deep.png"), pixels.astype(np.uint16) * 256 + 77)
    picture.save(folder / "p3.jpg", quality=95, icc_profile=profiles.display_p3())
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "Ann"
    picture.save(folder / "turned.jpg", exif=exif, quality=95)
    picture.convert("RGBA").rotate(30).save(folder / "clear.webp", lossless=True)


def test_a_folder_of_all_formats_is_answered_rightly(
    identity_server: Server, photo: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    folder, table = tmp_path / "pictures", tmp_path / "corpus.csv"
    fill(folder, photo[100:196, 200:328])
    done = run_corpus(folder, table, "--url", identity_server.url, "--seed", "3", "--again-every", "2")
    rows = rows_of(table)
    outcomes = {name: row["outcome"] for name, row in rows.items()}
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcomes.pop("broken.jpg") == outcomes.pop("notes.txt") == outcomes.pop("empty.png") == "refused-rightly"
    assert set(outcomes.values()) == {"same"}, done.stdout
    assert len(rows) == len(list(folder.iterdir()))
    assert rows["notes.txt"]["problem"] == "unsupported-format"
    assert rows["deep.png"]["largest"] == "0"
    assert "seed 3" in done.stderr
    assert "the service stayed healthy" in done.stdout

    (folder / "notes.txt").write_text("other words")
    again = run_corpus(folder, table, "--url", identity_server.url, "--again-every", "0")
    assert ": 1 requests to make" in again.stderr
    assert rows_of(table)["notes.txt"]["sha256"] != rows["notes.txt"]["sha256"]
    assert len(rows_of(table)) == len(rows)


def test_a_service_that_can_not_be_reached_fails_the_run(tmp_path: Path, photo: npt.NDArray[np.uint8]) -> None:
    folder, table = tmp_path / "pictures", tmp_path / "corpus.csv"
    folder.mkdir()
    Image.fromarray(photo[:50, :50]).save(folder / "plain.png")
    done = run_corpus(folder, table, "--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert rows_of(table)["plain.png"]["outcome"] == "error"
