"""What a user says about the inputs of a run, whichever door it came through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from seg.electrochem import CyclerFile


@dataclass(frozen=True)
class RunOptions:
    """What a user says about the inputs beyond the analysis.

    Parameters
    ----------
    axes : str or None
        Axes of the inputs where the files do not state them.
    pixel_size_um : mapping or None
    frame_interval_s : float or None
    pixel_size_rel_sd : float or None
        Standard deviation of the pixel size as a share of it.
    dataset : str or None
        Data set inside an HDF5 file.
    schema : str or None
        Schema of label files made elsewhere; None: what they say, else the schema of the analysis.
    label_map : mapping of int to str or None
        Value in label files made elsewhere to class name.
    image : Path or None
        The image that belongs to a label file (`measure`).
    echem : Path or None
        Cycler file.
    echem_clock, echem_offset_s, echem_drift_s_per_h, electrode_area_cm2, plating_current
        How it is put on the frames, as in `seg.electrochem.CyclerFile`.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    precision : str
        ``auto``: half precision where it is faster and changes at most 0.1 % of the pixels; ``fp32``: float32, the
        reference; ``bf16``: half precision whatever it changes.
    mirror : bool
        Average the network's answer with that on the mirror image.
    cluster : str or None
        ``local:N``, ``tcp://...`` or ``slurm:FILE``; None computes in this process.
    postprocess : str
        ``analysis``: masks are cleaned as the analysis says (`seg.postprocess`); ``none``: they stay as they are.
        Empty: masks predicted here are cleaned, masks made elsewhere stay.
    command : str
        The command line, kept in ``run.json``.
    """

    axes: str | None = None
    pixel_size_um: Mapping[str, float] | None = None
    frame_interval_s: float | None = None
    dataset: str | None = None
    schema: str | None = None
    label_map: Mapping[int, str] | None = None
    image: Path | None = None
    echem: Path | None = None
    echem_clock: Literal["offset", "files", "coverage"] = "offset"
    echem_offset_s: float | None = None
    echem_drift_s_per_h: float = 0.0
    electrode_area_cm2: float | None = None
    plating_current: Literal["negative", "positive"] = "negative"
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    mirror: bool = False
    cluster: str | None = None
    postprocess: Literal["", "analysis", "none"] = ""
    command: str = ""
    pixel_size_rel_sd: float | None = None

    @property
    def network(self) -> dict[str, Any]:
        """What is said of the network's work, as arguments of `seg.runner.InferenceSettings`."""
        return {"device": self.device, "precision": self.precision, "mirror": self.mirror}

    @property
    def cycler(self) -> CyclerFile | None:
        """The cycler file with everything said about it."""
        if self.echem is None:
            return None
        return CyclerFile(
            self.echem, self.echem_clock, self.echem_offset_s, self.echem_drift_s_per_h, self.electrode_area_cm2,
            self.plating_current,
        )  # fmt: skip

    @property
    def reading(self) -> dict[str, Any]:
        """What `seg.io.open_stack` is told."""
        return {
            "axes": self.axes, "pixel_size_um": self.pixel_size_um, "frame_interval_s": self.frame_interval_s,
            "dataset": self.dataset, "pixel_size_rel_sd": self.pixel_size_rel_sd,
        }  # fmt: skip
