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
