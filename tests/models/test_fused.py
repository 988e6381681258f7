"""The fused forward pass: the network's values, its input untouched, and no use where it cannot be exact."""

import pytest
import torch

from seg.models import fused
from seg.models.unet import UNet
from seg.runner import ready_network

CPU = torch.device("cpu")


def trained(**arguments) -> UNet:
    torch.manual_seed(0)
    network = UNet(n_classes=3, **arguments)
    torch.nn.init.kaiming_normal_(network.head.weight)  # as trained: the pixels of a point do not stay alike
    for _ in range(8):  # running statistics as after training
        network(torch.rand(2, 1, *(16,) * network.dims))
    return network.eval()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("dims", "blocks", "width", "depth", "scales", "stem_px"),
    [
        (2, 1, 8, 2, (1,), 1), (2, 2, 1, 2, (1,), 1), (3, 1, 8, 1, (1,), 1), (2, 1, 4, 0, (1,), 1),
        (2, 1, 8, 2, (1, 2), 1), (2, 1, 8, 1, (1, 2), 2), (3, 1, 8, 1, (1,), 2),
    ],
)  # fmt: skip
def test_gives_the_values_of_the_network(dims, blocks, width, depth, scales, stem_px, precision):
    network = trained(dims=dims, blocks=blocks, width=width, depth=depth, scales=scales, stem_px=stem_px)
    ready = ready_network(network, CPU, precision)
    assert isinstance(ready.compute, fused.FusedUNet)
    image = torch.rand(2, 1, *(24,) * dims).to(ready.dtype)
    before = image.clone()
    with torch.inference_mode():
        found, expected = ready.compute(image).float(), network(image.float())
    # float32 sums in another order; bf16 keeps 8 bits through some 15 layers.
    allowed = 1e-5 if precision == "fp32" else 0.1
    assert (found - expected).abs().max() < allowed * expected.abs().max()
    assert torch.equal(image, before)


def test_a_tile_does_not_change_with_the_tiles_beside_it():
    """Else what is computed again after a stop could differ from what was computed before it."""
    ready = ready_network(trained(width=8, depth=2), CPU, "bf16")
    tiles = torch.rand(4, 1, 40, 56).bfloat16()
    with torch.inference_mode():
        together = ready.compute(tiles)
        assert all(torch.equal(ready.compute(tiles[n : n + 1])[0], together[n]) for n in range(4))


def test_networks_whose_norms_do_not_fold_run_as_they_are():
    network = trained(width=8, depth=1, norm="group")
    assert fused.fused_forward(network) is None
    assert not isinstance(ready_network(network, CPU, "fp32").compute, fused.FusedUNet)


def test_calls_that_give_other_values_are_not_used(monkeypatch, caplog):
    monkeypatch.setattr(fused.FusedUNet, "head", lambda self, x: self.network.head(x) + 1)
    ready = ready_network(trained(width=8, depth=1), CPU, "fp32")
    assert ready.compute is ready.network
    assert "Fused convolutions differ from the network" in caplog.text


def test_calls_that_do_not_run_are_not_used(monkeypatch):
    def refuse(self, x):
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(fused.FusedUNet, "head", refuse)
    ready = ready_network(trained(width=8, depth=1), CPU, "fp32")
    assert ready.compute is ready.network
