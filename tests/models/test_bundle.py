"""Models on disk: what is saved comes back, and everything that does not fit is refused with exit code 6."""

import io
import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import seg.models.bundle as bundles
from seg.errors import ModelError, UsageError
from seg.labels import LabelClass, LabelSchema
from seg.models.bundle import (
    CARD,
    SELFTEST,
    SPEC,
    WEIGHTS,
    export_bundle,
    find_model,
    list_models,
    load_bundle,
    read_spec,
    save_bundle,
)
from seg.models.device import resolve_device, resolve_precision
from seg.models.spec import ModelSpec
from seg.models.unet import UNet

ARGUMENTS = {"n_classes": 3, "width": 4, "depth": 2}


@pytest.fixture
def spec(schema):
    return ModelSpec(
        "tiny", "unet", ARGUMENTS, schema.to_dict(), (1, 3, 4), modalities=("optical", "sem"), pixel_size_um=0.37,
        pixel_size_range_um=(0.1, 0.9), licence="BSD-3-Clause", training={"scores": {"iou": 0.5}},
    )  # fmt: skip


@pytest.fixture
def network():
    torch.manual_seed(5)
    network = UNet(**ARGUMENTS)
    for _ in range(3):
        network(torch.rand(2, 1, 32, 32))  # running statistics other than 0 and 1
    return network


@pytest.fixture
def folder(tmp_path, network, spec):
    return save_bundle(tmp_path / "tiny", network, spec, "# Tiny\nBSD\n", seed=7)


def rewrite(folder, **changes):
    data = json.loads((folder / SPEC).read_text())
    data.update(changes)
    (folder / SPEC).write_text(json.dumps({k: v for k, v in data.items() if v is not ...}))


def test_save_then_load_is_identity(folder, network, spec, schema):
    bundle = load_bundle(folder, schema=schema)
    assert bundle.spec == spec
    assert (bundle.card, bundle.path) == ("# Tiny\nBSD\n", folder)
    assert bundle.spec.class_names == ("electrolyte", "deposit", "dendrite")
    assert len(bundle.weights_sha256) == 64
    image = torch.rand(1, 1, 16, 24)
    assert network.training  # the network given was left as it was
    with torch.inference_mode():
        assert torch.equal(bundle.network(image), network.eval()(image))
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, SPEC, CARD, SELFTEST}
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]  # no temporary folder stays behind


@pytest.mark.parametrize("dims", [2, 3])
def test_three_dimensions_and_several_channels(tmp_path, spec, dims):
    arguments = {**ARGUMENTS, "dims": dims, "in_channels": 2}
    path = save_bundle(tmp_path / "m", UNet(**arguments), replace(spec, arguments=arguments, dims=dims), "", seed=1)
    assert load_bundle(path).network.dims == dims


def test_half_weights_are_smaller_and_say_so(tmp_path, folder, network, spec):
    path = save_bundle(tmp_path / "half", network, spec, "", seed=7, half=True)
    bundle = load_bundle(path)
    assert bundle.spec.training["weights_rounded_to"] == "float16"
    assert (path / WEIGHTS).stat().st_size < 0.75 * (folder / WEIGHTS).stat().st_size
    assert bundle.network.head.weight.dtype == torch.float32
    # float16 keeps 11 bits: rounding to nearest changes a value by at most 2^-11 of it
    torch.testing.assert_close(bundle.network.head.weight, network.head.weight, rtol=2**-11, atol=1e-7)


def test_saving_again_replaces_a_model_and_nothing_else(folder, network, spec, tmp_path):
    save_bundle(folder, network, replace(spec, name="second"), "", seed=7)
    assert read_spec(folder).name == "second"
    other = tmp_path / "results"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    with pytest.raises(ModelError, match="is not a model; choose another folder"):
        save_bundle(other, network, spec, "", seed=7)
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


def test_a_diverged_network_is_not_saved(tmp_path, network, spec):
    with torch.no_grad():
        network.head.bias[1] = float("nan")
    with pytest.raises(ModelError, match="diverged"):
        save_bundle(tmp_path / "m", network, spec, "", seed=7)
    assert list(tmp_path.iterdir()) == []


def test_export_copies_a_model_that_loads(folder, tmp_path):
    bundle = load_bundle(folder)
    assert load_bundle(export_bundle(bundle, tmp_path / "copy")).weights_sha256 == bundle.weights_sha256


@pytest.mark.parametrize("name", [WEIGHTS, CARD, SELFTEST])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        load_bundle(folder)


@pytest.mark.parametrize("name", [WEIGHTS, SPEC, SELFTEST])
@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_a_damaged_file_is_refused(folder, name, damage):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2] if damage == "truncated" else b"not what it says")
    with pytest.raises(ModelError):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format version 2; this version of operandoseg .* reads 1"),
        ({"architecture": "unett"}, "'unett', which is unknown; did you mean 'unet'"),
        ({"arguments": {**ARGUMENTS, "widht": 4}}, "widht"),
        ({"arguments": {**ARGUMENTS, "width": 10**9}}, "width is 1000000000; expected"),
        ({"arguments": {**ARGUMENTS, "width": 1000}}, "do not fit its architecture: .* expected"),
        ({"arguments": {**ARGUMENTS, "depth": 1}}, "do not fit its architecture"),
        ({"class_indices": [1, 3]}, r"3 output channels \(n_classes\) but 2 class indices"),
        ({"class_indices": [1, 3, 3]}, "expected different indices"),
        ({"class_indices": [0, 1, 3]}, "class 0, which always means unlabelled"),
        ({"class_indices": [1, 3, 300]}, "label value 300; masks hold at most 255"),
        ({"class_indices": [1, 3, 77]}, "no class with index 77"),
        ({"schema": {"name": "x"}}, "not a label schema"),
        ({"dims": 3}, "says it has 3 dimensions, its network has 2"),
        ({"normalisation": {}}, "no normalisation percentiles"),
        ({"normalisation": {"percentiles": [90, 10]}}, "expected 0..100"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"name": ...}, "'name'"),
        ({"weights_sha256": "0" * 64}, "is not the file that model.json was written for"),
    ],
)
def test_a_specification_that_does_not_fit_is_refused(folder, changes, message):
    rewrite(folder, **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load_bundle(folder)
    assert caught.value.exit_code == 6


def test_changed_weights_fail_the_selftest(folder):
    weights = load_file(folder / WEIGHTS)
    weights["head.bias"] = weights["head.bias"] + 0.5
    save_file(weights, folder / WEIGHTS)
    rewrite(folder, weights_sha256=...)
    with pytest.raises(ModelError, match=r"fails its self-test: its output differs by 0\.5"):
        load_bundle(folder)


def test_want_of_memory_is_not_blamed_on_the_model(folder):
    def network(image):
        raise RuntimeError("could not create a primitive")  # oneDNN where an allocation fails

    with pytest.raises(MemoryError):
        bundles._check_selftest(network, folder, "tiny")


def test_nothing_is_unpickled(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(folder / SELFTEST, "w") as file:
        file.writestr("image.npy", buffer.getvalue())
        file.writestr("logits.npy", buffer.getvalue())
    with pytest.raises(ModelError, match="cannot be read"):
        load_bundle(folder)
    (folder / WEIGHTS).write_bytes(pickle.dumps(Bomb()))
    rewrite(folder, weights_sha256=...)
    with pytest.raises(ModelError, match="is damaged"):
        load_bundle(folder)
    assert not (tmp_path / "exploded").exists()


def test_a_selftest_that_unpacks_to_gigabytes_is_refused(folder, monkeypatch):
    monkeypatch.setattr(bundles, "MAX_SELFTEST_BYTES", 1000)
    with pytest.raises(ModelError, match="unpacks to"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((LabelClass(1, "electrolyte", "#000000"),), "class 'deposit' as label value 3 .* which does not have it"),
        ((LabelClass(2, "electrolyte", "#000000"),), "class 'electrolyte' as label value 1 .* there it is 2"),
    ],
)
def test_a_schema_without_the_classes_is_refused(folder, classes, message):
    with pytest.raises(ModelError, match=message):
        load_bundle(folder, schema=LabelSchema("mine", classes))


def test_names_are_resolved_and_unknown_ones_are_not_guessed(folder, monkeypatch, network, spec):
    monkeypatch.setattr(bundles, "SHIPPED", folder.parent)
    only_sem = replace(spec, name="fine", modalities=("sem",))
    special = save_bundle(folder.parent / "fine", network, only_sem, "", seed=1)
    assert list_models() == [special, folder]
    assert load_bundle("tiny").spec.name == "tiny"
    assert find_model("auto", modality="optical") == folder
    assert find_model("auto", modality="sem") == special  # made for less, hence more special
    assert find_model("given", modality="sem") == "given"
    with pytest.raises(ModelError, match="did you mean 'tiny'"):
        load_bundle("tinny")
    with pytest.raises(ModelError, match=r"No shipped model is made for 'xct' images .*tiny \(optical, sem\)"):
        find_model("auto", modality="xct")
    with pytest.raises(ModelError, match="is a file"):
        load_bundle(folder / WEIGHTS)
    with pytest.raises(ModelError, match="it has no model.json"):
        load_bundle(folder.parent)


@pytest.mark.parametrize(
    ("modality", "pixel_size_um", "expected"),
    [
        ("sem", 0.12, "fine"),
        ("sem", 0.7, "coarse"),
        ("sem", 9.0, "any"),  # outside both ranges
        ("sem", None, "any"),
        ("optical", 0.12, "any"),  # the modality comes first
    ],
)
def test_auto_goes_by_modality_and_then_by_pixel_size(
    modality, pixel_size_um, expected, tmp_path, network, spec, monkeypatch
):
    monkeypatch.setattr(bundles, "SHIPPED", tmp_path)
    for name, size, reach in (("fine", 0.1, (0.05, 0.2)), ("coarse", 1.0, (0.5, 2.0)), ("any", None, None)):
        kinds = ("sem",) if size else ("optical", "sem")
        own = replace(spec, name=name, pixel_size_um=size, pixel_size_range_um=reach, modalities=kinds)
        save_bundle(tmp_path / name, network, own, "", seed=1)
    assert find_model("auto", modality=modality, pixel_size_um=pixel_size_um) == tmp_path / expected


def test_auto_prefers_the_view_of_the_analysis_and_shuns_another(tmp_path, network, spec, monkeypatch):
    monkeypatch.setattr(bundles, "SHIPPED", tmp_path)
    for name, kinds, views in (("a_profile", ("cryoem",), ("profile",)), ("general", ("cryoem", "sem"), ())):
        save_bundle(tmp_path / name, network, replace(spec, name=name, modalities=kinds, views=views), "", seed=1)
    found = {view: find_model("auto", modality="cryoem", view=view).name for view in ("profile", "section", None)}
    # a network for any view, though less special, rather than one for another view
    assert found == {"profile": "a_profile", "section": "general", None: "a_profile"}


def test_every_shipped_model_loads(schema):
    for path in list_models():
        bundle = load_bundle(path.name, schema=schema)
        assert bundle.spec.licence != "unspecified"
        assert bundle.card.strip()


def test_devices_that_are_not_there_are_refused():
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match="choose auto, cpu, cuda"):
        resolve_device("gpu")
    with pytest.raises(UsageError, match="slower than fp32 on a CPU"):
        resolve_precision("fp16", torch.device("cpu"))
    with pytest.raises(UsageError, match="no precision 'half'"):
        resolve_precision("half", torch.device("cpu"))
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="finds no CUDA device"):
            resolve_device("cuda")
