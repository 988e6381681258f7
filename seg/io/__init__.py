"""Reading and writing: one format per file, all of them behind `open_stack`, `read_labels` and `write_labels`."""

from seg.io.arrays import check_finite
from seg.io.calibration import parse_duration_s, parse_pixel_size, parse_rel_sd
from seg.io.inputs import find_inputs, fingerprint
from seg.io.labels import parse_label_map, read_labels, write_labels
from seg.io.registry import READERS, open_stack
from seg.io.writing import write_image

__all__ = [
    "READERS",
    "check_finite",
    "find_inputs",
    "fingerprint",
    "open_stack",
    "parse_duration_s",
    "parse_label_map",
    "parse_pixel_size",
    "parse_rel_sd",
    "read_labels",
    "write_image",
    "write_labels",
]
