"""Masks that hold next to nothing, or nothing else: zero is zero, and what cannot be known is NaN with a reason."""

import math
from dataclasses import replace

import numpy as np
import pytest

from seg.analysis import load_analysis
from seg.errors import CalibrationError, LabelError
from seg.io import read_labels, write_labels
from seg.metrics.table import read_table
from seg.stack import Calibration
from seg.tabulate import write_tables

PLANES = ("optical-plan", "optical-profile", "tem-insitu", "sem", "cryoem-sei")
CALIBRATION = Calibration({"y": 0.4, "x": 0.25}, (0.0, 2.0, 4.0))


def tables_of(frames, tmp_path, schema, preset, *, calibration=CALIBRATION, **options):
    path = tmp_path / "frames.ome.tif"
    write_labels(
        path, frames, shape=np.shape(frames), axes="tyx", calibration=calibration, schema=schema
    )  # fmt: skip
    segmentation = read_labels(path, default_schema=schema)
    said = write_tables(segmentation, None, tmp_path, load_analysis(preset), source=path, **options)
    return read_table(tmp_path / "metrics.csv"), said


def values(table, metric, class_name=None):
    rows = table[table["metric"] == metric]
    return rows.loc[rows["class"] == class_name, "value"] if class_name else rows["value"]


@pytest.mark.parametrize("preset", PLANES)
@pytest.mark.parametrize("name", ["deposit", "substrate", "unlabelled"])
def test_one_class_all_over(name, preset, tmp_path, schema):
    """No deposit at all, one that fills the frame, nothing labelled."""
    index = 0 if name == "unlabelled" else schema.index(name)
    table, _ = tables_of([np.full((40, 48), index, np.uint8)] * 3, tmp_path, schema, preset)
    unknown = table[table["value"].isna()]
    assert (unknown["flags"] != "").all(), unknown[unknown["flags"] == ""]
    covered = {"deposit": 1.0, "substrate": 0.0, "unlabelled": math.nan}[name]
    for class_name in ("deposit+dendrite", "deposit"):
        assert np.allclose(values(table, "covered_fraction", class_name), covered, equal_nan=True)
    # An object that the frame cuts on all sides is in no count.
    counts = values(table, "object_count")
    assert np.allclose(counts, math.nan if name == "unlabelled" else 0.0, equal_nan=True)


def test_counts_of_pits_among_which_may_be_nuclei_are_ambiguous(tmp_path, schema):
    frames = np.full((3, 60, 80), schema.index("substrate"), np.uint8)
    for k, (y, x) in enumerate([(8, 8), (8, 40), (30, 8), (30, 40)]):
        frames[:, y : y + 10 + k, x : x + 14] = schema.index("pit")
    for relabelled, flags in (((), []), (("pit",), ["ambiguous"])):
        folder = tmp_path / f"{len(flags)}"
        folder.mkdir()
        table, _ = tables_of(frames, folder, schema, "optical-pits", relabelled=relabelled)
        of_frame = table[table["object_id"].isna() & (table["frame"] == 0) & table["side"].fillna("").eq("")]
        of_frame = of_frame.set_index("metric")
        assert of_frame.loc["pit_count", "value"] == 4
        for metric in ("pit_count", "pit_density", "pit_diameter"):
            assert [f for f in of_frame.loc[metric, "flags"].split(";") if f == "ambiguous"] == flags
        assert "ambiguous" not in of_frame.loc["pit_opening_area", "flags"]


def test_a_number_without_scale_and_times_says_so(tmp_path, schema):
    frames = np.full((3, 40, 48), schema.index("electrolyte"), np.uint8)
    for k in range(3):
        frames[k, 10 : 18 + k, 10:20] = schema.index("deposit")
    table, said = tables_of(frames, tmp_path, schema, "optical-plan", calibration=Calibration())
    assert len(said.warnings) == 2
    lengths = table[table["unit"].str.contains("um|cm|/s")]
    assert lengths.empty, lengths
    areas = table[(table["metric"] == "covered_area") & table["object_id"].isna()]
    assert areas["value"].tolist() == [80, 90, 100]
    assert set(areas["unit"]) == {"px2"}
    assert areas["flags"].str.contains("uncalibrated").all()


def test_times_that_are_no_numbers_are_refused():
    with pytest.raises(CalibrationError, match="NaN"):
        replace(CALIBRATION, frame_times_s=(0.0, math.nan, 2.0))


def test_object_ids_in_place_of_classes_are_refused(tmp_path, schema):
    """What a label file of touching or overlapping objects often is."""
    ids = np.arange(48 * 40).reshape(40, 48).astype(np.uint16) % 300
    np.save(tmp_path / "ids.npy", ids)
    with pytest.raises(LabelError, match=r"11, 12.*does not know"):
        read_labels(tmp_path / "ids.npy", default_schema=schema, axes="yx").schema.check(ids, where="ids")
