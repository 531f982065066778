"""What a generator is trained to make small, term by term; a run weighs them by name.

Every term takes a mask, since a 100x100 patch fills only a part of its tile, and is a mean: its sum over the batch
divided by the mask's. Where several processes share a batch, `across` turns the divisor into its mean over them, so
that the mean of the processes' terms, and of their gradients, is exactly the term of the whole batch.

Sources: Isola et al. 2017 (`l1`, `gan`); Wang et al. 2004 (`ssim`); Ignatov et al., "DSLR-Quality Photos on Mobile
Devices with Deep Convolutional Networks", ICCV 2017 (`colour`, `content`, `texture`, `tv`).
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_export.config import GanLoss
from service.quality import SSIM_RADIUS, SSIM_SIGMA

Across = Callable[[Tensor], Tensor]

COLOUR_RADIUS: Final = 10
COLOUR_SIGMA: Final = 3.0
CELL: Final = 8
"""Pixels a side of the cells whose mean tone `consistency` compares: 8 is below a tile's texture, above its tone."""


def alone(count: Tensor) -> Tensor:
    """The `across` of a process that has the batch to itself."""
    return count


def l1(output: Tensor, target: Tensor, mask: Tensor, across: Across = alone) -> Tensor:
    """Mean absolute difference where `mask` is 1.

    Args:
        output, target: (N, 3, H, W), 0..1.
        mask: (N, 1, H, W), 0 or 1.
        across: see the module.
    """
    return _mean((output - target).abs(), mask, across)


def ssim(output: Tensor, target: Tensor, mask: Tensor, across: Across = alone) -> Tensor:
    """1 - SSIM (Gaussian window 11, sigma 1.5, per channel), averaged where the whole window lies inside `mask`.

    Args: as `l1`. Source: Wang et al., "Image quality assessment", IEEE TIP 2004.
    """
    line = torch.cat([output, target, output * output, target * target, output * target], 1)
    blurred = blur(line, SSIM_RADIUS, SSIM_SIGMA)
    mean_o, mean_t, square_o, square_t, product = torch.split(blurred, output.shape[1], 1)
    c1, c2 = 0.01**2, 0.03**2
    covariance = product - mean_o * mean_t
    variances = square_o - mean_o**2 + square_t - mean_t**2
    similarity = ((2 * mean_o * mean_t + c1) * (2 * covariance + c2)) / (
        (mean_o**2 + mean_t**2 + c1) * (variances + c2)
    )
    return _mean(1 - similarity, inside(mask, SSIM_RADIUS), across)


def colour(output: Tensor, target: Tensor, mask: Tensor, across: Across = alone) -> Tensor:
    """Mean squared difference of the blurred pictures, where the whole 21x21 window lies inside `mask`.

    DPED's colour loss: without texture and edges what is left to compare is brightness, contrast and colour. Its
    kernel of 21x21 and sigma 3, scaled to a sum of 1 (the paper's factor A = 0.053 is to do that), and its sum over
    a picture a mean: a weight of 0.1 there is one of 3000 here, a patch of 100x100 having 30000 samples.

    Args: as `l1`.
    """
    difference = blur(output - target, COLOUR_RADIUS, COLOUR_SIGMA)
    return _mean(difference**2, inside(mask, COLOUR_RADIUS), across)


def tv(output: Tensor, target: Tensor, mask: Tensor, across: Across = alone) -> Tensor:  # noqa: ARG001
    """Total variation: mean squared difference of horizontal and of vertical neighbours that both lie in `mask`, added.

    Args: as `l1`; `target` is not looked at, since a smooth picture is what this term wants.
    """
    down = _mean(output.diff(dim=2) ** 2, mask[:, :, 1:] * mask[:, :, :-1], across)
    right = _mean(output.diff(dim=3) ** 2, mask[:, :, :, 1:] * mask[:, :, :, :-1], across)
    return down + right


PIXELWISE: Final[Mapping[str, Callable[[Tensor, Tensor, Tensor, Across], Tensor]]] = {
    "l1": l1,
    "ssim": ssim,
    "colour": colour,
    "tv": tv,
}
"""The terms that need nothing but the output, the target and the mask."""


def content(features: nn.Module, output: Tensor, target: Tensor, mask: Tensor, across: Across = alone) -> Tensor:
    """Mean squared distance of the feature maps of a frozen network.

    Outside `mask` the network sees the target in both, so that padding teaches nothing.

    Args:
        features: maps RGB (N, 3, H, W), 0..1, to (N, C, h, w).
        output, target, mask, across: as `l1`.
    """
    with torch.no_grad():
        wanted = features(target).float()
    squares = (features(inside_or(output, target, mask)).float() - wanted) ** 2
    return _mean(squares, torch.ones_like(squares[:, :1]), across)


def consistency(left: Tensor, right: Tensor, shift: int, across: Across = alone) -> Tensor:
    """Mean absolute difference in tone of two overlapping tiles of one photo, in the part that both show.

    The network sees each tile alone, so nothing else tells it to agree with itself: what differs here is the seam
    that a reader sees. Compared are means of 8x8 pixels: the texture of the two may differ, their tone may not. Since
    the pixels that both show are equal, this is also the difference of what was added to them.

    Args:
        left, right: outputs, (N, 3, H, W), 0..1; `right` starts `shift` columns further right in the photo.
        shift: 1 .. W - 8.
        across: see the module.
    """
    here, there = left[..., shift:], right[..., : right.shape[-1] - shift]
    cells = F.avg_pool2d(here - there, CELL)
    return _mean(cells.abs(), torch.ones_like(cells[:, :1]), across)


def gan(logits: Tensor, real: bool, kind: GanLoss = "bce", across: Across = alone) -> Tensor:
    """How far a discriminator's logits are from "all real" or "all fake".

    Args:
        logits: any shape, the batch first.
        real: which of the two.
        kind: `bce`, binary cross-entropy (pix2pix); `lsgan`, squared distance from 1 or 0 (Mao et al. 2017);
            `hinge`, how far they are on the wrong side of 1 or -1 (Lim and Ye 2017).
        across: see the module.
    """
    if kind == "bce":
        loss = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)), reduction="none")
    elif kind == "lsgan":
        loss = (logits - float(real)) ** 2
    else:
        loss = F.relu(1 - logits if real else 1 + logits)
    return _mean(loss, torch.ones_like(logits), across)


def fooling(logits: Tensor, kind: GanLoss = "bce", across: Across = alone) -> Tensor:
    """What the generator pays for the discriminator's logits on its answers; `hinge` has no margin here."""
    if kind == "hinge":
        return _mean(-logits, torch.ones_like(logits), across)
    return gan(logits, True, kind, across)


def grey(picture: Tensor) -> Tensor:
    """Luma of RGB (N, 3, H, W) as (N, 1, H, W), ITU-R BT.601 as DPED's."""
    red, green, blue = (picture[:, channel : channel + 1] for channel in range(3))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def inside_or(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return `output` where `mask` is 1 and `target` elsewhere; for what looks at whole tiles."""
    return torch.where(mask > 0, output, target)


def inside(mask: Tensor, radius: int) -> Tensor:
    """Where a whole window of 2 * radius + 1 lies inside `mask`: (N, 1, H, W) -> (N, 1, H - 2 r, W - 2 r), 0 or 1."""
    window = 2 * radius + 1
    # one axis after the other: 441 comparisons a pixel are 42
    return -F.max_pool2d(F.max_pool2d(-mask, (window, 1), 1), (1, window), 1)


def blur(x: Tensor, radius: int, sigma: float) -> Tensor:
    """Gaussian blur where the whole window fits: (N, C, H, W) -> (N, C, H - 2 r, W - 2 r).

    Two banded matrices: torch's depthwise convolutions take several times as long on a CPU.
    """
    rows = _band(x.shape[2], radius, sigma, x.device, x.dtype)
    columns = _band(x.shape[3], radius, sigma, x.device, x.dtype)
    return rows @ x.contiguous() @ columns.T


@lru_cache
def _band(size: int, radius: int, sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The matrix (size - 2 radius, size) that blurs a line, its kernel summing to 1."""
    offsets = torch.arange(-radius, radius + 1, device=device, dtype=dtype)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    band = torch.zeros(size - 2 * radius, size, device=device, dtype=dtype)
    for row in range(len(band)):
        band[row, row : row + 2 * radius + 1] = kernel / kernel.sum()
    return band


def _mean(values: Tensor, mask: Tensor, across: Across) -> Tensor:
    """Mean of (N, C, ...) where `mask`, (N, 1 or C, ...), is 1; 0 where it is so nowhere."""
    shares = values.shape[1] // mask.shape[1] if values.dim() > 1 else 1
    # all of a mask may be too narrow for a window: 0 / 0 would be the end of a run
    count = across(mask.sum() * shares).clamp(min=1e-6)
    return (values * mask).sum() / count
