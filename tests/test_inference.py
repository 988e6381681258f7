"""The tiling engine: tiles join exactly, memory is bounded, faults are handled and said."""

import logging
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seg import runner
from seg.errors import DataError, ModelError, SegError, UsageError
from seg.inference import InferenceSettings, parts_of, predict_probabilities, segment
from seg.labels import load_schema
from seg.models import device
from seg.models.bundle import Bundle
from seg.models.device import cpu_bf16_feature
from seg.models.spec import ModelSpec
from seg.models.unet import UNet
from seg.preprocess import SeriesNormalisation
from seg.runner import Runner
from seg.stack import Calibration, Stack

AS_IT_IS = SeriesNormalisation(0, 1)
FP32 = {"precision": "fp32", "device": "cpu"}


def make_bundle(dims=2, width=4, depth=2, norm="batch", seed=0, **spec):
    """A random network with running statistics as after training, so that activations neither die nor explode."""
    torch.manual_seed(seed)
    network = UNet(n_classes=3, dims=dims, width=width, depth=depth, norm=norm)
    for _ in range(20):
        network(torch.rand(2, 1, *(2 ** (depth + 2),) * dims))
    arguments = {"n_classes": 3, "width": width, "depth": depth, "dims": dims, "norm": norm}
    described = ModelSpec("random", "unet", arguments, load_schema().to_dict(), (1, 3, 4), dims=dims, **spec)
    return Bundle(described, network.eval(), Path("nowhere"), "0" * 64, "")


FLAT, SOLID = make_bundle(), make_bundle(dims=3, depth=1)


def untiled(bundle, image):
    """The whole image through the network, mirrored up to its tile multiple."""
    multiple = bundle.network.tile_multiple
    padded = np.pad(image, [(0, -n % multiple) for n in image.shape], mode="reflect")
    with torch.inference_mode():
        probabilities = bundle.network(torch.from_numpy(padded)[None, None].float()).softmax(1)[0].numpy()
    return probabilities[(slice(None), *(slice(n) for n in image.shape))]


def random_image(shape, seed=1):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


# --- tiled equals untiled -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    st.tuples(st.integers(2, 150), st.integers(2, 150)),
    st.integers(52, 100),
    st.sampled_from([None, 0.0, 0.3]),
    st.sampled_from([None, 1, 3]),
)
def test_tiled_equals_untiled(shape, tile_px, overlap, batch):
    image = random_image(shape)
    chosen = InferenceSettings(tile_px=tile_px, overlap=overlap, batch=batch, **FP32)
    tiled = predict_probabilities(FLAT, image, chosen, normalisation=AS_IT_IS)
    np.testing.assert_allclose(tiled, untiled(FLAT, image), atol=1e-4)  # float32 sums in another order: 1e-6 seen


@settings(deadline=None, max_examples=10)
@given(st.tuples(*(st.integers(2, 40),) * 3), st.integers(26, 32), st.sampled_from([None, 0.25]))
def test_tiled_equals_untiled_in_volumes(shape, tile_px, overlap):
    image = random_image(shape)
    chosen = InferenceSettings(tile_px=tile_px, overlap=overlap, **FP32)
    tiled = predict_probabilities(SOLID, image, chosen, normalisation=AS_IT_IS)
    np.testing.assert_allclose(tiled, untiled(SOLID, image), atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (5, 7), (16, 16), (17, 131), (200, 120)])
@pytest.mark.parametrize("overlap", [None, 0.25])
def test_labels_are_the_most_probable_class(shape, overlap):
    image = random_image(shape)
    chosen = InferenceSettings(tile_px=64, overlap=overlap, **FP32)
    (slab,) = segment(Stack(image, "yx"), FLAT, settings=chosen, normalisation=AS_IT_IS)
    expected = untiled(FLAT, image)
    decided = np.sort(expected, axis=0)[-1] - np.sort(expected, axis=0)[-2] > 1e-4  # not a tie
    np.testing.assert_array_equal(slab.labels[decided], np.array([1, 3, 4])[expected.argmax(0)][decided])
    np.testing.assert_allclose(slab.confidence, expected.max(0), atol=1e-3)  # float16 keeps 11 bits
    assert (slab.labels.dtype, slab.confidence.dtype) == (np.uint8, np.float16)


def test_probabilities_add_up_and_blending_without_halo_is_close():
    image = random_image((160, 200))
    blended = predict_probabilities(
        FLAT, image, InferenceSettings(tile_px=96, halo_px=0, overlap=0.25, **FP32), normalisation=AS_IT_IS
    )
    np.testing.assert_allclose(blended.sum(0), 1, atol=1e-5)
    difference = np.abs(blended - untiled(FLAT, image))
    assert difference.mean() < 0.01  # not exact, which is why the halo is the default
    assert difference.max() > 1e-4


def test_a_network_with_group_norm_is_blended():
    bundle = make_bundle(norm="group")
    image = random_image((100, 140))
    tiled = predict_probabilities(bundle, image, InferenceSettings(tile_px=64, **FP32), normalisation=AS_IT_IS)
    np.testing.assert_allclose(tiled.sum(0), 1, atol=1e-5)
    assert np.abs(tiled - untiled(bundle, image)).max() > 1e-4


# --- stacks ---------------------------------------------------------------------------------------------------------


def test_frames_come_one_by_one_and_in_order():
    data = (random_image((7, 50, 70)) * 60000).astype(np.uint16)
    stack = Stack(data, "tyx", Calibration({"y": 0.5, "x": 0.3}))
    slabs = list(segment(stack, FLAT, settings=InferenceSettings(batch=4, **FP32)))
    assert [(slab.frame, slab.z_start, slab.labels.shape) for slab in slabs] == [(t, 0, (50, 70)) for t in range(7)]
    scale = SeriesNormalisation.fit(stack, (0.5, 99.5))  # of the series, not of each frame
    expected = untiled(FLAT, scale.apply(data[5]))
    np.testing.assert_allclose(slabs[5].confidence, expected.max(0), atol=1e-3)


def test_a_flat_model_goes_through_volumes_plane_by_plane():
    data = random_image((2, 5, 40, 60))
    slabs = list(segment(Stack(data, "tzyx"), FLAT, settings=InferenceSettings(**FP32), normalisation=AS_IT_IS))
    for t in range(2):
        mine = [slab for slab in slabs if slab.frame == t]
        assert [slab.z_start for slab in mine] == list(np.cumsum([0] + [len(slab.labels) for slab in mine[:-1]]))
        confidence = np.concatenate([slab.confidence for slab in mine])
        expected = np.stack([untiled(FLAT, plane).max(0) for plane in data[t]])
        np.testing.assert_allclose(confidence, expected, atol=1e-3)


@pytest.mark.parametrize("overlap", [None, 0.25])
def test_a_solid_model_goes_slab_by_slab(overlap):
    data = random_image((2, 51, 30, 26))
    chosen = InferenceSettings(tile_px=28, overlap=overlap, **FP32)
    slabs = list(segment(Stack(data, "tzyx"), SOLID, settings=chosen, normalisation=AS_IT_IS))
    assert len(slabs) > 4
    for t in range(2):
        mine = [slab for slab in slabs if slab.frame == t]
        assert [slab.z_start for slab in mine] == list(np.cumsum([0] + [len(slab.labels) for slab in mine[:-1]]))
        confidence = np.concatenate([slab.confidence for slab in mine])
        np.testing.assert_allclose(confidence, untiled(SOLID, data[t]).max(0), atol=1e-3)


def test_colour_becomes_grey():
    grey = random_image((40, 50))
    (colour,) = segment(Stack(np.stack([grey] * 3), "cyx"), FLAT, settings=InferenceSettings(**FP32))
    (plain,) = segment(Stack(grey, "yx"), FLAT, settings=InferenceSettings(**FP32))
    np.testing.assert_allclose(colour.confidence, plain.confidence, atol=2e-3)  # float16, twice


def test_a_blank_frame_gives_labels():
    (slab,) = segment(Stack(np.zeros((30, 30), np.uint8), "yx"), FLAT, settings=InferenceSettings(**FP32))
    assert set(np.unique(slab.labels)) <= {1, 3, 4}


def test_progress_counts_slabs():
    seen = []

    def progress(iterable, *, total=None, desc=""):
        for item in iterable:
            seen.append((total, desc))
            yield item

    list(segment(Stack(random_image((3, 600, 600)), "tyx", name="film"), FLAT, progress=progress))
    assert seen == [(3, "segment film")] * 3


def test_nan_names_the_frame():
    data = random_image((3, 32, 32))
    data[2, 4, 4] = np.nan
    with pytest.raises(DataError, match="Frame 2 of 'stack' holds 1 NaN"):
        list(segment(Stack(data, "tyx"), FLAT, normalisation=AS_IT_IS))


# --- what does not fit ----------------------------------------------------------------------------------------------


def test_misfits_are_refused_before_any_work():
    flat_stack = Stack(random_image((32, 32)), "yx")
    with pytest.raises(ModelError, match="needs volumes"):
        segment(flat_stack, SOLID)
    with pytest.raises(ModelError, match="2 dimensions but the image has shape"):
        predict_probabilities(FLAT, random_image((2, 3, 32, 32)))
    with pytest.raises(UsageError, match="no device 'gpu'"):
        segment(flat_stack, FLAT, settings=InferenceSettings(device="gpu"))
    with pytest.raises(UsageError, match="no room for a halo|has room for a halo"):
        list(segment(Stack(random_image((300, 300)), "yx"), FLAT, settings=InferenceSettings(tile_px=32, halo_px=40)))


@pytest.mark.parametrize("wrong", [{"tile_px": 0}, {"batch": 0}, {"halo_px": -1}, {"overlap": 1.0}])
def test_settings_are_checked(wrong):
    with pytest.raises(UsageError, match="expected"):
        InferenceSettings(**wrong)


def test_several_channels_are_refused():
    bundle = make_bundle()
    bundle.network.in_channels = 2
    with pytest.raises(ModelError, match="takes 2 channels"):
        segment(Stack(random_image((32, 32)), "yx"), bundle)


def test_a_pixel_size_the_model_was_not_tested_at_is_said(caplog):
    bundle = make_bundle(pixel_size_range_um=(0.1, 0.4))
    segment(Stack(random_image((32, 32)), "yx", Calibration({"y": 0.3, "x": 0.7})), bundle)
    assert "pixels of 0.3 x 0.7 um: model 'random' was trained on pixels of 0.1 to 0.4 um" in caplog.text


# --- memory ---------------------------------------------------------------------------------------------------------


class SmallMemory:
    """Lets a forward pass fail as torch does when a batch has more pixels than fit."""

    def __init__(self, monkeypatch, limit_px):
        self.largest = 0
        forward = runner.Runner._forward

        def limited(engine, images):
            if images.size > limit_px:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
            self.largest = max(self.largest, images.size)
            return forward(engine, images)

        monkeypatch.setattr(runner.Runner, "_forward", limited)


def test_out_of_memory_halves_the_batch_then_the_tile(monkeypatch, caplog):
    image = random_image((130, 170))
    SmallMemory(monkeypatch, 100 * 100)
    chosen = InferenceSettings(tile_px=96, batch=4, **FP32)  # 96 x 96 fits alone
    tiled = predict_probabilities(FLAT, image, chosen, normalisation=AS_IT_IS)
    np.testing.assert_allclose(tiled, untiled(FLAT, image), atol=1e-4)
    assert "going on with 1 tile(s) of" in caplog.text
    caplog.clear()
    tiled = predict_probabilities(FLAT, image, InferenceSettings(**FP32), normalisation=AS_IT_IS)  # one tile: too large
    np.testing.assert_allclose(tiled, untiled(FLAT, image), atol=1e-4)
    assert "going on with tiles of half of 132 x 172 px" in caplog.text


@pytest.mark.parametrize(("device", "instead"), [("cpu", "give this one more memory"), ("cuda", "pass --device cpu")])
def test_a_device_without_any_memory_ends_with_a_sentence(monkeypatch, device, instead):
    def out_of_memory(engine, images):
        engine.device = torch.device(device)  # by name only: the advice is the same where there is no GPU
        raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(runner.Runner, "_forward", out_of_memory)
    with pytest.raises(SegError, match=f"Device {device} has not enough memory .*, or {instead}"):
        predict_probabilities(FLAT, random_image((64, 64)), InferenceSettings(**FP32))


def test_other_errors_are_not_taken_for_missing_memory(monkeypatch):
    def broken(engine, images):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(runner.Runner, "_forward", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        predict_probabilities(FLAT, random_image((64, 64)), InferenceSettings(**FP32))


MEASURE_PEAK = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_inference import FLAT, SOLID, AS_IT_IS
from seg.inference import InferenceSettings, segment
from seg.stack import Stack

class Series:
    '''A stack on disk, as far as the engine can tell: every read makes a new array.'''
    def __init__(self, shape):
        self.shape, self.dtype = shape, np.dtype(np.uint16)
    def __getitem__(self, index):
        index = index + (slice(None),) * (len(self.shape) - len(index))
        shape = [len(range(n)[i]) for n, i in zip(self.shape, index) if not isinstance(i, int)]
        return np.ones(shape, np.uint16)

axes, model, shape = sys.argv[2], sys.argv[3], tuple(map(int, sys.argv[4].split(",")))
settings = InferenceSettings(tile_px=64 if model == "SOLID" else None)
n = sum(slab.labels.size for slab in segment(Stack(Series(shape), axes), globals()[model], settings=settings,
                                             normalisation=AS_IT_IS))
assert n == np.prod(shape)
# Not ru_maxrss, which begins with what the process that started this one held.
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not tell the peak")
@pytest.mark.parametrize(
    ("axes", "model", "short", "long"),
    [
        ("tyx", "FLAT", (4, 512, 512), (40, 512, 512)),
        ("zyx", "FLAT", (4, 512, 512), (40, 512, 512)),
        ("zyx", "SOLID", (120, 96, 96), (480, 96, 96)),
    ],
)
def test_peak_memory_does_not_grow_with_length(axes, model, short, long):
    def peak_mib(shape):
        command = [sys.executable, "-c", textwrap.dedent(MEASURE_PEAK), str(Path(__file__).parent), axes, model]
        result = subprocess.run(
            [*command, ",".join(map(str, shape))], capture_output=True, text=True, check=True, env=dict(os.environ)
        )
        return float(result.stdout)

    # The longer ones have 108 and 38 MiB more of probabilities, and 45 and 16 MiB more of raw values and results.
    assert peak_mib(long) < peak_mib(short) + 12


# --- precision ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(cpu_bf16_feature() is None, reason="this CPU has no bf16 arithmetic")
def test_bf16_gives_the_labels_of_fp32():
    """Blobs twice as bright as the ground, the classes a network finds without training: a threshold on its input."""
    bundle = make_bundle(width=8, depth=3)
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:256, :256]
    image = 0.2 + 0.05 * rng.standard_normal((256, 256))
    for cy, cx, radius in rng.uniform((0, 0, 8), (256, 256, 30), (20, 3)):
        image[np.hypot(y - cy, x - cx) < radius] += 0.5
    train_to_threshold(bundle.network, image)
    labels = {}
    for precision in ("fp32", "bf16"):
        chosen = InferenceSettings(device="cpu", precision=precision)
        (slab,) = segment(Stack(image, "yx"), bundle, settings=chosen, normalisation=AS_IT_IS)
        labels[precision] = slab.labels
    assert len(np.unique(labels["fp32"])) >= 2
    assert (labels["fp32"] == labels["bf16"]).mean() >= 0.999


def train_to_threshold(network, image, steps=25):
    tiles = torch.from_numpy(image.astype(np.float32)).unfold(0, 64, 64).unfold(1, 64, 64).reshape(-1, 1, 64, 64)
    target = (tiles[:, 0] > 0.45).long()
    optimiser = torch.optim.Adam(network.train().parameters(), 5e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(tiles), target).backward()
        optimiser.step()
    network.eval()


def test_the_choice_of_device_and_precision_is_logged(caplog):
    with caplog.at_level(logging.INFO):
        predict_probabilities(make_bundle(seed=9), random_image((97, 65)), InferenceSettings(device="cpu"))
    assert "the network runs on the CPU, " in caplog.text
    assert "image of 97 x 65 px: 1 x 1 tile(s) of 100 x 68 px" in caplog.text


@pytest.mark.parametrize(
    ("feature", "precision", "said"),
    [
        ("amx_bf16", "fp32", "float32; its half precision (amx_bf16) would be faster"), (None, "fp32", "float32"),
        ("amx_bf16", "bf16", "half precision (bf16), for which it has instructions (amx_bf16)"),
        (None, "bf16", "half precision (bf16), for which it has no instructions: float32 would be faster"),
    ],
)  # fmt: skip
def test_the_arithmetic_is_said_in_words(monkeypatch, feature, precision, said):
    monkeypatch.setattr(device, "cpu_bf16_feature", lambda: feature)
    assert device.arithmetic(precision) == said


def test_float32_is_float32_while_a_network_computes(monkeypatch):
    """Convolutions on a GPU would round their factors to ten bits by default; the switches are seen on any machine."""
    bundle, seen = make_bundle(), []
    runner = Runner(bundle, InferenceSettings(**FP32))
    compute = runner.ready.compute

    def watched(tiles):
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return compute(tiles)

    monkeypatch.setattr(runner, "ready", replace(runner.ready, compute=watched))
    assert torch.backends.cudnn.allow_tf32  # torch's default
    runner(random_image((1, 1, 32, 32)))
    assert seen == [(False, False)]
    assert torch.backends.cudnn.allow_tf32


def test_changed_weights_are_noticed():
    bundle = make_bundle(seed=3)
    image = random_image((32, 32))
    before = predict_probabilities(bundle, image, InferenceSettings(**FP32))
    with torch.no_grad():
        bundle.network.head.bias += torch.tensor([3.0, 0.0, 0.0])
    after = predict_probabilities(bundle, image, InferenceSettings(**FP32))
    assert (after[0] > before[0]).all()
    assert bundle.network.head.weight.dtype != torch.bfloat16  # the bundle's own network stays as it is


def test_importing_the_engine_loads_no_torch():
    code = "import sys, seg.inference, seg.preprocess, seg.models, seg.models.bundle; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_cuda_gives_the_labels_of_the_cpu(precision):
    bundle = make_bundle(width=8, depth=3)
    image = random_image((300, 400))
    train_to_threshold(bundle.network, image[:256, :384])
    labels = []
    for chosen in (InferenceSettings(**FP32), InferenceSettings(device="cuda", precision=precision, tile_px=256)):
        labels.append(next(segment(Stack(image, "yx"), bundle, settings=chosen, normalisation=AS_IT_IS)).labels)
    assert (labels[0] == labels[1]).mean() >= 0.99


# --- shared work and empty tiles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [None, 0.25, 0.6])
def test_parts_computed_apart_are_those_computed_together(overlap):
    data = random_image((2, 51, 30, 26))
    chosen = InferenceSettings(tile_px=28, overlap=overlap, **FP32)
    stack = Stack(data, "tzyx")
    whole = {(s.frame, s.z_start): s for s in segment(stack, SOLID, settings=chosen, normalisation=AS_IT_IS)}
    parts = parts_of(stack, runner.Runner(SOLID, chosen))
    assert [place for part in parts for place in part.places] == list(whole)
    assert sum(part.planes for part in parts) == 2 * 51
    for part in parts[2::3]:
        (alone,) = segment(stack, SOLID, settings=chosen, normalisation=AS_IT_IS, only=[part])
        together = whole[alone.frame, alone.z_start]
        np.testing.assert_array_equal(alone.labels, together.labels)
        np.testing.assert_array_equal(alone.confidence, together.confidence)


def test_what_is_finished_is_not_computed_again(monkeypatch):
    stack = Stack(random_image((1, 51, 30, 26)), "tzyx")
    chosen = InferenceSettings(tile_px=28, **FP32)
    places = [(s.frame, s.z_start) for s in segment(stack, SOLID, settings=chosen, normalisation=AS_IT_IS)]
    again = segment(stack, SOLID, settings=chosen, normalisation=AS_IT_IS, finished=places[:-1])
    assert [(s.frame, s.z_start) for s in again] == places[-1:]


def test_empty_tiles_are_computed_once_and_stay_exact(monkeypatch):
    image = np.zeros((300, 300), np.float32)
    image[120:180, 140:170] = random_image((60, 30))
    computed = []
    forward = runner.Runner._forward
    monkeypatch.setattr(runner.Runner, "_forward", lambda self, x: computed.append(len(x)) or forward(self, x))
    tiled = InferenceSettings(tile_px=64, **FP32)
    (slab,) = segment(Stack(image, "yx"), FLAT, settings=tiled, normalisation=AS_IT_IS)
    assert sum(computed) < 60  # of 16 x 16 tiles
    expected = untiled(FLAT, image)
    np.testing.assert_allclose(slab.confidence, expected.max(0), atol=1e-3)  # float16
    assert (slab.labels == np.array([1, 3, 4])[expected.argmax(0)]).all()


# --- classes that cannot occur --------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [None, 0.5])
def test_a_class_that_cannot_occur_gives_its_probability_to_another_before_classes_are_decided(overlap):
    image = random_image((70, 90))
    given = {**FP32, "tile_px": 48, "overlap": overlap, "halo_px": None if overlap is None else 0}
    plain = predict_probabilities(FLAT, image, InferenceSettings(**given), normalisation=AS_IT_IS)
    said = InferenceSettings(**given, relabel=((3, 4),))
    moved = predict_probabilities(FLAT, image, said, normalisation=AS_IT_IS)
    expected = np.stack([plain[0], np.zeros_like(plain[1]), plain[1] + plain[2]])
    np.testing.assert_allclose(moved, expected, atol=1e-6)  # float32 sums in another order
    (slab,) = segment(Stack(image, "yx", Calibration({}), "x"), FLAT, settings=said, normalisation=AS_IT_IS)
    assert set(np.unique(slab.labels)) == {1, 4}
    clear = np.abs(expected[0] - expected[2]) > 1e-4
    np.testing.assert_array_equal(slab.labels[clear], np.where(expected[0] > expected[2], 1, 4)[clear])
    # Not the same as renaming: two classes that share a pixel can win over a third together.
    assert ((slab.labels == 4) & (plain.argmax(0) == 0)).any()


def test_relabelling_to_a_class_that_the_model_does_not_know_is_refused():
    with pytest.raises(ModelError, match=r"Class 3 is to be relabelled as 6, which model 'random' does not know"):
        runner.Runner(FLAT, InferenceSettings(**FP32, relabel=((3, 6),)))
    assert runner.Runner(FLAT, InferenceSettings(**FP32, relabel=((5, 6),))).moved == []
