"""Following objects through a series: our tracker, laptrack's and trackpy's, on the same frames in one run.

Tiny by default so that it cannot rot. For figures (the time of laptrack grows with the square of the objects)::

    OPERANDOSEG_BENCHMARK_FRAMES=20 pytest tests/benchmarks/test_tracking_benchmark.py --benchmark-enable
"""

import os

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from seg.labels import load_schema
from seg.metrics.frame import Frame
from seg.metrics.table import Scale
from seg.objects import object_table
from seg.tracking import track_objects

FULL = "OPERANDOSEG_BENCHMARK_FRAMES" in os.environ
SCALE = Scale((0.1, 0.1))
pytestmark = [
    pytest.mark.benchmark(group="tracks of a series"),
    pytest.mark.timeout(7200 if FULL else 120),
]


@pytest.fixture(scope="module")
def instances(label_frames):
    return np.array([ndimage.label(frame == 3, np.ones((3, 3)))[0] for frame in label_frames])


def new_objects(instances):
    """Objects of the last frame beyond those of the first: all births of a scene without merges."""
    return int(instances[-1].max() - instances[0].max())


def test_laptrack(benchmark, instances):
    laptrack = pytest.importorskip("laptrack", exc_type=ImportError)
    cutoffs = dict.fromkeys(("cutoff", "splitting_cutoff", "merging_cutoff", "gap_closing_cutoff"), 0.9)
    peer = laptrack.OverLapTrack(**cutoffs)
    tracks, _, _ = benchmark.pedantic(lambda: peer.predict_overlap_dataframe(instances), rounds=1)
    starts = tracks.reset_index().groupby("track_id")["frame"].min()
    assert (starts > 0).sum() == new_objects(instances)


@pytest.mark.filterwarnings("ignore::Warning")  # its own, of pandas
def test_trackpy(benchmark, instances):
    """Links centroids, from a table that is made outside of the clock; it knows neither merges nor splits."""
    trackpy = pytest.importorskip("trackpy")
    trackpy.quiet()
    centres = []
    for k, ids in enumerate(instances):
        found = np.array(ndimage.center_of_mass(ids > 0, ids, np.arange(1, ids.max() + 1)))
        centres.append(pd.DataFrame({"y": found[:, 0], "x": found[:, 1], "frame": k}))
    table = pd.concat(centres, ignore_index=True)
    tracks = benchmark.pedantic(lambda: trackpy.link(table, 10, memory=2), rounds=1)
    starts = tracks.groupby("particle")["frame"].min()
    assert (starts > 0).sum() == new_objects(instances)


def test_ours(benchmark, instances, label_frames):
    """With the table of objects, which it needs and laptrack does not."""
    schema = load_schema("lithium")

    def follow():
        frames = [
            Frame(labels, schema, SCALE, k, instances=ids, object_classes=("deposit",))
            for k, (labels, ids) in enumerate(zip(label_frames, instances, strict=True))
        ]
        tables = pd.concat([object_table(frame) for frame in frames], ignore_index=True)
        return track_objects(instances, tables, scale=SCALE)

    found = benchmark.pedantic(follow, rounds=1)
    assert (found.events["event"] == "birth").sum() == new_objects(instances)
    assert set(found.events["event"]) <= {"birth"}
