"""The plan: what it chooses from known data, that its text gives it back, and that the command line wins."""

from collections import Counter

import numpy as np
import pytest
import yaml
from PIL import Image

from seg.errors import DataError, UsageError
from training.cli import main
from training.plan import ImageFacts, bytes_per_pixel, make_plan, planned, survey


def facts(shape=(512, 600), spacing=(0.5, 0.5), labelled=None, modality="optical", planes=1.0, n=3):
    labelled = labelled or {"electrolyte": 1000, "deposit": 800}
    return [ImageFacts(shape, spacing, Counter(labelled), 2 * sum(labelled.values()), planes, modality)] * n


@pytest.fixture
def plan(film_config):
    def make(found, *overrides, given=()):
        config = film_config("model.width=24", *overrides)
        return {d.key: d.value for d in make_plan(config, found, given) if d.key}

    return make


def test_large_planes_get_the_shipped_network(plan):
    chosen = plan(facts())
    assert (chosen["model.dims"], chosen["model.depth"], chosen["data.patch_px"]) == (2, 4, 256)
    assert chosen["model.stem_px"] == 2
    assert "data.patch_z_px" not in chosen
    assert chosen["loss.class_weights"] is None


def test_small_images_get_small_patches_and_fewer_levels(plan):
    chosen = plan(facts(shape=(72, 80)))
    assert chosen["model.depth"] == 3  # 72 / 2^3 = 9 px on the coarsest grid
    assert chosen["model.stem_px"] == 1
    assert chosen["data.patch_px"] == 72


@pytest.mark.parametrize(
    ("shape", "spacing", "planes", "dims"),
    [
        ((64, 200, 200), (1.0, 1.0, 1.0), 1.0, 3),
        ((10, 200, 200), (1.0, 1.0, 1.0), 1.0, 2),  # thin
        ((64, 200, 200), (4.0, 1.0, 1.0), 1.0, 2),  # coarse along z
        ((64, 200, 200), (1.0, 1.0, 1.0), 0.05, 2),  # three planes labelled
        ((64, 200, 200), None, 1.0, 3),
    ],
)
def test_volumes_are_planned_in_3d_where_planes_belong_together(plan, shape, spacing, planes, dims):
    chosen = plan(facts(shape=shape, spacing=spacing, planes=planes, modality="xct"))
    assert chosen["model.dims"] == dims
    if dims == 3:
        assert (chosen["data.patch_px"], chosen["data.patch_z_px"], chosen["data.batch"]) == (96, 64, 2)


def test_rare_classes_weigh_more_and_are_looked_for(plan):
    found = facts(labelled={"electrolyte": 9000}, n=4) + facts(labelled={"substrate": 900, "deposit": 9}, n=1)
    chosen = plan(found)
    # shares 36000, 900 and 9 of 36909: the median one is substrate; sqrt(900 / 36000) and sqrt(900 / 9) are limited
    assert chosen["loss.class_weights"] == {"electrolyte": 0.5, "substrate": 1.0, "deposit": 3.0}
    assert chosen["data.balance"] == "class"


def test_strokes_get_no_dice(plan):
    one = ImageFacts((512, 512), None, Counter({"electrolyte": 30, "deposit": 10}), 512 * 512, 1.0, "sem")
    chosen = plan([one, one])
    assert (chosen["loss.dice"], chosen["loss.class_weights"], chosen["data.balance"]) == (0.0, None, "class")


@pytest.mark.parametrize(("sizes", "expected"), [((0.5, 0.51), 0.505), ((0.5, 0.6, 0.8), 0.6), ((0.1, 0.5), None)])
def test_the_pixel_size_is_the_median_where_sizes_differ_a_little(plan, sizes, expected):
    assert plan([f for s in sizes for f in facts(spacing=(s, s), n=1)])["data.pixel_size_um"] == expected


def test_pixels_that_are_not_square_become_so(plan):
    assert plan(facts(spacing=(0.55, 0.5)))["data.pixel_size_um"] == 0.5244  # square root of 0.275


def test_memory_at_hand_decides_the_parts_of_a_batch(plan, monkeypatch, film_config):
    """Where half of the free memory holds three patches, eight are computed in four parts of two."""
    per_px = bytes_per_pixel(film_config("model.width=24"), 2, 4)
    monkeypatch.setattr("training.plan.free_bytes", lambda device: int(3.5 * 2 * per_px * 256**2))
    chosen = plan(facts(), "trainer.accumulate=1")
    assert (chosen["data.batch"], chosen["trainer.accumulate"]) == (8, 4)
    monkeypatch.setattr("training.plan.free_bytes", lambda device: 1000)
    with pytest.raises(UsageError, match=r"needs .* GiB to train"):
        plan(facts())


def test_memory_per_pixel_is_that_of_the_values_kept(film_config):
    """Doubling the width doubles the values kept at every level: convolutions keep inputs, norms keep inputs."""
    one, two = (bytes_per_pixel(film_config(f"model.width={w}"), 2, 2) for w in (12, 24))
    assert two == pytest.approx(2 * one, rel=0.05)  # input and logits do not grow
    assert one > 12 * 4 * 4  # at least two convolutions in encoder and decoder keep `width` float32 values each


def test_the_text_gives_the_plan_back_and_the_command_line_wins(film_config, tmp_path):
    config = film_config("plan=auto", "model.width=24")
    chosen, text = planned(config, {"data.batch", "model.depth"}, keep=False)
    assert (chosen.data.patch_px, chosen.data.batch, chosen.model.depth) == (72, 4, 2)
    assert "given on the command line" in text
    assert "the median image is 72 px at its shorter side" in text
    values = yaml.safe_load(text)
    assert values["data"]["patch_px"] == 72
    file = tmp_path / "edited.yaml"
    file.write_text(text.replace("patch_px: 72", "patch_px: 48"))
    edited, _ = planned(film_config(f"plan={file}"), set(), keep=False)
    assert edited.data.patch_px == 48
    file.write_text("data: {patch_pxx: 3}")
    with pytest.raises(UsageError, match=r"did you mean 'data.patch_px'"):
        planned(film_config(f"plan={file}"), set(), keep=False)
    with pytest.raises(UsageError, match="no such file"):
        planned(film_config("plan=atuo"), set(), keep=False)


def test_labels_are_counted(film_config, films):
    found = survey(film_config())
    assert len(found) == 6
    assert sum(found[0].labelled_px.values()) == 72 * 80 - 36
    assert found[0].shape == (72, 80)
    (films / "images" / "cellB_0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"cellB_0.png: .*0 bytes"):
        survey(film_config())


def test_the_command_plans_and_trains_and_goes_on_with_its_plan(film_words, films, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    words = [w for w in film_words if not w.startswith(("data.patch_px", "model."))]
    assert main([*words, "--cfg", "plan", "model.width=8"]) == 0
    assert "patch_px: 72" in capsys.readouterr().out
    assert main([*words, "plan=auto", "model.width=8", "data.batch=2", "trainer.max_steps=1"]) == 0
    written = yaml.safe_load((tmp_path / "runs" / "film" / "config.yaml").read_text())
    assert (written["data"]["patch_px"], written["data"]["batch"]) == (72, 2)
    # later the images have grown; a run that goes on keeps its plan
    for kind in ("images", "labels"):
        for file in (films / kind).iterdir():
            picture = np.asarray(Image.open(file))
            Image.fromarray(np.kron(picture, np.ones((2, 2), np.uint8))).save(file)
    assert main([*words, "plan=auto", "model.width=8", "data.batch=2", "trainer.max_steps=2"]) == 0
    assert yaml.safe_load((tmp_path / "runs" / "film" / "config.yaml").read_text())["data"]["patch_px"] == 72
