"""The settings of the manifest: declared soundly, read with defaults, and taken over where the user set them."""

import subprocess
import sys
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

import napari_plugin
from napari_plugin.settings import Settings, declared, settings_of
from seg import forest
from seg.labels import load_schema
from seg.modality import MODALITIES

MANIFEST = Path(napari_plugin.__file__).parent / "napari.yaml"


def test_every_declared_property_is_read_and_no_other():
    names = [name for properties in declared().values() for name in properties]
    assert sorted(names) == sorted(field.name for field in fields(Settings))
    assert len(set(names)) == len(names)


def test_defaults_are_those_of_the_engine():
    found = settings_of(None)
    assert (found.trees, found.depth, found.pixels) == (forest.N_TREES, forest.DEPTH, forest.MAX_PIXELS)
    assert load_schema(found.classes) == load_schema()
    assert declared()["labelling"]["instrument"]["enum"] == list(MODALITIES)


def test_what_the_user_set_wins_and_the_rest_stays():
    stored = SimpleNamespace(forest=SimpleNamespace(trees=64, depth=5), labelling=SimpleNamespace(autosave_min=3))
    found = settings_of(stored)
    assert (found.trees, found.depth, found.autosave_min) == (64, 5, 3)
    assert found.memory_mib == settings_of(None).memory_mib


def test_defaults_keep_their_own_limits():
    for properties in declared().values():
        for name, about in properties.items():
            assert about.get("minimum", about["default"]) <= about["default"], name
            assert about.get("maximum", about["default"]) >= about["default"], name


def test_manifest_is_valid():
    if find_spec("npe2") is None:
        pytest.skip("npe2 comes with napari and checks the manifest: pip install -e '.[test]'")
    # In a process of its own: importing napari's models warns, which ends tests here.
    words = [sys.executable, "-m", "npe2", "validate", "--imports", str(MANIFEST)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
