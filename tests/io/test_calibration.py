"""Units in text, sidecars, and who overrides whom."""

import numpy as np
import pytest
import tifffile
import yaml
from hypothesis import given
from hypothesis import strategies as st

from seg.errors import CalibrationError, DataError, UsageError
from seg.io import open_stack, parse_duration_s, parse_pixel_size
from seg.io.calibration import beside, evenly, s_per, um_per


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("z=1um,y=0.5um,x=0.25um", {"z": 1.0, "y": 0.5, "x": 0.25}),
        ("x = 250 nm , y=.5µm", {"x": 0.25, "y": 0.5}),
        ("0.5um", {"z": 0.5, "y": 0.5, "x": 0.5}),
        ("2 Å", {"z": 2e-4, "y": 2e-4, "x": 2e-4}),
        ("1e-3mm", {"z": 1.0, "y": 1.0, "x": 1.0}),
        ("3 microns", {"z": 3.0, "y": 3.0, "x": 3.0}),
    ],
)
def test_pixel_sizes(text, expected):
    assert parse_pixel_size(text) == pytest.approx(expected, rel=1e-12)


def test_a_single_size_fills_the_axes_there_are():
    assert parse_pixel_size("0.5um", "yx") == {"y": 0.5, "x": 0.5}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0.5", "has no unit; write it with one, such as 0.5um"),
        ("y=0.5,x=0.5um", "has no unit; write it with one, such as y=0.5um"),
        ("0.5parsec", "The unit 'parsec' of '0.5parsec' is not known"),
        ("0um", "must be positive"),
        ("-1um", "must be positive"),
        ("1e400um", "must be positive"),
        ("half um", "is not a pixel size"),
        ("0,5um", "is not a pixel size|no unit"),
        ("t=1um", "names the axis 't'; expected z, y, x"),
        ("x=1um,x=2um", "names the axis 'x' twice"),
        ("", "is not a pixel size"),
    ],
)
def test_pixel_sizes_that_cannot_be_meant(text, says):
    with pytest.raises(UsageError, match=says) as caught:
        parse_pixel_size(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "seconds"), [("2s", 2), ("100ms", 0.1), ("1min", 60), ("0.5h", 1800), ("3 d", 259200), ("-12 s", -12)]
)
def test_durations(text, seconds):
    assert parse_duration_s(text) == pytest.approx(seconds, rel=1e-12)


def test_a_duration_needs_a_unit_of_time():
    with pytest.raises(UsageError, match="has no unit; write it with one, such as 2s"):
        parse_duration_s("2")
    with pytest.raises(UsageError, match="The unit 'um' of '2um' is not known"):
        parse_duration_s("2um")


@given(st.floats(1e-6, 1e6), st.sampled_from(["um", "µm", "nm", "Å", "mm", "pm", "m", "cm", "micrometer", "inch"]))
def test_sizes_with_any_unit_equal_number_times_unit(number, unit):
    assert parse_pixel_size(f"{number!r} {unit}", "x")["x"] == number * um_per(unit)


def test_units_as_files_write_them():
    assert [um_per(u) for u in ("\u00b5m", "\u03bcm", "\\u00B5m", "Micron", "MICROMETERS", "\u212b")] == [
        1,
        1,
        1,
        1,
        1,
        1e-4,
    ]
    assert [um_per(u) for u in ("pixel", "reference frame", "")] == [None, None, None]
    assert [s_per(u) for u in ("sec", "Seconds", "µs", "minutes")] == [1, 1, 1e-6, 60]


def test_even_times_need_a_positive_interval():
    assert evenly(3, 0.5, 1.0) == (1.0, 1.5, 2.0)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(CalibrationError, match="expected a positive number of seconds"):
            evenly(3, wrong)


# --- sidecars -------------------------------------------------------------------------------------------------------


def image(path, axes="TYX"):
    data = np.zeros((3, 8, 10) if len(axes) == 3 else (8, 10), np.uint8)
    metadata = {"axes": axes, "PhysicalSizeY": 2.0, "PhysicalSizeX": 4.0, "TimeIncrement": 7.0}
    tifffile.imwrite(path, data, ome=True, photometric="minisblack", metadata=metadata)
    return path


def sidecar(path, **values):
    path.write_text(yaml.safe_dump(values))
    return path


def test_options_over_sidecar_over_file_axis_by_axis(tmp_path):
    path = image(tmp_path / "a.ome.tif")
    assert open_stack(path).calibration.source == "file"
    sidecar(tmp_path / "a.calibration.yaml", pixel_size_um={"y": 0.5}, frame_times_s=[0, 1, 5], note="scale bar")
    stack = open_stack(path)
    assert (stack.spacing_um, stack.frame_times_s, stack.calibration.source) == ((0.5, 4.0), (0, 1, 5), "sidecar")
    assert stack.metadata["note"] == "scale bar"
    stack = open_stack(path, pixel_size_um={"x": 0.125})
    assert (stack.spacing_um, stack.frame_times_s, stack.calibration.source) == ((0.5, 0.125), (0, 1, 5), "options")
    assert open_stack(path, frame_interval_s=10).frame_times_s == (0, 10, 20)


def test_sidecar_axes_override_the_file_and_options_the_sidecar(tmp_path):
    path = image(tmp_path / "a.ome.tif")
    sidecar(tmp_path / "a.calibration.yaml", axes="zyx", pixel_size_um=0.5)
    stack = open_stack(path)
    assert (stack.axes, stack.spacing_um, stack.frame_times_s) == ("zyx", (0.5, 0.5, 0.5), None)
    assert open_stack(path, axes="tyx").axes == "tyx"
    sidecar(tmp_path / "a.calibration.yaml", axes="qyx")
    with pytest.raises(DataError, match="Axes 'qyx' are not understood"):
        open_stack(path)


def test_a_size_that_leaves_out_an_axis_of_a_volume_is_refused(tmp_path):
    path = image(tmp_path / "a.ome.tif")
    with pytest.raises(CalibrationError, match="has a pixel size, but not along z; give all axes"):
        open_stack(path, axes="zyx", pixel_size_um={"y": 1.0, "x": 1.0})
    assert open_stack(image(tmp_path / "b.tif", "YX"), pixel_size_um={"z": 9.0, "y": 1.0}).spacing_um == (1.0, 4.0)


def test_a_frame_interval_does_not_touch_a_single_image(tmp_path):
    path = image(tmp_path / "a.tif", "YX")
    assert open_stack(path, frame_interval_s=2.0).frame_times_s is None


def test_names_a_sidecar_may_have(tmp_path):
    for name in ("a.ome.tif.x.yaml", "a.ome.x.yaml", "a.x.yaml"):
        (tmp_path / name).touch()
        assert beside(tmp_path / "a.ome.tif", ".x.yaml") == tmp_path / name
        (tmp_path / name).unlink()
    assert beside(tmp_path / "a.ome.tif", ".x.yaml") is None
    (tmp_path / "a.x.yaml").touch()
    assert beside(tmp_path / "a.b.tif", ".x.yaml") is None
    assert beside(tmp_path / "a", ".x.yaml") == tmp_path / "a.x.yaml"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pixel_size: 0.5", "unknown key 'pixel_size'; did you mean 'pixel_size_um'"),
        ("voltage: 3", "unknown key 'voltage'; it can hold axes, pixel_size_um"),
        ("pixel_size_um: 0.5um", "is '0.5um'; expected a plain number, the unit is in the key"),
        ("pixel_size_um: {q: 1}", "names the axis 'q'; expected z, y or x"),
        ("pixel_size_um: {x: 0}", "is 0 for x; expected a positive number"),
        ("pixel_size_um: {x: null}", "is None; expected a plain number"),
        ("frame_interval_s: fast", "frame_interval_s in a.calibration.yaml is 'fast'"),
        ("frame_interval_s: -2", "expected a positive number of seconds"),
        ("frame_interval_s: 2\nframe_times_s: [0, 1, 2]", "keep one of them"),
        ("frame_times_s: 3", "must be a list of seconds"),
        ("frame_times_s: [0, 1]", r"has 3 frame\(s\) but 2 frame time\(s\)"),
        ("frame_times_s: [0, 2, 1]", "go backwards"),
        ("frame_times_s: [0, .nan, 1]", "expected a plain number"),
        ("frame_times_s: [0, null, 1]", "expected a plain number"),
        ("- 1", "must hold keys and values"),
        ("a: [", "is not readable YAML"),
    ],
)
def test_sidecars_that_cannot_be_meant(tmp_path, text, says):
    path = image(tmp_path / "a.tif")
    (tmp_path / "a.calibration.yaml").write_text(text)
    with pytest.raises(DataError, match=says) as caught:
        open_stack(path)
    assert caught.value.exit_code == 5
