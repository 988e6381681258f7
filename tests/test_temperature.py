"""The temperature of a model changes how sure it says it is, and nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seg.errors import ModelError
from seg.inference import InferenceSettings, predict_probabilities, segment
from seg.labels import load_schema
from seg.models.bundle import Bundle
from seg.models.spec import ModelSpec
from seg.models.unet import UNet
from seg.preprocess import SeriesNormalisation
from seg.reliability import temper
from seg.stack import Stack

AS_IT_IS = SeriesNormalisation(0, 1)
# float32 all through, so that probabilities can be compared to rounding; blended and exact tiles
WAYS = [InferenceSettings(device="cpu", precision="fp32", tile_px=64, overlap=o) for o in (0.0, 0.3)]


def models(temperature):
    torch.manual_seed(0)
    arguments = {"n_classes": 3, "width": 4, "depth": 2}
    network = UNet(**arguments)
    for _ in range(20):
        network(torch.rand(2, 1, 16, 16))
    spec = ModelSpec("random", "unet", arguments, load_schema().to_dict(), (1, 3, 4))
    plain = Bundle(spec, network.eval(), Path("nowhere"), "0" * 64, "")
    return plain, replace(plain, spec=replace(spec, temperature=temperature))


@pytest.mark.parametrize("settings", WAYS)
def test_probabilities_are_tempered_and_masks_stay(settings):
    image = np.random.default_rng(1).random((90, 110), np.float32)
    plain, warm = models(2.5)
    expected = temper(predict_probabilities(plain, image, settings, normalisation=AS_IT_IS), 2.5)
    found = predict_probabilities(warm, image, settings, normalisation=AS_IT_IS)
    if settings.overlap:  # blending averages probabilities after the temperature, not before
        assert np.abs(found - expected).max() < 0.05
    else:
        assert np.abs(found - expected).max() < 1e-5
    slabs = [next(segment(Stack(image, "yx"), b, settings=settings, normalisation=AS_IT_IS)) for b in (plain, warm)]
    if not settings.overlap:
        assert (slabs[0].labels == slabs[1].labels).all()
    # confidences are kept as float16: 11 bits
    assert slabs[1].confidence.astype(float) == pytest.approx(found.max(axis=0), abs=1e-3)
    assert (slabs[1].confidence < slabs[0].confidence).mean() > 0.99


@pytest.mark.parametrize("temperature", [0, -1.0, float("inf"), float("nan"), "warm"])
def test_an_impossible_temperature_is_refused(temperature):
    with pytest.raises(ModelError, match="temperature"):
        models(temperature)


def test_the_mirror_image_is_averaged_in_and_leaves_no_seam():
    image = np.random.default_rng(2).random((64, 160), np.float32)
    plain, _ = models(1.0)

    def ask(image, **settings):
        chosen = InferenceSettings(device="cpu", precision="fp32", **settings)
        return predict_probabilities(plain, image, chosen, normalisation=AS_IT_IS)

    turned = np.ascontiguousarray(image[:, ::-1])
    expected = (ask(image) + ask(turned)[..., ::-1]) / 2
    # float32 sums in another order: 1e-6 of each
    assert np.abs(ask(image, mirror=True) - expected).max() < 1e-5
    assert np.abs(ask(turned, mirror=True)[..., ::-1] - ask(image, mirror=True)).max() < 1e-5
    assert np.abs(ask(image, mirror=True, tile_px=64) - expected).max() < 1e-4
    assert np.abs(expected - ask(image)).max() > 0.01
