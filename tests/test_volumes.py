"""`measure` and `run` on volumes that do not fit in memory: the tables of whole arrays, and a sentence for the rest."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest

from seg import blocks, volumes
from seg.analysis import AnalysisConfig, ObjectOptions
from seg.errors import DataError
from seg.io import write_labels
from seg.labels import load_schema
from seg.metrics.table import Scale
from seg.object_blocks import BlockPixels, label_objects_on_disk
from seg.objects import ObjectPixels, label_objects
from seg.options import RunOptions
from seg.pipeline import measure
from seg.stack import Calibration

SHAPE, SPACING = (40, 36, 32), (0.5, 0.4, 0.6)
PIXEL_SIZE = dict(zip("zyx", SPACING, strict=True))


def cell(shape=SHAPE, *, seed=5, n_balls=9):
    """Separator, metal with voids at its face and inside, dead balls in the separator, collector, an artefact."""
    rng = np.random.default_rng(seed)
    size = np.array(shape) * SPACING
    z, y, x = (np.arange(n) * s for n, s in zip(shape, SPACING, strict=True))
    labels = np.full(shape, 9, np.uint8)
    labels[z[:, None, None] >= 0.45 * size[0] + np.sin(y / 3)[:, None] + 0.02 * x] = 3
    labels[z >= 0.9 * size[0]] = 2
    for value, inside, low, high, n in ((7, 3, 0.43, 0.5, 3), (7, 3, 0.55, 0.82, n_balls), (5, 9, 0.08, 0.32, 4)):
        for _ in range(n):
            centre = (rng.uniform(low, high) * size[0], *(rng.uniform(0.1, 0.9, 2) * size[1:]))
            ball = (z[:, None, None] - centre[0]) ** 2 + (y[:, None] - centre[1]) ** 2 + (x - centre[2]) ** 2
            labels[(ball < rng.uniform(1.2, 2.0) ** 2) & (labels == inside)] = value
    labels[:, :3, :4] = 0
    # A filament from the metal through half of the separator, and one that touches it by a corner only.
    way = slice(int(0.22 * shape[0]), int(0.6 * shape[0]))
    labels[way, 20:22, 15:17][np.isin(labels[way, 20:22, 15:17], (3, 9))] = 4
    labels[way.start - 4 : way.start, 22:24, 17:19] = 4
    return labels


def analysis(**metrics):
    groups = {
        "counting": {}, "size": {}, "cover": {"pore_classes": ["void"]}, "shape": {}, "voids": {}, "dead": {},
        "layers": {}, "balance": {}, "filaments": {},
    }  # fmt: skip
    return AnalysisConfig(
        "cell", "Cell", "", "xct", "volume", {**groups, **metrics},
        objects=ObjectOptions(classes=("void", "dead_lithium"), split_touching=True, min_diameter_px=2),
    )  # fmt: skip


def tables(folder, path, config):
    (result,) = measure([path], config, folder, RunOptions())
    assert not result.error, result.error
    out = result.folder
    return pd.read_csv(out / "metrics.csv"), pd.read_csv(out / "objects.csv"), out


def series(folder, name, frames):
    path = folder / name
    write_labels(
        path, frames, shape=(len(frames), *frames[0].shape), axes="tzyx", schema=load_schema("lithium"),
        calibration=Calibration(PIXEL_SIZE, tuple(60.0 * t for t in range(len(frames))), "options"),
    )  # fmt: skip
    return path


@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
def test_slabs_give_the_tables_of_the_whole(tmp_path, monkeypatch, suffix):
    first = cell()
    later = np.roll(first, 0)
    later[20:30, 10:20, 10:20][first[20:30, 10:20, 10:20] == 3] = 7
    path = series(tmp_path, f"cell{suffix}", [first, later])
    config = analysis(growth={}, morphology={})
    with monkeypatch.context() as patched:  # a third of the time would go into the figures of the one to compare with
        patched.setattr("seg.report.write_report", lambda folder: None)
        expected, objects, _ = tables(tmp_path / "whole", path, config)
    monkeypatch.setattr(volumes, "too_large", lambda shape: True)
    monkeypatch.setattr("seg.pipeline.too_large", lambda shape: True)
    monkeypatch.setattr(blocks, "SLAB_VOXELS", 7 * SHAPE[1] * SHAPE[2])
    found, objects_found, out = tables(tmp_path / "slabs", path, config)
    assert (out / "labels.ome.zarr").is_dir()
    assert (out / "report.html").is_file()
    # Whole numbers add up the same however they are cut; means of floats and second moments to the last digits.
    pd.testing.assert_frame_equal(objects_found, objects, rtol=1e-12)
    refused = found["method"].astype(str).str.startswith("not measured: 40 x 36 x 32 voxels")
    assert set(found[refused]["metric"]) == {
        "morphology_class", "front_velocity", "local_current_density", "growth_asymmetry",
    }  # fmt: skip
    assert (found[refused]["flags"] == "regime-not-reached").all()
    kept, wanted = (t[~t["metric"].isin(found[refused]["metric"])].reset_index(drop=True) for t in (found, expected))
    pd.testing.assert_frame_equal(kept, wanted, rtol=1e-12)
    assert len(objects) > 5
    assert wanted["value"].notna().sum() > 100
    assert "without a value, as they need it whole: front_velocity" in (out / "run.json").read_text()


@pytest.mark.parametrize("slices", [1, 3, 50])
def test_objects_on_disk_are_those_in_memory(rng, tmp_path, monkeypatch, slices):
    # Pairs of touching balls, so that regions are cut at their necks and numbered anew.
    mask = np.zeros(SHAPE, bool)
    z, y, x = np.ogrid[tuple(map(slice, SHAPE))]
    for _ in range(12):
        centre = rng.uniform(5, np.array(SHAPE) - 5)
        for step in (0, 6):
            mask |= (z - centre[0]) ** 2 + (y - centre[1] - step) ** 2 + (x - centre[2]) ** 2 < 4**2
    monkeypatch.setattr(blocks, "SLAB_VOXELS", slices * SHAPE[1] * SHAPE[2])
    expected = label_objects(mask, scale=Scale((1.0, 1.0, 1.0)), min_diameter_px=2)
    found = label_objects_on_disk(
        lambda rows: mask[rows], SHAPE, tmp_path, scale=Scale((1.0, 1.0, 1.0)), min_diameter_px=2
    )
    np.testing.assert_array_equal(found, expected)
    assert not list(tmp_path.iterdir())  # the files have no names
    sums, wanted = BlockPixels.of(found), ObjectPixels.of(expected)
    for name in ("counts", "lower", "upper"):
        np.testing.assert_array_equal(getattr(sums, name), getattr(wanted, name))
    np.testing.assert_allclose(sums.centroids[1:], wanted.centroids[1:], rtol=1e-14)
    np.testing.assert_allclose(sums.covariances[1:], wanted.covariances[1:], rtol=1e-11, atol=1e-11)
    with pytest.raises(TypeError, match="use values_of"):
        _ = sums.ids


def test_a_region_too_large_to_look_for_necks_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("seg.object_blocks.memory_left_bytes", lambda: 1000)
    mask = np.zeros((20, 20, 20), bool)
    mask[2:18, 2:18, 2:5] = mask[2:18, 2:5, 2:18] = True
    with pytest.raises(DataError, match="16 x 16 x 16 voxels"):
        label_objects_on_disk(lambda rows: mask[rows], mask.shape, tmp_path, scale=Scale((1.0, 1.0, 1.0)))


def test_no_room_on_the_disk_is_said_before_anything_is_written(tmp_path):
    # A petabyte is more than any disk here has; a sparse file would end the process when its pages are written.
    with pytest.raises(OSError, match="space|large"):
        blocks.on_disk((1000, 10**6, 10**6), np.uint8, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_fits_is_measured_in_one_piece(monkeypatch):
    shape = (200, 100, 100)
    for left, expected in ((blocks.whole_bytes(shape), False), (blocks.whole_bytes(shape) - 1, True), (None, False)):
        monkeypatch.setattr(blocks, "memory_left_bytes", lambda left=left: left)
        assert blocks.too_large(shape) is expected
    monkeypatch.setattr(blocks, "memory_left_bytes", lambda: 0)
    # Planes and small volumes always fit.
    assert not blocks.too_large((20_000, 20_000))
    assert not blocks.too_large((100, 100, 100))


CHILD = """
import resource, sys
from seg.io import arrays
from seg.cli import main
import seg.blocks, seg.metrics.mesh, seg.pipeline, seg.report, seg.volumes

path, small, out, extra = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
arrays.LAZY_ABOVE_BYTES = 0
seg.metrics.mesh.CHUNK_VOXELS = 100_000
# Its figures take 20 MB whatever the size of the volume.
seg.report.write_report = lambda folder: None
criterion = seg.blocks.too_large
# A first small run, from disk too, loads what is loaded once.
seg.pipeline.too_large = seg.volumes.too_large = lambda shape: True
assert main(["measure", small, "--analysis", "xct-cell", "--out", out + "/small"]) == 0
seg.pipeline.too_large = seg.volumes.too_large = criterion
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
limit = status("VmData") + extra
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
sys.exit(main(["measure", path, "--analysis", "xct-cell", "--out", out + "/big"]))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on private memory is one of Linux")
@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
def test_the_command_measures_a_volume_larger_than_the_memory_allowed(tmp_path, suffix):
    """Ids of 4 bytes and masks of 1 take 29 MB in one piece; 24 MB may be taken in all, and 16 are."""
    labels = cell((320, 140, 128), n_balls=40)
    calibration = Calibration(PIXEL_SIZE, None, "options")
    for name, values in (("big", labels), ("small", labels[120:160, :40, :40])):
        write_labels(tmp_path / f"{name}{suffix}", [values], shape=values.shape, axes="zyx",
                     schema=load_schema("lithium"), calibration=calibration)  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), *(str(tmp_path / f"{n}{suffix}") for n in ("big", "small")),
         str(tmp_path / "out"), str(24 << 20)],
        capture_output=True, text=True, check=False, timeout=1700, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    (found,) = (tmp_path / "out" / "big").glob("*/metrics.csv")
    table = pd.read_csv(found)
    n_void, n_metal = (int(np.isin(labels, values).sum()) for values in ((7,), (3, 4)))
    fraction = table[(table["metric"] == "void_fraction") & table["object_id"].isna()]["value"].item()
    assert fraction == n_void / (n_void + n_metal)
    assert table["method"].astype(str).str.startswith("not measured: 320 x 140 x 128 voxels").any()
    assert (found.parent / "labels.ome.zarr").is_dir()
