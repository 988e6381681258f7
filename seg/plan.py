"""What a segmentation will need: memory and minutes, from the sizes and one timed tile, before any work."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seg.blocks import slabs
from seg.inference import Part
from seg.io.arrays import LAZY_ABOVE_BYTES, MAPPED_BYTES, LazyArray
from seg.postprocess import SLAB_VOXELS
from seg.regrid import DECIDED_PX, grid_shape, pixel_size_fit
from seg.runner import Runner
from seg.stack import Stack
from seg.tiling import computed_px
from seg.turning import TurnedVolumes

# Below this nobody waits long enough to plan, and timing a tile would cost more than it tells.
TIMED_FROM_PX = 20_000_000
TIMED_PX = 512**2
# Raw parts alive at once: one being read, one waiting, one being computed; and results likewise on the way out.
ALIVE = 3
# What the writer of TIFF files gathers: of large planes, which are tiled, and of others as many as are on their way.
JOINING_BYTES = 2**26
JOINED_PLANES = 8
# What the allocator keeps between parts.
SLACK_BYTES = 2**25
# Of the clean-up of masks, for each voxel of a slab with its halo, by the axes of a frame. It follows the detail of the
# masks: in 3-D 16 measured in masks of grains, 48 where a tenth of the voxels are noise, 160 to 235 where all of two to
# five classes are, 300 of ten classes.
CLEANING_BYTES_PER_VOXEL = {2: 160, 3: 320}
# And for each pixel of a plane, of whose regions all are known before any is decided. In planes of noise all are small:
# 100 of five classes, 140 of ten; in volumes they hang together.
REGIONS_BYTES_PER_PX = {2: 140, 3: 0}


@dataclass(frozen=True)
class Plan:
    """Memory and time of a segmentation.

    Parameters
    ----------
    host_bytes : int
        Peak of this process, with what it holds already.
    device_bytes : int
        Peak on the GPU; 0 on the CPU.
    seconds : float or None
        None: less than is worth timing.
    """

    host_bytes: int
    device_bytes: int
    seconds: float | None

    def __str__(self) -> str:
        needs = [f"{self.device_bytes / 1e9:.1f} GB GPU"] if self.device_bytes else []
        needs.append(f"{self.host_bytes / 1e9:.1f} GB RAM")
        if self.seconds is None:
            return f"needs {', '.join(needs)}, less than a minute"
        minutes = self.seconds / 60
        return f"needs {', '.join(needs)}, about {f'{minutes:.0f} min' if minutes < 90 else f'{minutes / 60:.1f} h'}"


def plan_segmentation(
    stack: Stack, runner: Runner, parts: Sequence[Part], *, joined: bool = True, cleaned: bool = True
) -> Plan:  # fmt: skip
    """Plan the segmentation of `parts` of a stack.

    Parameters
    ----------
    stack : Stack
    runner : Runner
    parts : sequence of Part
        Those still to be computed.
    joined : bool
        Whether the parts of a frame are joined in memory in the end.
    cleaned : bool
        Whether the masks are cleaned after that.
    """
    plane = math.prod(stack.spatial_shape[-2:])
    solid = runner.network.dims == 3
    zoom = pixel_size_fit(stack, runner.spec).zoom
    seen = grid_shape(stack, zoom, runner.network.dims)
    strips = None if zoom is not None else runner.strips(seen)
    tiles = runner.tiles(seen) if strips is None else ()
    if strips is None:
        batch, computed = math.prod(axis.tile_px for axis in tiles) * runner.tiles_at_once(tiles), computed_px(tiles)
    else:
        batch, computed = strips.alive_px, strips.computed_px
    planes = max((part.planes for part in parts), default=0)
    read_planes = planes
    if solid and strips is not None:
        read_planes, planes = strips.rows_px, min(planes, strips.slab_px)
    elif solid and zoom is None:
        read_planes = tiles[0].tile_px
    raw = read_planes * plane * stack.dtype.itemsize * stack.size("c")
    if stack.size("c") > 1:
        raw += read_planes * plane * 8  # colour becomes grey in float32
    results = planes * plane * (1 + 2)  # labels uint8, confidence float16
    fed = batch if strips is None or not solid else strips.rows_px * plane
    feeding = fed * (4 + 4 + 4)  # normalised, as a batch, in the layout and type of the network
    network = batch * runner.bytes_per_px
    blended = 0
    if any(axis.blend for axis in tiles):
        band = tiles[0].tile_px * (plane if solid else planes * stack.spatial_shape[-1])
        blended = int(1.5 * 4 * runner.n_classes * band)  # float32, and what is carried over
    if zoom is not None:  # intensities and probabilities on the grid of the network, the latter joined from bands
        blended += 4 * (1 + 2 * runner.n_classes) * math.prod(seen) * (1 if solid else planes)
        blended += 4 * 3 * runner.n_classes * max(DECIDED_PX, plane if solid else stack.spatial_shape[-1])
    on_cpu = runner.device.type == "cpu"
    host = ALIVE * (raw + results) + feeding + blended + (network if on_cpu else 0)
    if isinstance(stack.data, TurnedVolumes) and joined:  # else it is read from a copy on disk
        host += stack.data.held_bytes
    frame_px = math.prod(stack.spatial_shape)
    cleaning = cleaning_bytes(stack.spatial_shape) if cleaned else 0
    if joined:
        joining = (5 if cleaned else 3) * frame_px  # with where they are certain, and the clean ones
        joining += min(JOINING_BYTES, JOINED_PLANES * plane)
        # Small masks are read back whole.
        host = max(host, joining + cleaning) + min(frame_px * stack.n_frames, LAZY_ABOVE_BYTES)
    else:
        host += cleaning  # the allocator keeps what the network had
    host += SLACK_BYTES + still_mapped_bytes(stack.data)
    device = 0 if on_cpu else network + batch * 8 + 2**29  # and what CUDA itself takes
    seconds = None
    total = computed * (len({part.frame for part in parts}) if solid else sum(part.planes for part in parts))
    if total > TIMED_FROM_PX:
        seconds = total * _seconds_per_px(runner, tiles[-1].tile_px if tiles else strips.columns[-1].tile_px)
    return Plan(resident_bytes() + int(host), int(device), seconds)


def still_mapped_bytes(data: Any) -> int:
    """What the input comes to take as it is read, beside the parts: pages of the file it is mapped from."""
    base = data
    while base is not None and not isinstance(base, LazyArray):
        if isinstance(base, np.memmap):
            return int(data.nbytes)
        base = getattr(base, "base", None)
    return MAPPED_BYTES if isinstance(base, LazyArray) and base.is_mapped else 0


def cleaning_bytes(shape: Sequence[int], *, max_voxels: int = SLAB_VOXELS) -> int:
    """What the clean-up of one frame of `shape` takes beside its masks, in slabs of `max_voxels`."""
    # The first slab has one halo: twice as thick, it stands for those with two.
    slab = next(slabs(tuple(shape), halo=2, max_voxels=max_voxels)).read
    in_slab = (slab.stop - slab.start) * math.prod(shape[1:])
    return CLEANING_BYTES_PER_VOXEL[len(shape)] * in_slab + REGIONS_BYTES_PER_PX[len(shape)] * math.prod(shape)


def _seconds_per_px(runner: Runner, longest_px: int) -> float:
    """Time of the network on random values, per pixel; the second of two passes counts."""
    dims, multiple = runner.network.dims, runner.network.tile_multiple
    side = max(min(int(TIMED_PX ** (1 / dims)), longest_px) // multiple * multiple, multiple)
    image = np.random.default_rng(0).random((1, 1, *(side,) * dims), dtype=np.float32)
    started = 0.0
    for _ in range(2):
        started = time.monotonic()
        runner.decide(runner(image)[0])()
    return (time.monotonic() - started) / side**dims


def resident_bytes() -> int:
    """Memory this process holds now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def memory_limit_bytes() -> int | None:
    """The least of what the system, a control group or a limit of the shell leaves this process; None: not known."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        total = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        found.append(total + resident_bytes())
    except (OSError, ValueError, StopIteration):
        pass
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(file).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    try:
        import resource

        for kind in (resource.RLIMIT_DATA, resource.RLIMIT_RSS):
            soft, _ = resource.getrlimit(kind)
            if soft != resource.RLIM_INFINITY:
                found.append(soft)
    except ImportError:
        pass
    return min(found, default=None)
