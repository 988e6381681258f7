"""Fixtures shared by all tests."""

import os
from pathlib import Path

import numpy as np
import pytest

from seg.labels import load_schema


@pytest.fixture
def rng():
    """A generator with a fixed seed."""
    return np.random.default_rng(20261121)


@pytest.fixture(scope="session")
def schema():
    """The default schema."""
    return load_schema("lithium")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real labelled images; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("OPERANDOSEG_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set OPERANDOSEG_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def tiny_model_of(tmp_path_factory):
    """Makes an untrained network of three classes for a modality: its masks mean nothing, its mechanics are real."""

    def make(modality: str) -> Path:
        import torch

        from seg.models.bundle import save_bundle
        from seg.models.spec import ModelSpec
        from seg.models.unet import UNet

        torch.manual_seed(3)
        arguments = {"n_classes": 3, "width": 4, "depth": 2}
        schema = load_schema("lithium").to_dict()
        spec = ModelSpec("tiny", "unet", arguments, schema, (2, 3, 4), modalities=(modality,))
        return save_bundle(tmp_path_factory.mktemp("models") / "tiny", UNet(**arguments), spec, "# Tiny", seed=1)

    return make
