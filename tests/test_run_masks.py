"""What a run does to its masks between the network and the numbers, through the engine behind every door."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from seg import masks
from seg.analysis import load_analysis
from seg.cleanup import CleanUp
from seg.io import open_stack, read_labels, write_image
from seg.labels import load_schema
from seg.models.bundle import load_bundle
from seg.pipeline import RunOptions, predict, run
from seg.preprocess import SeriesNormalisation
from seg.stack import Calibration

SIZE_UM = {"y": 0.4, "x": 0.25}


@pytest.fixture(scope="module")
def model(tiny_model_of) -> Path:
    """Its masks are specks."""
    return tiny_model_of("sem")


@pytest.fixture
def images(tmp_path, rng) -> Path:
    frames = np.stack([ndimage.gaussian_filter(rng.normal(size=(72, 90)), 1.5) for _ in range(2)])
    frames = (1000 * (frames - frames.min())).astype(np.uint16)
    path = tmp_path / "video.ome.tif"
    calibration = Calibration(SIZE_UM, (0.0, 2.0), "file")
    write_image(path, frames, shape=frames.shape, dtype=frames.dtype, axes="tyx", calibration=calibration)
    return path


def analysis(model, **changes):
    metrics = {"counting": {}, "cover": {"classes": ["deposit", "dendrite"]}}
    return replace(load_analysis("sem"), model=str(model), metrics=metrics, key_frames=1, **changes)


def labels_of(folder: Path) -> np.ndarray:
    stack = read_labels(masks.labels_of(folder)).stack
    return np.stack([stack.frame(t) for t in range(stack.n_frames)])


def test_masks_are_cleaned_made_again_when_that_changes_and_the_raw_ones_can_be_had(
    images, model, tmp_path, monkeypatch
):
    size_only = CleanUp(min_diameter_px=6, min_peak_probability=0)
    (raw,) = run([images], analysis(model), tmp_path / "out", RunOptions(postprocess="none"))
    assert not raw.error
    plain = labels_of(raw.folder)
    assert json.loads((raw.folder / "run.json").read_text())["postprocess"] is None
    (clean,) = run([images], analysis(model, postprocess=size_only), tmp_path / "out", RunOptions())
    found = labels_of(clean.folder)
    record = json.loads((clean.folder / "run.json").read_text())
    assert record["analysis"]["postprocess"]["min_diameter_px"] == 6
    total = {"before": 0, "net": 0}
    for name, change in record["postprocess"].items():
        index = load_schema("lithium").index(name)
        assert change["pixels_before"] == (plain == index).sum()
        total["before"] += change["pixels_before"]
        total["net"] += change["pixels_added"] - change["pixels_removed"]
        assert change["pixels_added"] - change["pixels_removed"] == (found == index).sum() - (plain == index).sum()
    assert total == {"before": plain.size, "net": 0}
    for frame in found:
        sizes = np.bincount(ndimage.label(np.isin(frame, (3, 4)), np.ones((3, 3)))[0].ravel())[1:]
        assert sizes.min() >= np.pi / 4 * 6**2
    assert (found != plain).any()
    # In planes of an OME-Zarr, as large masks and those of a cluster are: the same.
    monkeypatch.setattr(masks, "ZARR_FRAME_BYTES", 1)
    (zarr,) = run([images], analysis(model, postprocess=size_only), tmp_path / "zarr", RunOptions())
    assert (zarr.folder / "labels.ome.zarr").is_dir()
    np.testing.assert_array_equal(labels_of(zarr.folder), found)
    (again,) = run([images], analysis(model), tmp_path / "out", RunOptions(postprocess="none"))
    monkeypatch.undo()
    np.testing.assert_array_equal(labels_of(again.folder), plain)


def test_masks_drawn_from_probabilities_widen_the_intervals(images, model, tmp_path):
    tables = {}
    for n in (0, 4):
        (result,) = run([images], analysis(model, mask_samples=n), tmp_path / str(n), RunOptions())
        assert not result.error
        table = pd.read_csv(result.folder / "metrics.csv")
        rows = table[(table["metric"] == "covered_fraction") & (table["class"] == "deposit;dendrite")]
        tables[n] = rows if len(rows) else table[table["metric"] == "covered_fraction"]
    assert (tables[4]["value"].to_numpy() == tables[0]["value"].to_numpy()).all()
    assert tables[4]["method"].str.contains("4 masks drawn").all()
    wide, narrow = ((t["high"] - t["low"]).to_numpy() for t in (tables[4], tables[0]))
    # The probabilities of an untrained network are near one third: its cover could be anything.
    assert (wide > 2 * narrow).all()


def test_the_reference_arithmetic_can_be_had_and_makes_masks_again(images, model, tmp_path):
    """Where the network hardly tells two classes apart, half precision decides otherwise; fp32 is the reference."""
    asked = RunOptions(device="cpu", precision="fp32", postprocess="none")
    (result,) = predict([images], analysis(model), tmp_path / "out", asked)
    assert not result.error, result.error
    bundle, stack = load_bundle(model), open_stack(images)
    normalisation = SeriesNormalisation.fit(stack, bundle.spec.percentiles)
    network = bundle.network.float().eval()
    pad = tuple((0, -side % network.tile_multiple) for side in (72, 90))
    with torch.inference_mode():
        for t, found in enumerate(labels_of(result.folder)):
            given = np.pad(normalisation.apply(stack.frame(t)), pad, mode="reflect")
            best = network(torch.from_numpy(given.astype(np.float32))[None, None])[0].argmax(0).numpy()[:72, :90]
            assert (found == np.array(bundle.spec.class_indices)[best]).mean() > 0.9999  # sums in another order


def test_frames_are_held_against_the_first_ones_in_files_as_in_planes(model, tmp_path, rng, monkeypatch):
    frames = np.stack([ndimage.gaussian_filter(rng.normal(size=(40, 50)), 1.5) for _ in range(7)])
    frames = (1000 * (frames - frames.min())).astype(np.uint16)
    path = tmp_path / "video.ome.tif"
    write_image(path, frames, shape=frames.shape, dtype=frames.dtype, axes="tyx", calibration=Calibration(SIZE_UM))
    asked: list[int] = []

    def watched(read, *rest):
        held = masks_rule(read, *rest)
        return lambda index: asked.append(index) or held(index)

    masks_rule = masks.with_fixed_classes
    monkeypatch.setattr(masks, "with_fixed_classes", watched)
    rules = CleanUp(min_diameter_px=2, min_peak_probability=0, min_frames=2)
    found, said = [], []
    for name, least in (("files", masks.ZARR_FRAME_BYTES), ("planes", 1)):
        monkeypatch.setattr(masks, "ZARR_FRAME_BYTES", least)
        config = analysis(model, postprocess=rules, fixed={"substrate": "dendrite"})
        (result,) = predict([path], config, tmp_path / name, RunOptions())
        assert not result.error
        found.append(labels_of(result.folder))
        said.append(json.loads((result.folder / ".work" / "made.json").read_text())["fixed"])
        assert sorted(asked) == list(range(7))  # neighbours are not worked out again
        asked.clear()
    np.testing.assert_array_equal(*found)
    assert said[0] == said[1]
    assert said[0]["changed_px"] > 0
    monkeypatch.setattr(masks, "too_large", lambda shape: True)
    (result,) = predict([path], config, tmp_path / "large", RunOptions())
    assert "leave `fixed` out" in result.error
