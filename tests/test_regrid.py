"""Images with other pixels than the model was trained at: resampled to it, masks on the grid of the image."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from seg.errors import ModelError
from seg.inference import InferenceSettings, parts_of, segment
from seg.labels import load_schema
from seg.models.bundle import Bundle
from seg.models.spec import ModelSpec
from seg.models.unet import UNet
from seg.plan import plan_segmentation
from seg.preprocess import SeriesNormalisation, resample, resampled_shape
from seg.regrid import _linear, pixel_size_fit
from seg.runner import Runner
from seg.stack import Calibration, Stack

AS_IT_IS = SeriesNormalisation(0, 1)
FP32 = InferenceSettings(device="cpu", precision="fp32")


def make_bundle(dims=2, seed=3, **spec):
    torch.manual_seed(seed)
    arguments = {"n_classes": 3, "width": 4, "depth": 1, "dims": dims}
    network = UNet(**arguments)
    for _ in range(20):
        network(torch.rand(2, 1, *(16,) * dims))
    described = ModelSpec("random", "unet", arguments, load_schema().to_dict(), (1, 3, 4), dims=dims, **spec)
    return Bundle(described, network.eval(), Path("nowhere"), "0" * 64, "")


def a_stack(image, **sizes):
    axes = {2: "yx", 3: "zyx"}[image.ndim]
    return Stack(image, axes, Calibration(sizes, None, "options"), name="sample")


def smooth_image(shape, seed=5):
    """Texture of some pixels, which a network without training takes for different things at another size."""
    rough = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape, np.float32), 1.2)
    return (rough - rough.min()) / np.ptp(rough)


def labels_of(stack, bundle, settings=FP32):
    return np.concatenate([np.atleast_3d(s.labels.T).T for s in segment(stack, bundle, settings=settings,
                                                                       normalisation=AS_IT_IS)])  # fmt: skip


AT_HALF = make_bundle(pixel_size_um=0.5, pixel_size_range_um=(0.3, 0.9))


def test_a_ramp_stays_a_ramp_through_there_and_back():
    """Linear interpolation between pixel centres is exact on a ramp, but within half a pixel of the ends."""
    ramp = np.broadcast_to((np.arange(60) + 0.5) / 60, (8, 60)).astype(np.float32)
    for zoom in (0.4, 1.7):
        seen = resample(ramp, (1.0, zoom))
        assert seen.shape == resampled_shape(ramp.shape, (1.0, zoom)) == (8, round(60 * zoom))
        back = _linear(torch.from_numpy(seen), 1, np.arange(60), 60).numpy()
        np.testing.assert_allclose(back[:, 6:-6], ramp[:, 6:-6], atol=1e-5)  # float32; the Gaussian reaches 5 px in


def test_finer_pixels_give_the_same_mask():
    """The same field of view with pixels a quarter the area: what the network sees differs by interpolation only."""
    image = smooth_image((60, 44))
    fine = ndimage.zoom(image, 2, order=1, grid_mode=True, mode="nearest")
    bundle = make_bundle(seed=6, pixel_size_um=0.5)  # these weights tell textures apart, half of the image each
    expected = np.repeat(np.repeat(labels_of(a_stack(image, y=0.5, x=0.5), bundle)[0], 2, 0), 2, 1)
    found = labels_of(a_stack(fine, y=0.25, x=0.25), bundle)[0]
    unaware = labels_of(a_stack(fine), bundle)[0]
    assert found.shape == fine.shape
    # Interpolating there and back smooths the texture a little: 0.89 seen; 0.65 on the fine grid as it is.
    assert np.mean(found == expected) > 0.85
    assert np.mean(found == expected) > np.mean(unaware == expected) + 0.15


@pytest.mark.parametrize(("sizes", "shape"), [((0.3, 0.3), (97, 71)), ((0.9, 0.7), (53, 64)), ((1.6, 0.5), (31, 90))])
def test_tiles_do_not_show(sizes, shape):
    stack = a_stack(smooth_image(shape), y=sizes[0], x=sizes[1])
    whole, tiled = (
        labels_of(stack, AT_HALF, InferenceSettings(device="cpu", precision="fp32", tile_px=tile))
        for tile in (None, 32)
    )
    assert whole.shape == (1, *shape)
    # Sums in another order move probabilities by 1e-6: no more than a stray pixel where two are equal.
    assert np.mean(whole != tiled) < 1e-3


def test_volumes_with_planes_farther_apart():
    bundle = make_bundle(dims=3, pixel_size_um=0.5)
    stack = a_stack(smooth_image((9, 26, 30)), z=1.0, y=0.5, x=0.5)
    fit = pixel_size_fit(stack, bundle.spec)
    assert fit.zoom == (2.0, 1.0, 1.0)
    (slab,) = segment(stack, bundle, settings=FP32, normalisation=AS_IT_IS)
    assert slab.labels.shape == (9, 26, 30)
    seen = Stack(resample(stack.data, fit.zoom), "zyx", Calibration(dict.fromkeys("zyx", 0.5), None, "options"))
    (fine,) = segment(seen, bundle, settings=FP32, normalisation=AS_IT_IS)
    # A plane of the stack lies between two of the network: where these agree, so does it.
    agree = fine.labels[::2] == fine.labels[1::2]
    assert agree.mean() > 0.5
    assert np.mean(slab.labels[agree] == fine.labels[::2][agree]) > 0.99


def test_a_2d_model_resamples_the_planes_of_a_volume_only():
    stack = a_stack(smooth_image((5, 40, 32)), z=4.0, y=0.25, x=0.25)
    assert pixel_size_fit(stack, AT_HALF.spec).zoom == (0.5, 0.5)
    slabs = list(segment(stack, AT_HALF, settings=FP32, normalisation=AS_IT_IS))
    assert sum(s.labels.shape[0] for s in slabs) == 5
    alone = labels_of(a_stack(stack.data[2], y=0.25, x=0.25), AT_HALF)
    together = np.concatenate([s.labels for s in slabs])
    assert np.mean(together[2] == alone[0]) > 0.999


@pytest.mark.parametrize(
    ("sizes", "zoom", "flags", "words"),
    [
        ({"y": 0.5, "x": 0.505}, None, (), ""),
        ({"y": 0.4, "x": 0.4}, (0.8, 0.8), (), "resampled to the 0.5 um"),
        ({"y": 2.0, "x": 2.0}, (4.0, 4.0), ("pixel-size-untested",), "trained on pixels of 0.3 to 0.9 um"),
        ({}, None, ("uncalibrated",), "has no pixel size, so it is not resampled"),
    ],
)
def test_what_is_done_is_said(sizes, zoom, flags, words, caplog):
    stack = a_stack(smooth_image((32, 32)), **sizes)
    fit = pixel_size_fit(stack, AT_HALF.spec)
    assert (fit.zoom, fit.flags) == (pytest.approx(zoom) if zoom else None, flags)
    assert words in fit.said
    with caplog.at_level(logging.INFO, "seg.inference"):
        list(segment(stack, AT_HALF, settings=FP32))
    said = [r for r in caplog.records if r.name == "seg.inference" and r.getMessage() == fit.said]
    assert [r.levelno for r in said] == ([logging.WARNING if flags else logging.INFO] if words else [])


def test_models_of_any_pixel_size_resample_nothing():
    assert pixel_size_fit(a_stack(smooth_image((8, 8)), y=7.0, x=7.0), make_bundle().spec).zoom is None


def test_a_pixel_size_that_must_be_wrong_is_refused():
    with pytest.raises(ModelError, match="more than 16 times apart. Correct the pixel size"):
        list(segment(a_stack(smooth_image((32, 32)), y=0.0005, x=0.0005), AT_HALF, settings=FP32))


def test_the_plan_knows_of_the_larger_grid():
    image = smooth_image((256, 256))
    needs = []
    for size in (0.5, 2.0):
        stack, runner = a_stack(image, y=size, x=size), Runner(AT_HALF, FP32)
        needs.append(plan_segmentation(stack, runner, parts_of(stack, runner)).host_bytes)
    assert needs[1] > needs[0] + 4 * 3 * 1024**2  # probabilities of three classes on 1024 x 1024 px, float32
