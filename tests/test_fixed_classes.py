"""Classes that stay where they are: what looks like a support where there was none at first is metal."""

import numpy as np
import pytest

from seg.analysis import analysis_from_dict, load_analysis
from seg.errors import UsageError
from seg.fixed_classes import FIRST_FRAMES, with_fixed_classes

ELECTROLYTE, SUPPORT, METAL, TEXT = 1, 2, 3, 10


def scene(n_frames=8, level=20):
    """A support below `level`; from the fourth frame on a block of metal on it."""
    frames = np.full((n_frames, 32, 60), ELECTROLYTE, np.uint8)
    frames[:, level:] = SUPPORT
    frames[FIRST_FRAMES:, level - 8 : level, 10:40] = METAL
    return frames


def fixed(frames, pairs=((SUPPORT, METAL),)):
    counts: dict[int, int] = {}
    read = with_fixed_classes(lambda k: (frames[k], None), len(frames), pairs, counts)
    found = np.stack([read(k)[0] for k in range(len(frames))])
    read(len(frames) - 1)  # as a neighbour, for the clean-up: asked for again, it counts once
    return found, list(counts.values())


def test_metal_called_support_becomes_metal_and_metal_within_the_support_becomes_support():
    truth = scene()
    seen = truth.copy()
    seen[6:, 14:20, 10:40] = SUPPORT  # the lower part of the block looks like what it lies on
    seen[4:, 20:23, 12:30] = METAL  # and so does the support under it like metal
    found, counts = fixed(seen)
    np.testing.assert_array_equal(found, truth)
    # 6 x 30 px in two frames, 3 x 18 px in all four from the fifth on.
    assert counts == [0, 0, 0, 0, 54, 54, 54 + 180, 54 + 180]


def test_an_edge_that_wavers_makes_no_metal():
    seen = scene()
    seen[5, 19, 42:] = SUPPORT  # one row higher over 18 px
    seen[6, 16:20, 42:] = SUPPORT  # and four rows: under the five that metal needs
    seen[7, 5:11, 42:50] = SUPPORT  # thick enough, but not on metal
    found, counts = fixed(seen)
    np.testing.assert_array_equal(found, seen)
    assert set(counts) == {0}


def test_a_thin_band_under_metal_becomes_metal_and_the_ground_of_a_gap_between_nuclei_does_not():
    truth = scene()
    truth[FIRST_FRAMES:, 12:20, 22:26] = ELECTROLYTE  # a gap of four pixels
    seen = truth.copy()
    seen[FIRST_FRAMES:, 18:20, 10:40] = SUPPORT  # the edge lies two rows too high, in the gap as well
    found, counts = fixed(seen)
    np.testing.assert_array_equal(found[:, :18], truth[:, :18])
    np.testing.assert_array_equal(found[:, :, 10:21], truth[:, :, 10:21])
    np.testing.assert_array_equal(found[:, :, 27:40], truth[:, :, 27:40])
    assert (found[FIRST_FRAMES:, 18:20, 23:25] == SUPPORT).all()
    # Two rows under 26 columns of metal, and at most the two columns at the feet of the gap.
    assert all(48 <= count <= 56 for count in counts[FIRST_FRAMES:])


def test_a_frame_that_drifted_stays_as_it_is_and_is_counted():
    seen = scene()
    seen[7] = scene(level=14)[7]  # the whole support 6 px higher
    found, counts = fixed(seen)
    np.testing.assert_array_equal(found[7], seen[7])
    assert counts[7] == -1


def test_metal_over_most_of_the_support_is_no_drift():
    truth = scene(level=24)
    truth[6:, 4:24, 4:56] = METAL
    seen = truth.copy()
    seen[6:, 14:24, 4:56] = SUPPORT
    found, counts = fixed(seen)
    np.testing.assert_array_equal(found, truth)
    assert counts[6] == 10 * 52


def test_metal_of_the_first_frames_and_text_are_no_place_of_anything_else():
    seen = scene()
    seen[:FIRST_FRAMES, 12:20, 45:55] = METAL  # metal that was there from the start
    seen[FIRST_FRAMES:, 12:20, 45:55] = SUPPORT  # what is called support there later may be that
    seen[:, 25:27, 5:20] = TEXT
    np.testing.assert_array_equal(fixed(seen)[0], seen)


@pytest.mark.parametrize("n_frames", [1, 2 * FIRST_FRAMES - 1])
def test_short_recordings_are_not_changed(n_frames):
    seen = scene(n_frames)
    seen[-1, 14:20, 10:40] = SUPPORT
    np.testing.assert_array_equal(fixed(seen)[0], seen)


def test_analyses_name_fixed_classes_and_mistakes_are_named():
    assert load_analysis("tem-insitu").fixed_values == ((SUPPORT, METAL),)
    data = load_analysis("tem-insitu").to_dict()
    with pytest.raises(UsageError, match="did you mean .substrate"):
        analysis_from_dict({**data, "fixed": {"supstrate": "deposit"}})
    with pytest.raises(UsageError, match="expected classes such as"):
        analysis_from_dict({**data, "fixed": ["substrate"]})
