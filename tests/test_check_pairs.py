"""``operandoseg check --labels``: every reason a labelled image cannot be trained on, at once."""

import numpy as np
import pytest
from PIL import Image

from seg.cli import main


@pytest.fixture
def labelled(tmp_path):
    """Four images of two specimens with strokes of two classes."""
    rng = np.random.default_rng(3)
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for name in ("cellA_0", "cellA_1", "cellB_0", "cellB_1"):
        Image.fromarray(rng.integers(0, 255, (20, 30), np.uint8)).save(tmp_path / "images" / f"{name}.png")
        strokes = np.zeros((20, 30), np.uint8)
        strokes[3, 4:8], strokes[12, 4:8] = 1, 3
        Image.fromarray(strokes).save(tmp_path / "labels" / f"{name}.png")
    return tmp_path


def check(folder, *words):
    return main(["check", str(folder / "images" / "*.png"), "--labels", str(folder / "labels" / "*.png"), *words])


def test_usable_labels_pass(labelled, capsys):
    assert check(labelled) == 0
    assert "specimen cellB, labels electrolyte, deposit" in capsys.readouterr().out


def test_all_faults_are_found_and_end_with_5(labelled, capsys):
    (labelled / "images" / "cellA_0.png").write_bytes((labelled / "images" / "cellA_0.png").read_bytes()[:80])
    Image.fromarray(np.ones((9, 9), np.uint8)).save(labelled / "labels" / "cellA_1.png")
    Image.fromarray(np.full((20, 30), 77, np.uint8)).save(labelled / "labels" / "cellB_0.png")
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(labelled / "labels" / "cellB_1.png")
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(labelled / "images" / "odd.png")
    Image.fromarray(np.ones((20, 30), np.uint8)).save(labelled / "labels" / "odd.png")
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(labelled / "images" / "cellC_0.png")
    assert check(labelled, "--specimen", "^(cell.)_") == 5
    out = capsys.readouterr().out
    for part in ("cellA_0.png: 'cellA_0.png'", "(20, 30), its labels (9, 9)", "77", "no pixel of cellB_1.png",
                 "odd.png: no specimen", "no label file"):  # fmt: skip
        assert part in out
    assert out.count("ERROR") == 6


def test_one_class_is_not_enough(labelled, capsys):
    for file in (labelled / "labels").iterdir():
        Image.fromarray(np.minimum(np.asarray(Image.open(file)), 1)).save(file)
    assert check(labelled) == 5
    assert "only electrolyte is labelled" in capsys.readouterr().out


def test_options_of_training_data_need_labels(labelled, capsys):
    assert main(["check", str(labelled / "images" / "*.png"), "--specimen", "(x)"]) == 2
    assert check(labelled, "--specimen", "x") == 2
    assert check(labelled, "--label-map", "0=unlabelled,1=deposit,3=sei") == 0
    assert "labels deposit, sei" in capsys.readouterr().out
