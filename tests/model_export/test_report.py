"""The journal of a run and the page made of it, from a real run of a few steps."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage import data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model_export.config import TrainConfig
from model_export.journal import EXTREMES, Journal, grid
from model_export.pairs import PairPaths, match_folders
from model_export.report import NoRun, write_report
from model_export.train import Trainer

PixelArray = npt.NDArray[np.uint8]
ConfigMaker = Callable[..., TrainConfig]
TrainerMaker = Callable[[TrainConfig, Sequence[PairPaths]], Trainer]


def journalled(trainer: Trainer, pairs: Sequence[PairPaths], folder: Path) -> Trainer:
    journal = Journal(folder, trainer.config, trainer.steps, trainer.step)
    trainer.run(
        pairs,
        folder / "checkpoint.pt",
        journal.step,
        lambda step, scores: journal.validated(step, scores, trainer.history),
    )
    journal.close()
    return trainer


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker
) -> tuple[Path, Trainer, list[PairPaths]]:
    """A run of 20 steps, made once: its folder, its trainer and the pairs that it validated on."""
    folder = tmp_path_factory.mktemp("report")
    cat = data.chelsea()
    for half, dim in (("phone", 1.0), ("target", 0.7)):
        (folder / half).mkdir()
        for number in range(14):
            patch = cat[10 * number : 10 * number + 100, 20 * number : 20 * number + 100]
            Image.fromarray(np.asarray(patch * dim, np.uint8)).save(folder / half / f"{number}.png")
    pairs = match_folders(folder / "phone", folder / "target")
    config = tiny_config(steps=20, validate_every=10, sample_every=10, camera="<toy & co>")
    return folder / "run", journalled(fresh_trainer(config, pairs), pairs, folder / "run"), pairs


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "events"), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def test_a_run_leaves_its_journal(run: tuple[Path, Trainer, list[PairPaths]]) -> None:
    folder, trainer, pairs = run
    assert json.loads((folder / "history.json").read_text()) == trainer.history
    assert [entry["step"] for entry in trainer.history] == [10, 20]
    rows = json.loads((folder / "pairs.json").read_text())
    assert {row["name"] for row in rows} == {pair.phone.stem for pair in pairs}
    assert np.mean([row["psnr"] for row in rows]) == pytest.approx(trainer.history[-1]["psnr"])
    assert len(list((folder / "pairs").glob("*.png"))) == 2 * EXTREMES
    for step in (10, 20):
        with Image.open(folder / "samples" / f"{step:07}.png") as picture:
            assert picture.size == (3 * 100 + 2 * 4, 6 * 100 + 5 * 4)
    noted = events(folder)
    scalars = {event.step: event.value for event in noted.Scalars("validation/psnr")}
    assert scalars == {entry["step"]: pytest.approx(entry["psnr"], rel=1e-5) for entry in trainer.history}
    assert [event.step for event in noted.Scalars("loss/l1")] == [10, 20]
    assert [event.step for event in noted.Images("samples")] == [10, 20]


def test_the_extremes_are_those_of_the_last_validation(run: tuple[Path, Trainer, list[PairPaths]]) -> None:
    folder, _, _ = run
    ranked = [row["name"] for row in json.loads((folder / "pairs.json").read_text())]
    kept = {path.stem for path in (folder / "pairs").iterdir()}
    assert kept == {*ranked[:EXTREMES], *ranked[-EXTREMES:]}


def test_the_page_shows_the_run(run: tuple[Path, Trainer, list[PairPaths]]) -> None:
    folder, trainer, _ = run
    started = json.loads((folder / "run.json").read_text())["started"]
    page = write_report(folder).read_text()
    assert "&lt;toy &amp; co&gt;" in page
    assert "<toy" not in page
    assert page.count("<svg") == 3
    assert page.count("data:image/png;base64,") == 2 + 2 * EXTREMES
    assert f"{trainer.history[-1]['psnr']:.2f} dB" in page
    assert started in page
    assert "&#34;learning_rate&#34;: 0.002" in page
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/", "").replace("http://purl.org/", "").replace(
        "http://creativecommons.org/", ""
    ).replace("https://matplotlib.org/", "")
    assert write_report(folder).read_text() == page  # nothing in it depends on when it was made


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoRun, match=r"nowhere.*run\.json"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(NoRun, match="damaged"):
        write_report(tmp_path)


def test_grid_places_every_picture() -> None:
    def tone(height: int, width: int, level: int) -> PixelArray:
        return np.full((height, width, 3), level, np.uint8)

    sheet = grid([[tone(4, 6, 10), tone(2, 3, 20)], [tone(5, 2, 30), tone(1, 5, 40)]], gap=1)
    assert sheet.shape == (4 + 1 + 5, 6 + 1 + 5, 3)
    assert (sheet[:4, :6] == 10).all()
    assert (sheet[:2, 7:10] == 20).all()
    assert (sheet[5:10, :2] == 30).all()
    assert (sheet[5:6, 7:12] == 40).all()
    assert (sheet == 255).all(2).sum() == 10 * 12 - 24 - 6 - 10 - 5
    with pytest.raises(ValueError, match="one length"):
        grid([[tone(1, 1, 0)], []])


def test_events_past_the_checkpoint_are_dropped(run: tuple[Path, Trainer, list[PairPaths]], tmp_path: Path) -> None:
    source, trainer, _ = run
    folder = shutil.copytree(source, tmp_path / "run")
    # as after a kill between the checkpoint of step 10 and the end: what was written past it is written again
    journal = Journal(folder, trainer.config, trainer.steps, 10)
    journal.step({"step": 20, "loss/l1": 0.25})
    journal.close()
    values = [(event.step, event.value) for event in events(folder).Scalars("loss/l1")]
    assert [step for step, _ in values] == [10, 20]
    assert values[-1][1] == 0.25
