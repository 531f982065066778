import copy
import itertools
import json
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
from model_export.config import ConfigError, SourceConfig, TrainConfig, load_config
from model_export.networks import PatchDiscriminator, SpaceToDepthUNet
from model_export.pairs import MixedBatches, PairPaths, PairsError, PatchPairs, Policy
from model_export.train import Trainer, load_checkpoint, open_data, score, to_tensor

PixelArray = npt.NDArray[np.uint8]
PatchMaker = Callable[..., list[PairPaths]]
ConfigMaker = Callable[..., TrainConfig]
TrainerMaker = Callable[[TrainConfig, Sequence[PairPaths]], Trainer]

CONFIGS = Path(__file__).parents[2] / "model_export" / "configs"


class Stopped(Exception):
    """What a test throws to stop a run."""


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
        # by hand: the discriminator's half-step on the generator's answer, and then the generator's
        adam = torch.optim.Adam(discriminator.parameters(), 2e-4, (0.5, 0.999))
        output = generator(picture, context)
        fake, real = discriminator(picture, output.detach()), discriminator(picture, target)
        loss = 0.5 * (losses.gan(fake, real=False) + losses.gan(real, real=True))
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        fooled = losses.gan(discriminator(picture, output), real=True)
        l1 = losses.l1(output, target, torch.from_numpy(batch.mask)[:, None])
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
        config = tiny_config(steps=4, validate_every=4, learning_rate=0.0, weights={"gan": 1.0})
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
            pytest.param({"l1": 100.0, "gan": 1.0}, 2, 1, id="with a discriminator"),
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
        assert resumed.history == whole.history

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
            pytest.param("steps = 10", 'precision = "float16"', "precision", id="unknown precision"),
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

    @pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
    def test_shipped(self, path: Path) -> None:
        config = load_config(path)
        assert config.camera == path.stem
        json.dumps(config.weights)

    def test_iphone_keeps_44_pairs_back(self) -> None:
        config = load_config(CONFIGS / "iphone.toml")
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
