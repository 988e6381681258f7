"""HDF5 and NeXus: which data set, which axes, which scale."""

import h5py
import numpy as np
import pytest

from seg.errors import DataError
from seg.io import arrays, open_stack

DATA = np.arange(3 * 4 * 5, dtype=">u2").reshape(3, 4, 5)


def nexus(path, *, axes=("time", "y", "x"), units=("ms", "nm", "um"), old=False):
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/raw/other", data=DATA)
        group = file.create_group("entry/plot")
        group.attrs["NX_class"] = "NXdata"
        signal = group.create_dataset("counts", data=DATA)
        if old:
            signal.attrs["signal"] = 1
            signal.attrs["axes"] = ":".join(axes)
        else:
            file.attrs["default"], file["entry"].attrs["default"] = "entry", "plot"
            group.attrs["signal"], group.attrs["axes"] = "counts", list(axes)
        for name, unit, n in zip(axes, units, DATA.shape, strict=True):
            if name != ".":
                group[name] = np.arange(n) * 250.0 + 100
                group[name].attrs["units"] = unit
    return path


@pytest.mark.parametrize("old", [False, True])
def test_nexus_names_signal_axes_and_scale(tmp_path, old):
    stack = open_stack(nexus(tmp_path / "a.nxs", old=old))
    assert (stack.axes, stack.calibration.source) == ("tyx", "file")
    np.testing.assert_array_equal(stack.data, DATA)
    assert stack.frame_times_s == pytest.approx((0.1, 0.35, 0.6))
    assert stack.calibration.pixel_size_um == pytest.approx({"y": 0.25, "x": 250.0})
    assert stack.metadata["dataset"] == "/entry/plot/counts"


def test_axes_without_names_are_ambiguous_and_uneven_steps_are_no_scale(tmp_path):
    path = nexus(tmp_path / "a.nxs", axes=(".", "y", "x"))
    with pytest.raises(DataError, match="time or depth"):
        open_stack(path)
    with h5py.File(path, "r+") as file:
        file["entry/plot/y"][1] = 900.0
    assert open_stack(path, axes="zyx").calibration.pixel_size_um == pytest.approx({"x": 250.0})


def test_the_only_image_is_found_and_others_are_passed_over(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = DATA[0]
        file["profile"] = np.arange(9.0)
        file["names"] = np.array([[b"a", b"b"]])
    assert open_stack(tmp_path / "a.h5").shape == (4, 5)


def test_several_are_listed_and_one_can_be_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/first"], file["entry/second"] = DATA, DATA[0]
    with pytest.raises(DataError, match=r"2 data sets \(entry/first \(3, 4, 5\), entry/second \(4, 5\)\).*--dataset"):
        open_stack(tmp_path / "a.h5")
    assert open_stack(tmp_path / "a.h5", dataset="entry/second").axes == "yx"
    with pytest.raises(DataError, match="has no data set 'entry/third'; it holds entry/first"):
        open_stack(tmp_path / "a.h5", dataset="entry/third")
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["profile"] = np.arange(9.0)
    with pytest.raises(DataError, match="holds no numeric data set"):
        open_stack(tmp_path / "none.h5")


def test_labels_attributes_and_element_size(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("v", data=DATA)
        for i, label in enumerate("zyx"):
            data.dims[i].label = label
        data.attrs["element_size_um"] = [2.0, 0.5, 0.25]
    stack = open_stack(tmp_path / "a.h5")
    assert stack.calibration.pixel_size_um == {"z": 2.0, "y": 0.5, "x": 0.25}
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("v", data=DATA).attrs["axes"] = "tyx"
    assert open_stack(tmp_path / "b.h5").axes == "tyx"
    with h5py.File(tmp_path / "c.h5", "w") as file:  # sizes, but not which axis is which
        file.create_dataset("v", data=DATA).attrs["element_size_um"] = [2.0, 0.5, 0.25]
    named = {axes: open_stack(tmp_path / "c.h5", axes=axes).calibration.pixel_size_um for axes in ("zyx", "tyx")}
    assert named == {"zyx": {"z": 2.0, "y": 0.5, "x": 0.25}, "tyx": {"y": 0.5, "x": 0.25}}


def test_types_that_are_no_images(tmp_path):
    for name, data, says in (
        ("complex", DATA.astype(complex), "complex"),
        ("text", np.array([[b"a"]]), "plain image"),
        ("line", np.arange(5), "axes"),
    ):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["d"] = data
        with pytest.raises(DataError, match=says):
            open_stack(tmp_path / f"{name}.h5", dataset="d")


def test_a_missing_filter_is_explained(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", data=DATA[0], chunks=(4, 5), compression="gzip")

    def fail(*_):
        raise OSError("Can't synchronously read data (can't open directory, required filter 'bitshuffle' unavailable)")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", fail)
    with pytest.raises(DataError, match="pip install hdf5plugin"):
        open_stack(tmp_path / "a.h5")


def test_a_lazy_stack_keeps_its_file_open(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "LAZY_ABOVE_BYTES", 0)
    stack = open_stack(nexus(tmp_path / "a.nxs"))
    np.testing.assert_array_equal(stack.frame(2), DATA[2])
    np.testing.assert_array_equal(stack.data[:, 1:3, 4], DATA[:, 1:3, 4])
