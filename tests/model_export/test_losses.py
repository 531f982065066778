import math

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import structural_similarity
from torch import Tensor

from model_export import losses


def photo(top: int, left: int, height: int, width: int) -> Tensor:
    """A part of a real photo, (1, 3, H, W), 0..1, float64."""
    return torch.from_numpy(data.astronaut()[top : top + height, left : left + width] / 255.0).permute(2, 0, 1)[None]


def noisy(picture: Tensor, sigma: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise: Tensor = torch.randn(picture.shape, generator=generator, dtype=picture.dtype)
    return (picture + sigma * noise).clamp(0, 1)


def rectangle(height: int, width: int, rows: slice, columns: slice) -> Tensor:
    mask = torch.zeros(1, 1, height, width, dtype=torch.float64)
    mask[:, :, rows, columns] = 1
    return mask


class TestL1:
    def test_by_hand(self) -> None:
        output = torch.tensor([[[[0.5, 0.25]], [[0.0, 1.0]], [[0.0, 0.0]]]])
        target = torch.tensor([[[[0.0, 0.0]], [[0.25, 0.5]], [[1.0, 0.0]]]])
        assert losses.l1(output, target, torch.ones(1, 1, 1, 2)).item() == pytest.approx(2.5 / 6)
        assert losses.l1(output, target, torch.tensor([[[[0.0, 1.0]]]])).item() == pytest.approx(0.75 / 3)

    def test_what_lies_outside_the_mask_does_not_count(self) -> None:
        target = photo(0, 0, 64, 64)
        output = noisy(target, 0.1).requires_grad_()
        mask = rectangle(64, 64, slice(7, 40), slice(11, 60))
        value = losses.l1(output, target, mask)
        value.backward()  # type: ignore[no-untyped-call]
        assert output.grad is not None
        assert torch.equal(output.grad[0, 0] != 0, (mask[0, 0] == 1) & (output != target)[0, 0])
        spoilt = torch.where(mask == 1, output, torch.rand_like(target))
        assert losses.l1(spoilt, target, mask).item() == value.item()
        expected = (output - target)[:, :, 7:40, 11:60].abs().mean()
        assert value.item() == pytest.approx(expected.item())


class TestSsim:
    @pytest.mark.parametrize("sigma", [0.01, 0.05, 0.3])
    def test_is_what_scikit_image_says(self, sigma: float) -> None:
        target = photo(100, 150, 128, 117)
        output = noisy(target, sigma)
        expected = structural_similarity(
            *(picture[0].permute(1, 2, 0).numpy() for picture in (output, target)),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=2,
            data_range=1,
        )
        full = torch.ones(1, 1, 128, 117)
        assert losses.ssim(output, target, full.double()).item() == pytest.approx(1 - expected, abs=1e-4)
        assert losses.ssim(output.float(), target.float(), full).item() == pytest.approx(1 - expected, abs=1e-4)

    def test_counts_whole_windows_inside_the_mask(self) -> None:
        target = photo(100, 150, 128, 128)
        output = noisy(target, 0.1)
        here = np.s_[:, :, 14:114, 20:120]
        masked = losses.ssim(output, target, rectangle(128, 128, *here[2:]))
        alone = losses.ssim(output[here], target[here], torch.ones(1, 1, 100, 100, dtype=torch.float64))
        assert masked.item() == pytest.approx(alone.item(), abs=1e-12)

    def test_gradient_stays_inside_the_mask(self) -> None:
        target = photo(100, 150, 128, 128)
        output = noisy(target, 0.1).requires_grad_()
        mask = rectangle(128, 128, slice(14, 114), slice(20, 120))
        losses.ssim(output, target, mask).backward()  # type: ignore[no-untyped-call]
        assert output.grad is not None
        assert torch.equal(output.grad.abs().sum(1, keepdim=True) > 0, mask == 1)

    def test_mean_of_a_batch(self) -> None:
        targets = torch.cat([photo(0, 0, 60, 60), photo(200, 200, 60, 60)])
        outputs = torch.cat([noisy(targets[:1], 0.02), noisy(targets[1:], 0.3)])
        full = torch.ones(2, 1, 60, 60, dtype=torch.float64)
        parts = [losses.ssim(outputs[i : i + 1], targets[i : i + 1], full[:1]).item() for i in range(2)]
        assert losses.ssim(outputs, targets, full).item() == pytest.approx(sum(parts) / 2)
        assert parts[1] > parts[0] + 0.1

    def test_equal_pictures_lose_nothing(self) -> None:
        target = photo(0, 0, 40, 40).float()
        assert losses.ssim(target, target, torch.ones(1, 1, 40, 40)).item() == pytest.approx(0, abs=1e-6)


class TestGan:
    def test_by_hand(self) -> None:
        logits = torch.tensor([[0.0, 2.0, -3.0]])
        real = sum(math.log(1 + math.exp(-x)) for x in (0.0, 2.0, -3.0)) / 3
        fake = sum(math.log(1 + math.exp(x)) for x in (0.0, 2.0, -3.0)) / 3
        assert losses.gan(logits, real=True).item() == pytest.approx(real)
        assert losses.gan(logits, real=False).item() == pytest.approx(fake)

    def test_a_sure_discriminator_does_not_overflow(self) -> None:
        logits = torch.tensor([500.0, -500.0])
        assert losses.gan(logits, real=True).item() == pytest.approx(250.0)
        assert losses.gan(logits, real=False).item() == pytest.approx(250.0)
