"""Stored results of measuring one small twin: no number changes unseen."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seg.io import open_stack

MAKE = Path(__file__).parent / "golden" / "make.py"


@pytest.fixture(scope="module")
def golden():
    spec = importlib.util.spec_from_file_location("golden_make", MAKE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(golden, tmp_path_factory):
    return golden.measured(tmp_path_factory.mktemp("golden"))


def test_instances(golden, folder):
    now, stored = (open_stack(where / "instances.ome.tif") for where in (folder, golden.FOLDER))
    np.testing.assert_array_equal(now.data, stored.data)


@pytest.mark.parametrize("name", ["metrics.csv", "objects.csv"])
def test_tables(golden, folder, name):
    now, stored = (pd.read_csv(where / name) for where in (folder, golden.FOLDER))
    # Libraries of other versions may add in another order.
    pd.testing.assert_frame_equal(now, stored, rtol=1e-6, atol=1e-12)
