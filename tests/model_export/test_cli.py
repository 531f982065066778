import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from model_export import evaluate
from model_export.checkpoints import load_checkpoint
from model_export.cli import app
from model_export.pairs import PairPaths, match_folders, read_rgb
from service.generator import Generator
from tests.onnx_files import write_generator

PatchMaker = Callable[..., list[PairPaths]]

CONFIG = """
camera = "toy"
trained_on = "a cup, darkened"
batch = 2
steps = 2
learning_rate = 2e-3
weights = { l1 = 1.0 }
average = 0.0
validate_every = 2
validation_names = ["1", "3"]

[validation]
kind = "pairs"
phone = "phone"
target = "target"

[[sources]]
kind = "pairs"
phone = "phone"
target = "target"
"""


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_train_export_evaluate(tmp_path: Path, make_patches: PatchMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_TIMED_SIDE", 256)  # a megapixel takes seconds, and no one reads this table
    make_patches(5)
    phone, target = tmp_path / "phone", tmp_path / "target"
    config, out, model = tmp_path / "toy.toml", tmp_path / "run", tmp_path / "models/new/toy.onnx"
    config.write_text(CONFIG)

    trained = call("train", config, "--data", tmp_path, "--out", out)
    assert trained.exit_code == 0, trained.output
    assert re.search(r"step 2: .*psnr \d+\.\d{4}", trained.stdout)
    history = json.loads((out / "history.json").read_text())
    assert [entry["step"] for entry in history] == [2]

    again = call("train", config, "--data", tmp_path, "--out", out)
    assert again.exit_code == 0, again.output
    assert again.stdout.splitlines()[0] == "going on from step 2"
    assert json.loads((out / "history.json").read_text()) == history

    # in half precision: test_export.py exports the same network in full
    written = call("export", out / "checkpoint.pt", model, "--tiles", phone, "--half")
    assert written.exit_code == 0, written.output
    assert written.stdout.startswith(f"{model}: {model.stat().st_size / 1e6:.1f} MB; on 5 real tiles")
    spec = Generator(model, device="cpu").spec
    assert (spec.camera, spec.trained_on, spec.architecture) == ("toy", "a cup, darkened", "unet128-s2d")
    assert spec.half
    assert model.stat().st_size < 8e6  # 2.4 M weights of two bytes
    assert spec.psnr == pytest.approx(history[0]["psnr"], abs=1e-3)

    names = tmp_path / "names.txt"
    names.write_text("1\n3\n")
    scored = call("evaluate", model, "--phone", phone, "--target", target, "--names", names)
    assert scored.exit_code == 0, scored.output
    assert re.match(r"2 pairs; .*\n\n\| network \| PSNR dB", scored.stdout)
    _, input_row, row = scored.stdout.strip().rsplit("\n", 2)
    assert input_row.startswith("| input |")
    found = re.fullmatch(
        r"\| toy \| (\d+\.\d\d) \| (\d\.\d{4}) \| \d+\.\d\d \| -?\d+\.\d \| \d+ \| 2,3\d\d,\d{3} \|", row
    )
    assert found is not None
    # what training said of the network is what the service will give
    assert float(found[1]) == pytest.approx(history[0]["psnr"], abs=0.03)
    assert float(found[2]) == pytest.approx(history[0]["ssim"], abs=2e-3)


def test_evaluate_on_pairs_and_photos_to_files(
    tmp_path: Path, make_patches: PatchMaker, identity_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "_TIMED_SIDE", 128)
    make_patches(2, (40, 60), phone_folder="pairs/iphone", target_folder="pairs/canon")
    make_patches(3, (150, 200), phone_folder="photos", target_folder="made")
    report, page, names = tmp_path / "out/report.json", tmp_path / "out/report.html", tmp_path / "names.txt"
    names.write_text("2")
    pairs, photos = ("--pairs", tmp_path / "pairs"), ("--photos", tmp_path / "photos", "--photo-names", names)
    outputs = ("--outputs", f"dslr={tmp_path / 'pairs/canon'}")
    files = ("--photo-targets", tmp_path / "made", "--json", report, "--html", page)
    result = call("evaluate", identity_model, *pairs, *photos, *outputs, *files)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("2 pairs, 1 whole photo; ")
    assert not result.stderr  # no progress bar: this is no terminal
    found = json.loads(report.read_text())
    assert [(row["name"], len(row["pairs"]), len(row["photos"])) for row in found["rows"]] == [
        ("input", 2, 1),
        ("test", 2, 1),
        ("dslr", 2, 0),
    ]
    assert found["rows"][2]["psnr"] == "inf"
    assert found["rows"][1]["photo_psnr"] > 10
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_distil(tmp_path: Path, write_photos: Callable[..., list[PairPaths]]) -> None:
    teacher = write_generator(tmp_path / "teacher.onnx", invert=True)
    photos = [pair.phone for pair in write_photos((140, 150), (150, 200), (130, 320), (160, 160))]
    out = tmp_path / "new/pairs"
    options = ("--tiles", 2, "--side", 160, "--without", "0", "--every", 2)
    done = call("distil", teacher, tmp_path / "photos", out, *map(str, options))
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{out}: pairs of 2 photos, by teacher\n"
    assert not done.stderr  # no progress bar: this is no terminal

    tiles, whole = (match_folders(out / kind / "phone", out / kind / "target") for kind in ("tiles", "photos"))
    written = {path for path in out.rglob("*") if path.is_file()}
    assert written == {path for pair in (*tiles, *whole) for path in (pair.phone, pair.target)}
    assert sorted(pair.phone.stem.split("_")[0] for pair in tiles) == ["1", "1", "3", "3"]
    for pair in tiles:
        phone, target = pair.load()
        name, top, left = map(int, pair.phone.stem.split("_"))
        assert np.array_equal(phone, read_rgb(photos[name])[top : top + 128, left : left + 128])
        assert np.array_equal(target, 255 - phone)
    assert [pair.phone.stem for pair in whole] == ["1", "3"]
    for pair, size in zip(whole, ((128, 171, 3), (160, 160, 3)), strict=True):  # no side gets smaller than a tile
        phone, target = pair.load()
        assert phone.shape == size
        assert np.array_equal(target, 255 - phone)


def test_a_run_starts_from_another_and_goes_on_from_its_own(tmp_path: Path, make_patches: PatchMaker) -> None:
    make_patches(4, (20, 20))
    config = tmp_path / "toy.toml"
    config.write_text(CONFIG.replace("steps = 2", "steps = 1"))
    first, second = tmp_path / "first", tmp_path / "second"
    assert call("train", config, "--data", tmp_path, "--out", first).exit_code == 0
    # a rate too small to move a weight
    config.write_text(CONFIG.replace("steps = 2", "steps = 1").replace("2e-3", "1e-30"))
    arguments = ("train", config, "--data", tmp_path, "--out", second, "--start-from", first / "checkpoint.pt")
    assert call(*arguments).exit_code == 0
    one, other = (load_checkpoint(run / "checkpoint.pt")["averaged"] for run in (first, second))
    assert all(torch.allclose(value, other[name], rtol=0, atol=1e-6) for name, value in one.items())
    again = call(*arguments)
    assert again.exit_code == 0
    assert again.stdout.splitlines()[0].startswith("going on from step 1; ")
    none = (*arguments[:5], tmp_path / "third", "--start-from", tmp_path / "none.pt")
    assert_one_line(call(*none), tmp_path / "none.pt")


def assert_one_line(result: Result, *said: str | Path) -> None:
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("pix2dslr-export: ")
    for words in said:
        assert str(words) in lines[0]


class TestErrors:
    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("steps = 2", "steps", "toy.toml"),
            ("steps = 2", "step = 2", "step"),
            ('camera = "toy"', "", "camera"),
            ("steps = 2", 'architecture = "unet256"', "unet256"),
            ('["1", "3"]', '["1", "99"]', "99"),
            ('phone = "phone"', 'phone = "phones"', "phones is no folder"),
        ],
    )
    def test_train(self, tmp_path: Path, make_patches: PatchMaker, old: str, new: str, said: str) -> None:
        make_patches(4, (20, 20))
        config = tmp_path / "toy.toml"
        config.write_text(CONFIG.replace(old, new))
        assert_one_line(call("train", config, "--data", tmp_path, "--out", tmp_path / "run"), said)

    def test_train_with_another_configuration(
        self, tmp_path: Path, make_patches: PatchMaker, exported: Callable[[str], Any]
    ) -> None:
        make_patches(4, (20, 20))
        config, checkpoint = tmp_path / "toy.toml", tmp_path / "run/checkpoint.pt"
        config.write_text(CONFIG)
        checkpoint.parent.mkdir()
        checkpoint.write_bytes(exported("unet128-s2d").checkpoint.read_bytes())
        result = call("train", config, "--data", tmp_path, "--out", checkpoint.parent)
        assert_one_line(result, checkpoint, "another configuration")
        assert load_checkpoint(checkpoint)["step"] == 0

    def test_export(self, tmp_path: Path, make_patches: PatchMaker, exported: Callable[[str], Any]) -> None:
        make_patches(1)
        ours, model = exported("unet128-s2d").checkpoint, tmp_path / "toy.onnx"
        foreign, junk = tmp_path / "foreign.pth", tmp_path / "junk.pt"
        torch.save({"model.model.0.weight": torch.zeros(1)}, foreign)
        junk.write_bytes(b"no checkpoint")
        for checkpoint, tiles, said in (
            (tmp_path / "none.pt", tmp_path / "phone", tmp_path / "none.pt"),
            (junk, tmp_path / "phone", junk),
            (foreign, tmp_path / "phone", "camera"),
            (ours, tmp_path / "none", tmp_path / "none"),
            (ours, tmp_path / "phone", "two real tiles"),
        ):
            assert_one_line(call("export", checkpoint, model, "--tiles", tiles), said)
            assert not model.exists()
        named = ("--camera", "canon", "--trained-on", "facades")
        assert_one_line(call("export", foreign, model, "--tiles", tmp_path / "phone", *named), "unet_128")

    def test_evaluate(self, tmp_path: Path, make_patches: PatchMaker, identity_model: Path) -> None:
        make_patches(2)
        phone, target, junk = tmp_path / "phone", tmp_path / "target", tmp_path / "junk.onnx"
        junk.write_bytes(b"no network")
        names = tmp_path / "names.txt"
        names.write_text("0 7")
        halves = ("--phone", phone, "--target", target)
        assert_one_line(call("evaluate", identity_model), "nothing to score on")
        assert_one_line(call("evaluate", identity_model, *halves, "--outputs", "made"), "NAME=DIR")
        assert_one_line(call("evaluate", identity_model, "--pairs", tmp_path / "none"), tmp_path / "none")
        assert_one_line(call("evaluate", tmp_path / "none.onnx", *halves), tmp_path / "none.onnx")
        assert_one_line(call("evaluate", junk, *halves), junk)
        assert_one_line(call("evaluate", identity_model, "--phone", phone, "--target", tmp_path), tmp_path)
        assert_one_line(call("evaluate", identity_model, *halves, "--names", names), "no pair is named 7")
        assert_one_line(call("evaluate", identity_model, *halves, "--names", tmp_path / "none"), tmp_path / "none")

    def test_distil(self, tmp_path: Path, make_patches: PatchMaker, identity_model: Path) -> None:
        make_patches(1, (100, 200))
        small, empty, out, junk = (tmp_path / name for name in ("phone", "empty", "out", "junk.onnx"))
        empty.mkdir()
        junk.write_bytes(b"no network")
        assert_one_line(call("distil", tmp_path / "none.onnx", small, out), tmp_path / "none.onnx", "missing")
        assert_one_line(call("distil", junk, small, out), junk)
        assert_one_line(call("distil", identity_model, tmp_path / "none", out), tmp_path / "none", "is no folder")
        assert_one_line(call("distil", identity_model, empty, out), empty, "holds no pictures")
        assert_one_line(call("distil", identity_model, small, out, "--only", "7"), "no photo is named 7")
        assert_one_line(call("distil", identity_model, small, out), small / "0.png", "smaller than a tile")
        assert not out.exists()


def test_runs_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "model_export", "export", "none.pt", "new.onnx", "--tiles", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(r"pix2dslr-export: none\.pt can't be read.*\n", done.stderr)
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_without_a_command_it_says_what_there_is() -> None:
    said = call().output
    assert all(command in said for command in ("train", "export", "evaluate"))
