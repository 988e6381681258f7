"""Baselines, closing scores and temperature on images whose answer is known."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from seg.analysis import load_analysis
from seg.errors import UsageError
from seg.labels import load_schema
from seg.modality import MODALITIES
from seg.models.bundle import load_bundle
from seg.models.join import MEMBERS_BELOW, join_bundles
from seg.reliability import temper
from training.assessment import ANALYSES, Assessment, assess, main, texture_twins
from training.baselines import BASELINES
from training.export import _assessed, put_into_card
from training.label_codes import LabelCodes
from training.loop import prepare, train
from training.sources import LabelledImage

SCHEMA = load_schema()
# outputs electrolyte, substrate, deposit; code 4: electrolyte or substrate, unknown which
CODES = LabelCodes((1, 2, 3), ((0, 1),))


def discs(rng, name, specimen, held_out, *, background=1, bright=True):
    """Six discs (code 3) of radius 8 px on a ground of code `background`, noise a fifth of the step."""
    y, x = np.mgrid[:80, :100]
    inside = np.zeros(y.shape, bool)
    for cy, cx in [(16, 16), (16, 50), (16, 84), (62, 18), (62, 50), (62, 82)]:
        inside |= (y - cy) ** 2 + (x - cx) ** 2 < 8**2
    image = np.where(inside == bright, 0.8, 0.3) + rng.normal(0, 0.1, y.shape)
    codes = np.where(inside, 3, background).astype(np.uint8)
    codes[:3] = 0
    return LabelledImage("discs", name, specimen, image.astype(np.float16), codes, held_out)


@pytest.fixture
def images(rng):
    return [discs(rng, f"i{n}", f"cell{n // 2}", n >= 2, background=4) for n in range(10)]


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("bright", [True, False])
def test_every_baseline_finds_bright_and_dark_discs(name, bright, rng):
    trained = [discs(rng, "a", "a", False, bright=bright), discs(rng, "b", "b", False, bright=bright)]
    new = discs(rng, "c", "c", True, bright=bright)
    found = BASELINES[name](trained, 0)(new.image)
    assert set(np.unique(found)) == {1, 3}
    both, either = ((found == 3) & (new.codes == 3)).sum(), ((found == 3) | (new.codes == 3)).sum()
    # five sigma of noise: only pixels that the Gaussian of 1 px moves across the edge of a disc are wrong
    assert both / either > 0.85


def test_a_threshold_fails_where_only_texture_differs_and_the_forest_does_not(rng):
    def halves(name, held_out):
        fine, coarse = (ndimage.gaussian_filter(rng.normal(size=(96, 120)), s) for s in (0.6, 3.0))
        codes = np.where(np.arange(120) < 60, 1, 3) * np.ones((96, 1), int)
        image = 0.5 + 0.15 * np.where(codes == 1, fine / fine.std(), coarse / coarse.std())
        return LabelledImage("halves", name, name, image.astype(np.float16), codes.astype(np.uint8), held_out)

    trained, new = [halves("a", False), halves("b", False)], halves("c", True)
    right = {name: (fit(trained, 0)(new.image) == new.codes).mean() for name, fit in BASELINES.items()}
    assert right["otsu"] < 0.65
    assert right["forest"] > 0.9


def network(image, sure=0.9):
    """Half a pixel too generous, states `sure` everywhere, splits what is left between two classes."""
    inside = ndimage.binary_dilation(ndimage.gaussian_filter(image.astype(float), 1) > 0.55)
    rest = (1 - sure) / 2
    return np.stack([np.where(inside, rest, sure), np.full(inside.shape, rest), np.where(inside, sure, rest)])


def test_scores_of_labels_that_leave_classes_open(images, tmp_path, caplog):
    found = assess(network, images, CODES, SCHEMA, {"discs": "optical"}, tmp_path)
    assert set(found.scores["model"]) == {"network", *BASELINES}
    table = found.scores.set_index(["model", "class", "metric"])["value"]
    # a pixel added all round; noise moves few others across the threshold half-way
    true = images[0].codes == 3
    grown = ndimage.binary_dilation(true).sum() / true.sum()
    assert table["network", "deposit", "iou"] == pytest.approx(1 / grown, abs=0.02)
    assert table["otsu", "deposit", "iou"] > 0.9
    assert set(found.scores["class"]) == {"electrolyte|substrate", "deposit", "all"}
    row = found.scores.query("model == 'network' and `class` == 'deposit' and metric == 'iou'").iloc[0]
    assert (row["n"], row["low"] <= row["value"] <= row["high"]) == (8, True)  # four specimens held out
    errors = found.errors[found.errors["model"] == "network"].set_index("metric")
    assert errors.loc["covered_area", "relative_bias"] == pytest.approx(grown - 1, abs=0.03)
    assert errors.loc["object_count", "bias"] == 0
    # all intervals of the count hold the truth; none of those of the cover do, which know nothing of the pixel too many
    assert errors.loc["object_count", ["truth_in_interval", "n_intervals", "flags"]].tolist() == [1.0, 8, ""]
    assert errors.loc["covered_fraction", ["truth_in_interval", "n_intervals", "flags"]].tolist() == [
        0.0, 8, "low-confidence",
    ]  # fmt: skip
    assert "covered_fraction of deposit+dendrite 0 of 8" in caplog.text
    assert "object_count" not in caplog.text
    rows = [line.split(" | ") for line in _assessed(found) if line.startswith("| discs |")]
    told = {row[1]: row[-1] for row in rows}
    assert (told["object_count"], told["covered_fraction"]) == ("8 of 8 |", "0 of 8, **too few** |")
    for name in ("evaluation.csv", "images.csv", "calibration.csv", "metric_summary.csv", "reliability.png"):
        assert (tmp_path / name).stat().st_size > 0
    assert len(pd.read_csv(tmp_path / "images.csv").query("model == 'network'")) == 8 * 2


def test_the_temperature_undoes_what_made_the_probabilities_too_sure(rng, tmp_path):
    """Labels drawn from known probabilities, stated three times too sharply."""
    shape = (80, 100)

    def noisy(name):
        p = rng.uniform(0.02, 0.98, shape)
        codes = np.where(rng.random(shape) < p, 3, 1).astype(np.uint8)
        return LabelledImage("noise", name, name, p.astype(np.float16), codes, True)

    def sharp(image):
        p = image.astype(float)
        return temper(np.stack([1 - p, np.full(p.shape, 1e-9), p]), 1 / 3)

    found = assess(
        sharp, [noisy(n) for n in "abcd"], CODES, SCHEMA, {"noise": "optical"}, tmp_path, baselines=False
    )  # fmt: skip
    assert found.temperature == pytest.approx(3.0, rel=0.06)  # 32 000 draws
    row = found.calibration.iloc[0]
    assert row["ece"] > 0.1
    assert row["ece_tempered"] < 0.02
    assert json.loads((tmp_path / "temperature.json").read_text())["temperature"] == found.temperature


def test_every_modality_has_an_analysis_of_its_kind():
    assert {name: load_analysis(preset).modality for name, preset in ANALYSES.items()} == {m: m for m in MODALITIES}


def test_texture_twins_are_split_by_twin():
    found = texture_twins(3, LabelCodes(tuple(c.index for c in SCHEMA.classes), ()), SCHEMA)
    assert [item.held_out for item in found] == [False, False, True] * 4
    assert all(len(np.unique(item.codes)) >= 2 for item in found)


def test_a_run_ends_with_baselines_and_a_temperature(film_config, tmp_path):
    words = ["trainer.max_steps=30", "augment=light", "optimizer.lr=5e-3", "optimizer.ema_decay=0.9"]
    config = film_config("trainer.baselines=true", *words)
    result = train(config, prepare(config), quiet=True)
    scores = pd.read_csv(result.run_dir / "assessment" / "evaluation.csv")
    assert set(scores["model"]) == {"network", *BASELINES}
    bundle = load_bundle(result.model_dir)
    stated = json.loads((result.run_dir / "assessment" / "temperature.json").read_text())["temperature"]
    assert bundle.spec.temperature == pytest.approx(stated, abs=1e-4)
    assert "| mine | sei | forest |" in bundle.card
    assert "Temperature" in bundle.card

    # A later assessment takes the place of the first, as often as it is made, and touches nothing else.
    later = Assessment(pd.DataFrame(scores[scores["model"] == "network"]), 2.5, pd.DataFrame(), pd.DataFrame())
    for data in ("other cells", "still other cells"):
        put_into_card(result.model_dir, later, data)
    again = load_bundle(result.model_dir)
    assert again.spec.temperature == 2.5
    assert again.weights_sha256 == bundle.weights_sha256
    assert "after the training, on still other cells." in again.card
    for absent in ("other cells.\n\nWhat", "forest |", "### Probabilities"):
        assert absent not in again.card
    assert again.card.count("### Against simple baselines") == again.card.count("## Known failures") == 1
    assert again.card.partition("## Known failures")[2] == bundle.card.partition("## Known failures")[2]
    with pytest.raises(UsageError, match="no image was assessed"):
        put_into_card(result.model_dir, Assessment(pd.DataFrame(), 1.0, pd.DataFrame(), pd.DataFrame()), "nothing")
    assert load_bundle(result.model_dir).card == again.card

    # An ensemble gets a temperature and scores of its own; what its members' cards say of them stays.
    pair = join_bundles([again, again], tmp_path / "pair")
    members = load_bundle(pair).card.partition(MEMBERS_BELOW)[2]
    for data in ("other cells", "still other cells"):
        put_into_card(pair, later, data)
    found = load_bundle(pair)
    assert found.spec.temperature == 2.5
    own, _, below = found.card.partition(MEMBERS_BELOW)
    assert (own.count("on still other cells."), own.count("### Against simple baselines")) == (1, 1)
    assert below == members


@pytest.mark.parametrize("n", [1, 2])
def test_so_few_texture_twins_that_none_is_scored_are_refused(tmp_path, n):
    with pytest.raises(UsageError, match="expected 3 or more: every third twin is scored"):
        main(["--model", "generalist-2d", "--out", str(tmp_path), "--texture-only", str(n)])
