"""The command line: exit codes, the shown configuration, sweeps, and the shipped recipe on real images."""

import numpy as np
import pytest
import yaml
from PIL import Image

from seg.models.bundle import CARD, SHIPPED, load_bundle
from seg.synthetic.twins import write_twins
from training.cli import main
from training.config import compose_config, to_train_config
from training.sources import all_pairs


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


@pytest.mark.parametrize("plan", ["none", "auto"])
def test_a_recipe_without_its_micrographs_names_all_of_them_in_one_sentence(plan, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPERANDOSEG_DATA", raising=False)
    assert main(["experiment=sem", "debug=fast_dev", f"plan={plan}"]) == 4
    said = capsys.readouterr().err
    real = ["sem_dendrites", "sem_film_cracks", "sem_precipitates"]
    assert "data.sources." + ", ".join(real) + ": nothing matches sem_dendrites/images/*.jpg" in said
    assert f"Set OPERANDOSEG_DATA or data.root (now {tmp_path})" in said
    assert "with " + " ".join(f"data.sources.{name}.weight=0" for name in real) + ".\n" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "runs").exists()  # no twins are drawn for a run that cannot start


@pytest.mark.parametrize("experiment", ["optical", "sem", "xct", "cryoem", "tem", "generalist"])
def test_the_twins_of_a_recipe_are_those_of_the_card_of_its_model(experiment):
    model = compose_config([f"experiment={experiment}"])
    for name, source in model.data.sources.items():
        if source.real:
            continue
        twins = source.drawn
        said = f"python -m seg.synthetic.twins --per-family {twins.per_family} --seed {twins.seed}"
        said += f" --modality {twins.modality}" if twins.modality else ""
        said += f" --families {' '.join(twins.families)}" if twins.families else ""
        assert f"{said}, " in (SHIPPED / model.name / CARD).read_text(), name


def test_a_recipe_draws_its_twins_once_and_leaves_no_half_of_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = to_train_config(compose_config(["experiment=xct", "data.sources.twins.drawn.per_family=2"])).data
    monkeypatch.setattr("seg.synthetic.twins.write_twins", _stopped_half_way)
    with pytest.raises(KeyboardInterrupt):
        all_pairs(data)
    assert list((tmp_path / "runs").iterdir()) == []
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    pairs, problems = all_pairs(data)
    assert not problems
    assert [pair.image.name for _, _, pair in pairs] == ["interface-0000.ome.tif", "interface-0001.ome.tif"]
    assert [pair.specimen for _, _, pair in pairs] == ["interface-0000", "interface-0001"]
    written = [pair.labels.stat().st_mtime_ns for _, _, pair in pairs]
    assert [pair.labels.stat().st_mtime_ns for _, _, pair in all_pairs(data)[0]] == written
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["twins-xct"]


def _stopped_half_way(out, **options):
    (out / "images").mkdir(parents=True)
    raise KeyboardInterrupt


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
