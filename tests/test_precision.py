"""Half precision where its masks are those of float32, float32 elsewhere: decided by crops of the input."""

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seg import inference, precision, runner
from seg.errors import SegError
from seg.inference import InferenceSettings, parts_of, predict_probabilities, segment
from seg.models.device import cpu_bf16_feature
from seg.pipeline import RunOptions, run
from seg.precision import Precision, choose_precision, crops_of
from seg.stack import Stack

sys.path.insert(0, str(Path(__file__).parent))
from test_inference import AS_IT_IS, SOLID, make_bundle, random_image, train_to_threshold  # noqa: E402
from test_run_masks import analysis, images, labels_of, model  # noqa: E402, F401

CPU = InferenceSettings(device="cpu")
needs_bf16 = pytest.mark.skipif(cpu_bf16_feature() is None, reason="this CPU has no bf16 arithmetic")


@pytest.fixture(autouse=True)
def small_crops(monkeypatch):
    monkeypatch.setattr(precision, "SIDE_PX", {2: 32, 3: 8})


@pytest.fixture(scope="module")
def sure():
    """A network that is a threshold on its input, and an image that is far from it everywhere."""
    bundle = make_bundle(width=8, depth=2)
    image = (0.15 + 0.6 * (np.indices((128, 128)).sum(0) // 16 % 2)).astype(np.float32)
    train_to_threshold(bundle.network, image[:64, :64], steps=40)
    return bundle, image


def unsure():
    """A network without training is sure of nothing."""
    return make_bundle(width=8, depth=2, seed=3), random_image((3, 90, 120))


@needs_bf16
def test_half_precision_where_it_changes_nothing(sure):
    bundle, image = sure
    found = choose_precision(Stack(image, "yx"), bundle, CPU, AS_IT_IS)
    assert (found.used, found.compared_px, found.said) == ("bf16", 3 * 32**2, "")
    assert found.differ <= 1e-3
    (slab,) = segment(Stack(image, "yx"), bundle, settings=CPU, normalisation=AS_IT_IS)
    (reference,) = segment(
        Stack(image, "yx"), bundle, settings=replace(CPU, precision="fp32"), normalisation=AS_IT_IS
    )  # fmt: skip
    assert (slab.labels == reference.labels).mean() >= 0.999
    assert not np.array_equal(slab.confidence, reference.confidence)  # it was half precision


@needs_bf16
def test_float32_where_half_precision_would_change_more(caplog):
    bundle, data = unsure()
    stack, reference = Stack(data, "tyx"), replace(CPU, precision="fp32")
    assert choose_precision(stack, bundle, CPU, AS_IT_IS).differ > 1e-3
    with caplog.at_level(logging.INFO):
        found = list(segment(stack, bundle, settings=CPU, normalisation=AS_IT_IS))
    assert caplog.text.count("computed in float32, because half precision changes the class of up to") == 1
    for slab, other in zip(found, segment(stack, bundle, settings=reference, normalisation=AS_IT_IS), strict=True):
        np.testing.assert_array_equal(slab.labels, other.labels)
        np.testing.assert_array_equal(slab.confidence, other.confidence)
    one = predict_probabilities(bundle, data[0], CPU, normalisation=AS_IT_IS)
    np.testing.assert_array_equal(one, predict_probabilities(bundle, data[0], reference, normalisation=AS_IT_IS))


@needs_bf16
def test_what_is_asked_for_is_done_and_flagged():
    bundle, data = unsure()
    found = choose_precision(Stack(data, "tyx"), bundle, replace(CPU, precision="bf16"), AS_IT_IS)
    assert found.used == "bf16"
    assert found.flagged
    assert "--precision auto takes float32" in found.said
    assert choose_precision(Stack(data, "tyx"), bundle, replace(CPU, precision="fp32"), AS_IT_IS) == Precision(
        "fp32", "fp32"
    )


@needs_bf16
def test_what_is_computed_sooner_than_compared_is_float32():
    bundle, data = unsure()
    small = Stack(data[0, :64, :96], "yx")  # 2 x 3 crops of 32 x 32 px
    assert choose_precision(small, bundle, CPU, AS_IT_IS) == Precision("auto", "fp32")


@needs_bf16
def test_networks_of_volumes_are_compared_on_blocks():
    found = choose_precision(Stack(random_image((16, 20, 24)), "zyx"), SOLID, CPU, AS_IT_IS)
    assert found.compared_px == 3 * 8**3
    assert found.differ is not None


def test_crops_lie_on_a_diagonal_of_the_first_the_middle_and_the_last():
    data = np.arange(5 * 96 * 64).reshape(5, 96, 64)
    crops = crops_of(Stack(data, "tyx"), 2)
    # A third of the way lies between crops: 64 and 32 px are left beside them, of which 1/6, 3/6 and 5/6 come first.
    for crop, t, y, x in zip(crops, (0, 2, 4), (11, 32, 53), (5, 16, 27), strict=True):
        np.testing.assert_array_equal(crop, data[t, y : y + 32, x : x + 32])
    planes = crops_of(Stack(data, "zyx"), 2)
    np.testing.assert_array_equal(planes[2], crops[2])
    blocks = crops_of(Stack(np.stack([data, data + 1, data + 2]), "tzyx"), 3)
    assert [block.shape for block in blocks] == [(5, 8, 8)] * 3
    starts = zip((15, 44, 73), (9, 28, 47), strict=True)
    assert [int(b.flat[0]) for b in blocks] == [int(data[0, y, x]) + t for t, (y, x) in enumerate(starts)]


@needs_bf16
def test_a_run_says_what_it_took_and_why(images, model, tmp_path, monkeypatch):  # noqa: F811
    wanted = {"auto": "fp32", "fp32": "fp32", "bf16": "bf16"}
    found, records = {}, {}
    for asked, used in wanted.items():
        (result,) = run(
            [images], analysis(model), tmp_path / asked, RunOptions(device="cpu", precision=asked, postprocess="none")
        )
        assert not result.error, result.error
        found[asked] = labels_of(result.folder)
        records[asked] = json.loads((result.folder / "run.json").read_text())
        assert records[asked]["settings"]["precision"] == records[asked]["precision"]["used"] == used
        told = "in float32, because half precision" in (result.folder / "report.html").read_text(encoding="utf-8")
        assert told == (asked == "auto")
        assert any("As asked" in text for text in records[asked]["warnings"]) == (asked == "bf16")
    np.testing.assert_array_equal(found["auto"], found["fp32"])
    differ = (found["auto"] != found["bf16"]).mean()
    assert differ > 1e-3
    # Crops of 1024 px, three of them, of 12960 px: the largest share is of the order of that of all.
    assert 0.3 * differ < records["auto"]["precision"]["differ"] < 5 * differ


def test_a_continued_run_keeps_what_was_decided(tmp_path):
    from seg.masks import _precision
    from seg.slabs import SlabFolder

    slabs, stack = SlabFolder(tmp_path), Stack(np.zeros((4, 4), np.uint8), "yx")
    first = Precision("auto", "bf16", 3072, 2e-4)
    assert _precision(slabs, stack, lambda: first) == first
    assert _precision(slabs, stack, lambda: pytest.fail("decided again")) == first
    assert slabs.finished() == frozenset()  # it is no part
    (file,) = Path(tmp_path).iterdir()
    other = Precision("auto", "fp32")
    for damage in ("{", "[]", '{"used": "fp32"}', json.dumps({**first.to_dict(), "used": "fp8"})):
        file.write_text(damage)
        assert _precision(slabs, stack, lambda: other) == other


def test_parts_put_together_for_another_device_are_computed_or_refused_never_left_out(monkeypatch):
    bundle, data = make_bundle(), random_image((4, 40, 40))
    settings = replace(CPU, precision="fp32")
    stack = Stack(data, "tyx")
    monkeypatch.setattr(runner, "BATCH_PX", {"cpu": 40 * 40})
    parts = parts_of(stack, runner.Runner(bundle, settings))
    assert [part.planes for part in parts] == [1] * 4
    volume = Stack(random_image((64, 40, 40)), "zyx")
    bands = parts_of(volume, runner.Runner(SOLID, replace(settings, tile_px=28)))
    monkeypatch.undo()
    (found,) = segment(stack, bundle, settings=settings, normalisation=AS_IT_IS, only=[parts[2]])
    assert found.frame == 2
    with pytest.raises(SegError, match="divided for another device"):
        list(inference.segment(volume, SOLID, settings=settings, normalisation=AS_IT_IS, only=[bands[0]]))
