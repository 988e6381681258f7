"""The command line: exit codes, the shown configuration, sweeps, and the shipped recipe on real images."""

import numpy as np
import pytest
import yaml
from PIL import Image

from seg.models.bundle import load_bundle
from seg.synthetic.twins import write_twins
from training.cli import main


@pytest.fixture
def words(film_words, monkeypatch):
    """Command-line words of a three-step run; no tqdm in the captured output."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    return film_words


def test_a_run_ends_with_a_model_and_zero(words, tmp_path, capsys):
    assert main(words) == 0
    assert "model: " in capsys.readouterr().out
    assert load_bundle(tmp_path / "runs" / "film" / "model").spec.name == "film"
    written = yaml.safe_load((tmp_path / "runs" / "film" / "config.yaml").read_text())
    assert written["model"]["width"] == 8


def test_a_run_without_held_out_images_says_that_nothing_is_known_of_it(words, capsys, caplog):
    assert main([*words, "data.sources.mine.held_out=[]", "trainer.max_steps=1"]) == 0
    assert capsys.readouterr().out.startswith("1 steps in")
    assert caplog.text.count("No image is held out, so nothing says how good the model is") == 1


def test_config_is_shown_with_all_keys(words, capsys):
    assert main([*words, "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["trainer"]["max_steps"] == 3
    assert shown["data"]["sources"]["mine"]["held_out"] == ["cellC"]


def test_unknown_key_names_the_nearest_and_ends_with_2(words, capsys):
    assert main([*words, "optimizer.lrr=1"]) == 2
    assert "did you mean 'optimizer.lr'" in capsys.readouterr().err


def test_labels_outside_the_map_end_with_5(words, films, capsys):
    Image.fromarray(np.full((72, 80), 9, np.uint8)).save(films / "labels" / "cellA_0.png")
    assert main(words) == 5
    assert "cellA_0.png holds label value(s) 9" in capsys.readouterr().err


def test_nothing_matched_ends_with_4(words, capsys):
    assert main([*words, "data.root=/nowhere"]) == 4
    assert "OPERANDOSEG_DATA" in capsys.readouterr().err


def test_a_sweep_goes_on_after_a_bad_run_and_ends_with_3(words, tmp_path, capsys):
    assert main(["-m", *words, "trainer.max_steps=1,2", "data.patch_px=32,33"]) == 3
    assert sorted(p.name for p in (tmp_path / "runs").glob("*/model")) == ["model", "model"]
    assert "failed: trainer.max_steps=1 data.patch_px=33: " in capsys.readouterr().err


def test_a_sweep_with_several_processes_is_refused(words, capsys):
    assert main(["-m", *words, "trainer.max_steps=1,2", "trainer.devices=2"]) == 2
    assert "one by one" in capsys.readouterr().err


def test_ctrl_c_ends_with_130(words, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("training.loop.prepare", interrupted)
    assert main(words) == 130
    assert "the same command continues" in capsys.readouterr().err


@pytest.mark.parametrize("experiment", ["optical", "sem", "xct", "cryoem"])
def test_a_recipe_without_its_data_says_how_to_get_all_of_it(experiment, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([f"experiment={experiment}", "debug=fast_dev", "data.root=nowhere"]) == 4
    said = capsys.readouterr().err
    assert f"python -m seg.synthetic.twins runs/twins-{experiment} --modality {experiment}" in said
    real = ["sem_dendrites", "sem_film_cracks", "sem_precipitates"] if experiment == "sem" else []
    assert all(f"with data.sources.{name}.weight=0" in said for name in [*real, "twins"])


@pytest.fixture
def corners(shared_data, tmp_path):
    """The micrographs of the recipes, a corner of each: whole ones take half a minute to score."""
    for path in shared_data.glob("sem_*/*/*"):
        corner = Image.open(path).crop((0, 0, 256, 256))
        (tmp_path / "data" / path.relative_to(shared_data)).parent.mkdir(parents=True, exist_ok=True)
        corner.save(tmp_path / "data" / path.relative_to(shared_data))
    for path in shared_data.glob("sem_*/SOURCE.txt"):
        (tmp_path / "data" / path.relative_to(shared_data)).write_bytes(path.read_bytes())
    return tmp_path / "data"


def test_the_recipe_of_the_generalist_runs_on_real_images(corners, tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.chdir(tmp_path)
    write_twins(tmp_path / "runs" / "twins", per_family=1, seed=3)
    words = [
        "experiment=generalist", "debug=fast_dev", f"data.root={corners}", f"runs={tmp_path}",
        "trainer.max_steps=1", "trainer.baselines=false",
    ]  # fmt: skip
    assert main(words) == 0
    card = (tmp_path / "generalist-2d" / "model" / "card.md").read_text()
    assert "held out: 70nm_diameter_100nm_pitch" in card
    assert "CC BY 4.0" in card
    assert "npj Comput. Mater." in card
    assert str(corners) not in card + (tmp_path / "generalist-2d" / "model" / "model.json").read_text()
