"""The network: shapes, exact receptive field, folding, what it refuses."""

import numpy as np
import pytest
import torch
from torch import nn

from seg.models import ARCHITECTURES
from seg.models.unet import UNet, packed, unpacked


def all_positive(network: UNet) -> UNet:
    """Weights for which every pixel of the receptive field reaches the output and nothing is rounded away."""
    network = network.double().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.constant_(module.weight, 1.0 / module.weight[0].numel())
    return network


@pytest.mark.parametrize(
    ("dims", "depth", "blocks", "stem_px"),
    [(2, 0, 1, 1), (2, 1, 1, 1), (2, 2, 1, 1), (2, 3, 1, 1), (2, 1, 2, 1), (3, 1, 1, 1), (2, 1, 1, 2), (3, 0, 1, 2)],
)
def test_halo_is_the_exact_receptive_field(dims, depth, blocks, stem_px):
    network = all_positive(UNet(n_classes=2, dims=dims, width=2, depth=depth, blocks=blocks, stem_px=stem_px))
    halo, step = network.halo_px, network.tile_multiple
    centre = (halo // step + 1) * step
    length = 2 * centre + 2 * step
    shape = (length,) + (step,) * (dims - 1)  # influence along one axis is that of every axis
    image = torch.ones(1, 1, *shape, dtype=torch.float64)
    with torch.inference_mode():
        before = network(image)
        reach = 0
        for position in range(centre, centre + step):  # all positions on the pooling grid
            changed = image.clone()
            changed[0, 0, position] += 100.0  # upwards, so that pooling lets it pass
            difference = (network(changed) - before).abs().amax(dim=(0, 1, *range(3, dims + 2)))
            rows = torch.nonzero(difference > 0).ravel()
            reach = max(reach, position - int(rows.min()), int(rows.max()) - position)
    assert reach == halo


@pytest.mark.parametrize(("scales", "stem_px"), [((1,), 1), ((1, 2), 1), ((1, 2), 2)])
def test_perturbing_one_pixel_of_a_random_network_stays_inside_the_halo(rng, scales, stem_px):
    torch.manual_seed(3)
    network = UNet(n_classes=3, width=4, depth=2, scales=scales, stem_px=stem_px).eval()
    halo = network.halo_px
    image = torch.from_numpy(rng.random((1, 1, 192, 80), dtype=np.float32))
    changed = image.clone()
    y, x = 50, 37
    changed[0, 0, y, x] += 5.0
    with torch.inference_mode():
        difference = (network(changed) - network(image)).abs().amax(dim=(0, 1))
    inside = torch.zeros_like(difference, dtype=torch.bool)
    inside[max(y - halo, 0) : y + halo + 1, max(x - halo, 0) : x + halo + 1] = True
    assert float(difference[~inside].max()) == 0.0
    assert float(difference[y, x]) > 1e-3


def test_group_norm_depends_on_the_whole_tile():
    torch.manual_seed(0)
    network = UNet(n_classes=2, width=8, depth=1, norm="group").eval()
    assert not network.tile_invariant
    image = torch.rand(1, 1, 64, 64)
    changed = image.clone()
    changed[..., :4, :4] += 10.0
    with torch.inference_mode():
        difference = (network(changed) - network(image)).abs().amax(dim=(0, 1))
    assert float(difference[-8:, -8:].max()) > 1e-4  # far outside the halo, which is why it says so


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize(("dims", "shape"), [(2, (48, 32)), (3, (16, 8, 24))])
@pytest.mark.parametrize(("width", "depth", "blocks"), [(4, 3, 1), (6, 2, 2), (3, 0, 1)])
def test_keeps_the_grid(norm, dims, shape, width, depth, blocks):
    network = UNet(in_channels=2, n_classes=5, dims=dims, width=width, depth=depth, blocks=blocks, norm=norm)
    assert network(torch.rand(2, 2, *shape)).shape == (2, 5, *shape)


@pytest.mark.parametrize("dims", [2, 3])
def test_scales_average_the_probabilities_of_shrunk_copies(dims):
    torch.manual_seed(2)
    network = UNet(n_classes=3, dims=dims, width=4, depth=1, scales=(1, 2)).eval()
    plain = UNet(n_classes=3, dims=dims, width=4, depth=1).eval()
    plain.load_state_dict(network.state_dict())  # no weights of its own
    image = torch.rand(1, 1, *(16,) * dims).repeat_interleave(2, dim=2)[:, :, :16]
    half = image.unfold(2, 2, 2).mean(-1)
    for axis in range(3, dims + 2):
        half = half.unfold(axis, 2, 2).mean(-1)
    with torch.inference_mode():
        found = network(image).softmax(1)
        fine, coarse = plain(image).softmax(1), plain(half).softmax(1)
    torch.testing.assert_close(found.sum(1), torch.ones_like(found[:, 0]))
    # At a corner there is nothing to interpolate between.
    corner = (0, slice(None), *(0,) * dims)
    torch.testing.assert_close(found[corner], (fine[corner] + coarse[corner]) / 2, atol=1e-5, rtol=1e-5)
    assert torch.equal(network.train()._at_one_scale(image), plain.train()(image))


@pytest.mark.parametrize(("dims", "stem_px"), [(2, 2), (2, 4), (3, 2)])
def test_pixels_of_a_point_are_packed_and_come_back_in_their_places(rng, dims, stem_px):
    image = torch.from_numpy(rng.random((2, 3, 8, 12, 16)[: dims + 2], dtype=np.float32))
    inside = packed(image, stem_px)
    assert inside.shape == (2, 3 * stem_px**dims, *(n // stem_px for n in image.shape[2:]))
    # The channels of the first point are the pixels of the first corner, of one input channel after the other.
    corner = (0, slice(None), *(slice(stem_px),) * dims)
    torch.testing.assert_close(inside[(0, slice(None), *(0,) * dims)], image[corner].ravel(), rtol=0, atol=0)
    assert torch.equal(unpacked(inside, stem_px), image)
    network = UNet(in_channels=3, n_classes=4, dims=dims, width=4, depth=1, stem_px=stem_px).eval()
    side = (2 * network.tile_multiple,) * dims
    logits = network(torch.rand(1, 3, *side))
    assert logits.shape == (1, 4, *side)
    of_a_point = packed(logits, stem_px).unflatten(1, (4, -1))
    assert torch.equal(of_a_point, of_a_point[:, :, :1].expand_as(of_a_point))  # alike before training


def test_deep_supervision_returns_coarser_logits_in_training_only():
    network = UNet(n_classes=3, width=4, depth=3, deep_supervision=True)
    image = torch.rand(2, 1, 32, 48)
    shapes = [tuple(level.shape) for level in network(image)]
    assert shapes == [(2, 3, 32, 48), (2, 3, 16, 24), (2, 3, 8, 12)]
    assert network.eval()(image).shape == (2, 3, 32, 48)


def test_every_parameter_gets_a_gradient():
    network = UNet(n_classes=3, width=4, depth=2, deep_supervision=True, dropout=0.2)
    sum(level.square().mean() for level in network(torch.rand(2, 1, 16, 16))).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("dims", [2, 3])
def test_folding_the_norm_changes_nothing(dims):
    torch.manual_seed(1)
    network = UNet(n_classes=3, dims=dims, width=4, depth=2).double()
    image = torch.rand(2, 1, *(16,) * dims, dtype=torch.float64)
    for _ in range(3):
        network(image)  # running statistics other than 0 and 1
    with torch.inference_mode():
        expected = network.eval()(image)
        folded = network.fold()(image)
    assert not any(isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d) for m in network.modules())
    torch.testing.assert_close(folded, expected, atol=1e-10, rtol=1e-10)  # rounding of float64 in another order


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("dims", [2, 3])
def test_every_architecture_tells_the_engine_what_it_needs(name, dims):
    one = {"dims": dims, "width": 4, "depth": 1}
    arguments = {"members": [{"architecture": "unet", **one}] * 2} if name == "ensemble" else one
    network = ARCHITECTURES[name](n_classes=3, **arguments).eval()
    assert (network.dims, network.in_channels) == (dims, 1)
    assert network.tile_multiple >= 1
    assert network.halo_px >= 0
    assert network.values_per_px >= 1
    assert isinstance(network.tile_invariant, bool)
    image = torch.rand(2, 1, *(network.tile_multiple,) * dims)
    assert network.fold()(image).shape == (2, 3, *image.shape[2:])


def test_default_size():
    network = ARCHITECTURES["unet"](n_classes=5, width=32)
    assert 1e6 < sum(p.numel() for p in network.parameters()) < 2e6
    assert (network.tile_multiple, network.halo_px) == (16, 107)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dims": 4}, "2 or 3 dimensions"),
        ({"norm": "layer"}, "batch, group"),
        ({"n_classes": 1}, "n_classes is 1; expected a whole number from 2 to 255"),
        ({"width": 0}, "width is 0"),
        ({"depth": 2.5}, "depth is 2.5"),
        ({"depth": 40}, "from 0 to 8"),
        ({"stem_px": 3}, "stem_px is 3; choose 1, 2 or 4"),
    ],
)
def test_refuses_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNet(**{"n_classes": 3, **arguments})


@pytest.mark.parametrize(
    ("shape", "message"), [((1, 1, 30, 32), "multiples of 4"), ((1, 2, 32, 32), "C=1"), ((1, 1, 4, 32, 32), "C, Y, X")]
)
def test_refuses_inputs(shape, message):
    with pytest.raises(ValueError, match=message):
        UNet(n_classes=2, width=2, depth=2)(torch.zeros(shape))
