"""The registry of metric groups: every entry holds what it says."""

import inspect
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from seg.errors import UsageError
from seg.metrics import METRIC_UNITS, METRICS, check_options, check_requirements, metric_unit
from seg.metrics.frame import Frame
from seg.metrics.history import History
from seg.metrics.table import Scale, to_table
from seg.objects import label_objects, object_table
from seg.tracking import Tracker

ENTRIES = sorted(METRICS)


def _frame(schema, shape=(48, 64)):
    """Electrolyte over substrate, two deposits, a dendrite with SEI, a void: something for every group."""
    labels = np.full(shape, schema.index("electrolyte"), np.uint8)
    labels[40:] = schema.index("substrate")
    labels[20:40, 10:14] = schema.index("dendrite")
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels[(y - 28) ** 2 + (x - 40) ** 2 < 121] = schema.index("sei")
    labels[(y - 28) ** 2 + (x - 40) ** 2 < 64] = schema.index("deposit")
    labels[26:30, 38:42] = schema.index("void")
    classes = ("deposit", "dendrite")
    scale = Scale((0.5, 0.25))
    instances = label_objects(schema.mask(labels, classes), scale=scale)
    return Frame(labels, schema, scale, instances=instances, object_classes=classes, min_diameter_px=3.0)


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_is_complete(name):
    group = METRICS[name]
    assert group.name == name
    assert group.description.endswith(".")
    assert group.hooks
    assert set(group.metrics) <= set(METRIC_UNITS)
    assert set(group.requires) <= set(METRICS)


@pytest.mark.parametrize("name", ENTRIES)
def test_functions_take_one_subject_and_keyword_options_with_defaults(name):
    for measure in METRICS[name].hooks:
        parameters = inspect.signature(measure.resolve()).parameters.values()
        options = [p for p in parameters if p.name not in ("frame", "before", "table", "history")]
        assert len(options) < len(parameters)
        assert [p for p in options if p.kind is not p.KEYWORD_ONLY or p.default is p.empty] == []


def _rows_of(name, frame):
    """All rows of a group for a series of two equal frames, with the rows it requires."""
    group, scale = METRICS[name], frame.scale
    later = replace(frame, index=1)
    tables = [object_table(f) for f in (frame, later)]
    tracker = Tracker(scale)
    for f, objects in zip((frame, later), tables, strict=True):
        tracker.add(f.instances, objects)
    needed = [row for other in group.requires for row in _rows_of(other, frame)]
    history = History(to_table(needed), scale, pd.concat(tables), tracker.finish())
    rows = []
    if group.measure_frame is not None:
        rows += group.measure_frame(frame)
    if group.measure_pair is not None:
        rows += group.measure_pair(frame, later)
    if group.measure_series is not None:
        rows += group.measure_series(history.table)
    if group.measure_whole is not None:
        rows += group.measure_whole(history)
    return rows


@pytest.mark.parametrize("name", ENTRIES)
def test_every_emitted_metric_is_declared_with_its_unit(name, schema):
    group = METRICS[name]
    frame = _frame(schema)
    rows = _rows_of(name, frame)
    if name != "theory":  # without the conditions of the experiment it has nothing to say
        assert rows
    assert {row.metric for row in rows} <= set(group.metrics)
    # The series of this test has no times, so its rates are per frame.
    units = {row.metric: row.unit.replace("/frame", "/s") for row in rows}
    assert units == {metric: METRIC_UNITS[metric][0] for metric in units}


@pytest.mark.parametrize("name", [name for name in ENTRIES if METRICS[name].measure_frame is not None])
def test_empty_frame_gives_rows_without_an_exception(name, schema):
    labels = np.full((17, 23), schema.index("electrolyte"), np.uint8)
    empty = replace(_frame(schema), labels=labels, instances=np.zeros((17, 23), np.int32))
    rows = METRICS[name].measure_frame(empty)
    assert isinstance(to_table(rows), pd.DataFrame)


def test_unknown_option_names_the_nearest():
    with pytest.raises(UsageError, match="'cover' has no option 'clases'; did you mean 'classes'"):
        check_options("cover", {"clases": ["deposit"]})
    with pytest.raises(UsageError, match="it has guard_px"):
        check_options("counting", {"zzz": 1})
    check_options("cover", {"classes": ["deposit"]})


def test_unknown_group_and_metric_name_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'counting'"):
        check_options("countin", {})
    with pytest.raises(UsageError, match="did you mean 'areal_density'"):
        metric_unit("area_density")
    assert metric_unit("areal_density") == "1/cm2"


def test_missing_required_group_is_named():
    with pytest.raises(UsageError, match="'growth' needs cover"):
        check_requirements(["growth"])
    check_requirements(["growth", "cover"])


def test_import_is_light():
    code = "import sys, seg.metrics; print(sorted({'torch', 'skan', 'skimage', 'matplotlib'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
