import json

import numpy as np
import pandas as pd
import pytest

from seg.cli import main
from seg.errors import UsageError
from seg.io import open_stack, read_labels
from seg.synthetic.study import write_study

SMALL = {"shape_px": (150, 160), "n_frames": 4}


def test_density_rises_with_current_over_a_study(tmp_path):
    """Slope of log births against log current, over two decades: 0.7 within three standard errors of the counts."""
    currents = (0.1, 1.0, 10.0)
    write_study("nucleation", 5, currents, tmp_path, shape_px=(300, 300), n_frames=2, frame_interval_s=1.0,
                mode="instantaneous", density_per_cm2=4e5, bubble=False, burnt_in=False)  # fmt: skip
    study = pd.read_csv(tmp_path / "study.csv")
    assert study["seed"].tolist() == [5, 6, 7]
    births = []
    for folder, current in zip(study["folder"], currents, strict=True):
        about = json.loads((tmp_path / folder / "experiment.json").read_text(encoding="utf-8"))
        assert about["parameters"]["current_density_mA_cm2"] == current
        truth = pd.read_csv(tmp_path / folder / "truth.csv")
        births.append(float(truth.loc[truth["metric"] == "birth_count", "value"].iloc[0]))
    # the ends carry the slope: var(log N) = 1 / N each
    slope = np.log(births[2] / births[0]) / np.log(100)
    assert slope == pytest.approx(0.7, abs=3 * np.sqrt(1 / births[0] + 1 / births[2]) / np.log(100))
    assert study["site_density_per_cm2"].tolist() == pytest.approx([4e5 * c**0.7 for c in currents])


def test_impossible_studies_are_refused(tmp_path):
    with pytest.raises(UsageError, match="'sei'"):
        write_study("sei", 1, [1.0], tmp_path)
    for currents in ([], [1.0, 1.0], [0.0]):
        with pytest.raises(UsageError, match="above 0"):
            write_study("pits", 1, currents, tmp_path)


def test_command_line_passes_options_through(tmp_path, capsys):
    out = tmp_path / "twin"
    words = ["synth", "nucleation", "--seed", "3", "--size", "96x112", "--frames", "3", "--dial", "0.1", "-q",
             "--texture-only", "--set", "mode=instantaneous", "--set", "pixel_um=[0.5, 0.4]", "--format", "zarr",
             "--out", str(out)]  # fmt: skip
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == str(out)
    image, labels = open_stack(out / "image.ome.zarr"), read_labels(out / "labels.ome.zarr")
    assert image.shape == labels.stack.shape == open_stack(out / "instances.ome.zarr").shape == (3, 96, 112)
    assert dict(image.calibration.pixel_size_um) == {"y": 0.5, "x": 0.4}
    parameters = json.loads((out / "experiment.json").read_text(encoding="utf-8"))["parameters"]
    assert (parameters["dial"], parameters["texture_only"], parameters["mode"]) == (0.1, True, "instantaneous")


def test_command_line_writes_a_study(tmp_path):
    words = ["synth", "pits", "--currents-mA-cm2", "0.5,1", "--size", "120x130", "--frames", "4", "-q", "--out"]
    assert main([*words, str(tmp_path)]) == 0
    assert (tmp_path / "0.5_mA_cm2" / "image.ome.tif").exists()
    assert (tmp_path / "1_mA_cm2" / "truth.csv").exists()


@pytest.mark.parametrize(("words", "says"), [
    (["--size", "12"], "give 2 values"),
    (["--size", "axb"], "numbers with 'x'"),
    (["--frames", "0"], "1 or more"),
    (["--dial", "3"], "0 (hardly any fault)"),
    (["--set", "mode"], "NAME=VALUE"),
    (["--set", "mod=mixed"], "did you mean 'mode'"),
    (["--currents-mA-cm2", "1;2"], "numbers with ','"),
])  # fmt: skip
def test_wrong_words_are_refused_with_a_way_out(words, says, tmp_path, capsys):
    assert main(["synth", "nucleation", *words, "--out", str(tmp_path / "twin")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "twin").exists()
