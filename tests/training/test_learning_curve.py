"""The learning curve: strokes as a person draws them, budgets that nest, one table from tiny runs."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from seg.errors import UsageError
from training.learning_curve import learning_curve, strokes, with_labels
from training.sources import LabelledImage


def layers(shape=(60, 90)):
    """Three layers of codes 1 to 3, and a corner that is unlabelled."""
    codes = (1 + np.arange(shape[0]) * 3 // shape[0])[:, None] * np.ones((1, shape[1]), int)
    codes[:5, :5] = 0
    return codes.astype(np.uint8)


def test_a_stroke_is_a_short_line_within_each_class(rng):
    codes = layers()
    for _ in range(20):
        drawn = strokes(codes, rng)
        assert set(np.unique(drawn)) == {0, 1, 2, 3}
        assert (drawn[drawn > 0] == codes[drawn > 0]).all()
        for code in (1, 2, 3):
            one = drawn == code
            assert ndimage.label(one, np.ones((3, 3)))[1] == 1
            # 40 px long at most and 3 px wide: on a slant 40 * sqrt(2) * 3 at the very most
            assert 3 <= one.sum() <= 170


def images():
    items = [("a", n) for n in range(3)] + [("b", n) for n in range(3)] + [("c", 0)]
    return [LabelledImage("s", f"{s}{n}", s, np.zeros((60, 90), np.float16), layers(), s == "c") for s, n in items]


def test_larger_budgets_hold_the_smaller_ones_and_specimens_take_turns():
    one, four = with_labels(images(), 1, seed=3), with_labels(images(), 4, seed=3)
    trained = [item for item in four if not item.held_out]
    assert [item.specimen for item in trained].count("a") == 2
    assert one[0].name == trained[0].name
    assert (one[0].codes == trained[0].codes).all()
    assert 0 < (trained[0].codes > 0).mean() < 0.1
    held_out = [item for item in four if item.held_out]
    assert len(held_out) == 1
    assert (held_out[0].codes == layers()).all()
    dense = with_labels(images(), None, seed=3)
    assert sum((item.codes > 0).mean() > 0.9 for item in dense) == 7


def test_the_table_of_a_tiny_curve(film_config, tmp_path):
    config = film_config("augment=light", "optimizer.lr=5e-3", "optimizer.ema_decay=0.8")
    out = tmp_path / "curve"
    table = learning_curve(config, out, budgets=[1, None], model=None, steps=12)
    assert set(table["start"]) == {"scratch", "forest", "otsu"}
    assert set(table["class"]) == {"electrolyte", "sei", "all"}
    few, all_px = table[~table["dense"]]["labelled_px"].iloc[0], table[table["dense"]]["labelled_px"].iloc[0]
    assert 0 < few < 0.05 * all_px
    forest = table[(table["start"] == "forest") & (table["class"] == "all")].set_index("dense")["iou"]
    assert forest[False] > 0.8  # one stroke on either side of a bright film is enough for pixels
    assert (out / "learning_curve.png").stat().st_size > 0
    stamp = (out / "scratch-1" / "assessment" / "evaluation.csv").stat().st_mtime_ns
    again = learning_curve(config, out, budgets=[1, None], model=None, steps=12)
    assert (out / "scratch-1" / "assessment" / "evaluation.csv").stat().st_mtime_ns == stamp
    pd.testing.assert_frame_equal(again, table)
    with pytest.raises(UsageError, match="9 labelled images are asked for, but the data has 4"):
        learning_curve(config, out, budgets=[9], model=None, steps=12)
