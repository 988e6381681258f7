"""Cycler files as one table, and that table on the clock of the images."""

from seg.electrochem.align import align_to_frames
from seg.electrochem.clock import ClockOffset, find_clock_offset
from seg.electrochem.place import CyclerFile, place_on_frames
from seg.electrochem.table import HALF_CYCLES, read_cycler

__all__ = [
    "HALF_CYCLES", "ClockOffset", "CyclerFile", "align_to_frames", "find_clock_offset", "place_on_frames",
    "read_cycler",
]  # fmt: skip
