"""Real tomograms: dissolving particles whose volumes are known, and a battery electrode of known fractions."""

import csv

import numpy as np
import pytest
import tifffile

from seg.metrics.balance import measure_frame, measure_whole
from seg.metrics.frame import Frame
from seg.metrics.growth import measure_series
from seg.metrics.history import History
from seg.metrics.layers import measure_frame as measure_layer
from seg.metrics.table import Measurement, Scale, to_table
from seg.metrics.voids import measure_frame as measure_voids

# The size of the voxels is not in the repository: lengths are in voxels.
VOXELS = Scale((1.0, 1.0, 1.0), calibrated=False)


@pytest.fixture(scope="module")
def etching(shared_data):
    folder = shared_data / "lctem_etching_4d_masks"
    if not folder.is_dir():
        pytest.skip("no dissolving particles")
    with (folder / "volumes.csv").open() as file:
        volumes = [int(row["voxels"]) for row in csv.DictReader(file) if row["series"] == "pd_au"]
    return tifffile.imread(folder / "pd_au_np_18x121x151x151.tif"), volumes


def test_volumes_of_dissolving_particles_and_their_rates(etching, schema):
    masks, volumes = etching
    rows = []
    for index, mask in enumerate(masks):
        frame = Frame(np.where(mask, np.uint8(3), np.uint8(1)), schema, VOXELS, index)
        rows += measure_frame(frame)
    found = [row for row in rows if row.metric == "deposit_volume"]
    assert [row.n for row in found] == volumes
    assert [row.value for row in found] == volumes
    assert {(row.unit, row.flags) for row in found} == {("px3", ("uncalibrated",))}
    # Rates of the group growth, from the same volumes: without step times per frame.
    volume_rows = [
        Measurement("volume", row.value, "px3", row.low, row.high, "deposit", row.frame, flags=row.flags)
        for row in found
    ]
    rates = [row for row in measure_series(to_table(volume_rows)) if row.metric == "volume_rate"]
    assert [row.value for row in rates if row.frame is not None] == np.diff(volumes).tolist()
    (whole,) = (row for row in rates if row.frame is None)
    # All pairs of 18 frames; the particles lose half of what is left in about eleven.
    assert whole.value == pytest.approx(np.polyfit(range(18), volumes, 1)[0], rel=0.1)
    assert whole.unit == "px3/frame"
    # Dissolution at rest, had the frames times: the loss per hour is the slope.
    history = History(to_table([*rows]), VOXELS)
    assert [row.metric for row in measure_whole(history)] == ["volume_charge_ratio"]


def test_electrode_of_known_fractions(shared_data, schema):
    path = shared_data / "xct_nmc_electrode_segmented" / "nmc1cal_cbd_bridge.tif"
    if not path.is_file():
        pytest.skip("no electrode")
    volume = tifffile.imread(path)
    shares = np.bincount(volume.ravel(), minlength=3) / volume.size
    assert shares == pytest.approx([0.40055, 0.49945, 0.1], abs=5e-6)  # as its source states
    # The middle, with pores as voids in the metal of particles and binder.
    part = volume[80:144, 100:180, 100:180]
    labels = np.where(part == 0, np.uint8(7), np.uint8(3))
    frame = Frame(labels, schema, VOXELS)
    rows = {row.metric: row for row in measure_voids(frame) if row.object_id is None}
    pores = float(np.mean(part == 0))
    assert rows["void_fraction"].value == pytest.approx(pores, rel=1e-12)
    assert rows["void_volume"].value == np.count_nonzero(part == 0)
    layer = {row.metric: row for row in measure_layer(frame, tortuosity_axis="z", tortuosity_max_voxels=64 * 40 * 40)}
    # Bruggeman's 1 / sqrt(porosity) is the least that packings of particles show; binder adds to it.
    assert 0.9 / pores**0.5 < layer["tortuosity_factor"].value < 4
