import copy
import pickle
import site
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from model_export.checkpoints import load_checkpoint
from model_export.config import ConfigError
from model_export.export import (
    ExportRefused,
    Loaded,
    Match,
    compare,
    export,
    from_pix2pix,
    load,
    weakened,
    weights_sha256,
)
from model_export.networks import ARCHITECTURES, SpaceToDepthUNet, UNet128, UNetGenerator
from model_export.pairs import PairPaths
from model_export.scoring import score
from service.generator import Generator

PixelArray = npt.NDArray[np.uint8]
Exports = Callable[[str], Any]

PROJECT = Path(__file__).parents[2]


def small(seed: int = 0) -> SpaceToDepthUNet:
    """The fast architecture with few channels: exported sooner."""
    torch.manual_seed(seed)
    return SpaceToDepthUNet(shuffle=16, widths=(8, 8, 8, 8))


def loaded(generator: Any) -> Loaded:
    return Loaded(generator, "unet128-s2d", "toy", "a toy", overlap=32)


@torch.no_grad()
def torch_answers(generator: nn.Module, *feeds: PixelArray) -> npt.NDArray[np.float32]:
    """What the contract says of a generator's answers to tiles and their contexts, in a few lines of torch."""
    pictures = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 for pixels in feeds)
    answers: npt.NDArray[np.float32] = generator(*pictures).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return answers


@pytest.mark.parametrize("architecture", ARCHITECTURES)
class TestContract:
    """What `export` writes of a fresh checkpoint, as the service sees it."""

    def test_says_what_it_is(self, exported: Exports, architecture: str) -> None:
        one = exported(architecture)
        spec = Generator(one.path, device="cpu").spec
        assert (spec.camera, spec.trained_on) == ("toy", "a cat, darkened")
        assert spec.architecture == architecture
        assert spec.takes_context == (architecture == "unet128-s2d")
        assert not spec.half
        assert spec.overlap == 24
        assert (spec.psnr, spec.ssim) == (None, None)  # it was never validated
        date.fromisoformat(spec.created)
        assert spec.weights_sha256 == weights_sha256(one.loaded.generator)

    def test_only_the_batch_is_dynamic(self, exported: Exports, architecture: str) -> None:
        session = ort.InferenceSession(exported(architecture).path, providers=["CPUExecutionProvider"])
        for node in (*session.get_inputs(), *session.get_outputs()):
            assert isinstance(node.shape[0], str)
            assert node.shape[1:] == ([32, 32, 3] if node.name == "context" else [128, 128, 3])

    def test_answers_as_torch_does(self, exported: Exports, architecture: str) -> None:
        one = exported(architecture)
        expected = torch_answers(one.loaded.generator, one.tiles, one.contexts)
        generator = Generator(one.path, device="cpu")
        for batch in (1, 3, 5):
            answers = generator(one.tiles[:batch], one.contexts[:batch])
            assert answers.dtype == np.float32
            np.testing.assert_allclose(answers, expected[:batch], atol=1e-5)
        assert one.match.tiles == 5
        assert one.match.psnr >= 60
        assert one.match.max_difference < 1e-4

    def test_names_no_path_of_this_machine(self, exported: Exports, architecture: str) -> None:
        one = exported(architecture)
        content = one.path.read_bytes()
        for path in (PROJECT, sys.prefix, sys.base_prefix, one.path.parent, *site.getsitepackages(), Path.home()):
            assert str(path).encode() not in content
        for word in (b"site-packages", b"model_export"):
            assert word not in content


def test_what_it_says_comes_from_the_checkpoint(tmp_path: Path, exported: Exports) -> None:
    state = load_checkpoint(exported("unet128-s2d").checkpoint)
    history = [{"step": 1, "psnr": 20.0, "ssim": 0.5}, {"step": 2, "psnr": 22.5, "ssim": 0.75}]
    averaged = {**state["averaged"], "head.bias": state["averaged"]["head.bias"] + 1}
    path = tmp_path / "validated.pt"
    torch.save({**state, "history": history, "averaged": averaged}, path)
    one = load(path)
    assert (one.psnr, one.ssim, one.camera, one.overlap) == (22.5, 0.75, "toy", 24)
    # what was validated is the average of the weights, not what training was at
    assert torch.equal(one.generator.state_dict()["head.bias"], averaged["head.bias"])
    other = load(path, camera="other", trained_on="other data")
    assert (other.camera, other.trained_on) == ("other", "other data")
    assert not other.generator.training


class Mix(nn.Module):
    """A generator of one convolution, exported in no time: each output channel is a mix of the input's."""

    takes_context = False

    def __init__(self, *mix: tuple[float, float, float]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor(mix)[:, :, None, None])

    def forward(self, picture: Tensor) -> Tensor:
        mixed: Tensor = self.conv(picture)
        return mixed


IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


class TestHalf:
    """The real network in half precision is exported, and scored, in test_cli.py."""

    @pytest.mark.parametrize("half", [False, True])
    def test_answers(self, tmp_path: Path, real_tiles: tuple[PixelArray, PixelArray], half: bool) -> None:
        path = tmp_path / "identity.onnx"
        spec, match = export(loaded(Mix(*IDENTITY)), path, *real_tiles, half=half)
        generator = Generator(path, device="cpu")
        assert generator.spec == spec
        assert generator.spec.half == half
        answers = generator(*real_tiles)
        assert answers.dtype == (np.float16 if half else np.float32)
        assert np.abs(answers - real_tiles[0] / 255).max() < (1e-3 if half else 1e-6)
        assert match.psnr > 60

    def test_leaves_the_generator_as_it_was(self, tmp_path: Path, real_tiles: tuple[PixelArray, PixelArray]) -> None:
        # or a full file exported next would hold rounded weights
        generator = Mix((0.9001, 0.0501, 0.0502), *IDENTITY[1:])
        before = weights_sha256(generator)
        spec, _ = export(loaded(generator), tmp_path / "half.onnx", *real_tiles, half=True)
        assert weights_sha256(generator) == before
        # the hash says which weights the file was exported from
        assert spec.weights_sha256 == before


class TestRefused:
    def check(self, folder: Path, generator: nn.Module, tiles: tuple[PixelArray, PixelArray], half: bool) -> str:
        target = folder / "refused.onnx"
        target.write_bytes(b"the file before")
        with pytest.raises(ExportRefused) as error:
            export(loaded(generator), target, *tiles, half=half)
        assert target.read_bytes() == b"the file before"
        assert [path.name for path in folder.iterdir()] == ["refused.onnx"]
        return str(error.value)

    def test_half_precision_is_not_enough(self, tmp_path: Path, real_tiles: tuple[PixelArray, PixelArray]) -> None:
        # enormous weights that leave a grey picture as it is; half's steps are 8 and 16 there: 20016 - 10000 - 10008
        generator = Mix(*[(20_013, -10_003, -10_009)] * 3)
        grey = np.repeat(real_tiles[0][..., :1], 3, axis=3)
        assert np.abs(torch_answers(generator, grey) - grey / 255).max() < 0.01
        words = self.check(tmp_path, generator, (grey, real_tiles[1]), half=True)
        assert "at least 45 dB are needed" in words

    def test_half_precision_overflows(self, tmp_path: Path, real_tiles: tuple[PixelArray, PixelArray]) -> None:
        self.check(tmp_path, Mix(*[(3e5, -3e5, 1.0)] * 3), real_tiles, half=True)

    @pytest.mark.parametrize("half", [False, True])
    def test_training_went_astray(self, tmp_path: Path, real_tiles: tuple[PixelArray, PixelArray], half: bool) -> None:
        self.check(tmp_path, Mix(*[(1.0, 0.0, float("nan"))] * 3), real_tiles, half=half)

    def test_nothing_to_compare_on(self, tmp_path: Path, real_tiles: tuple[PixelArray, PixelArray]) -> None:
        tiles, contexts = real_tiles
        for some in ((tiles[:1], contexts[:1]), (tiles, contexts[:3])):
            assert "two real tiles" in self.check(tmp_path, small(), some, half=False)


def test_compare() -> None:
    expected = np.zeros((2, 128, 128, 3), np.float32)
    assert compare(expected, expected) == Match(float("inf"), 0.0, 2)
    actual = expected.copy()
    actual[:, :, :, 0] = 0.1
    match = compare(actual, expected)
    assert match.psnr == pytest.approx(10 * np.log10(3 / 0.01))
    assert match.max_difference == pytest.approx(0.1)


def test_weights_sha256() -> None:
    generator = small()
    before = weights_sha256(generator)
    assert len(before) == 64
    assert weights_sha256(copy.deepcopy(generator)) == before
    assert weights_sha256(small(seed=1)) != before
    with torch.no_grad():
        generator.head.bias[0] += 1e-6  # type: ignore[index]
    assert weights_sha256(generator) != before


class Block(nn.Module):
    """One level of the reference's U-Net, written after its layout: each holds the next inner one."""

    def __init__(
        self,
        outer: int,
        inner: int,
        source: int | None = None,
        submodule: nn.Module | None = None,
        outermost: bool = False,
        dropout: bool = False,
    ) -> None:
        super().__init__()
        self.outermost = outermost
        down = nn.Conv2d(outer if source is None else source, inner, 4, 2, 1, bias=False)
        down_relu, up_relu = nn.LeakyReLU(0.2, True), nn.ReLU(True)
        if outermost:
            assert submodule is not None
            layers = [down, submodule, up_relu, nn.ConvTranspose2d(inner * 2, outer, 4, 2, 1), nn.Tanh()]
        elif submodule is None:
            up = nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False)
            layers = [down_relu, down, up_relu, up, nn.BatchNorm2d(outer)]
        else:
            up = nn.ConvTranspose2d(inner * 2, outer, 4, 2, 1, bias=False)
            layers = [down_relu, down, nn.BatchNorm2d(inner), submodule, up_relu, up, nn.BatchNorm2d(outer)]
            if dropout:
                layers.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.model(x)
        return answer if self.outermost else torch.cat([x, answer], 1)


class Reference(nn.Module):
    """`define_G(3, 3, 64, 'unet_128', 'batch', use_dropout=True)` of the PyTorch pix2pix code: -1..1 to -1..1."""

    def __init__(self, depth: int = 7, ngf: int = 64) -> None:
        super().__init__()
        block = Block(ngf * 8, ngf * 8)
        for _ in range(depth - 5):
            block = Block(ngf * 8, ngf * 8, submodule=block, dropout=True)
        block = Block(ngf * 4, ngf * 8, submodule=block)
        block = Block(ngf * 2, ngf * 4, submodule=block)
        block = Block(ngf, ngf * 2, submodule=block)
        self.model = Block(3, ngf, source=3, submodule=block, outermost=True)

    def forward(self, picture: Tensor) -> Tensor:
        answer: Tensor = self.model(picture)
        return answer


@pytest.fixture(scope="module")
def reference() -> Reference:
    torch.manual_seed(4)
    network = Reference()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.2)
            module.running_mean = 0.2 * torch.randn(module.num_features)
            module.running_var = 0.5 + torch.rand(module.num_features)
    return network.eval()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Callable[[Any], Path]]:
    """A function that saves anything with torch and returns the file, which goes once the test is over."""
    path = tmp_path / "latest_net_G.pth"

    def save(state: Any) -> Path:
        torch.save(state, path)
        return path

    yield save
    path.unlink()


class TestForeignCheckpoint:
    @pytest.mark.parametrize("prefix", ["", "module."])
    @torch.no_grad()
    def test_answers_as_the_reference_does(
        self, checkpoint: Callable[[Any], Path], reference: Reference, prefix: str
    ) -> None:
        state = reference.state_dict()
        assert {"model.model.0.weight", "model.model.1.model.1.weight", "model.model.3.bias"} <= state.keys()
        path = checkpoint({prefix + name: value for name, value in state.items()})
        one = load(path, camera="canon", trained_on="facades")
        assert (one.architecture, one.camera, one.trained_on) == ("unet128", "canon", "facades")
        assert not one.generator.training

        picture = torch.rand(2, 3, 128, 128)
        expected = reference(picture * 2 - 1) / 2 + 0.5
        assert expected.std() > 0.02
        torch.testing.assert_close(one.generator(picture, torch.rand(2, 3, 32, 32)), expected, rtol=0, atol=1e-5)

    def test_every_key_finds_its_place(self, reference: Reference) -> None:
        assert from_pix2pix(reference.state_dict()).keys() == UNet128(ngf=1).state_dict().keys()

    @pytest.mark.parametrize(
        "given", [{}, {"camera": "canon"}, {"trained_on": "facades"}, {"camera": "", "trained_on": ""}]
    )
    def test_needs_camera_and_data(self, checkpoint: Callable[[Any], Path], given: dict[str, str]) -> None:
        path = checkpoint({"model.model.0.weight": torch.zeros(64, 3, 4, 4)})
        with pytest.raises(ExportRefused, match=f"{path} does not say its camera"):
            load(path, **given)

    def test_of_another_network_is_refused(self, checkpoint: Callable[[Any], Path], reference: Reference) -> None:
        whole = reference.state_dict()
        torch.manual_seed(0)
        wrong: dict[str, dict[str, Any]] = {
            "missing": {name: value for name, value in whole.items() if name != "model.model.3.weight"},
            "deeper": Reference(depth=8, ngf=2).state_dict(),
            "narrower": Reference(ngf=2).state_dict(),
            "ours": UNetGenerator("unet128-s2d").state_dict(),
            "nothing": {},
        }
        for state in wrong.values():
            path = checkpoint(state)
            with pytest.raises(ExportRefused, match=f"{path} is no unet_128 generator"):
                load(path, camera="canon", trained_on="facades")

    def test_keys_that_are_no_names_are_refused(self, checkpoint: Callable[[Any], Path]) -> None:
        with pytest.raises(ExportRefused):
            load(checkpoint({0: torch.zeros(1)}), camera="canon", trained_on="facades")


class TestNoCheckpoint:
    @pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 no zip"])
    def test_any_other_file(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "other.pt"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=str(path)):
            load(path, camera="canon", trained_on="facades")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=str(tmp_path / "none.pt")):
            load(tmp_path / "none.pt")

    def test_one_of_ours_that_lacks_a_part(self, tmp_path: Path, exported: Exports) -> None:
        state = load_checkpoint(exported("unet128-s2d").checkpoint)
        path = tmp_path / "part.pt"
        for lost in ("config", "averaged"):
            torch.save({name: value for name, value in state.items() if name != lost}, path)
            with pytest.raises((ConfigError, ExportRefused), match=str(path)):
                load(path)

    @pytest.mark.parametrize("save", [pickle.dump, torch.save])
    def test_code_inside_is_not_run(self, tmp_path: Path, save: Callable[[Any, Any], None]) -> None:
        path, marker = tmp_path / "evil.pt", tmp_path / "was here"
        with path.open("wb") as file:
            save({"model.model.0.weight": Evil(marker)}, file)
        with pytest.raises(ConfigError, match=str(path)):
            load(path, camera="canon", trained_on="facades")
        assert not marker.exists()
        with path.open("rb") as file:  # the file would have done it
            torch.load(file, weights_only=False) if save is torch.save else pickle.load(file)  # noqa: S301  of its own making
        assert marker.exists()


class Evil:
    """An object that makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_the_graph_holds_no_notes_of_the_exporter(exported: Exports) -> None:
    model = onnx.load(exported("unet128-s2d").path)
    assert not model.graph.doc_string
    for node in model.graph.node:
        assert not node.doc_string
        assert not node.metadata_props


class TestWeakened:
    def test_scales_what_is_added_and_scores_again(
        self, exported: Exports, make_patches: Callable[..., list[PairPaths]]
    ) -> None:
        loaded, pairs = exported("unet128-s2d").loaded, make_patches(3)
        half = weakened(loaded, 0.5, pairs)
        picture, context = torch.rand(2, 3, 128, 128), torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            whole, less = (one.generator(picture, context) - picture for one in (loaded, half))
        torch.testing.assert_close(less, whole / 2, rtol=1e-4, atol=1e-6)
        assert whole.abs().mean() > 1e-3
        assert (half.psnr, half.ssim) == score(half.generator, pairs)
        assert weakened(loaded, 0.5, []).psnr is None

    @pytest.mark.parametrize(("architecture", "strength"), [("unet128", 0.9), ("unet128-s2d", 0.0)])
    def test_what_can_not_be_is_refused(self, exported: Exports, architecture: str, strength: float) -> None:
        with pytest.raises(ExportRefused, match=architecture):
            weakened(exported(architecture).loaded, strength, [])
