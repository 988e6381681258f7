"""From top to bottom in strips: the same labels as the whole image at once, nothing computed in vain.

Volumes the same way, from the first plane to the last.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from seg import masks, strips, tiling
from seg import runner as runner_module
from seg.inference import parts_of, segment
from seg.labels import load_schema
from seg.models.bundle import Bundle
from seg.models.spec import ModelSpec
from seg.models.unet import UNet
from seg.preprocess import SeriesNormalisation
from seg.runner import InferenceSettings, Runner
from seg.slabs import SlabFolder
from seg.stack import Calibration, Stack
from seg.strips import label_planes, label_volume

AS_IT_IS = SeriesNormalisation(0, 1)


def bundle_of(depth=2, blocks=1, stem_px=1, dims=2) -> Bundle:
    torch.manual_seed(0)
    network = UNet(n_classes=3, width=6, depth=depth, blocks=blocks, stem_px=stem_px, dims=dims)
    torch.nn.init.kaiming_normal_(network.head.weight)  # as trained: the pixels of a point do not stay alike
    for _ in range(10):
        network(torch.rand(2, 1, *(32 if dims == 2 else 16,) * dims))
    described = ModelSpec("random", "unet", {"n_classes": 3}, load_schema().to_dict(), (1, 3, 4), dims=dims)
    return Bundle(described, network.eval(), Path("nowhere"), "0" * 64, "")


def runner_of(precision="fp32", depth=2, blocks=1, stem_px=1, dims=2, **settings) -> Runner:
    """One that takes even small images in strips."""
    bundle = bundle_of(depth, blocks, stem_px, dims)
    runner = Runner(bundle, InferenceSettings(device="cpu", precision=precision, **settings))
    runner.batch_px = 100
    if dims == 3:
        runner.max_tile_px = 12_500
    return runner


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Strips of 16 rows (of a network of depth 2) and columns of at most 96 px; of 4 or 8 planes, saved as thin."""
    monkeypatch.setattr(tiling, "STRIP_PX", 1)
    monkeypatch.setattr(tiling, "STRIP_COLUMNS", 96)
    monkeypatch.setattr(tiling, "STRIP_VOXELS", 1)
    monkeypatch.setattr(tiling, "SLAB_VOXELS", 8_000)
    tiling.choose_strips.cache_clear()
    yield
    tiling.choose_strips.cache_clear()


def whole(runner: Runner, image: np.ndarray) -> torch.Tensor:
    """Class probabilities of the image mirrored up to the tile multiple, in one piece."""
    multiple = runner.network.tile_multiple
    padded = np.pad(image, [(0, -n % multiple) for n in image.shape], mode="reflect")
    with torch.inference_mode():
        logits = runner.ready.compute(torch.from_numpy(padded)[None, None].to(runner.ready.dtype))[0]
    return logits.float().softmax(0)[:, : image.shape[0], : image.shape[1]]


@pytest.mark.parametrize(
    ("shape", "depth", "blocks", "stem_px", "precision"),
    [
        ((61, 90), 2, 1, 1, "fp32"), ((203, 70), 2, 1, 1, "fp32"), ((90, 260), 2, 1, 1, "fp32"),
        ((130, 75), 3, 2, 1, "fp32"), ((50, 40), 0, 1, 1, "fp32"), ((203, 170), 2, 1, 1, "bf16"),
        ((90, 190), 1, 1, 2, "fp32"),
    ],
)  # fmt: skip
def test_strips_give_what_the_whole_gives(shape, depth, blocks, stem_px, precision):
    """Three columns in the third and the last: they overlap by their halos and join without a seam."""
    runner = runner_of(precision, depth, blocks, stem_px)
    assert runner.strips(shape) is not None
    planes = np.random.default_rng(1).random((2, *shape), dtype=np.float32)
    labels, confidence = label_planes(planes, runner, AS_IT_IS)
    for n, image in enumerate(planes):
        sure, channel = whole(runner, image).max(0)
        # One network, one order of sums; columns of another width may be summed by another kernel.
        assert (labels[n] == np.array([1, 3, 4])[channel.numpy()]).mean() > 0.9995
        np.testing.assert_allclose(confidence[n], sure.numpy(), atol=2e-3 if precision == "fp32" else 0.03)


def test_what_is_said_of_tiles_is_obeyed():
    for settings in ({"tile_px": 64}, {"overlap": 0.25}, {"batch": 2}, {"halo_px": 8}, {"mirror": True}):
        assert runner_of(**settings).strips((203, 70)) is None
    assert runner_of().strips((9, 11)) is None  # many such make a batch


def test_stretches_of_one_value_are_computed_once_and_stay_exact(monkeypatch):
    runner = runner_of()
    monkeypatch.setattr(strips, "EMPTY_ROWS", 64)
    image = np.full((900, 70), 0.25, np.float32)
    image[400:420, 20:50] = np.random.default_rng(2).random((20, 30))
    pushed, push = [], runner.push
    monkeypatch.setattr(
        runner, "push", lambda stream, rows, last: pushed.append(len(rows)) or push(stream, rows, last=last)
    )
    labels, _ = label_planes(image[np.newaxis], runner, AS_IT_IS)
    expected = np.array([1, 3, 4])[whole(runner, image).argmax(0).numpy()]
    np.testing.assert_array_equal(labels[0], expected)
    # The upper border, what is between, what is busy with its halos, the lower border; the rest is known by then.
    assert sum(pushed) < 600


def test_want_of_memory_takes_fewer_rows_and_says_so(monkeypatch, caplog):
    runner, image = runner_of(), np.random.default_rng(3).random((1, 203, 70), dtype=np.float32)
    expected, _ = label_planes(image, runner, AS_IT_IS)
    push, most = runner.push, [8]

    def short(stream, rows, last):
        if len(rows) > most[0]:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return push(stream, rows, last=last)

    monkeypatch.setattr(runner, "push", short)
    found, _ = label_planes(image, runner, AS_IT_IS)
    np.testing.assert_array_equal(found, expected)
    assert runner.backed_off == ["Out of memory on device cpu; going on with half of 16 rows of 72 px at once."]
    assert runner.backed_off[0] in caplog.text
    most[0] = 0
    with pytest.raises(MemoryError):
        label_planes(image, runner, AS_IT_IS)
    monkeypatch.setattr(runner, "push", lambda *a, **k: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        label_planes(image, runner, AS_IT_IS)


# --- volumes --------------------------------------------------------------------------------------------------------


def random_volume(shape, seed=1):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def labelled(runner, volume, wanted=None):
    """Labels and confidence, and where the slabs began."""
    wanted = wanted or range(len(volume))
    found = label_volume(lambda planes: volume[planes], volume.shape, wanted, runner, AS_IT_IS)
    starts, labels, confidence = zip(*found, strict=True)
    return np.concatenate(labels), np.concatenate(confidence), list(starts)


@pytest.mark.parametrize(
    ("shape", "depth", "precision", "columns"),
    [
        ((53, 27, 32), 1, "fp32", 1), ((64, 38, 31), 1, "bf16", 1), ((61, 30, 40), 2, "fp32", 1),
        ((21, 40, 78), 1, "fp32", 2),
    ],
)  # fmt: skip
def test_volumes_in_strips_give_what_the_whole_gives(shape, depth, precision, columns):
    runner = runner_of(precision, depth, dims=3)
    strips = runner.strips(shape)
    # Two columns in the last: they join over their halos without a seam.
    assert np.prod([len(axis.starts) for axis in strips.columns]) == columns
    volume = random_volume(shape)
    labels, confidence, starts = labelled(runner, volume)
    padded = np.pad(volume, [(0, -n % runner.network.tile_multiple) for n in shape], mode="reflect")
    with torch.inference_mode():
        logits = runner.ready.compute(torch.from_numpy(padded)[None, None].to(runner.ready.dtype))[0]
    sure, channel = logits.float().softmax(0)[(slice(None), *(slice(n) for n in shape))].max(0)
    assert starts == list(range(0, shape[0], strips.slab_px))
    # As of planes: one order of sums, perhaps another kernel for columns.
    assert (labels == np.array([1, 3, 4])[channel.numpy()]).mean() > 0.9995
    np.testing.assert_allclose(confidence, sure.numpy(), atol=2e-3 if precision == "fp32" else 0.03)


def test_some_planes_are_labelled_as_among_all():
    """To the bit: what a killed run, or another machine, adds must not show."""
    runner, volume = runner_of("bf16", 1, dims=3), random_volume((96, 26, 30))
    labels, confidence, starts = labelled(runner, volume)
    for first, last in ((0, 2), (1, 3), (3, len(starts))):
        planes = range(starts[first], starts[last] if last < len(starts) else len(volume))
        some, sure, _ = labelled(runner, volume, planes)
        np.testing.assert_array_equal(some, labels[planes.start : planes.stop])
        np.testing.assert_array_equal(sure, confidence[planes.start : planes.stop])


def test_a_volume_goes_on_where_it_was(monkeypatch):
    """Parts are worth computing alone, slabs are what is saved of them; a part with one slab missing comes again."""
    monkeypatch.setattr(runner_module, "BUDGET_BYTES", {"cpu": 20_000 * 40 * 4})
    bundle, settings = bundle_of(1, dims=3), InferenceSettings(device="cpu", precision="fp32")
    stack = Stack(random_volume((2, 52, 22, 26)), "tzyx", Calibration(), name="volumes")
    parts = parts_of(stack, Runner(bundle, settings))
    assert len(parts) == 4
    assert len(parts[2].places) > 1
    places = [place for part in parts for place in part.places]
    assert sum(part.planes for part in parts) == 2 * 52
    whole = list(segment(stack, bundle, settings=settings))
    assert [(slab.frame, slab.z_start) for slab in whole] == places
    finished = [place for place in places if place not in (parts[1].places[0], parts[2].places[0])]
    again = list(segment(stack, bundle, settings=settings, finished=finished))
    assert [(slab.frame, slab.z_start) for slab in again] == [*parts[1].places, *parts[2].places]
    known = {(slab.frame, slab.z_start): slab for slab in whole}
    for slab in again:
        np.testing.assert_array_equal(slab.labels, known[slab.frame, slab.z_start].labels)
    for slab in segment(stack, bundle, settings=settings, only=[parts[0]]):
        np.testing.assert_array_equal(slab.labels, known[slab.frame, slab.z_start].labels)


def test_work_that_was_divided_otherwise_is_begun_again(tmp_path, monkeypatch):
    """On a machine with another memory, or by an older version: a slab of the same place may be thicker."""
    monkeypatch.setattr(runner_module, "BUDGET_BYTES", {"cpu": 20_000 * 40 * 4})
    bundle, settings = bundle_of(1, dims=3), InferenceSettings(device="cpu", precision="fp32")
    stack, slabs = Stack(random_volume((84, 22, 26)), "zyx", Calibration(), name="volume"), SlabFolder(tmp_path)
    runner = Runner(bundle, settings)
    _, left = masks._left(slabs, stack, runner)
    first = next(segment(stack, bundle, settings=settings))
    slabs.save(first)
    assert masks._left(slabs, stack, runner) == (frozenset({(0, 0)}), left)
    monkeypatch.setattr(tiling, "SLAB_VOXELS", 4_000)
    tiling.choose_strips.cache_clear()
    finished, thinner = masks._left(slabs, stack, runner)
    assert finished == frozenset()
    assert slabs.finished() == frozenset()
    assert len(thinner[0].places) > len(left[0].places)


def test_planes_of_one_value_are_computed_once(monkeypatch):
    runner, volume = runner_of(depth=1, dims=3), np.full((280, 18, 22), 0.25, np.float32)
    volume[100:108, 5:14, 9:20] = random_volume((8, 9, 11))
    pushed, push = [], runner.push
    monkeypatch.setattr(
        runner, "push", lambda stream, rows, last: pushed.append(len(rows)) or push(stream, rows, last=last)
    )
    labels, _, _ = labelled(runner, volume)
    padded = torch.from_numpy(volume)[None, None]
    with torch.inference_mode():
        expected = np.array([1, 3, 4])[runner.ready.compute(padded)[0].argmax(0).numpy()]
    np.testing.assert_array_equal(labels, expected)
    # The first part, one between, what is busy with its halos, the last.
    assert sum(pushed) < 240


def test_want_of_memory_takes_fewer_planes_and_goes_on(monkeypatch):
    runner, volume = runner_of(dims=3), random_volume((60, 26, 30))
    runner.max_tile_px = 3 * 10**4
    expected, _, _ = labelled(runner, volume)
    push, calls = runner.push, []

    def short(stream, rows, last):
        calls.append(len(rows))
        if len(calls) > 4 and len(rows) > 4:
            raise RuntimeError("could not create a primitive")
        return push(stream, rows, last=last)

    monkeypatch.setattr(runner, "push", short)
    found, _, starts = labelled(runner, volume)
    np.testing.assert_array_equal(found, expected)
    assert starts == sorted(set(starts))
    assert runner.backed_off == ["Out of memory on device cpu; going on with half of 8 planes of 28 x 32 px at once."]
    monkeypatch.setattr(runner, "push", lambda *a, **k: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        labelled(runner, volume)
