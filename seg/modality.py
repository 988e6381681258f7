"""What differs between imaging modalities, as data. The words ``if modality ==`` belong nowhere else."""

from dataclasses import dataclass
from difflib import get_close_matches

from seg.errors import UsageError


@dataclass(frozen=True)
class Modality:
    """How images of one kind are normalised and spoken about.

    Parameters
    ----------
    name : str
    title : str
        As written in reports.
    normalisation_percentiles : (float, float)
        Intensity percentiles of the whole series that map to 0 and 1.
    length_unit : str
        Unit of lengths in the report (tables stay in µm): ``"um"`` or ``"nm"``.
    burnt_in_text : bool
        Frames often carry burnt-in stamps and scale bars.
    """

    name: str
    title: str
    normalisation_percentiles: tuple[float, float] = (0.5, 99.5)
    length_unit: str = "um"
    burnt_in_text: bool = False


MODALITIES: dict[str, Modality] = {
    "optical": Modality("optical", "optical microscopy", burnt_in_text=True),
    "xct": Modality("xct", "X-ray computed tomography", (0.1, 99.9)),
    "cryoem": Modality("cryoem", "cryo-EM / TEM", length_unit="nm"),
    "sem": Modality("sem", "scanning electron microscopy", burnt_in_text=True),
}


def modality(name: str) -> Modality:
    """The modality called `name`; UsageError names the nearest when there is none."""
    if name not in MODALITIES:
        near = get_close_matches(name, MODALITIES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(MODALITIES)}."
        raise UsageError(f"There is no modality {name!r}; {hint}")
    return MODALITIES[name]
