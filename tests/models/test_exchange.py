"""Models for other programs give the logits of the network; ensembles give the mean probability."""

import logging

import numpy as np
import pytest
import torch
import yaml

from seg.cli import main
from seg.errors import ModelError, UsageError
from seg.inference import predict_probabilities
from seg.models.bundle import load_bundle, save_bundle
from seg.models.exchange import export_bioimageio, export_onnx, export_torch
from seg.models.join import join_bundles
from seg.models.spec import ModelSpec
from seg.models.unet import UNet
from seg.preprocess import SeriesNormalisation
from seg.runner import InferenceSettings


@pytest.fixture
def make(tmp_path, schema):
    """Saves and loads a small model with random weights and running statistics other than 0 and 1."""

    def make(name, seed, *, dims=2, indices=(1, 3, 7), scales=(1,), **fields):
        torch.manual_seed(seed)
        arguments = {"n_classes": len(indices), "dims": dims, "width": 6, "depth": 2, "scales": list(scales)}
        network = UNet(**arguments)
        network(torch.rand(2, 1, *(16,) * dims))
        spec = ModelSpec(name, "unet", arguments, schema.to_dict(), indices, dims, ("optical",), **fields)
        return load_bundle(save_bundle(tmp_path / name, network, spec, f"# {name}", seed=seed))

    return make


def test_torch_export_gives_the_same_logits_at_any_size(make, tmp_path, monkeypatch):
    bundle = make("one", 1, dims=3)
    folder = export_torch(bundle, tmp_path / "exported")
    program = torch.export.load(folder / "model.pt2")
    image = torch.rand(3, 1, 8, 12, 20)
    with torch.no_grad():  # float32 rounding
        torch.testing.assert_close(program.module()(image), bundle.network(image), atol=1e-5, rtol=1e-5)
    with pytest.raises(UsageError, match="not empty"):
        export_torch(bundle, folder)
    # an export of other weights is found and not kept
    monkeypatch.setattr("seg.models.exchange._program", lambda bundle: program)
    with pytest.raises(ModelError, match=r"torch.export of model 'two' gives other values"):
        export_torch(make("two", 2, dims=3), tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_networks_of_several_scales_are_exported_too(make, tmp_path):
    bundle = make("one", 1, scales=(1, 2))
    program = torch.export.load(export_torch(bundle, tmp_path / "exported") / "model.pt2").module()
    image = torch.rand(3, 1, 24, 40)  # multiples of 8: two halvings and the second scale
    with torch.no_grad():  # float32 rounding
        torch.testing.assert_close(program(image).softmax(1), bundle.network(image).softmax(1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scales", [(1,), (1, 2)])
def test_onnx_gives_the_same_logits_at_any_size(make, tmp_path, scales, caplog):
    caplog.set_level(logging.INFO)
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    bundle = make("one", 1, scales=scales)
    session = onnxruntime.InferenceSession(str(export_onnx(bundle, tmp_path / "exported") / "model.onnx"))
    assert {r.name.partition(".")[0] for r in caplog.records} == {"seg"}  # nothing of every node that is folded
    multiple = bundle.network.tile_multiple
    told = session.get_modelmeta().custom_metadata_map
    assert (told["operandoseg.tile_multiple"], told["operandoseg.percentiles"]) == (str(multiple), "[0.5, 99.5]")
    image = np.random.default_rng(0).random((3, 1, 3 * multiple, 5 * multiple), np.float32)
    with torch.no_grad():
        expected = bundle.network(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(session.run(None, {"image": image})[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("scales", "temperature"), [((1,), 1.0), ((1, 2), 1.4)])
def test_bioimageio_packages_do_what_they_say(make, tmp_path, scales, temperature):
    """Another program that follows the description gets the probabilities of the network."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    pytest.importorskip("bioimageio.spec")
    bundle = make("one", 1, scales=scales, temperature=temperature, pixel_size_um=0.4)
    folder = export_bioimageio(bundle, tmp_path / "package")
    assert {f.name for f in folder.iterdir()} == {
        "rdf.yaml", "model.onnx", "README.md", "test_input.npy", "test_output.npy",
    }  # fmt: skip
    described = yaml.safe_load((folder / "rdf.yaml").read_text())
    (before, clip), after = described["inputs"][0]["preprocessing"], described["outputs"][0]["postprocessing"]
    raw = np.load(folder / "test_input.npy")
    assert np.ptp(raw) > 10_000  # raw intensities, as a 16-bit camera gives them
    low, high = np.percentile(raw, [before["kwargs"]["min_percentile"], before["kwargs"]["max_percentile"]])
    image = np.clip((raw - low) / (high - low + before["kwargs"]["eps"]), clip["kwargs"]["min"], clip["kwargs"]["max"])
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    gain = {step["id"]: step["kwargs"] for step in after}.get("scale_linear", {"gain": 1.0})["gain"]
    logits = gain * session.run(None, {"image": image.astype(np.float32)})[0]
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    # float32 rounding
    np.testing.assert_allclose(found, np.load(folder / "test_output.npy"), atol=1e-5)
    with torch.no_grad():
        expected = (bundle.network(torch.from_numpy(image.astype(np.float32))) / temperature).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("wanted", ["onnx", "bioimageio"])
def test_a_missing_package_names_the_extra(make, tmp_path, monkeypatch, capsys, wanted):
    import sys

    for name in ("onnxruntime", "bioimageio.spec"):
        monkeypatch.setitem(sys.modules, name, None)
    bundle = make("one", 1)
    assert main(["model", "export", str(bundle.path), "--format", wanted, "--out", str(tmp_path / "x")]) == 2
    assert "operandoseg[export]" in capsys.readouterr().err


def test_an_ensemble_averages_probabilities_through_the_engine(make, tmp_path, rng, capsys):
    """Two models on an image that is cut into tiles: the mean of what each gives alone."""
    one, two = make("one", 1), make("two", 2)
    assert main(["model", "join", str(one.path), str(two.path), "--out", str(tmp_path / "both")]) == 0
    joined = load_bundle(tmp_path / "both")
    image = rng.random((64, 72)).astype(np.float32)
    settings, as_it_is = InferenceSettings(device="cpu", precision="fp32", tile_px=48), SeriesNormalisation(0, 1)
    alone = [predict_probabilities(b, image, settings, normalisation=as_it_is) for b in (one, two)]
    both = predict_probabilities(joined, image, settings, normalisation=as_it_is)
    np.testing.assert_allclose(both, np.mean(alone, axis=0), atol=1e-4)  # norms folded into float32 weights
    assert both.sum(0) == pytest.approx(np.ones((64, 72)), abs=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 0.05
    assert "# one" in joined.card
    assert "No score below is of the ensemble" in joined.card
    with torch.no_grad():
        x = torch.rand(1, 1, 16, 16)
        expected = (one.network(x).softmax(1) + two.network(x).softmax(1)) / 2
        torch.testing.assert_close(joined.network(x).softmax(1), expected, atol=1e-6, rtol=1e-5)


def test_an_ensemble_of_ensembles_weighs_every_member_alike(make, tmp_path):
    one, two, three = (make(name, seed) for seed, name in enumerate(("one", "two", "three")))
    pair = load_bundle(join_bundles([one, two], tmp_path / "pair"))
    all_three = load_bundle(join_bundles([pair, three], tmp_path / "all"))
    x = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        expected = sum(b.network(x).softmax(1) for b in (one, two, three)) / 3
        torch.testing.assert_close(all_three.network(x).softmax(1), expected, atol=1e-6, rtol=1e-5)


def test_calibrated_probabilities_are_averaged(make, tmp_path):
    one, two = make("one", 1, temperature=2.0), make("two", 2)
    joined = load_bundle(join_bundles([one, two], tmp_path / "both"))
    x = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        expected = ((one.network(x) / 2).softmax(1) + two.network(x).softmax(1)) / 2
        torch.testing.assert_close(joined.network(x).softmax(1), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"indices": (1, 3, 8)}, "classes"),
        ({"dims": 3}, "dimensions"),
        ({"pixel_size_um": 0.5}, "pixel size"),
        ({"normalisation": {"percentiles": [1, 99]}}, "normalisation"),
    ],
)
def test_models_that_do_not_fit_are_not_joined(make, tmp_path, other, what):
    with pytest.raises(ModelError, match=f"cannot be joined: {what}"):
        join_bundles([make("one", 1), make("two", 2, **other)], tmp_path / "both")
    with pytest.raises(UsageError, match="two models"):
        join_bundles([make("one", 1)], tmp_path / "both")
