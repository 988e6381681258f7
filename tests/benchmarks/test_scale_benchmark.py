"""The measurements of scale, at sizes that only show that they run; `scale.py` says how figures are made."""

import csv
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import scale

pytestmark = [
    pytest.mark.slow, pytest.mark.timeout(300),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counters of other systems differ"),
]  # fmt: skip


def test_memory_against_length(tmp_path):
    short, long = scale.length(tmp_path, [4, 60], [], 64)
    # Fifteen times as long, and within what the allocator gives or takes.
    assert abs(long["peak_mib"] - short["peak_mib"]) < 24
    assert short["libraries_mib"] < short["peak_mib"]
    with (tmp_path / "length.csv").open(encoding="utf-8") as file:
        assert [row["length"] for row in csv.DictReader(file)] == ["4", "60"]
    assert (tmp_path / "length.png").stat().st_size > 5000


def test_stages(tmp_path):
    found = scale.stages(tmp_path, 1, 544)  # the least that is taken in strips
    cpu, wall = found.pop("all")
    assert {"network", "normalise", "join and write the result"} <= set(found)
    assert 0 < found["network"][1] < wall
    # Stages do not hold each other, so that their sum is no more than all; 0.05 s for clocks of different threads.
    assert sum(stage[0] for stage in found.values()) < cpu + 0.05
