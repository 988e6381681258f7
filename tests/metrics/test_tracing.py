import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from skimage.measure import find_contours

from seg.metrics.interface import outlines
from seg.metrics.tracing import Loops

SPACING = (0.5, 0.7)


def noise(shape=(25, 31)):
    """Ids 1 to 4 at random: every case of four pixels, holes, diagonals, objects that touch and that the frame cuts."""
    return np.random.default_rng(0).integers(0, 5, shape)


def blobs():
    """Smooth regions with holes and bays, numbered."""
    field = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(90, 110)), 2)
    return ndimage.label(field > 0, np.ones((3, 3)))[0]


FRAMES = {"noise": noise(), "blobs": blobs(), "one": np.ones((1, 1), int), "row": np.ones((1, 6), int)}


@pytest.fixture(params=FRAMES)
def instances(request):
    return FRAMES[request.param]


def vertices(loops, k):
    return loops.position[loops.start[k] : loops.start[k + 1]]


def test_loops_are_the_contours_of_scikit_image_vertex_by_vertex(instances):
    loops = Loops.of(instances)
    k = 0
    for index in np.unique(instances[instances > 0]):
        for contour in find_contours(np.pad(instances == index, 1).astype(np.uint8), 0.5, fully_connected="high"):
            assert loops.owner[k] == index
            assert (vertices(loops, k) == contour[:-1] - 1).all()
            k += 1
    assert k == len(loops)


def test_smooth_loops_are_those_of_single_masks(instances):
    smooth = Loops.of(instances).smoothed(2.0, spacing=SPACING)
    found = [
        outline.position - np.array(SPACING)
        for index in np.unique(instances[instances > 0])
        for outline in outlines(np.pad(instances == index, 1), SPACING, sigma=2.0)
    ]
    assert len(found) == len(smooth)
    for k, path in enumerate(found):
        # The same sums in another order.
        assert vertices(smooth, k) == pytest.approx(path, abs=1e-10)


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_hulls_and_diameters_are_those_of_all_vertices(instances, sigma):
    smooth = Loops.of(instances).smoothed(sigma, spacing=SPACING)
    hulls = smooth.hulls()
    areas, diameters = hulls.areas(), hulls.diameters()
    for k in range(len(smooth)):
        assert abs(areas[k]) == pytest.approx(ConvexHull(vertices(smooth, k)).volume, rel=1e-9)
        assert diameters[k] == pytest.approx(pdist(vertices(smooth, k)).max(), rel=1e-9)


def test_the_hull_of_a_spiral_is_left_to_qhull():
    """Its outline turns the wrong way nearly everywhere, and crosses itself once vertices are taken out."""
    y, x = np.mgrid[-40:41, -40:41]
    turn = np.arctan2(y, x) / (2 * np.pi)
    spiral = (np.abs((np.hypot(y, x) / 9 - turn) % 1 - 0.5) < 0.25) & (np.hypot(y, x) < 36)
    loops = Loops.of(ndimage.label(spiral, np.ones((3, 3)))[0]).smoothed(1.0)
    longest = int(np.argmax(loops.sizes))
    assert abs(loops.hulls().areas()[longest]) == pytest.approx(ConvexHull(vertices(loops, longest)).volume, rel=1e-9)


def test_areas_are_signed():
    """A square of 4 pixels with a hole of 1: crack points cut the corners, 1/8 px each (1/2 px of the hole)."""
    ring = np.ones((4, 4), int)
    ring[1, 1] = 0
    outer, hole = sorted(Loops.of(ring).areas(), reverse=True)
    assert outer == pytest.approx(16 - 4 / 8)
    assert hole == pytest.approx(-0.5)


def test_nothing_has_no_loops():
    loops = Loops.of(np.zeros((5, 4), int))
    assert len(loops) == 0
    assert len(loops.smoothed(2.0).hulls().diameters()) == 0


def test_selected_loops_are_those_of_the_object():
    instances = blobs()
    loops = Loops.of(instances)
    chosen = loops.select(loops.owner == 3)
    assert (chosen.position == Loops.of(np.where(instances == 3, 3, 0)).position).all()
