"""Renew the golden data on purpose: ``python tests/golden/make.py``; say why in the commit and in CHANGELOG.md.

One small plan-view twin: its labels, and what the measuring stage makes of them.
"""

from pathlib import Path
from shutil import copy
from tempfile import TemporaryDirectory

from seg.analysis import load_analysis
from seg.io import write_labels
from seg.pipeline import RunOptions, measure
from seg.synthetic import make_experiment

FOLDER = Path(__file__).parent / "v1"
STORED = ("metrics.csv", "objects.csv", "instances.ome.tif")


def measured(out: Path) -> Path:
    """Measure the stored labels into `out`; returns the result folder."""
    (result,) = measure([FOLDER / "labels.ome.tif"], load_analysis(FOLDER / "analysis.yaml"), out, RunOptions())
    if result.error:
        raise RuntimeError(result.error)
    return result.folder


if __name__ == "__main__":
    twin = make_experiment("nucleation", 3, shape_px=(96, 120), n_frames=3, dial=0.1, density_per_cm2=4e5)
    labels = twin.labels
    write_labels(
        FOLDER / "labels.ome.tif", (labels.frame(t) for t in range(labels.n_frames)), shape=labels.shape,
        axes=labels.axes, calibration=labels.calibration, schema=twin.schema,
    )  # fmt: skip
    with TemporaryDirectory() as scratch:
        folder = measured(Path(scratch))
        for name in STORED:
            copy(folder / name, FOLDER / name)
