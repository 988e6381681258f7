"""The folder data_samples holds what the code makes."""

import filecmp
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seg.io import open_stack, read_labels
from seg.synthetic import SAMPLES, make_sample, write_experiment

FOLDER = Path(__file__).parents[2] / "data_samples"


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_is_made_again(name, tmp_path):
    write_experiment(make_sample(name), tmp_path)
    stored = sorted(p.name for p in (FOLDER / name).iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == stored
    for file in (p for p in stored if p.endswith(".csv")):
        # ten digits are written; the last may round the other way on another processor
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / file), pd.read_csv(FOLDER / name / file), rtol=1e-8)
    about = [(folder / "experiment.json").read_text(encoding="utf-8") for folder in (tmp_path, FOLDER / name)]
    assert about[0] == about[1]
    for file in ("image.ome.tif", "instances.ome.tif"):
        np.testing.assert_array_equal(open_stack(tmp_path / file).data[...], open_stack(FOLDER / name / file).data[...])
    labels = [read_labels(folder / "labels.ome.tif") for folder in (tmp_path, FOLDER / name)]
    np.testing.assert_array_equal(labels[0].stack.data[...], labels[1].stack.data[...])


def test_written_twice_the_bytes_are_the_same(tmp_path):
    """Compression may differ between versions of its library, so bytes are compared here, within one installation."""
    for folder in ("a", "b"):
        write_experiment(make_sample("cryoem"), tmp_path / folder)
    names = [p.name for p in (tmp_path / "a").iterdir()]
    match, differing, errors = filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", names, shallow=False)
    assert sorted(match) == sorted(names)
    assert differing + errors == []


def test_samples_are_small_and_explained():
    total = sum(p.stat().st_size for name in SAMPLES for p in (FOLDER / name).iterdir())
    assert total < 8e6
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name for name in SAMPLES if f"`{name}`" not in text] == []
