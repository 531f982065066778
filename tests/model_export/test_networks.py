from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_export.networks import (
    ARCHITECTURES,
    PatchDiscriminator,
    SpaceToDepthUNet,
    UNet128,
    UNetGenerator,
)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def generator(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return settled(UNetGenerator(request.param))


def settled(network: nn.Module) -> Any:
    """Give a fresh network's norms statistics of their own, as after training, and its modulation something to say."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0.0, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    if isinstance(network, SpaceToDepthUNet):
        for modulation in network.modulate:
            nn.init.normal_(modulation.affine.weight)  # type: ignore[union-attr, arg-type]
    return network.eval()


def gflop(network: nn.Module) -> float:
    """Count a tile's multiplications and additions, two for each product, layer by layer."""
    macs = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.Conv2d):
            macs += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.ConvTranspose2d):
            macs += inputs[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            macs += output.numel() * module.in_features

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    with torch.no_grad():
        network(torch.rand(1, 3, 128, 128), torch.rand(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return 2 * macs / 1e9


@torch.no_grad()
def test_output_is_a_tile_each(generator: nn.Module) -> None:
    for batch in (1, 3):
        assert generator(torch.rand(batch, 3, 128, 128), torch.rand(batch, 3, 32, 32)).shape == (batch, 3, 128, 128)


@torch.no_grad()
def test_a_tile_does_not_depend_on_its_batch(generator: nn.Module) -> None:
    tiles, contexts = torch.rand(4, 3, 128, 128), torch.rand(4, 3, 32, 32)
    together = generator(tiles, contexts)
    for number in range(4):
        alone = generator(tiles[number : number + 1], contexts[number : number + 1])
        torch.testing.assert_close(alone, together[number : number + 1], rtol=0, atol=2e-5)
    # the check above could not fail if the network gave every tile the same answer
    assert (together[0] - together[1]).abs().mean() > 1e-3


def test_unet128_has_the_papers_size() -> None:
    network = UNet128()
    assert sum(parameter.numel() for parameter in network.parameters()) == 41_828_995
    assert gflop(network.eval()) == pytest.approx(3.0, abs=0.05)


@torch.no_grad()
def test_unet128_answers_in_range_and_without_context() -> None:
    network = settled(UNet128(ngf=4))
    tile = torch.rand(1, 3, 128, 128)
    output = network(tile)
    assert output.min() >= 0
    assert output.max() <= 1
    assert torch.equal(output, network(tile, torch.rand(1, 3, 32, 32)))
    assert not network.takes_context


@torch.no_grad()
def test_unet128_drops_out_in_the_two_stages_of_the_reference() -> None:
    network = UNet128(ngf=4)
    stages = [level for level, layer in enumerate(network.dropout) if isinstance(layer, nn.Dropout)]
    assert stages == [4, 5]
    tile = torch.rand(2, 3, 128, 128)
    torch.manual_seed(1)
    first = network.train()(tile)
    assert not torch.equal(first, network(tile))
    assert torch.equal(network.eval()(tile), network(tile))


def test_fast_one_is_fast() -> None:
    network = SpaceToDepthUNet()
    assert gflop(network.eval()) <= 0.6
    assert sum(parameter.numel() for parameter in network.parameters()) < 4.5e6


@torch.no_grad()
def test_context_reaches_the_fast_one() -> None:
    torch.manual_seed(0)
    network = settled(SpaceToDepthUNet())
    assert network.takes_context
    tile = torch.rand(1, 3, 128, 128)
    dark, bright = (network(tile, torch.full((1, 3, 32, 32), tone)) for tone in (0.1, 0.9))
    assert (dark - bright).abs().mean() > 1e-3


def test_context_can_be_learned_from_the_start() -> None:
    # the modulation starts as the identity: what it is made from must still get a gradient
    network = SpaceToDepthUNet()
    network(torch.rand(2, 3, 128, 128), torch.rand(2, 3, 32, 32)).mean().backward()
    for modulation in network.modulate:
        assert modulation.affine.weight.grad.abs().max() > 0  # type: ignore[union-attr, operator]


@torch.no_grad()
def test_fast_one_starts_near_the_identity() -> None:
    torch.manual_seed(0)
    tile = torch.rand(2, 3, 128, 128)
    assert (SpaceToDepthUNet()(tile, torch.rand(2, 3, 32, 32)) - tile).abs().mean() < 0.1


@torch.no_grad()
def test_fast_one_without_residual_is_the_identity() -> None:
    network = SpaceToDepthUNet(shuffle=4, widths=(8, 8, 8, 8, 8, 8)).eval()
    nn.init.zeros_(network.head.weight)
    nn.init.zeros_(network.head.bias)  # type: ignore[arg-type]
    tile = torch.rand(1, 3, 128, 128)
    assert torch.equal(network(tile, torch.rand(1, 3, 32, 32)), tile)


def test_fast_one_needs_one_width_a_level() -> None:
    with pytest.raises(ValueError, match="a shuffle by 4 has 6 levels, not 7"):
        SpaceToDepthUNet(shuffle=4, widths=(8,) * 7)


def test_discriminator_judges_70x70_patches() -> None:
    network = PatchDiscriminator().eval()  # batch norm of a training batch would let every pixel reach every logit
    picture = torch.rand(1, 3, 128, 128, requires_grad=True)
    output = torch.rand(1, 3, 128, 128, requires_grad=True)
    logits = network(picture, output)
    assert logits.shape == (1, 1, 14, 14)
    for row, column in ((7, 7), (6, 8)):
        for gradient in torch.autograd.grad(logits[0, 0, row, column], (picture, output), retain_graph=True):
            rows = gradient.abs().sum((0, 1, 3)).nonzero()[:, 0]
            columns = gradient.abs().sum((0, 1, 2)).nonzero()[:, 0]
            # 8 input pixels a logit, and the same 70 whichever half of the input they belong to
            assert (int(rows[0]), len(rows)) == (8 * row - 23, 70)
            assert (int(columns[0]), len(columns)) == (8 * column - 23, 70)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures_by_name(architecture: str) -> None:
    network = UNetGenerator(architecture)
    assert isinstance(network, {"unet128": UNet128, "unet128-s2d": SpaceToDepthUNet}[architecture])


def test_unknown_architecture_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'unet256'.*unet128, unet128-s2d"):
        UNetGenerator("unet256")
