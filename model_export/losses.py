"""What a generator is trained to make small: pix2pix (L1 + conditional GAN) and structural similarity.

Every loss takes a mask, since a 100x100 patch fills only a part of its tile.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from service.quality import SSIM_RADIUS, SSIM_SIGMA


def l1(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference where `mask` is 1.

    Args:
        output, target: (N, 3, H, W), 0..1.
        mask: (N, 1, H, W), 0 or 1.
    """
    loss: Tensor = ((output - target).abs() * mask).sum() / (mask.sum() * output.shape[1])
    return loss


def ssim(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 - SSIM (Gaussian window 11, sigma 1.5, per channel), averaged where the whole window lies inside `mask`.

    Args: as `l1`. Source: Wang et al., "Image quality assessment", IEEE TIP 2004.
    """
    channels = output.shape[1]
    kernel = _gaussian(output.device, output.dtype)
    line = torch.cat([output, target, output * output, target * target, output * target], 1)

    def blur(x: Tensor) -> Tensor:
        groups = x.shape[1]
        x = F.conv2d(x, kernel.view(1, 1, 1, -1).expand(groups, 1, 1, -1), groups=groups)
        return F.conv2d(x, kernel.view(1, 1, -1, 1).expand(groups, 1, -1, 1), groups=groups)

    mean_o, mean_t, square_o, square_t, product = torch.split(blur(line), channels, 1)
    c1, c2 = 0.01**2, 0.03**2
    covariance = product - mean_o * mean_t
    variances = square_o - mean_o**2 + square_t - mean_t**2
    similarity = ((2 * mean_o * mean_t + c1) * (2 * covariance + c2)) / (
        (mean_o**2 + mean_t**2 + c1) * (variances + c2)
    )
    whole = -F.max_pool2d(-mask, 2 * SSIM_RADIUS + 1, 1)
    return 1 - (similarity * whole).sum() / (whole.sum() * channels)


@lru_cache
def _gaussian(device: torch.device, dtype: torch.dtype) -> Tensor:
    x = torch.arange(-SSIM_RADIUS, SSIM_RADIUS + 1, device=device, dtype=dtype)
    kernel = torch.exp(-(x**2) / (2 * SSIM_SIGMA**2))
    return kernel / kernel.sum()


def gan(logits: Tensor, real: bool) -> Tensor:
    """Binary cross-entropy of the discriminator's logits against "all real" or "all fake" (the paper's GAN loss)."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
