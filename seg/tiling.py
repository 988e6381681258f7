"""How an image is cut into overlapping tiles and joined again: whole numbers only, no pixels."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from seg.errors import UsageError

logger = logging.getLogger(__name__)

BLEND_OVERLAP = 0.25
# Of what goes through a network from top to bottom: pixels at a time, least rows in tile multiples (coarse levels need
# some to work on), and columns, more of which cost less halo and more memory.
STRIP_PX, STRIP_ROWS, STRIP_COLUMNS = 2**17, 4, 4096
# Of volumes, whose strips are planes: voxels at a time, least planes in tile multiples, and voxels of what is saved
# together.
STRIP_VOXELS, STRIP_PLANES, SLAB_VOXELS = 2**20, 2, 2**22
# An exact halo for which the network computes each pixel more often than this gives way to blending.
MAX_HALO_COST = 4.0


@dataclass(frozen=True)
class AxisTiles:
    """Tiles along one axis.

    Parameters
    ----------
    length_px : int
        Size of the image. Tiles cover it and up to ``multiple - 1`` px more, where the image is reflected.
    tile_px : int
        Size of every tile, halo included.
    starts : tuple of int
        First pixel of each tile: multiples of the network's tile multiple, so that all pooling grids coincide.
    halo_px : int
        Margin of a tile that is computed and thrown away, except at the ends of the image.
    blend : bool
        Whether tiles keep all they may and share what overlaps, or keep disjoint parts.
    """

    length_px: int
    tile_px: int
    starts: tuple[int, ...]
    halo_px: int
    blend: bool

    @cached_property
    def kept(self) -> tuple[tuple[int, int], ...]:
        """First and last-plus-one pixel of the image that each tile decides on."""
        padded = self.starts[-1] + self.tile_px
        spans: list[tuple[int, int]] = []
        for start in self.starts:
            low = start + (self.halo_px if start else 0)
            stop = start + self.tile_px
            high = min(stop - (self.halo_px if stop < padded else 0), self.length_px)
            if spans and not self.blend:
                low = spans[-1][1]
            spans.append((low, high))
        return tuple(spans)

    def inner(self, place: int) -> slice:
        """Part of tile number `place` that is kept, counted from the start of the tile."""
        low, high = self.kept[place]
        return slice(low - self.starts[place], high - self.starts[place])

    @cached_property
    def weights(self) -> tuple[np.ndarray, ...]:
        """Share of each tile in the pixels it keeps, float32: Gaussians that add up to 1 in every pixel."""
        total = np.zeros(self.length_px)
        bells = []
        for low, high in self.kept:
            centre, sigma = (low + high - 1) / 2, max((high - low) / 8, 0.5)
            position = np.arange(low, high)
            # Not below 1e-3: pixels that one tile alone keeps must not be divided by nearly nothing.
            bell = np.maximum(np.exp(-0.5 * ((position - centre) / sigma) ** 2), 1e-3)
            total[low:high] += bell
            bells.append(bell)
        return tuple(
            (bell / total[low:high]).astype(np.float32) for bell, (low, high) in zip(bells, self.kept, strict=True)
        )


@cache
def choose_tiles(
    shape: tuple[int, ...],
    *,
    multiple: int,
    exact_halo_px: int | None,
    max_tile_px: int,
    tile_px: int | None = None,
    overlap: float | None = None,
    halo_px: int | None = None,
    aloud: bool = True,
) -> tuple[AxisTiles, ...]:
    """Tiles that join exactly where the network allows it and it is not too dear, else tiles that are blended.

    Parameters
    ----------
    shape : tuple of int
    multiple : int
        Tile multiple of the network.
    exact_halo_px : int or None
        Halo with which tiles are exact; None for networks whose result depends on the whole tile.
    max_tile_px : int
        Pixels of a tile that the memory allows.
    tile_px, overlap, halo_px : int, float, int or None
        As in ``InferenceSettings``; what is given is obeyed.
    aloud : bool
        Log what was chosen.
    """

    def cut(halo: int, share: float) -> tuple[AxisTiles, ...] | None:
        if tile_px is not None:
            if any(tile_px < length and _ceil(tile_px, multiple) < 2 * halo + multiple for length in shape):
                return None
            return tuple(tile_axis(n, tile_px, multiple=multiple, halo_px=halo, overlap=share) for n in shape)
        if share == 0:
            return cheapest_tiles(shape, multiple=multiple, halo_px=halo, max_tile_px=max_tile_px)
        return blended_tiles(shape, multiple=multiple, halo_px=halo, overlap=share, max_tile_px=max_tile_px)

    pixels = math.prod(_ceil(length, multiple) for length in shape)
    halo = halo_px if halo_px is not None else exact_halo_px or 0
    exact = exact_halo_px is not None and halo >= exact_halo_px
    tiles = cut(halo, overlap if overlap is not None else (0.0 if exact else BLEND_OVERLAP))
    too_dear = tiles is not None and tile_px is None and computed_px(tiles) > MAX_HALO_COST * pixels
    if halo_px is None and exact and (tiles is None or too_dear):
        tiles = cut(0, overlap or BLEND_OVERLAP)
        logger.warning(
            "Tiles of %s px are too small for the receptive field of the network (%d px to each side): "
            "they are blended and no longer exact.",
            " x ".join(str(axis.tile_px) for axis in tiles or ()),
            halo,
        )
    if tiles is None:
        raise UsageError(
            f"No tile of at most {tile_px or max_tile_px} px{'' if tile_px else ' in all'} has room for a halo of "
            f"{halo} px on both sides; choose a smaller halo or larger tiles."
        )
    costs = logging.WARNING if computed_px(tiles) > MAX_HALO_COST * pixels else logging.INFO
    logger.log(
        costs if aloud else logging.DEBUG,
        "image of %s px: %s tile(s) of %s px, halo %d px; the network computes %.2f times the pixels",
        " x ".join(map(str, shape)),
        " x ".join(str(len(axis.starts)) for axis in tiles),
        " x ".join(str(axis.tile_px) for axis in tiles),
        max(axis.halo_px for axis in tiles),
        computed_px(tiles) / pixels,
    )
    return tiles


def tile_axis(length_px: int, tile_px: int, *, multiple: int, halo_px: int = 0, overlap: float = 0.0) -> AxisTiles:
    """Cut an axis into as few tiles of at most `tile_px` as possible, and those as small as possible.

    Parameters
    ----------
    length_px : int
    tile_px : int
        Rounded up to `multiple`; no longer than the axis needs.
    multiple : int
        Of sizes and origins.
    halo_px : int
    overlap : float
        Share of what a tile keeps that its neighbour keeps too, 0 <= overlap < 1; above 0 the tiles are blended.
    """
    padded = _ceil(length_px, multiple)
    tile = min(_ceil(tile_px, multiple), padded)
    if tile < padded and tile < 2 * halo_px + multiple:
        raise ValueError(f"A tile of {tile} px has no room for a halo of {halo_px} px on both sides.")
    count = _count(padded, tile, multiple, halo_px, overlap)
    while count > 1 and tile - multiple >= 2 * halo_px + multiple:
        if _count(padded, tile - multiple, multiple, halo_px, overlap) > count:
            break
        tile -= multiple
    step = _step(tile, multiple, halo_px, overlap)
    starts = tuple(min(n * step, padded - tile) for n in range(count))
    return AxisTiles(length_px, tile, starts, halo_px if count > 1 else 0, overlap > 0 and count > 1)


@dataclass(frozen=True)
class Strips:
    """An image cut into columns that go through a network from top to bottom, some rows (of volumes planes) at a time.

    Parameters
    ----------
    columns : tuple of AxisTiles
        Of all axes but the first; disjoint, with halo. Those of a plane follow each other, those of a volume go side by
        side, so that its planes are read and finished once.
    length_px : int
        Rows of the image.
    rows_px : int
        That go in at a time.
    halo_px : int
        Rows before and behind some rows that these depend on: the halo, up to the tile multiple.
    slab_px : int
        Rows that are saved together; of planes all.
    """

    columns: tuple[AxisTiles, ...]
    length_px: int
    rows_px: int
    halo_px: int
    slab_px: int

    @property
    def column_px(self) -> int:
        """Pixels of a row of a column."""
        return math.prod(axis.tile_px for axis in self.columns)

    @property
    def part_px(self) -> int:
        """Rows that are worth computing without the others: halos take half as much again."""
        return max(-(-4 * self.halo_px // self.slab_px), 1) * self.slab_px

    @property
    def alive_px(self) -> int:
        """About how many pixels have values in the network at once; of volumes a fit to what was measured."""
        if len(self.columns) == 1:
            return self.column_px * (self.rows_px + self.halo_px)
        waiting = self._row_px * (1.5 + self.halo_px / 8 + self.rows_px / 2)
        return int(1.25 * (waiting + 9 * self.column_px))

    @property
    def computed_px(self) -> int:
        """Pixels that go through the network, halos included."""
        return self._row_px * self.length_px

    @property
    def _row_px(self) -> int:
        return math.prod(axis.tile_px * len(axis.starts) for axis in self.columns)


@cache
def choose_strips(shape: tuple[int, ...], *, multiple: int, halo_px: int, max_alive_px: int) -> Strips | None:
    """Strips of an image of `shape`; None where the memory allows none with room for the halo."""
    halo = _ceil(halo_px, multiple)
    strips = _strips_of_planes if len(shape) == 2 else _strips_of_volumes
    found = strips(shape, multiple, halo, max_alive_px)
    if found is not None:
        logger.info(
            "image of %s px: %d column(s) of %s px, %d %s at a time; the network computes %.2f times the pixels",
            " x ".join(map(str, shape)), math.prod(len(axis.starts) for axis in found.columns),
            " x ".join(str(axis.tile_px) for axis in found.columns), found.rows_px,
            "rows" if len(shape) == 2 else "planes", found.computed_px / math.prod(shape),
        )  # fmt: skip
    return found


def _strips_of_planes(shape: tuple[int, ...], multiple: int, halo: int, max_alive_px: int) -> Strips | None:
    least = STRIP_ROWS * multiple
    widest = min(STRIP_COLUMNS, max_alive_px // (least + halo) // multiple * multiple)
    if widest < min(2 * halo + multiple, _ceil(shape[1], multiple)):
        return None
    columns = tile_axis(shape[1], widest, multiple=multiple, halo_px=halo)
    rows = max(STRIP_PX // columns.tile_px // multiple * multiple, least)
    return Strips((columns,), shape[0], rows, halo, shape[0])


def _strips_of_volumes(shape: tuple[int, ...], multiple: int, halo: int, max_alive_px: int) -> Strips | None:
    """As few columns as the memory allows."""
    length = _ceil(shape[0], multiple)
    slab = min(max(SLAB_VOXELS // math.prod(shape[1:]) // multiple, 1) * multiple, length)
    most = math.prod(_ceil(n, multiple) for n in shape[1:])
    while (columns := cheapest_tiles(shape[1:], multiple=multiple, halo_px=halo, max_tile_px=most)) is not None:
        column = math.prod(axis.tile_px for axis in columns)
        rows = min(max(STRIP_VOXELS // column // multiple, STRIP_PLANES) * multiple, length)
        strips = Strips(columns, shape[0], rows, halo, slab)
        if strips.alive_px <= max_alive_px:
            return strips
        most = column - 1
    return None


def cheapest_tiles(
    shape: Sequence[int], *, multiple: int, halo_px: int, max_tile_px: int
) -> tuple[AxisTiles, ...] | None:
    """The disjoint tiling of `shape` that computes the fewest pixels with tiles of at most `max_tile_px` pixels.

    None where no tile that small has room for the halo.
    """
    choices = [_by_count(length, multiple, halo_px) for length in shape]
    best, least = None, math.inf
    for tiles in itertools.product(*choices):
        if math.prod(axis.tile_px for axis in tiles) <= max_tile_px:
            cost = computed_px(tiles)
            if cost < least:
                best, least = tiles, cost
    return best


def blended_tiles(
    shape: Sequence[int], *, multiple: int, halo_px: int, overlap: float, max_tile_px: int
) -> tuple[AxisTiles, ...]:
    """About cubic tiles of at most `max_tile_px` pixels (or the smallest there are) that overlap and are blended."""
    sides: dict[int, int] = {}
    left = max_tile_px
    for done, axis in enumerate(sorted(range(len(shape)), key=lambda n: shape[n])):  # short axes leave room to others
        side = int(left ** (1 / (len(shape) - done))) // multiple * multiple
        sides[axis] = min(max(side, 2 * halo_px + multiple), _ceil(shape[axis], multiple))
        left = max(left // sides[axis], 1)
    return tuple(
        tile_axis(length, sides[axis], multiple=multiple, halo_px=halo_px, overlap=overlap)
        for axis, length in enumerate(shape)
    )


def computed_px(tiles: Sequence[AxisTiles]) -> int:
    """Pixels that go through the network, halos included."""
    return math.prod(axis.tile_px * len(axis.starts) for axis in tiles)


def reflected(start: int, stop: int, length: int) -> slice | np.ndarray:
    """Index of pixels start..stop of an axis that is mirrored at its end (the last pixel is not repeated)."""
    if stop <= length:
        return slice(start, stop)
    period = max(2 * (length - 1), 1)
    position = np.arange(start, stop) % period
    return np.where(position < length, position, period - position)


def _by_count(length: int, multiple: int, halo_px: int) -> list[AxisTiles]:
    """The tilings of an axis with 1, 2, 3, ... tiles that differ in their tile size, largest tile first."""
    found: list[AxisTiles] = []
    tile = _ceil(length, multiple)
    while not found or tile >= 2 * halo_px + multiple:
        found.append(tile_axis(length, tile, multiple=multiple, halo_px=halo_px))
        tile = found[-1].tile_px - multiple
    return found


def _step(tile: int, multiple: int, halo_px: int, overlap: float) -> int:
    return max(int((tile - 2 * halo_px) * (1 - overlap)) // multiple * multiple, multiple)


def _count(padded: int, tile: int, multiple: int, halo_px: int, overlap: float) -> int:
    return 1 if tile >= padded else 1 + -(-(padded - tile) // _step(tile, multiple, halo_px, overlap))


def _ceil(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
