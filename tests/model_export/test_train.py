import copy
import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import nn

from model_export import losses
from model_export.batches import MixedBatches, PatchPairs
from model_export.checkpoints import load_checkpoint
from model_export.config import LOSSES, ConfigError, SourceConfig, TrainConfig, load_config, read_config
from model_export.data import open_data, open_pairs
from model_export.networks import PatchDiscriminator, SpaceToDepthUNet
from model_export.pairs import PairPaths, PairsError, Policy
from model_export.scoring import PairScore, score, to_tensor
from model_export.train import Trainer
from service.quality import psnr

PixelArray = npt.NDArray[np.uint8]
PatchMaker = Callable[..., list[PairPaths]]
ConfigMaker = Callable[..., TrainConfig]
TrainerMaker = Callable[[TrainConfig, Sequence[PairPaths]], Trainer]

CONFIGS = Path(__file__).parents[2] / "model_export" / "configs"


class Stopped(Exception):
    """What a test throws to stop a run."""


def without_rate(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """A history without what the clock says."""
    return [{name: value for name, value in entry.items() if name != "rate"} for entry in history]


def silent(values: dict[str, float]) -> None:
    """A report that says nothing."""


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    for (name, mine), theirs in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


class TestRun:
    def test_lowers_the_loss(
        self, tmp_path: Path, make_patches: PatchMaker, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker
    ) -> None:
        pairs = make_patches(3)
        trainer = fresh_trainer(tiny_config(steps=12, validate_every=6), pairs)
        before = score(trainer.averaged, pairs)
        seen: list[dict[str, float]] = []
        trainer.run(pairs, tmp_path / "checkpoint.pt", seen.append)

        l1 = [values["loss/l1"] for values in seen]
        assert np.mean(l1[-3:]) < 0.6 * np.mean(l1[:3])
        assert [values["step"] for values in seen] == list(range(1, 13))
        assert [values["step"] for values in seen if "psnr" in values] == [6, 12]
        assert [entry["step"] for entry in trainer.history] == [6, 12]
        assert trainer.history[0]["loss/l1"] == pytest.approx(np.mean(l1[:6]))
        assert trainer.history[1]["loss/l1"] == pytest.approx(np.mean(l1[6:]))
        # what was validated is the average of the weights
        after = score(trainer.averaged, pairs)
        assert after == (trainer.history[1]["psnr"], trainer.history[1]["ssim"])
        assert after[0] > before[0] + 1

    def test_steps_are_the_weighted_sum_of_the_losses(
        self, tmp_path: Path, make_patches: PatchMaker, tiny_config: ConfigMaker
    ) -> None:
        pairs = make_patches(2)
        config = tiny_config(steps=1, validate_every=1, weights={"l1": 3.0, "ssim": 0.5}, learning_rate=1e-3)
        batches = MixedBatches([PatchPairs(pairs)], [1.0], config.batch, config.seed)
        trainer = Trainer(config, batches)
        mine = copy.deepcopy(trainer.generator)
        adam = torch.optim.Adam(mine.parameters(), 1e-3, config.betas)
        batch = batches[0]
        picture, target, context = (to_tensor(x) for x in (batch.tile, batch.target, batch.context))
        mask = torch.from_numpy(batch.mask)[:, None]
        output = mine(picture, context)
        total = 3.0 * losses.l1(output, target, mask) + 0.5 * losses.ssim(output, target, mask)
        total.backward()  # type: ignore[no-untyped-call]
        adam.step()

        trainer.run(pairs, tmp_path / "checkpoint.pt", silent)
        assert_same_weights(trainer.generator, mine)

    def test_without_average_the_average_is_the_generator(
        self, tmp_path: Path, make_patches: PatchMaker, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker
    ) -> None:
        pairs = make_patches(2)
        trainer = fresh_trainer(tiny_config(steps=2, average=0.0), pairs)
        trainer.run(pairs, tmp_path / "checkpoint.pt", silent)
        assert_same_weights(trainer.averaged, trainer.generator)

    def test_bfloat16_trains_too(
        self, tmp_path: Path, make_patches: PatchMaker, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker
    ) -> None:
        pairs, seen = make_patches(2), list[dict[str, float]]()
        config = tiny_config(steps=2, precision="bfloat16", schedule="one_cycle", weights={"l1": 1.0, "gan": 0.01})
        trainer = fresh_trainer(config, pairs)
        before = copy.deepcopy(trainer.generator)
        trainer.run(pairs, tmp_path / "checkpoint.pt", seen.append)
        assert all(np.isfinite(list(values.values())).all() for values in seen)
        assert all(value.dtype in (torch.float32, torch.int64) for value in trainer.generator.state_dict().values())
        with pytest.raises(AssertionError):
            assert_same_weights(before, trainer.generator)

    def test_one_cycle_rises_and_falls_to_nothing(
        self, tmp_path: Path, make_patches: PatchMaker, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker
    ) -> None:
        pairs = make_patches(1)
        trainer = fresh_trainer(tiny_config(steps=10, validate_every=10, schedule="one_cycle"), pairs)
        bias = trainer.generator.get_parameter("up.5.bias")
        places = [bias.detach().clone()]
        trainer.run(pairs, tmp_path / "checkpoint.pt", lambda _: places.append(bias.detach().clone()))
        # Adam moves a weight by about the learning rate, whatever its gradient
        steps = [float((after - before).abs().median()) for before, after in itertools.pairwise(places)]
        assert max(steps) == pytest.approx(2e-3, rel=0.5)
        assert np.argmax(steps) in range(1, 5)
        assert steps[0] < 0.1 * max(steps)
        assert steps[-1] < 0.1 * max(steps)

    def test_a_clipped_gradient_is_no_longer_than_that(
        self, tmp_path: Path, make_patches: PatchMaker, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker
    ) -> None:
        pairs = make_patches(2)
        norms = {}
        for clip in (0.0, 1e-3):
            trainer = fresh_trainer(tiny_config(steps=1, clip=clip), pairs)
            trainer.run(pairs, tmp_path / "checkpoint.pt", silent)
            gradients = [p.grad for p in trainer.generator.parameters() if p.grad is not None]
            norms[clip] = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
        assert norms[0.0] > 0.01
        assert norms[1e-3] == pytest.approx(1e-3, rel=1e-3)

    def test_validation_is_told_pair_by_pair(
        self, tmp_path: Path, make_patches: PatchMaker, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker
    ) -> None:
        pairs, told = make_patches(3, (60, 80)), list[tuple[int, list[PairScore]]]()
        trainer = fresh_trainer(tiny_config(steps=2, validate_every=1), pairs)
        trainer.run(pairs, tmp_path / "checkpoint.pt", silent, lambda *heard: told.append(heard))
        assert [step for step, _ in told] == [1, 2]
        scores = told[1][1]
        assert [one.name for one in scores] == ["0", "1", "2"]
        for one, pair in zip(scores, pairs, strict=True):
            phone, target = pair.load()
            assert np.array_equal(one.phone, phone)
            assert np.array_equal(one.target, target)
            assert one.output.shape == (60, 80, 3)
            assert one.output.dtype == np.uint8
            assert one.psnr == psnr(one.output, target)
        assert trainer.history[1]["psnr"] == pytest.approx(np.mean([one.psnr for one in scores]))
        assert trainer.history[1]["ssim"] == pytest.approx(np.mean([one.ssim for one in scores]))

    def test_history_says_the_rate_of_learning_and_of_tiles(
        self, tmp_path: Path, make_patches: PatchMaker, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker
    ) -> None:
        pairs = make_patches(2)
        trainer = fresh_trainer(tiny_config(schedule="one_cycle"), pairs)
        start = time.perf_counter()
        trainer.run(pairs, tmp_path / "checkpoint.pt", silent)
        spent = time.perf_counter() - start
        # half the steps in less than all the time
        assert all(entry["rate"] > 4 / spent for entry in trainer.history)
        first, last = (entry["learning_rate"] for entry in trainer.history)
        assert 2e-3 > first > last > 0

    def test_all_terms_at_once(
        self,
        tmp_path: Path,
        make_patches: PatchMaker,
        tiny_config: ConfigMaker,
        photo: PixelArray,
    ) -> None:
        pairs = make_patches(2)
        for folder in ("photos", "enhanced"):
            (tmp_path / folder).mkdir()
            Image.fromarray(photo[:200, :240]).save(tmp_path / folder / "0.png")
        config = tiny_config(
            sources=(*tiny_config().sources, SourceConfig("photos", phone="photos", target="enhanced")),
            validation=SourceConfig("pairs", phone="phone", target="target", limit=1),
            weights=dict.fromkeys(LOSSES, 1.0),
            gan_loss="hinge",
            discriminator_width=4,
            steps=1,
        )
        batches, _ = open_data(config, tmp_path)
        seen = list[dict[str, float]]()
        trainer = Trainer(config, batches)
        before = copy.deepcopy(trainer.generator)
        trainer.run(pairs, tmp_path / "checkpoint.pt", seen.append)
        terms = {f"loss/{name}" for name in (*LOSSES, "discriminator", "texture_discriminator")}
        assert seen[0].keys() == {"step", "psnr", "ssim", *terms}
        assert all(np.isfinite(value) for value in seen[0].values())
        assert seen[0]["loss/consistency"] > 0
        with pytest.raises(AssertionError):
            assert_same_weights(before, trainer.generator)

    def test_a_precision_that_the_device_lacks_is_refused(
        self, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker
    ) -> None:
        with pytest.raises(ConfigError, match="float16"):
            fresh_trainer(tiny_config(precision="float16"), [])

    @pytest.mark.parametrize("name", ["paper", "dped"])
    def test_shipped_runs_train_on_the_layout_of_dped(
        self, tmp_path: Path, make_patches: PatchMaker, name: str
    ) -> None:
        for base in ("iphone/training_data", "iphone/test_data/patches"):
            make_patches(3, phone_folder=f"{base}/iphone", target_folder=f"{base}/canon")
        shipped = load_config(CONFIGS / f"{name}.toml")
        config = dataclasses.replace(shipped, steps=1, epochs=None, batch=2, discriminator_width=4)
        batches, validation = open_data(config, tmp_path)
        assert len(validation) == 3
        trainer = Trainer(config, batches, "cpu", tmp_path)
        trainer.run(validation[:1], tmp_path / "checkpoint.pt", silent)
        assert {f"loss/{term}" for term in shipped.weights} <= trainer.history[0].keys()
        if name == "paper":
            assert Trainer(dataclasses.replace(config, steps=None, epochs=100), batches).steps == 200


class TestStartFrom:
    def test_begins_with_another_runs_average(
        self, tmp_path: Path, make_patches: PatchMaker, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker
    ) -> None:
        pairs, path = make_patches(2), tmp_path / "first.pt"
        weights = {"l1": 1.0, "gan": 1.0, "texture": 1.0}
        first = fresh_trainer(tiny_config(weights=weights, discriminator_width=4, steps=1), pairs)
        first.run(pairs, path, silent)
        second = fresh_trainer(tiny_config(weights=weights, discriminator_width=4, seed=1, clip=1.0), pairs)
        second.start_from(path)
        assert second.step == 0
        assert not second.history
        assert_same_weights(second.generator, first.averaged)
        assert_same_weights(second.averaged, first.averaged)
        for one, other in (
            (second.discriminator, first.discriminator),
            (second.texture_discriminator, first.texture_discriminator),
        ):
            assert one is not None
            assert other is not None
            assert_same_weights(one, other)
        # discriminators of another size stay fresh, and none is needed
        wider = fresh_trainer(tiny_config(weights=weights, discriminator_width=6), pairs)
        wider.start_from(path)
        assert_same_weights(wider.generator, first.averaged)
        fresh_trainer(tiny_config(), pairs).start_from(path)

    def test_another_architecture_is_refused(
        self, tmp_path: Path, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker
    ) -> None:
        path = tmp_path / "checkpoint.pt"
        trainer = fresh_trainer(tiny_config(), [])
        trainer.save(path)
        state = load_checkpoint(path)
        torch.save({**state, "averaged": {"weight": torch.zeros(1)}}, path)
        with pytest.raises(ConfigError, match=f"{path} holds no generator of the architecture unet128-s2d"):
            trainer.start_from(path)


class TestGan:
    def test_a_step_moves_the_discriminator_by_its_own_loss_alone(
        self, tmp_path: Path, make_patches: PatchMaker, tiny_config: ConfigMaker
    ) -> None:
        pairs = make_patches(2)
        config = tiny_config(steps=1, validate_every=1, weights={"l1": 100.0, "gan": 1.0})
        batches = MixedBatches([PatchPairs(pairs)], [1.0], config.batch, config.seed)
        trainer = Trainer(config, batches)
        assert trainer.discriminator is not None
        generator, discriminator = copy.deepcopy(trainer.generator), copy.deepcopy(trainer.discriminator)
        batch, seen = batches[0], list[dict[str, float]]()
        picture, target, context = (to_tensor(x) for x in (batch.tile, batch.target, batch.context))
        # by hand: the discriminator's half-step on the generator's answer, and then the generator's; padding is the
        # target's in both
        mask = torch.from_numpy(batch.mask)[:, None]
        adam = torch.optim.Adam(discriminator.parameters(), 2e-4, (0.5, 0.999))
        output = generator(picture, context)
        seen_output = torch.where(mask == 1, output, target)
        fake, real = discriminator(picture, seen_output.detach()), discriminator(picture, target)
        loss = 0.5 * (losses.gan(fake, real=False) + losses.gan(real, real=True))
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        fooled = losses.gan(discriminator(picture, seen_output), real=True)
        l1 = losses.l1(output, target, mask)
        (fooled + 100 * l1).backward()  # type: ignore[no-untyped-call]
        torch.optim.Adam(generator.parameters(), config.learning_rate, config.betas).step()

        start = copy.deepcopy(trainer.discriminator)
        trainer.run(pairs, tmp_path / "checkpoint.pt", seen.append)
        for before, mine, theirs in zip(
            start.parameters(), discriminator.parameters(), trainer.discriminator.parameters(), strict=True
        ):
            assert torch.equal(mine, theirs)
            assert not torch.equal(before, theirs)
            assert theirs.requires_grad
        assert seen[0]["loss/discriminator"] == pytest.approx(loss.item(), rel=1e-6)
        assert seen[0]["loss/gan"] == pytest.approx(fooled.item(), rel=1e-6)
        assert seen[0]["loss/l1"] == pytest.approx(l1.item(), rel=1e-6)
        # and the generator listens to the discriminator
        for mine, theirs in zip(generator.parameters(), trainer.generator.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)

    def test_learns_to_tell_them_apart(
        self, tmp_path: Path, make_patches: PatchMaker, tiny_config: ConfigMaker
    ) -> None:
        pairs = make_patches(2, target=lambda pixels: 255 - pixels)
        # a generator that stands still: how well they are told apart is the discriminator's doing
        config = tiny_config(steps=10, validate_every=10, learning_rate=0.0, weights={"gan": 1.0})
        batches = MixedBatches([PatchPairs(pairs)], [1.0], config.batch, config.seed)
        trainer = Trainer(config, batches)

        @torch.no_grad()
        def mistakes() -> float:
            assert trainer.discriminator is not None
            total = 0.0
            for number in range(2):
                batch = batches[number]
                picture, target, context = (to_tensor(x) for x in (batch.tile, batch.target, batch.context))
                fake = trainer.discriminator(picture, trainer.generator(picture, context))
                real = trainer.discriminator(picture, target)
                total += float(losses.gan(fake, real=False) + losses.gan(real, real=True))
            return total

        before = mistakes()
        trainer.run(pairs, tmp_path / "checkpoint.pt", silent)
        assert mistakes() < 0.7 * before

    def test_rests_until_its_step(
        self, tmp_path: Path, make_patches: PatchMaker, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker
    ) -> None:
        pairs, seen = make_patches(2), list[dict[str, float]]()
        config = tiny_config(steps=3, weights={"l1": 1.0, "gan": 1.0}, gan_from=2)
        fresh_trainer(config, pairs).run(pairs, tmp_path / "checkpoint.pt", seen.append)
        assert ["loss/gan" in values for values in seen] == [False, False, True]

    def test_without_weight_there_is_none(self, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker) -> None:
        assert fresh_trainer(tiny_config(), []).discriminator is None
        assert fresh_trainer(tiny_config(weights={"l1": 1.0, "gan": 0.0}), []).discriminator is None


class TestCheckpoint:
    @pytest.mark.parametrize(
        ("weights", "steps", "stop_at"),
        [
            pytest.param({"l1": 1.0}, 4, 3, id="a step after its checkpoint"),
            pytest.param({"l1": 100.0, "gan": 1.0, "texture": 1.0}, 2, 1, id="with discriminators"),
        ],
    )
    def test_a_stopped_run_ends_as_one_without_a_stop(
        self,
        tmp_path: Path,
        make_patches: PatchMaker,
        tiny_config: ConfigMaker,
        fresh_trainer: TrainerMaker,
        weights: dict[str, float],
        steps: int,
        stop_at: int,
    ) -> None:
        pairs = make_patches(4)
        config = tiny_config(weights=weights, schedule="one_cycle", steps=steps, validate_every=steps // 2)
        whole = fresh_trainer(config, pairs)
        whole.run(pairs, tmp_path / "whole.pt", silent)

        def stop(values: dict[str, float]) -> None:
            if values["step"] == stop_at:
                raise Stopped

        checkpoint = tmp_path / "stopped.pt"
        with pytest.raises(Stopped):
            fresh_trainer(config, pairs).run(pairs, checkpoint, stop)
        resumed = fresh_trainer(config, pairs)
        resumed.resume(checkpoint)
        assert resumed.step == steps // 2
        torch.rand(3)  # what others drew in between does not matter
        resumed.run(pairs, checkpoint, silent)

        assert resumed.step == whole.step == steps
        assert_same_weights(resumed.generator, whole.generator)
        assert_same_weights(resumed.averaged, whole.averaged)
        if whole.discriminator is not None:
            assert isinstance(resumed.discriminator, PatchDiscriminator)
            assert_same_weights(resumed.discriminator, whole.discriminator)
            assert resumed.texture_discriminator is not None
            assert whole.texture_discriminator is not None
            assert_same_weights(resumed.texture_discriminator, whole.texture_discriminator)
        assert without_rate(resumed.history) == without_rate(whole.history)

    def test_between_validations_it_holds_the_sums_of_the_losses(
        self, tmp_path: Path, make_patches: PatchMaker, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker
    ) -> None:
        pairs, path = make_patches(3), tmp_path / "checkpoint.pt"
        config = tiny_config(steps=4, validate_every=4, checkpoint_every=1)
        whole = fresh_trainer(config, pairs)
        whole.run(pairs, tmp_path / "whole.pt", silent)

        def stop(values: dict[str, float]) -> None:
            if values["step"] == 3:
                raise Stopped

        with pytest.raises(Stopped):
            fresh_trainer(config, pairs).run(pairs, path, stop)
        resumed = fresh_trainer(config, pairs)
        resumed.resume(path)
        assert (resumed.step, resumed.history) == (3, [])
        resumed.run(pairs, path, silent)
        assert without_rate(resumed.history) == without_rate(whole.history)

    def test_an_older_one_is_gone_on_with(
        self, tmp_path: Path, make_patches: PatchMaker, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker
    ) -> None:
        pairs, path = make_patches(2), tmp_path / "checkpoint.pt"
        config = tiny_config(steps=2, validate_every=1)
        fresh_trainer(dataclasses.replace(config, steps=1), pairs).run(pairs, path, silent)
        state = load_checkpoint(path)
        said = {name: value for name, value in json.loads(state["config"]).items() if name not in ("epochs", "clip")}
        state |= {"config": json.dumps({**said, "steps": 2}), "random": state["random"][0]["cpu"]}
        del state["sums"]
        torch.save(state, path)
        trainer = fresh_trainer(config, pairs)
        trainer.resume(path)
        assert trainer.step == 1
        assert torch.equal(torch.get_rng_state(), state["random"])
        trainer.run(pairs, path, silent)
        assert [entry["step"] for entry in trainer.history] == [1, 2]

    def test_holds_the_random_numbers_to_come(
        self, tmp_path: Path, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker
    ) -> None:
        # dropout draws from them
        trainer = fresh_trainer(tiny_config(), [])
        torch.rand(7)
        trainer.save(tmp_path / "checkpoint.pt")
        expected = torch.rand(5)
        other = fresh_trainer(tiny_config(), [])
        other.resume(tmp_path / "checkpoint.pt")
        assert torch.equal(torch.rand(5), expected)

    def test_is_replaced_whole(self, tmp_path: Path, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker) -> None:
        path = tmp_path / "new/run/checkpoint.pt"
        trainer = fresh_trainer(tiny_config(), [])
        trainer.save(path)
        trainer.step = 3
        trainer.save(path)
        assert load_checkpoint(path)["step"] == 3
        assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]

    @pytest.mark.parametrize("change", [{"seed": 1}, {"weights": {"l1": 1.0, "gan": 1.0}}])
    def test_another_configuration_is_refused(
        self, tmp_path: Path, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker, change: dict[str, Any]
    ) -> None:
        path = tmp_path / "checkpoint.pt"
        fresh_trainer(tiny_config(), []).save(path)
        with pytest.raises(ConfigError, match=f"{path} was made with another configuration"):
            fresh_trainer(tiny_config(**change), []).resume(path)

    @pytest.mark.parametrize("state", [{"weight": torch.zeros(1)}, {}])
    def test_a_checkpoint_of_others_is_refused(
        self, tmp_path: Path, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker, state: dict[str, Any]
    ) -> None:
        path = tmp_path / "checkpoint.pt"
        torch.save(state, path)
        with pytest.raises(ConfigError, match=str(path)):
            fresh_trainer(tiny_config(), []).resume(path)

    def test_a_later_version_is_refused(
        self, tmp_path: Path, tiny_config: ConfigMaker, fresh_trainer: TrainerMaker
    ) -> None:
        path = tmp_path / "checkpoint.pt"
        trainer = fresh_trainer(tiny_config(), [])
        trainer.save(path)
        torch.save({**load_checkpoint(path), "pix2dslr": 999}, path)
        with pytest.raises(ConfigError, match=str(path)):
            trainer.resume(path)

    def test_not_a_checkpoint(self, tmp_path: Path) -> None:
        path = tmp_path / "checkpoint.pt"
        with pytest.raises(ConfigError, match=str(path)):
            load_checkpoint(path)
        path.write_bytes(b"no checkpoint")
        with pytest.raises(ConfigError, match=str(path)):
            load_checkpoint(path)
        torch.save([1, 2], path)
        with pytest.raises(ConfigError, match=f"{path} holds no state dict"):
            load_checkpoint(path)


WHOLE = """
camera = "toy"
trained_on = "a toy"
steps = 10
betas = [0.9, 0.99]
weights = { l1 = 1.0, ssim = 0.1 }
validation_names = ["1", "2"]

[validation]
kind = "pairs"
phone = "a"
target = "b"

[[sources]]
kind = "dped"
camera = "sony"

[[sources]]
kind = "photos"
phone = "c"
target = "d"
share = 2
grid = 64
leave_out = ["9"]
"""


class TestConfig:
    @pytest.fixture
    def config(self, tmp_path: Path) -> Callable[[str], Path]:
        """A function that writes a configuration and returns its path."""

        def write(text: str) -> Path:
            path = tmp_path / "run.toml"
            path.write_text(text)
            return path

        return write

    def test_whole(self, config: Callable[[str], Path]) -> None:
        assert load_config(config(WHOLE)) == TrainConfig(
            camera="toy",
            trained_on="a toy",
            steps=10,
            betas=(0.9, 0.99),
            weights={"l1": 1.0, "ssim": 0.1},
            validation_names=("1", "2"),
            validation=SourceConfig("pairs", phone="a", target="b"),
            sources=(
                SourceConfig("dped", camera="sony"),
                SourceConfig("photos", phone="c", target="d", share=2, grid=64, leave_out=("9",)),
            ),
        )

    def test_names_from_a_file_beside_it(self, tmp_path: Path, config: Callable[[str], Path]) -> None:
        (tmp_path / "names.txt").write_text("3\n10\n")
        path = config(WHOLE.replace('["1", "2"]', '"names.txt"'))
        assert load_config(path).validation_names == ("3", "10")

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            pytest.param("steps = 10", "step = 10", "step", id="unknown key"),
            pytest.param("share = 2", "shares = 2", "shares", id="unknown key of a source"),
            pytest.param('camera = "toy"', "", "camera", id="missing camera"),
            pytest.param("[validation]", "[other]", "validation", id="missing validation"),
            pytest.param('kind = "dped"', "", "kind", id="missing kind"),
            pytest.param("steps = 10", "steps = ", "line 4", id="bad TOML"),
            pytest.param("ssim = 0.1", "sim = 0.1", "sim", id="unknown loss"),
            pytest.param('["1", "2"]', '"names.txt"', "names.txt", id="missing names file"),
            pytest.param("steps = 10", 'steps = "many"', "steps", id="steps of the wrong kind"),
            pytest.param("{ l1 = 1.0, ssim = 0.1 }", "3", "weights", id="weights of the wrong kind"),
            pytest.param("[0.9, 0.99]", "0.9", "betas", id="betas of the wrong kind"),
            pytest.param("share = 2", 'share = "half"', "share", id="share of the wrong kind"),
            pytest.param('kind = "dped"', 'kind = "deped"', "kind", id="unknown kind"),
            pytest.param("share = 2", 'policy = "stretch"', "policy", id="unknown policy"),
            pytest.param("steps = 10", 'architecture = "unet256"', "architecture", id="unknown architecture"),
            pytest.param("steps = 10", 'schedule = "cosine"', "schedule", id="unknown schedule"),
            pytest.param("steps = 10", 'precision = "float8"', "precision", id="unknown precision"),
            pytest.param("steps = 10", 'gan_loss = "wgan"', "gan_loss", id="unknown GAN loss"),
            pytest.param("steps = 10", "steps = 10\nepochs = 2", "steps and epochs", id="steps and epochs"),
            pytest.param("steps = 10", "epochs = 2", "epochs", id="epochs of several sources"),
            pytest.param("steps = 10", "clip = -1", "clip", id="negative clip"),
            pytest.param("ssim = 0.1", "ssim = -0.1", r"weights\.ssim", id="negative weight"),
            pytest.param("ssim = 0.1", "texture = nan", r"weights\.texture", id="weight that is no number"),
            pytest.param("ssim = 0.1", "gan = inf", r"weights\.gan", id="infinite weight"),
            pytest.param("l1 = 1.0, ssim = 0.1", "gan = 0.0", "weights", id="no weight at all"),
            pytest.param("ssim = 0.1", 'gan = "much"', r"weights\.gan", id="weight of the wrong kind"),
            pytest.param("ssim = 0.1", "consistency = 1", r"weights\.consistency", id="nothing to draw strips from"),
            pytest.param("steps = 10", 'content_network = "vgg16"', "content_network", id="unknown content network"),
            pytest.param(
                "ssim = 0.1 }", 'content = 1 }\ncontent_network = "vgg19"', "content_weights", id="VGG without weights"
            ),
        ],
    )
    def test_what_is_wrong_is_named(self, config: Callable[[str], Path], old: str, new: str, said: str) -> None:
        assert WHOLE.count(old) == 1
        path = config(WHOLE.replace(old, new))
        with pytest.raises(ConfigError, match=f"{path}: .*{said}"):
            load_config(path)

    def test_no_sources(self, config: Callable[[str], Path]) -> None:
        for text in ("", "sources = []\n"):
            path = config(text + WHOLE[: WHOLE.index("[[sources]]")])
            with pytest.raises(ConfigError, match=f"{path}: .*source"):
                load_config(path)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=str(tmp_path / "none.toml")):
            load_config(tmp_path / "none.toml")

    def test_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "latin.toml"
        path.write_bytes(WHOLE.replace("a toy", "ein Spielzeug für Ä").encode("latin-1"))
        with pytest.raises(ConfigError, match=str(path)):
            load_config(path)

    def test_base_holds_where_the_file_says_nothing(self, tmp_path: Path, config: Callable[[str], Path]) -> None:
        base = config(WHOLE)
        (tmp_path / "other").mkdir()
        path = tmp_path / "other/variant.toml"
        path.write_text(f'base = "../{base.name}"\nsteps = 7\nweights = {{ l1 = 2.0 }}\n')
        assert load_config(path) == dataclasses.replace(load_config(base), steps=7, weights={"l1": 2.0})

    @pytest.mark.parametrize(
        ("text", "said"),
        [('base = "variant.toml"', "its own base"), ('base = "none.toml"', "none.toml"), ("base = 3", "base: .*3")],
    )
    def test_base_that_is_none(self, tmp_path: Path, text: str, said: str) -> None:
        path = tmp_path / "variant.toml"
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            load_config(path)

    @pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.toml")), ids=lambda path: path.stem)
    def test_shipped(self, path: Path) -> None:
        config = load_config(path)
        assert config.camera in ("iphone", "blackberry", "sony")
        json.dumps(config.weights)

    def test_without_steps_and_epochs_there_are_10000_steps(self, config: Callable[[str], Path]) -> None:
        assert load_config(config(WHOLE.replace("steps = 10", ""))).steps == 10_000

    def test_reads_what_older_checkpoints_say(self, tiny_config: ConfigMaker) -> None:
        config = tiny_config(checkpoint_every=7)
        said = dataclasses.asdict(config)
        older = ("clip", "gan_loss", "epochs", "discriminator_width", "checkpoint_every", "sample_every")
        for key in older:
            del said[key]
        for source in (*said["sources"], said["validation"]):
            del source["limit"], source["split"]
        read = read_config(json.dumps(said))
        assert read == dataclasses.replace(config, checkpoint_every=500)
        # how often it is written decides nothing
        assert read.same_run(config)
        assert not read.same_run(dataclasses.replace(config, clip=1.0))
        with pytest.raises(ConfigError, match="batch_size"):
            read_config(json.dumps({**said, "batch_size": 3}))

    def test_iphone_keeps_44_pairs_back(self) -> None:
        config = load_config(CONFIGS / "ship/iphone.toml")
        assert len(config.validation_names) == 44
        assert len({int(name) for name in config.validation_names}) == 44
        assert len(config.sources) == 6


class TestOpenData:
    """Every pair is one flat colour of its own, so that each sample says which pair it comes from."""

    @pytest.fixture
    def colours(self, tmp_path: Path) -> Callable[..., None]:
        def write(folder: str, size: int, *colours: int) -> None:
            (tmp_path / folder).mkdir(parents=True)
            for colour in colours:
                Image.new("RGB", (size, size), (colour,) * 3).save(tmp_path / folder / f"{colour}.png")

        return write

    def trained_on(self, batches: MixedBatches, draws: int = 40) -> set[int]:
        return {int(tile[0, 0, 0]) for number in range(draws) for tile in batches[number].tile}

    def test_validation_pairs_are_never_trained_on(
        self, tmp_path: Path, colours: Callable[..., None], tiny_config: ConfigMaker
    ) -> None:
        for folder in ("phone", "target", "teacher"):
            colours(folder, 100, *range(10, 18))
        sources = (
            SourceConfig("pairs", phone="phone", target="target"),
            SourceConfig("pairs", phone="../" + tmp_path.name + "/phone", target="teacher"),
        )
        config = tiny_config(sources=sources, validation_names=("12", "17"), batch=4)
        batches, validation = open_data(config, tmp_path)
        assert [pair.phone.stem for pair in validation] == ["12", "17"]
        assert self.trained_on(batches) == {10, 11, 13, 14, 15, 16}

    def test_a_validation_folder_of_its_own_is_validated_whole(
        self, tmp_path: Path, colours: Callable[..., None], tiny_config: ConfigMaker
    ) -> None:
        for folder, range_ in (("phone", range(4)), ("target", range(4)), ("kept", range(4, 7))):
            colours(folder, 100, *range_)
        config = tiny_config(validation=SourceConfig("pairs", phone="kept", target="kept"))
        batches, validation = open_data(config, tmp_path)
        assert [pair.phone.stem for pair in validation] == ["4", "5", "6"]
        assert self.trained_on(batches) == {0, 1, 2, 3}

    def test_left_out_photos_are_never_trained_on(
        self, tmp_path: Path, colours: Callable[..., None], tiny_config: ConfigMaker
    ) -> None:
        for folder in ("photos", "enhanced"):
            colours(folder, 140, 1, 2, 3, 4)
        for folder in ("phone", "target"):
            colours(folder, 100, 200)
        photos = SourceConfig("photos", phone="photos", target="enhanced", leave_out=("2", "4"))
        batches, _ = open_data(tiny_config(sources=(photos,)), tmp_path)
        assert self.trained_on(batches) == {1, 3}

    def test_dped_layout(self, tmp_path: Path, colours: Callable[..., None], tiny_config: ConfigMaker) -> None:
        for half in ("sony", "canon"):
            colours(f"dped/sony/training_data/{half}", 100, 5, 6, 7)
        dped = SourceConfig("dped", root="dped", camera="sony")
        batches, validation = open_data(
            tiny_config(sources=(dped,), validation=dped, validation_names=("6",)), tmp_path
        )
        assert [pair.target.parent.name for pair in validation] == ["canon"]
        assert self.trained_on(batches) == {5, 7}

    def test_limit_is_a_draw_that_validation_pairs_do_not_count_in(
        self, tmp_path: Path, colours: Callable[..., None], tiny_config: ConfigMaker
    ) -> None:
        for folder in ("phone", "target"):
            colours(folder, 100, *range(40))
        pairs = SourceConfig("pairs", phone="phone", target="target", limit=10)
        config = tiny_config(sources=(pairs,), validation=dataclasses.replace(pairs, limit=5), steps=None, epochs=3)
        batches, validation = open_data(config, tmp_path)
        drawn, kept = self.trained_on(batches, 100), {int(pair.phone.stem) for pair in validation}
        assert len(kept) == 5
        assert len(drawn) == 10
        assert not drawn & kept
        assert max(drawn) > 20  # not the first ones
        assert open_data(config, tmp_path)[1] == validation
        # an epoch is five batches of two
        assert batches.epoch == 5
        assert Trainer(config, batches).steps == 15

    def test_dped_test_patches(self, tmp_path: Path, colours: Callable[..., None]) -> None:
        for half in ("sony", "canon"):
            colours(f"sony/test_data/patches/{half}", 100, 1, 2)
        config = SourceConfig("dped", camera="sony", split="test")
        assert [pair.phone.stem for pair in open_pairs(config, tmp_path)] == ["1", "2"]

    def test_unknown_validation_name_is_refused(
        self, tmp_path: Path, colours: Callable[..., None], tiny_config: ConfigMaker
    ) -> None:
        for folder in ("phone", "target"):
            colours(folder, 100, 1, 2)
        with pytest.raises(PairsError, match="no pair is named 3"):
            open_data(tiny_config(validation_names=("1", "3")), tmp_path)

    def test_nothing_left_to_train_on_is_refused(
        self, tmp_path: Path, colours: Callable[..., None], tiny_config: ConfigMaker
    ) -> None:
        for folder in ("phone", "target"):
            colours(folder, 100, 1, 2)
        with pytest.raises(PairsError, match="phone"):
            open_data(tiny_config(), tmp_path)  # validation takes them all


@pytest.fixture
def no_residual() -> SpaceToDepthUNet:
    network = SpaceToDepthUNet(shuffle=16, widths=(8, 8, 8, 8))
    for parameter in network.head.parameters():
        nn.init.zeros_(parameter)
    return network


class TestScore:
    @pytest.mark.parametrize("policy", ["reflect", "resize"])
    @pytest.mark.parametrize("size", [(100, 100), (128, 128), (37, 91)])
    def test_identity_on_equal_pairs_is_perfect(
        self, make_patches: PatchMaker, no_residual: SpaceToDepthUNet, size: tuple[int, int], policy: Policy
    ) -> None:
        pairs = make_patches(2, size, target=lambda pixels: pixels)
        psnr, ssim = score(no_residual, pairs, policy)
        assert psnr == float("inf")
        assert ssim == pytest.approx(1.0, abs=1e-9)

    def test_identity_scores_what_the_pairs_differ_by(
        self, make_patches: PatchMaker, no_residual: SpaceToDepthUNet
    ) -> None:
        # 4 levels everywhere but on the padding, which must not count
        pairs = make_patches(3, (61, 90), target=lambda pixels: np.asarray(np.clip(pixels, 4, 255) - 4, np.uint8))
        for pair in pairs:
            phone, _ = pair.load()
            Image.fromarray(np.clip(phone, 4, 255)).save(pair.phone)
        psnr, ssim = score(no_residual, pairs)
        assert psnr == pytest.approx(20 * np.log10(255 / 4), abs=1e-6)
        assert 0.9 < ssim < 1

    def test_answers_are_clipped(self, make_patches: PatchMaker, no_residual: SpaceToDepthUNet) -> None:
        blinding = copy.deepcopy(no_residual)
        nn.init.constant_(blinding.head.bias, 7.0)  # type: ignore[arg-type]
        pairs = make_patches(1, target=lambda pixels: np.full_like(pixels, 255))
        assert score(blinding, pairs)[0] == float("inf")

    def test_leaves_the_mode_as_it_was(self, make_patches: PatchMaker, no_residual: SpaceToDepthUNet) -> None:
        pairs = make_patches(1)
        for training in (True, False):
            statistics = copy.deepcopy(no_residual.train(training).state_dict())
            score(no_residual, pairs)
            assert no_residual.training is training
            assert all(torch.equal(now, statistics[name]) for name, now in no_residual.state_dict().items())

    def test_larger_than_a_tile_is_refused(self, make_patches: PatchMaker, no_residual: SpaceToDepthUNet) -> None:
        with pytest.raises(PairsError, match="129"):
            score(no_residual, make_patches(1, (129, 100)))


def test_to_tensor() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    tensor = to_tensor(pixels[:, ::-1])
    assert tensor.dtype == torch.float32
    assert tensor.shape == (2, 3, 5, 7)
    assert np.array_equal(tensor.permute(0, 2, 3, 1).numpy(), pixels[:, ::-1] / np.float32(255))
