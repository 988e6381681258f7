"""Opening and saving through napari's plugin system: nothing of calibration and classes is lost on the way."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_plugin import layers, readers
from seg.io import open_stack, read_labels, write_image, write_labels
from seg.stack import Calibration

ROOT = Path(__file__).parents[2]
CALIBRATION = Calibration({"y": 0.6, "x": 0.4}, (3.0, 5.5, 8.0), "file")


@pytest.fixture
def image(tmp_path, rng):
    data = rng.integers(0, 200, (3, 20, 30), dtype=np.uint16)
    path = tmp_path / "film.ome.tif"
    write_image(path, data, shape=data.shape, dtype=data.dtype, axes="tyx", calibration=CALIBRATION)
    return path


@pytest.mark.parametrize("name", ["copy.ome.tif", "copy.ome.zarr", "copy"])
def test_image_file_survives_the_viewer(image, tmp_path, name):
    ((data, given, kind),) = readers.get_reader(str(image))(str(image))
    assert kind == "image"
    (written,) = readers.write_image_layer(str(tmp_path / name), data, given)
    back, first = open_stack(written), open_stack(image)
    assert np.array_equal(back.data[...], first.data[...])
    assert back.dtype == first.dtype
    assert back.calibration.pixel_size_um == {"y": 0.6, "x": 0.4}
    assert back.frame_times_s == pytest.approx((3.0, 5.5, 8.0))


def test_label_file_survives_the_viewer(tmp_path, rng, schema):
    labels = rng.integers(0, 10, (3, 20, 30), dtype=np.uint8)
    path = tmp_path / "film.ome.tif"
    write_labels(path, labels, shape=labels.shape, axes="tyx", calibration=CALIBRATION, schema=schema)
    ((data, given, kind),) = readers.read(str(path))
    assert kind == "labels"
    # what napari makes of it while it is shown
    given["colormap"] = object()
    (written,) = readers.write_labels_layer(str(tmp_path / "out.ome.tif"), data.astype(np.uint32), given)
    back = read_labels(written)
    assert np.array_equal(back.stack.data[...], labels)
    assert back.stack.dtype == np.uint8
    assert back.schema == schema
    assert back.stack.calibration.pixel_size_um == {"y": 0.6, "x": 0.4}


def test_object_ids_are_saved_as_they_are(tmp_path):
    ids = np.arange(600, dtype=np.int32).reshape(20, 30)
    given = {"name": "ids", "scale": (0.6, 0.4), "units": ("micrometer", "micrometer"), "translate": (0, 0)}
    (written,) = readers.write_labels_layer(str(tmp_path / "ids.tif"), ids, given)
    back = open_stack(written)
    assert np.array_equal(back.data[...], ids)
    assert back.spacing_um == (0.6, 0.4)


def test_text_is_left_to_other_readers(tmp_path):
    path = tmp_path / "notes.tif"
    path.write_text("no image")
    assert readers.get_reader(str(path)) is None


def test_samples_are_those_of_data_samples(tmp_path, monkeypatch):
    from napari_plugin import samples

    monkeypatch.setenv(samples.FOLDER_VARIABLE, str(tmp_path))
    ((data, given, _),) = samples.tem()
    shipped = open_stack(ROOT / "data_samples" / "tem" / "image.ome.tif")
    assert np.array_equal(data, shipped.data)
    assert given["scale"][1:] == shipped.spacing_um
    assert (tmp_path / "tem" / "cycler.csv").is_file()


def test_manifest_is_valid_and_every_name_in_it_exists():
    npe2 = pytest.importorskip("npe2")
    from importlib import import_module

    from seg.synthetic import SAMPLES

    manifest = npe2.PluginManifest.from_file(ROOT / "napari_plugin" / "napari.yaml")
    contributions = manifest.contributions
    assert len(contributions.widgets) <= 4
    assert {sample.key for sample in contributions.sample_data} == set(SAMPLES)
    assert set(contributions.readers[0].filename_patterns) == set(readers.manifest_patterns())
    for command in contributions.commands:
        module, name = command.python_name.split(":")
        if not module.endswith("_widget"):
            assert callable(getattr(import_module(module), name))


def test_activation_loads_nothing_heavy():
    code = "import napari_plugin, napari_plugin.readers, napari_plugin.samples, napari_plugin.layers, sys;"
    code += (
        "print(sorted({'torch', 'napari', 'qtpy', 'sklearn', 'matplotlib', 'lightning', 'hydra'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_logic_knows_neither_qt_nor_napari():
    for module in (
        "labelling",
        "places",
        "edits",
        "journal",
        "layers",
        "samples",
        "readers",
        "curves",
        "overlays",
        "suggest",
    ):
        text = (ROOT / "napari_plugin" / f"{module}.py").read_text(encoding="utf-8")
        for word in ("import napari\n", "from napari ", "from napari.", "qtpy", "PySide", "PyQt"):
            assert word not in text, (module, word)


def test_result_folder_opens_as_layers(tmp_path):
    from seg.analysis import load_analysis
    from seg.pipeline import RunOptions, measure

    sample = read_labels(ROOT / "data_samples" / "tem" / "labels.ome.tif")
    calibration = Calibration(sample.stack.calibration.pixel_size_um, (0.0, 40.0, 80.0), "file")
    labels = tmp_path / "drops.ome.tif"
    few = sample.stack.data[3:6]
    write_labels(labels, few, shape=few.shape, axes="tyx", calibration=calibration, schema=sample.schema)
    (result,) = measure([labels], load_analysis("tem-insitu"), tmp_path, RunOptions())
    found = layers.result_layers(result.folder)
    assert [kind for _, _, kind in found][:2] == ["labels", "labels"]
    assert "tracks" in {kind for _, _, kind in found}
    scales = {given["scale"][1:] for _, given, _ in found}
    assert scales == {open_stack(labels).spacing_um}
