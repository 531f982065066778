"""How near a generator's answers are to the DSLR's on patch pairs, each placed as the service would place it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_export.networks import Generator
from model_export.pairs import PairPaths, Policy, centred, patch_sample
from service.quality import psnr, ssim


@dataclass(frozen=True)
class PairScore:
    """One validated pair.

    Attributes:
        name: its files' stem.
        psnr: dB, infinite where output and target are equal.
        ssim: -1..1.
        phone, output, target: uint8 (H, W, 3), RGB: what went in, what came out, what should have.
    """

    name: str
    psnr: float
    ssim: float
    phone: npt.NDArray[np.uint8]
    output: npt.NDArray[np.uint8]
    target: npt.NDArray[np.uint8]


def to_tensor(pixels: npt.NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """Turn uint8 (N, H, W, 3) into float32 (N, 3, H, W) in 0..1."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
    return tensor.permute(0, 3, 1, 2).float().div(255).contiguous(memory_format=torch.channels_last)


def score_pairs(generator: Generator, pairs: Sequence[PairPaths], policy: Policy = "reflect") -> Iterator[PairScore]:
    """Score a generator's 8-bit outputs pair by pair; the generator is left in the mode that it was in.

    Raises:
        PairsError: a pair can't be read or is larger than a tile.
    """
    device = next(generator.parameters()).device
    for pair in pairs:
        phone, target = pair.load()
        height, width = phone.shape[:2]
        top, left = centred(height), centred(width)
        sample = patch_sample(phone, target, policy, top, left)
        was_training = generator.training
        generator.eval()
        with torch.no_grad():
            output = generator(to_tensor(sample.tile[None], device), to_tensor(sample.context[None], device))
        generator.train(was_training)
        pixels = output.float().clamp(0, 1)[0].permute(1, 2, 0).mul(255).round().byte().cpu().numpy()
        if policy == "reflect":
            pixels = pixels[top : top + height, left : left + width]
        else:
            phone, target = sample.tile, sample.target
        yield PairScore(pair.phone.stem, psnr(pixels, target), ssim(pixels, target), phone, pixels, target)


def score(generator: Generator, pairs: Sequence[PairPaths], policy: Policy = "reflect") -> tuple[float, float]:
    """Mean PSNR (dB) and SSIM over patch pairs.

    Raises:
        PairsError: as `score_pairs`.
    """
    return means([(one.psnr, one.ssim) for one in score_pairs(generator, pairs, policy)])


def means(scores: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean PSNR and mean SSIM of (PSNR, SSIM) pairs."""
    mean_psnr, mean_ssim = np.mean(scores, axis=0)
    return float(mean_psnr), float(mean_ssim)
