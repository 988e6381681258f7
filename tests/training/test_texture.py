"""The texture-only experiments: strokes on one frame, dense truth on others, no class told by its grey value."""

import numpy as np
import pytest

from training.texture import FAMILIES, texture_experiment


@pytest.mark.parametrize("family", FAMILIES)
def test_strokes_on_the_last_frame_only(family, schema):
    data = texture_experiment(family, 9000, schema)
    drawn = [item for item in data.images if not item.held_out]
    assert [item.time for item in drawn] == [4]
    assert 0 < (drawn[0].codes > 0).mean() < 0.02
    held_out = [item for item in data.images if item.held_out]
    assert sorted(item.time for item in held_out) == [2, 3]
    assert all((item.codes > 0).mean() > 0.9 for item in held_out)
    assert set(np.unique(drawn[0].codes)) == set(range(data.codes.n_classes + 1))


def test_a_grey_value_tells_no_class(schema):
    """Among the classes of more than 4 % of the pixels, means differ by less than a fifth of the spread within."""
    data = texture_experiment("nucleation", 9000, schema)
    item = next(i for i in data.images if i.held_out)
    grey = item.image.astype(np.float64)
    parts = [grey[item.codes == k] for k in np.unique(item.codes) if k and (item.codes == k).mean() > 0.04]
    assert len(parts) >= 2
    means, spread = [p.mean() for p in parts], np.mean([p.std() for p in parts])
    assert max(means) - min(means) < 0.2 * spread
