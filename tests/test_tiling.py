"""Laws of the tile plan: everything is covered once, aligned, and with its context."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg.errors import UsageError
from seg.tiling import blended_tiles, cheapest_tiles, choose_tiles, computed_px, reflected, tile_axis


@st.composite
def axes(draw):
    multiple = draw(st.sampled_from([1, 2, 8, 16]))
    halo = draw(st.integers(0, 40))
    tile = 2 * halo + multiple + draw(st.integers(0, 100))
    overlap = draw(st.sampled_from([0.0, 0.0, 0.25, 0.6]))
    length = draw(st.integers(1, 400))
    return tile_axis(length, tile, multiple=multiple, halo_px=halo, overlap=overlap), length, tile, multiple, halo


@given(axes())
def test_tiles_of_an_axis(case):
    axis, length, tile, multiple, halo = case
    assert axis.tile_px <= -(-tile // multiple) * multiple
    assert axis.tile_px % multiple == 0
    assert all(start % multiple == 0 for start in axis.starts)  # else pooling grids differ and tiles do not join
    padded = axis.starts[-1] + axis.tile_px
    assert length <= padded < length + multiple
    for start, (low, high) in zip(axis.starts, axis.kept, strict=True):
        assert low < high
        assert low - start >= (halo if start else 0)  # true context, or the border of the image
        assert start + axis.tile_px - high >= (halo if start + axis.tile_px < padded else 0)
    total = np.zeros(length)
    for (low, high), weight in zip(axis.kept, axis.weights, strict=True):
        total[low:high] += weight if axis.blend else 1
    np.testing.assert_allclose(total, 1, atol=1e-6)  # float32 shares


@given(st.integers(1, 30), st.integers(0, 60), st.integers(1, 30))
def test_mirrored_index_is_that_of_numpy(length, start, size):
    image = np.arange(length)
    padded = np.pad(image, (0, 100), mode="reflect" if length > 1 else "edge")
    np.testing.assert_array_equal(image[reflected(start, start + size, length)][: max(0, length + 100 - start)],
                                  padded[start : start + size])  # fmt: skip


@pytest.mark.parametrize("shape", [(2048, 2048), (700, 3001), (40, 512, 300)])
def test_cheapest_tiles_keep_to_the_memory(shape):
    one = cheapest_tiles(shape, multiple=16, halo_px=20, max_tile_px=10**9)
    assert [len(axis.starts) for axis in one] == [1] * len(shape)
    small = cheapest_tiles(shape, multiple=16, halo_px=20, max_tile_px=400_000)
    assert np.prod([axis.tile_px for axis in small]) <= 400_000
    assert computed_px(one) < computed_px(small) < 5 * computed_px(one)


def test_no_room_for_the_halo():
    assert cheapest_tiles((500, 500), multiple=16, halo_px=100, max_tile_px=200**2) is None
    with pytest.raises(ValueError, match="no room for a halo of 100 px"):
        tile_axis(500, 200, multiple=16, halo_px=100)
    with pytest.raises(UsageError, match="choose a smaller halo or larger tiles"):
        choose_tiles((500, 500), multiple=16, exact_halo_px=20, max_tile_px=10**6, tile_px=128, halo_px=100)


@pytest.mark.parametrize("shape", [(64, 512, 512), (300, 300, 300), (2000, 3000)])
def test_blended_tiles_keep_to_the_memory(shape):
    tiles = blended_tiles(shape, multiple=8, halo_px=0, overlap=0.25, max_tile_px=128**3)
    assert np.prod([axis.tile_px for axis in tiles]) <= 128**3


def test_blends_with_a_warning_where_exact_tiles_cost_too_much(caplog):
    tiles = choose_tiles((512, 512, 512), multiple=8, exact_halo_px=51, max_tile_px=150**3)
    assert any(axis.blend for axis in tiles)
    assert computed_px(tiles) < 4 * 512**3
    assert "blended and no longer exact" in caplog.text
    exact = choose_tiles((512, 512, 512), multiple=8, exact_halo_px=11, max_tile_px=150**3)
    assert not any(axis.blend for axis in exact)
    assert max(axis.halo_px for axis in exact) == 11


def test_networks_that_see_the_whole_tile_are_blended():
    tiles = choose_tiles((900, 900), multiple=16, exact_halo_px=None, max_tile_px=300**2)
    assert all(axis.blend for axis in tiles)


def test_says_when_the_tiles_asked_for_are_dear(caplog):
    choose_tiles((2000, 2000), multiple=16, exact_halo_px=107, max_tile_px=10**7, tile_px=256)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "halo 107 px; the network computes" in caplog.text
