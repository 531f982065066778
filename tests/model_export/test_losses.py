import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from model_export import losses
from model_export.config import GanLoss


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


class TestColour:
    def test_is_the_mean_square_of_the_blurred_difference(self) -> None:
        target = photo(100, 150, 64, 70)
        output = noisy(target, 0.1)
        difference = (output - target)[0].permute(1, 2, 0).numpy()
        blurred = cv2.GaussianBlur(difference, (21, 21), 3)[10:-10, 10:-10]
        full = torch.ones(1, 1, 64, 70, dtype=torch.float64)
        assert losses.colour(output, target, full).item() == pytest.approx(np.mean(blurred**2), rel=1e-9)

    def test_a_flat_difference_counts_by_its_square(self) -> None:
        target = photo(100, 150, 40, 40)
        full = torch.ones(1, 1, 40, 40, dtype=torch.float64)
        assert losses.colour(target + 0.2, target, full).item() == pytest.approx(0.04)

    def test_a_mask_narrower_than_the_window_counts_nothing(self) -> None:
        target = photo(0, 0, 64, 64).requires_grad_()
        value = losses.colour(target, 1 - target, rectangle(64, 64, slice(5, 25), slice(5, 60)))
        value.backward()  # type: ignore[no-untyped-call]
        assert value.item() == 0
        assert target.grad is not None
        assert not target.grad.any()


class TestTv:
    def test_by_hand(self) -> None:
        output = torch.tensor([[[[0.0, 0.5], [1.0, 0.5]]]])
        # down: 1 and 0, right: 0.25 and 0.25
        assert losses.tv(output, output, torch.ones(1, 1, 2, 2)).item() == pytest.approx(0.5 + 0.25)
        # the corner's neighbours: one pair is left in each direction
        assert losses.tv(output, output, torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])).item() == pytest.approx(1 + 0.25)

    def test_a_flat_picture_has_none(self) -> None:
        assert losses.tv(torch.full((2, 3, 9, 9), 0.3), torch.rand(2, 3, 9, 9), torch.ones(2, 1, 9, 9)).item() == 0


class TestContent:
    features = nn.Conv2d(3, 5, 3, 2).double().requires_grad_(False)

    def test_is_the_mean_square_of_the_features_difference(self) -> None:
        target = photo(0, 0, 32, 40)
        output = noisy(target, 0.1).requires_grad_()
        value = losses.content(self.features, output, target, torch.ones(1, 1, 32, 40, dtype=torch.float64))
        assert value.item() == pytest.approx(((self.features(output) - self.features(target)) ** 2).mean().item())
        value.backward()  # type: ignore[no-untyped-call]
        assert output.grad is not None
        assert output.grad.abs().sum() > 0

    def test_sees_the_target_outside_the_mask(self) -> None:
        target, mask = photo(0, 0, 32, 32), rectangle(32, 32, slice(4, 20), slice(6, 30))
        output = torch.where(mask == 1, target, 1 - target).requires_grad_()
        value = losses.content(self.features, output, target, mask)
        # with a gradient and without one the features are rounded differently: 3e-21 has been seen
        assert value.item() < 1e-15
        (value + losses.content(self.features, noisy(target, 0.1) + 0 * output, target, mask)).backward()  # type: ignore[no-untyped-call]
        assert output.grad is not None
        assert not output.grad[mask.expand_as(output) == 0].any()


class TestConsistency:
    def test_compares_the_tone_of_what_both_show(self) -> None:
        strip = photo(100, 150, 64, 96)
        left, right = strip[..., :64].clone(), strip[..., 32:].clone()
        assert losses.consistency(left, right, 32).item() == 0
        assert losses.consistency(left + 0.1, right, 32).item() == pytest.approx(0.1)
        # what one shows alone does not count
        left[..., :32] = 0
        right[..., 32:] = 0
        assert losses.consistency(left, right, 32).item() == 0
        # nor does texture that leaves the means alone
        board = torch.ones(64, 64, dtype=torch.float64)
        board[::2, ::2] = board[1::2, 1::2] = -1
        assert losses.consistency(left + 0.1 * board, right, 32).item() == pytest.approx(0, abs=1e-12)

    def test_by_numpy(self) -> None:
        left, right = noisy(photo(0, 0, 128, 128), 0.1), noisy(photo(0, 64, 128, 128), 0.2)
        difference = (left[..., 64:] - right[..., :64])[0].numpy()
        cells = difference.reshape(3, 16, 8, 8, 8).mean((2, 4))
        assert losses.consistency(left, right, 64).item() == pytest.approx(np.abs(cells).mean())

    def test_gradient_goes_to_both(self) -> None:
        left, right = torch.rand(2, 3, 64, 64, requires_grad=True), torch.rand(2, 3, 64, 64, requires_grad=True)
        losses.consistency(left, right, 16).backward()  # type: ignore[no-untyped-call]
        assert left.grad is not None
        assert right.grad is not None
        assert left.grad[..., 16:].all()
        assert right.grad[..., :48].all()

    def test_no_strips_lose_nothing(self) -> None:
        assert losses.consistency(torch.zeros(0, 3, 64, 64), torch.zeros(0, 3, 64, 64), 32).item() == 0


@pytest.mark.parametrize("name", losses.PIXELWISE)
class TestPixelwise:
    def test_counts_what_lies_inside_the_mask_alone(self, name: str) -> None:
        loss: Callable[..., Tensor] = losses.PIXELWISE[name]
        target = photo(100, 150, 128, 128)
        output = noisy(target, 0.1).requires_grad_()
        here = np.s_[:, :, 14:114, 20:120]
        masked = loss(output, target, rectangle(128, 128, *here[2:]))
        alone = loss(output[here], target[here], torch.ones(1, 1, 100, 100, dtype=torch.float64))
        assert masked.item() == pytest.approx(alone.item(), abs=1e-12)
        masked.backward()  # type: ignore[no-untyped-call]
        assert output.grad is not None
        assert output.grad[here].any()
        assert not output.grad[:, :, :14].any()

    def test_equal_pictures_lose_nothing(self, name: str) -> None:
        if name == "tv":
            return  # it has no target
        target, full = photo(0, 0, 40, 40), torch.ones(1, 1, 40, 40, dtype=torch.float64)
        assert losses.PIXELWISE[name](target, target, full, losses.alone).item() == pytest.approx(0, abs=1e-9)

    def test_parts_of_a_batch_average_to_its_loss(self, name: str) -> None:
        # masks of several sizes: the mean of the parts' own means would be another number
        loss, targets = losses.PIXELWISE[name], torch.cat([photo(0, 0, 64, 64), photo(200, 200, 64, 64)])
        outputs = noisy(targets, 0.2)
        masks = torch.cat([rectangle(64, 64, slice(0, 64), slice(0, 64)), rectangle(64, 64, slice(9, 40), slice(64))])
        counts = list[Tensor]()

        def note(count: Tensor) -> Tensor:
            counts.append(count)
            return count

        whole = loss(outputs, targets, masks, note)
        parts = []
        for i in range(2):
            means = iter([count / 2 for count in counts])
            parts.append(loss(outputs[i : i + 1], targets[i : i + 1], masks[i : i + 1], lambda _, m=means: next(m)))  # type: ignore[misc]
        assert (sum(parts) / 2).item() == pytest.approx(whole.item(), rel=1e-9)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "real", "fake"),
    [("lsgan", lambda x: (x - 1) ** 2, lambda x: x**2), ("hinge", lambda x: max(0, 1 - x), lambda x: max(0, 1 + x))],
)
class TestGanVariants:
    def test_by_hand(self, kind: GanLoss, real: Any, fake: Any) -> None:
        values = (0.0, 2.0, -3.0, 0.5)
        logits = torch.tensor([values])
        assert losses.gan(logits, True, kind).item() == pytest.approx(np.mean([real(x) for x in values]))
        assert losses.gan(logits, False, kind).item() == pytest.approx(np.mean([fake(x) for x in values]))

    def test_least_where_the_discriminator_is_right(self, kind: GanLoss, real: Any, fake: Any) -> None:  # noqa: ARG002
        line = torch.linspace(-2, 2, 401)
        for told, best in ((True, 1.0), (False, -1.0 if kind == "hinge" else 0.0)):
            values = [losses.gan(x[None], told, kind).item() for x in line]
            assert min(values) == pytest.approx(0, abs=1e-6)
            assert values[int(((line - best).abs()).argmin())] == pytest.approx(0, abs=1e-6)


def test_fooling_wants_answers_taken_for_real() -> None:
    logits = torch.tensor([0.5, -2.0], requires_grad=True)
    kinds: tuple[GanLoss, ...] = ("bce", "lsgan", "hinge")
    for kind in kinds:
        (gradient,) = torch.autograd.grad(losses.fooling(logits, kind), logits)
        assert (gradient < 0).all()  # higher logits cost less, beyond the hinge's margin too
    assert losses.fooling(logits, "bce").item() == losses.gan(logits, True).item()
    assert losses.fooling(logits, "hinge").item() == pytest.approx(0.75)


def test_grey_is_what_opencv_says() -> None:
    picture = photo(0, 0, 16, 16)
    expected = cv2.cvtColor(picture[0].permute(1, 2, 0).numpy().astype(np.float32), cv2.COLOR_RGB2GRAY)
    assert np.allclose(losses.grey(picture)[0, 0].numpy(), expected, atol=1e-6)


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
