"""Cycler files as one table, and that table on the clock of the images."""

from seg.electrochem.align import align_to_frames
from seg.electrochem.table import HALF_CYCLES, read_cycler

__all__ = ["HALF_CYCLES", "align_to_frames", "read_cycler"]
