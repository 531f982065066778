"""The pix2pix networks: two U-Net generators and the PatchGAN discriminator.

Source: Isola, Zhu, Zhou, Efros, "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017,
https://arxiv.org/abs/1611.07004, appendix 6.1.
"""

import itertools
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from service.spec import TILE

ARCHITECTURES: Final = ("unet128", "unet128-s2d")


class UNet128(nn.Module):
    """The textbook pix2pix U-Net: seven 4x4 stride-2 convolutions down to 1x1, seven up, skips concatenated.

    Batch norm everywhere but in the first, the innermost and the last layer; dropout 0.5 in the two inner decoder
    stages below the innermost one. 41.8 M parameters and 3.0 GFLOP a tile with `ngf` 64.
    """

    takes_context = False

    def __init__(self, ngf: int = 64) -> None:
        super().__init__()
        widths = [ngf, ngf * 2, ngf * 4, ngf * 8, ngf * 8, ngf * 8, ngf * 8]
        self.down = nn.ModuleList()
        self.down_norm = nn.ModuleList()
        self.up = nn.ModuleList()
        self.up_norm = nn.ModuleList()
        innermost = len(widths) - 1
        for level, width in enumerate(widths):
            source = 3 if level == 0 else widths[level - 1]
            self.down.append(nn.Conv2d(source, width, 4, 2, 1, bias=False))
            self.down_norm.append(nn.Identity() if level in (0, innermost) else nn.BatchNorm2d(width))
            # up[level] undoes down[level]; all but the innermost also see the skip of their own level
            wide = width if level == innermost else width * 2
            self.up.append(nn.ConvTranspose2d(wide, source, 4, 2, 1, bias=level == 0))
            self.up_norm.append(nn.Identity() if level == 0 else nn.BatchNorm2d(source))
        # two stages, as the reference implementation has for unet_128
        self.dropout = nn.ModuleList(nn.Dropout(0.5) if level in (4, 5) else nn.Identity() for level in range(7))
        self.apply(_normal_init)

    def forward(self, picture: Tensor, context: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Map RGB (N, 3, 128, 128) in 0..1 to RGB of the same shape in 0..1; `context` is not looked at."""
        skips: list[Tensor] = []
        x = picture * 2 - 1
        for level, (conv, norm) in enumerate(zip(self.down, self.down_norm, strict=True)):
            x = norm(conv(x if level == 0 else F.leaky_relu(x, 0.2)))
            skips.append(x)
        x = skips.pop()
        for level in reversed(range(len(self.up))):
            x = self.dropout[level](self.up_norm[level](self.up[level](F.relu(x))))
            if level:
                x = torch.cat([skips.pop(), x], 1)
        return torch.tanh(x) * 0.5 + 0.5


class ContextEncoder(nn.Module):
    """The whole picture, (N, 3, 32, 32) in 0..1 -> a vector (N, width) of its tone.

    Features are averaged over the picture: where in it something lies is not the tone's business, and a few hundred
    pairs are too few to learn it from. Its mean and deviation go in as they are, since a lone patch of 100x100 has
    them here exactly, and in its tile, padded to 128x128, only nearly.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 1, 1),
            nn.ReLU(),
        )
        self.vector = nn.Sequential(nn.Linear(64 + 2 * 3, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())

    def forward(self, context: Tensor) -> Tensor:
        """Map (N, 3, 32, 32) in 0..1 to (N, width)."""
        signed = context * 2 - 1
        mean, deviation = _moments(signed)
        pooled = self.features(signed).mean((2, 3))
        known = torch.cat([pooled.to(mean.dtype), mean, deviation], 1)
        vector: Tensor = self.vector(known.to(signed.dtype))
        return vector


class Modulation(nn.Module):
    """Scale and shift every channel by what the context says (FiLM: Perez et al. 2018, arXiv:1709.07871)."""

    def __init__(self, vector: int, channels: int) -> None:
        super().__init__()
        self.affine = nn.Linear(vector, 2 * channels)
        nn.init.zeros_(self.affine.weight)  # starts as the identity
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """Map features (N, C, H, W) and a vector (N, V) to features of the same shape."""
        scale, shift = self.affine(vector)[:, :, None, None].chunk(2, 1)
        modulated: Tensor = x * (1 + scale) + shift
        return modulated


class AdaptiveInstanceNorm(nn.Module):
    """Instance norm whose scale and shift are predicted from the picture's context and the tile's own statistics.

    The published networks for this task normalise by the statistics of the picture that they are given. For a picture
    of one tile those are the tile's, and the norm alone finds them; for a tile of a photo they are the photo's, which
    the context tells: the predicted scale and shift then put the tile back where it stands in its photo. Against
    batch norm with FiLM, 1000 steps took the likeness to such a network from 26.1 to 30.0 dB on tiles of kept-back
    photos, each tile alone, and from 26.9 to 27.4 dB on tiles in their photo's context, for 3 % more time a tile.

    Source: Ulyanov et al. 2016, arXiv:1607.08022; Huang and Belongie, "Arbitrary Style Transfer in Real-time with
    Adaptive Instance Normalization", ICCV 2017.
    """

    def __init__(self, vector: int, channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.statistics = nn.Sequential(nn.Linear(vector + 2 * channels, hidden), nn.ReLU())
        self.affine = nn.Linear(hidden, 2 * channels)
        nn.init.zeros_(self.affine.weight)  # starts as plain instance norm
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """Map features (N, C, H, W) and a vector (N, V) to features of the same shape."""
        mean, deviation = _moments(x)
        known = torch.cat([vector.to(mean.dtype), mean, deviation.log()], 1)
        gain, shift = self.affine(self.statistics(known.to(x.dtype))).to(mean.dtype).chunk(2, 1)
        scale = (1 + gain) / deviation
        offset = shift - mean * scale  # one multiplication and one addition a sample
        normed: Tensor = x * scale[:, :, None, None].to(x.dtype) + offset[:, :, None, None].to(x.dtype)
        return normed


class Refinement(nn.Module):
    """A residual block at the finest stage, after the decoder: where detail is sharpened and noise taken out.

    Without it the detail of the answers stayed at 38.7 dB from the teacher's, on training and on kept-back patches
    alike and however long it was trained: three convolutions at that stage were too few to learn it. It has no norm:
    tone is settled by then. It is narrow and deep: a layer more inside costs a third of what twice the width does.
    """

    def __init__(self, channels: int, inside: int, layers: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, inside, 3, 1, 1)
        self.layers = nn.ModuleList(nn.Conv2d(inside, inside, 3, 1, 1) for _ in range(layers))
        self.widen = nn.Conv2d(inside, channels, 3, 1, 1)
        for last in (*self.layers, self.widen):  # each starts as the identity
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, C, H, W) to features of the same shape."""
        inside = self.narrow(x)
        for layer in self.layers:
            inside = inside + layer(F.leaky_relu(inside, 0.2))
        refined: Tensor = x + self.widen(F.leaky_relu(inside, 0.2))
        return refined


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, (N, C), in float32 even where the network runs in half."""
    x = x.float()
    mean = x.mean((2, 3))
    variance = (x * x).mean((2, 3)) - mean * mean
    return mean, (variance.clamp_min(0) + 1e-3).sqrt()


class SpaceToDepthUNet(nn.Module):
    """The same U-Net behind a space-to-depth stem, for speed: `unet128-s2d`.

    Pixel unshuffle, a U-Net from 64x64 down to 1x1, pixel shuffle; the output is the input plus a predicted residual.
    What makes it cheap: skips are added instead of concatenated, the encoder's convolutions are 3x3 instead of 4x4, and
    the decoder upsamples by a 1x1 convolution and repetition instead of a transposed convolution. On one core the
    3x3 ones take a tenth off a tile's time against 4x4, repetition another tenth against a pixel shuffle.

    The stem and the decoder's fine stages are normalised by the tile and re-scaled by the context, its coarse ones
    scaled by the context alone; there is no batch norm, whose noise costs tone and whose batches would have to be
    shared by the processes of a training.
    """

    takes_context = True
    NORMALISED: Final = 4
    """Decoder stages with a norm, from the finest on; below them, from 4x4 down, a tile has too few values for one."""

    def __init__(
        self,
        shuffle: int = 2,
        widths: tuple[int, ...] = (32, 64, 96, 128, 192, 192, 192),
        vector: int = 64,
        detail: int = 16,
        layers: int = 2,
    ) -> None:
        """Build the network.

        Args:
            shuffle: the stem's space-to-depth factor, a power of two.
            widths: channels at 128/shuffle, and at each halving of it down to 1x1.
            vector: length of the vector that the context is encoded to.
            detail, layers: channels inside the last residual block, at the finest stage, and how many layers work
                on them.

        Raises:
            ValueError: `widths` has not one entry a level.
        """
        super().__init__()
        levels = (TILE // shuffle).bit_length()
        if len(widths) != levels:
            raise ValueError(f"a shuffle by {shuffle} has {levels} levels, not {len(widths)}")
        steps = list(itertools.pairwise(widths))
        self.shuffle = shuffle
        self.context = ContextEncoder(vector)
        self.stem = nn.Conv2d(3 * shuffle**2, widths[0], 3, 1, 1)
        self.stem_norm = AdaptiveInstanceNorm(vector, widths[0])
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 3, 2, 1) for fine, coarse in steps)
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in steps)
        self.fuse = nn.ModuleList(nn.Conv2d(fine, fine, 3, 1, 1) for fine, _ in steps)
        self.modulate = nn.ModuleList(
            AdaptiveInstanceNorm(vector, width) if level < self.NORMALISED else Modulation(vector, width)
            for level, width in enumerate(widths)
        )
        self.refine = Refinement(widths[0], detail, layers)
        self.head = nn.Conv2d(widths[0], 3 * shuffle**2, 3, 1, 1)
        with torch.no_grad():
            self.head.weight.mul_(0.1)  # starts near the identity

    def forward(self, picture: Tensor, context: Tensor) -> Tensor:
        """Map RGB (N, 3, 128, 128) and its context (N, 3, 32, 32), both in 0..1, to RGB about 0..1 (not clipped)."""
        vector = self.context(context)
        # a pixel unshuffle and the stem in one: its kernel laid out as the picture is, which no pixel has to move for
        kernel = F.pixel_shuffle(self.stem.weight, self.shuffle)
        x = F.conv2d(picture * 2 - 1, kernel, self.stem.bias, self.shuffle, self.shuffle)
        x = F.leaky_relu(self.stem_norm(x, vector), 0.2)
        skips = [x]
        for down in self.down:
            x = F.leaky_relu(down(x), 0.2)
            skips.append(x)
        x = self.modulate[-1](skips.pop(), vector)
        for level in reversed(range(len(self.up))):
            x = F.interpolate(self.up[level](x), scale_factor=2.0) + skips.pop()
            x = x + F.relu(self.modulate[level](self.fuse[level](x), vector))
        x = self.refine(x)
        return picture + F.pixel_shuffle(self.head(x), self.shuffle)


class PatchDiscriminator(nn.Module):
    """The 70x70 PatchGAN: tells a DSLR's picture from a generator's, patch by patch.

    With the default 6 channels it is conditional: it sees what the picture is an answer to beside it.
    """

    def __init__(self, ndf: int = 64, channels: int = 6) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, ndf, 4, 2, 1), nn.LeakyReLU(0.2)]
        for source, width, stride in ((ndf, ndf * 2, 2), (ndf * 2, ndf * 4, 2), (ndf * 4, ndf * 8, 1)):
            layers += [nn.Conv2d(source, width, 4, stride, 1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(ndf * 8, 1, 4, 1, 1))
        self.layers = nn.Sequential(*layers)
        self.apply(_normal_init)

    def forward(self, *pictures: Tensor) -> Tensor:
        """Map batches (N, C, 128, 128) in 0..1, `channels` together, to logits (N, 1, 14, 14), one a 70x70 patch."""
        logits: Tensor = self.layers(torch.cat(pictures, 1) * 2 - 1)
        return logits


Generator = UNet128 | SpaceToDepthUNet


def UNetGenerator(architecture: str = "unet128-s2d") -> Generator:  # noqa: N802  (the field's name for it)
    """Build an untrained generator by its architecture's name.

    Args:
        architecture: `unet128`, the textbook pix2pix generator, or `unet128-s2d`, the fast one.

    Raises:
        ValueError: there is no such architecture.
    """
    builders: dict[str, Callable[[], Generator]] = {"unet128": UNet128, "unet128-s2d": SpaceToDepthUNet}
    if architecture not in builders:
        raise ValueError(f"no architecture is named {architecture!r}; there are {', '.join(builders)}")
    return builders[architecture]()


def _normal_init(module: nn.Module) -> None:
    # as the paper: weights from N(0, 0.02), batch norm around 1
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
