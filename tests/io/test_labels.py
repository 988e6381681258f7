"""Label files: ours come back as they were, those of others get their meaning or are refused."""

import json

import numpy as np
import pytest
import tifffile
import yaml
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as random_arrays
from PIL import Image

from seg.errors import DataError, LabelError
from seg.io import arrays, read_labels, write_labels
from seg.labels import LabelClass, LabelSchema, load_schema
from seg.segmentation import Provenance
from seg.stack import Calibration

WIDE = LabelSchema("wide", (LabelClass(1, "matrix", "#102030", 'außen <&> "µ"'), LabelClass(700, "pore", "#ff0080")))
PROVENANCE = Provenance("operandoseg 1", "net", "ab" * 32, "sha256:cd", {"tile_px": 512, "overlap": 0.25}, "2026-11-21")


def write(path, labels, axes, calibration=Calibration(), schema=WIDE, provenance=None):  # noqa: B008 - frozen
    frames = iter(labels) if axes.startswith("t") else iter([labels])
    write_labels(
        path, frames, shape=labels.shape, axes=axes, calibration=calibration, schema=schema, provenance=provenance
    )
    return path


@pytest.mark.parametrize("ending", [".ome.tif", ".ome.zarr"])
@pytest.mark.parametrize("lazy", [False, True])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    axes=st.sampled_from(["yx", "tyx", "zyx", "tzyx"]),
    wide=st.booleans(),
    dtype=st.sampled_from(["u1", "u2", "i4", "i8", ">u2"]),
    calibrated=st.booleans(),
)
def test_write_then_read_is_identity(tmp_path, monkeypatch, make, ending, lazy, data, axes, wide, dtype, calibrated):
    schema = WIDE if wide else load_schema("lithium")
    shape = tuple(data.draw(st.integers(1, 4 if a in "tz" else 17)) for a in axes)
    values = [0, *(c.index for c in schema.classes if np.can_cast(np.min_scalar_type(c.index), np.dtype(dtype)))]
    labels = data.draw(random_arrays(np.dtype(dtype), shape, elements=st.sampled_from(values)))
    n = shape[0] if axes[0] == "t" else 1
    calibration = make.calibration(axes, n, irregular=data.draw(st.booleans())) if calibrated else Calibration()
    path = write(tmp_path / f"a{ending}", labels, axes, calibration, schema, PROVENANCE)
    monkeypatch.setattr(arrays, "LAZY_ABOVE_BYTES", 0 if lazy else 2**20)
    back = read_labels(path)
    assert (back.stack.axes, back.stack.shape) == (axes, shape)
    assert back.stack.dtype == (np.uint16 if wide else np.uint8)
    np.testing.assert_array_equal(np.asarray(back.stack.data), labels)
    assert back.stack.calibration == calibration
    assert back.schema == schema
    assert back.provenance == PROVENANCE


def test_names_and_colours_are_there_for_other_programs(tmp_path, schema):
    labels = np.ones((8, 9), np.uint8)
    with tifffile.TiffFile(write(tmp_path / "a.ome.tif", labels, "yx", schema=schema)) as tif:
        annotation = tifffile.xml2dict(tif.ome_metadata)["OME"]["StructuredAnnotations"]["MapAnnotation"]
        assert tif.pages[0].dtype == np.uint8
    entries = {entry["K"]: entry["value"] for entry in annotation["Value"]["M"]}
    assert entries["class 3"] == "deposit #56b4e9"
    group = zarr.open_group(str(write(tmp_path / "a.ome.zarr", labels, "yx", schema=schema)), mode="r")
    image_label = group.attrs["ome"]["image-label"]
    assert image_label["colors"][2] == {"label-value": 3, "rgba": [0x56, 0xB4, 0xE9, 255]}
    assert image_label["properties"][2] == {"label-value": 3, "class": "deposit"}
    assert set(group.attrs["operandoseg"]) >= {"schema", "frame_times_s", "provenance"}


def test_what_the_schema_lacks_is_not_written(tmp_path):
    for labels, axes, says in (
        (np.full((8, 9), 2), "yx", "frame 0 for 'a.ome.tif' holds label value.s. 2 that schema 'wide'"),
        (np.ones((8, 9), np.float32), "yx", "has type float32; expected integer"),
        (np.ones((3, 8, 9), np.uint8), "cyx", "Labels have no channel axis"),
    ):
        with pytest.raises(LabelError, match=says):
            write(tmp_path / "a.ome.tif", labels, axes)
    assert list(tmp_path.iterdir()) == []


# --- made elsewhere -------------------------------------------------------------------------------------------------


def foreign(path, labels, **options):
    tifffile.imwrite(path, labels, photometric="minisblack", **options)
    return path


def sidecar(path, **values):
    path.write_text(json.dumps(values))


LABELS = np.array([[0, 1, 3], [3, 3, 10]])


@pytest.mark.parametrize("dtype", ["u1", ">u2", "i2", "i4", "u4"])
@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX", "TZYX"])
def test_integer_tiffs_with_a_schema(tmp_path, schema, dtype, axes):
    labels = np.broadcast_to(LABELS, (2,) * (len(axes) - 2) + LABELS.shape).astype(dtype)
    path = foreign(tmp_path / "a.tif", labels, metadata={"axes": axes})
    back = read_labels(path, schema=schema, pixel_size_um={"z": 3.0, "y": 0.5, "x": 0.25}, frame_interval_s=2.0)
    assert (back.stack.axes, back.stack.dtype, back.schema) == (axes.lower(), np.uint8, schema)
    np.testing.assert_array_equal(back.stack.data, labels)
    assert back.stack.spacing_um == ((3.0, 0.5, 0.25) if "Z" in axes else (0.5, 0.25))
    assert back.stack.frame_times_s == ((0.0, 2.0) if "T" in axes else None)
    assert back.provenance == Provenance()


def test_without_meaning_it_is_refused(tmp_path):
    path = foreign(tmp_path / "a.tif", LABELS.astype(np.uint8))
    with pytest.raises(LabelError, match=r"does not say what its label values mean; pass --schema .* a.labels.json"):
        read_labels(path)


def test_sidecar_schema_by_name_content_or_file(tmp_path, schema):
    path = foreign(tmp_path / "a.ome.tif", np.array([[0, 1]], np.uint8))
    for value in ("lithium", schema.to_dict(), "mine.yaml"):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(schema.to_dict()))
        sidecar(tmp_path / "a.labels.json", schema=value)
        assert read_labels(path).schema == schema
    assert read_labels(path, schema=WIDE).schema == WIDE


@pytest.mark.parametrize("lazy", [False, True])
def test_values_are_mapped_to_classes(tmp_path, monkeypatch, schema, lazy):
    monkeypatch.setattr(arrays, "LAZY_ABOVE_BYTES", 0 if lazy else 2**20)
    path = foreign(tmp_path / "a.tif", np.array([[0, 255], [128, 0]], np.uint8))
    sidecar(tmp_path / "a.labels.json", schema="lithium", map={"255": "deposit", "128": "unlabelled"})
    np.testing.assert_array_equal(np.asarray(read_labels(path).stack.data), [[0, 3], [0, 0]])
    sidecar(tmp_path / "a.labels.json", map={"0": "electrolyte", "255": "dendrite", "128": "pit"})
    back = read_labels(path, schema=schema)
    np.testing.assert_array_equal(back.stack.frame(0), [[1, 4], [6, 1]])
    assert back.stack.dtype == np.uint8
    sidecar(tmp_path / "a.labels.json", schema="lithium", map={"255": "deposit"})
    with pytest.raises(LabelError, match=r"'a.tif' holds the value\(s\) 128, which the map of its sidecar lacks"):
        read_labels(path).stack.frame(0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "a.labels.json is not readable JSON"),
        ("[]", "must hold"),
        ('{"shema": "lithium"}', "unknown key 'shema'; did you mean 'schema'"),
        ('{"voltage": 1}', "unknown key 'voltage'; it can hold schema and map"),
        ('{"schema": "litium"}', "a.labels.json: .*did you mean 'lithium'"),
        ('{"schema": {"name": "x"}}', "is not a label schema"),
        ('{"schema": "lithium", "map": {"x": "deposit"}}', "must be like"),
        ('{"schema": "lithium", "map": ["deposit"]}', "must be like"),
        ('{"schema": "lithium", "map": {"1": "depositt"}}', "The map in a.labels.json: .*did you mean 'deposit'"),
    ],
)
def test_sidecars_that_cannot_be_meant(tmp_path, text, says):
    path = foreign(tmp_path / "a.tif", np.array([[0, 1]], np.uint8))
    (tmp_path / "a.labels.json").write_text(text)
    with pytest.raises(LabelError, match=says) as caught:
        read_labels(path)
    assert caught.value.exit_code == 5


def test_pictures_and_probabilities_are_not_labels(tmp_path, schema):
    with pytest.raises(LabelError, match="holds float32 values; expected one integer class index"):
        read_labels(foreign(tmp_path / "a.tif", LABELS.astype(np.float32)), schema=schema)
    colours = np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3)
    Image.fromarray(colours).save(tmp_path / "a.png")
    with pytest.raises(LabelError, match="holds three colour channels"):
        read_labels(tmp_path / "a.png", schema=schema)


@pytest.mark.parametrize("bad", [11, 255, -1])
def test_values_outside_the_schema_are_listed(tmp_path, schema, bad, monkeypatch):
    labels = np.stack([LABELS, LABELS]).astype(np.int16)
    labels[1, 0, 0] = bad
    path = foreign(tmp_path / "a.tif", labels, metadata={"axes": "TYX"})
    with pytest.raises(LabelError, match=rf"'a.tif' holds label value\(s\) {bad} that schema 'lithium' does not know"):
        read_labels(path, schema=schema)
    monkeypatch.setattr(arrays, "LAZY_ABOVE_BYTES", 0)
    lazy = read_labels(path, schema=schema)
    np.testing.assert_array_equal(lazy.stack.frame(0), LABELS)
    with pytest.raises(LabelError, match=f"{bad}"):
        lazy.stack.frame(1)


def test_palette_images_keep_their_indices(tmp_path, schema):
    picture = Image.fromarray(LABELS.astype(np.uint8), "P")
    picture.putpalette([value for c in range(256) for value in (c, 255 - c, 7)])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", schema=schema).stack.data, LABELS)
    (tmp_path / "folder").mkdir()
    for i in range(2):
        picture.save(tmp_path / "folder" / f"{i}.png")
    assert read_labels(tmp_path / "folder", schema=schema).stack.shape == (2, 2, 3)


def test_a_damaged_schema_in_our_own_file_is_a_label_error(tmp_path):
    path = write(tmp_path / "a.ome.zarr", np.ones((4, 5), np.uint8), "yx")
    meta = json.loads((path / "zarr.json").read_text())
    del meta["attributes"]["operandoseg"]["schema"]["classes"]
    (path / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match="the schema in 'a.ome.zarr' is not a label schema"):
        read_labels(path)
