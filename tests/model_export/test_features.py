import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from skimage import data
from torch import Tensor, nn
from torch.nn import functional as F

from model_export.features import EfficientNetLite0, WeightsUnusable, content_network, pooled_features

PixelArray = npt.NDArray[np.uint8]
State = dict[str, Tensor]

# what torchvision's features.N are in its vgg19: the convolutions, and after which of them it pools
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
POOLED_AFTER = (2, 7, 16, 25)
WIDTHS = (64, 64, 128, 128, *(256,) * 4, *(512,) * 8)


@pytest.fixture(scope="module")
def lite() -> EfficientNetLite0:
    network = content_network("efficientnet-lite0", None)
    assert isinstance(network, EfficientNetLite0)
    return network


@pytest.fixture(scope="module")
def vgg_state() -> State:
    generator = torch.Generator().manual_seed(0)
    state, channels = {}, 3
    for number, width in zip(CONVOLUTIONS, WIDTHS, strict=True):
        weight = torch.empty(width, channels, 3, 3).normal_(0, (2 / (9 * channels)) ** 0.5, generator=generator)
        state[f"features.{number}.weight"] = weight
        state[f"features.{number}.bias"] = torch.empty(width).normal_(0, 0.1, generator=generator)
        channels = width
    return state | {"classifier.6.bias": torch.zeros(1000)}


def pictures(count: int, side: int) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def middle(photo: PixelArray) -> Tensor:
    """The square middle of a photo at the network's size, (1, 3, 224, 224) in 0..1."""
    side = min(photo.shape[:2])
    top, left = ((size - side) // 2 for size in photo.shape[:2])
    small = cv2.resize(photo[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255


class TestEfficientNetLite0:
    def test_it_knows_what_photos_show(self, lite: EfficientNetLite0) -> None:
        # wrong preprocessing shows here: with ImageNet's usual mean and deviation the cup is an espresso by 0.83
        cat, cup = lite.classify(torch.cat([middle(data.chelsea()), middle(data.coffee())])).softmax(1)
        assert int(cat.argmax()) in range(281, 286)  # tabby, tiger cat, Persian, Siamese, Egyptian
        assert float(cat[281:286].sum()) > 0.8
        assert int(cup.argmax()) == 967  # espresso
        assert float(cup[967]) > 0.9

    @pytest.mark.parametrize(("side", "features"), [(128, 8), (100, 7), (33, 3), (1, 1)])
    def test_content_features_lie_at_stride_16(self, lite: EfficientNetLite0, side: int, features: int) -> None:
        assert lite(pictures(2, side)).shape == (2, 112, features, features)

    def test_pictures_do_not_see_each_other(self, lite: EfficientNetLite0) -> None:
        batch = pictures(3, 64)
        alone = torch.cat([lite(one[None]) for one in batch])
        assert torch.allclose(lite(batch), alone, atol=1e-4)

    def test_a_blur_costs_more_than_a_shift(self, lite: EfficientNetLite0, photo: PixelArray) -> None:
        def features(picture: PixelArray) -> Tensor:
            crop = torch.from_numpy(picture[100:228, 200:328].copy()).permute(2, 0, 1)[None].float() / 255
            return lite.stage(crop, 10)

        blurred = np.asarray(cv2.GaussianBlur(photo, (0, 0), 1.2), np.uint8)
        true, soft, shifted = features(photo), features(blurred), features(photo[1:])
        assert F.mse_loss(soft, true) > 2 * F.mse_loss(shifted, true)


class TestVgg19:
    def test_it_is_relu5_4_of_the_named_file(self, tmp_path: Path, vgg_state: State) -> None:
        path = tmp_path / "vgg19-0000.pth"
        torch.save(vgg_state, path)
        network, batch = content_network("vgg19", path), pictures(1, 48)
        x = (batch - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
            3, 1, 1
        )
        for number in CONVOLUTIONS:
            x = F.conv2d(x, vgg_state[f"features.{number}.weight"], vgg_state[f"features.{number}.bias"], padding=1)
            x = F.relu(x)
            if number in POOLED_AFTER:
                x = F.max_pool2d(x, 2)
        found = network(batch)
        assert found.shape == (1, 512, 3, 3)
        assert torch.allclose(found, x, rtol=1e-4, atol=1e-5)
        assert float(found.abs().max()) > 0.1
        assert_frozen(network, batch)

    def test_a_wrong_file_is_named(self, tmp_path: Path, vgg_state: State) -> None:
        path = tmp_path / "weights.pth"

        def refused(said: str) -> None:
            with pytest.raises(WeightsUnusable, match=f"^{re.escape(str(path))} {said}"):
                content_network("vgg19", path)

        refused("can't be read: No such file")
        path.write_bytes(b"no weights")
        refused("is no file of weights")
        torch.save(torch.zeros(3), path)
        refused("is no state dict")
        # VGG-16 agrees up to its seventh convolution, and pools where VGG-19 has its eighth
        sixteen = {key: value for key, value in vgg_state.items() if key.startswith(("features.0.", "features.2."))}
        torch.save(sixteen, path)
        refused(r"is no torchvision VGG-19: features\.5\.weight is missing, not of shape \(128, 64, 3, 3\)")
        torch.save(sixteen | {"features.2.weight": torch.zeros(64, 64, 5, 5)}, path)
        refused(r"is no torchvision VGG-19: features\.2\.weight is of shape \(64, 64, 5, 5\)")

    def test_weights_go_with_their_network(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsUnusable, match="vgg19 needs its weights"):
            content_network("vgg19", None)
        with pytest.raises(WeightsUnusable, match="takes no file"):
            content_network("efficientnet-lite0", tmp_path / "some.pth")
        with pytest.raises(ValueError, match="resnet"):
            content_network("resnet", None)


def assert_frozen(network: nn.Module, batch: Tensor) -> None:
    """Its weights take no gradient, the pictures do, and a parent's train() changes nothing."""
    assert not any(weight.requires_grad for weight in network.parameters())
    before = network(batch)
    parent = nn.Sequential(network).train()
    assert not any(module.training for module in network.modules())
    assert torch.equal(parent(batch), before)
    wanted = batch.clone().requires_grad_()
    network(wanted).square().mean().backward()
    assert wanted.grad is not None
    assert float(wanted.grad.abs().max()) > 0


def test_efficientnet_lite0_is_frozen(lite: EfficientNetLite0) -> None:
    assert_frozen(lite, pictures(2, 32))


@pytest.fixture(scope="module")
def crops() -> Callable[[int], list[PixelArray]]:
    """A function that cuts a photo's six crops of some size."""
    photo = data.coffee()
    return lambda side: [photo[y : y + side, x : x + side] for y in (0, 150) for x in (0, 150, 300)]


class TestPooledFeatures:
    def test_one_vector_for_each_picture_of_any_size(self, lite: EfficientNetLite0, photo: PixelArray) -> None:
        square = np.asarray(middle(photo)[0].permute(1, 2, 0) * 255).astype(np.uint8)
        described = pooled_features([photo, square, photo[:50, :60]])
        assert described.shape == (3, 1280)
        assert described.dtype == np.float32
        expected = lite.pooled(torch.from_numpy(square).permute(2, 0, 1)[None].float() / 255)
        assert np.allclose(described[1], expected.numpy(), atol=1e-4)
        assert pooled_features([]).shape == (0, 1280)

    def test_blurred_pictures_lie_further_than_equal_ones(self, crops: Callable[[int], list[PixelArray]]) -> None:
        sharp = crops(100)
        blurred = [np.asarray(cv2.GaussianBlur(one, (0, 0), 2), np.uint8) for one in sharp]
        noisy = [np.asarray(np.clip(one + np.float32(1), 0, 255), np.uint8) for one in sharp]
        a, b, c = pooled_features(sharp), pooled_features(blurred), pooled_features(noisy)
        assert np.linalg.norm(a - b) > 3 * np.linalg.norm(a - c)
