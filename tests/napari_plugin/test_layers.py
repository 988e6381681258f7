"""Layers keep calibration both ways; fixtures have pixels of 0.4 x 0.6 x 0.7 um and frames of 2.5 s from 3 s on."""

import numpy as np
import pandas as pd
import pytest

from napari_plugin import layers
from seg.errors import DataError
from seg.segmentation import Segmentation
from seg.stack import Calibration, Stack

SIZES = {"z": 0.7, "y": 0.6, "x": 0.4}
SHAPES = {"t": 4, "c": 3, "z": 5, "y": 20, "x": 30}


def make_stack(axes: str, *, times=(3.0, 5.5, 8.0, 10.5), sizes=SIZES, dtype=np.uint8) -> Stack:
    rng = np.random.default_rng(5)
    data = rng.integers(0, 200, [SHAPES[a] for a in axes]).astype(dtype)
    calibration = Calibration({a: s for a, s in sizes.items() if a in axes}, times if "t" in axes else None, "file")
    return Stack(data, axes, calibration, "film")


@pytest.mark.parametrize("axes", ["yx", "zyx", "tyx", "tzyx", "cyx", "tcyx"])
def test_image_comes_back_with_its_calibration(axes):
    stack = make_stack(axes)
    data, given, kind = layers.image_layer(stack)
    assert kind == "image"
    back = layers.stack_of_layer(data, given)
    assert back.axes == axes
    assert np.array_equal(back.data, stack.data)
    assert back.calibration.pixel_size_um == stack.calibration.pixel_size_um
    assert back.frame_times_s == stack.frame_times_s


def test_scale_units_and_labels_of_a_series_of_volumes():
    given = layers.geometry(make_stack("tzyx"))
    assert given["scale"] == (2.5, 0.7, 0.6, 0.4)
    assert given["translate"] == (3.0, 0.0, 0.0, 0.0)
    assert given["units"] == ("second", "micrometer", "micrometer", "micrometer")
    assert given["axis_labels"] == ("t", "z", "y", "x")


def test_without_a_pixel_size_the_unit_is_the_pixel():
    stack = make_stack("tyx", times=None, sizes={})
    data, given, _ = layers.image_layer(stack)
    assert given["units"] == ("pixel",) * 3
    assert layers.stack_of_layer(data, given).spacing_um is None


def test_uneven_frame_times_survive_in_the_metadata():
    times = (0.0, 1.0, 10.0, 11.0)
    data, given, _ = layers.image_layer(make_stack("tyx", times=times))
    assert given["units"][0] == "pixel"
    assert layers.stack_of_layer(data, given).frame_times_s == times


def test_what_the_user_changed_in_the_viewer_counts():
    data, given, _ = layers.image_layer(make_stack("yx"))
    given |= {"scale": (120.0, 80.0), "units": ("nanometer", "nanometer")}
    assert layers.stack_of_layer(data, given).calibration.pixel_size_um == pytest.approx({"y": 0.12, "x": 0.08})


def test_third_axis_is_never_guessed():
    with pytest.raises(DataError, match="time or depth"):
        layers.stack_of_layer(np.zeros((3, 4, 5)), {"name": "a", "axis_labels": ("-3", "-2", "-1")})
    assert layers.stack_of_layer(np.zeros((3, 4, 5)), {"name": "a"}, axes="zyx").axes == "zyx"


def test_lazy_colour_is_shown_in_grey_with_the_right_axes():
    from seg.preprocess import to_grey

    whole = make_stack("tcyx")

    class Lazy:
        shape, dtype, ndim = whole.shape, whole.dtype, 4

        def __getitem__(self, key):
            return whole.data[key]

    data, given, _ = layers.image_layer(Stack(Lazy(), "tcyx", whole.calibration, "film"))
    assert data.shape == (4, 20, 30)
    expected = to_grey(whole.data[2], "cyx")
    assert np.allclose(data[2], expected)
    assert np.allclose(data[2, 3:9, 7], expected[3:9, 7])
    assert np.allclose(np.asarray(data)[2], expected)
    assert len(given["scale"]) == 3


def test_classes_have_their_colours_and_names(schema):
    stack = make_stack("tyx")
    labels = Stack((stack.data % 10).astype(np.uint8), "tyx", stack.calibration, "film")
    data, given, kind = layers.labels_layer(Segmentation(labels, schema))
    assert kind == "labels"
    assert given["colormap"][3] == schema.by_name("deposit").color
    assert given["colormap"][0] == given["colormap"][None] == "transparent"
    assert given["features"].set_index("index").loc[4, "class"] == "dendrite"
    back = layers.segmentation_of_layer(data, given, schema)
    assert back.schema == schema
    assert back.stack.spacing_um == (0.6, 0.4)


def test_places_in_um_fall_on_their_pixels():
    stack = make_stack("tyx")
    table = pd.DataFrame({"frame": [2], "y_um": [6.0], "x_um": [6.0]})
    assert layers.positions_px(table, stack)[0] == pytest.approx([2, 10, 15])
    assert layers.centre_of({"frame": 2, "y_um": 6.0, "x_um": 6.0}, stack) == pytest.approx((8.0, 6.0, 6.0))


def test_tracks_know_their_parents_and_events_their_frame():
    stack = make_stack("tyx")
    tracks = pd.DataFrame({
        "track_id": [1, 1, 2, 3], "frame": [0, 1, 0, 2], "object_id": [1, 1, 2, 1], "y_um": [6.0, 6.6, 3.0, 6.0],
        "x_um": [4.0, 4.0, 8.0, 4.0], "equivalent_diameter_um": [1.0, 2.0, 1.0, 3.0],
        "parent_track_ids": ["", "", "", "1;2"],
    })  # fmt: skip
    data, given, kind = layers.tracks_layer(tracks, stack)
    assert kind == "tracks"
    assert given["graph"] == {3: [1, 2]}
    assert data[1] == pytest.approx([1, 1, 11, 10])
    events = pd.DataFrame({"event": ["merge", "birth"], "frame": [2, 0], "y_um": [6.0, np.nan], "x_um": [4.0, 1.0]})
    places, given, _ = layers.events_layer(events, stack)
    assert places == pytest.approx(np.array([[2, 10, 10]]))
    assert given["features"]["event"].tolist() == ["merge"]
    assert layers.tracks_layer(tracks.iloc[:0], stack) is None


def test_frames_full_of_artifacts_are_marked(schema):
    stack = make_stack("tyx")
    data = np.ones(stack.shape, np.uint8)
    data[1, :, :20] = schema.index("artifact")
    segmentation = Segmentation(Stack(data, "tyx", stack.calibration, "film"), schema)
    marked = layers.artifact_frames(segmentation)
    assert list(marked) == [1]
    shapes, given, kind = layers.marked_frames_layer(marked, stack)
    assert kind == "shapes"
    assert (shapes[0][:, 0] == 1).all()
    assert "67%" in given["features"]["reason"][0]
