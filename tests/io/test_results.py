"""Results are replaced whole or not at all."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seg.io.results import _mark, atomic_path, write_json, write_table


def test_a_file_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "new" / "a.ome.tif"
    with atomic_path(target) as part:
        part.write_text("half")
        assert not target.exists()
        assert (part.parent, part.name[0], part.suffix) == (target.parent, ".", ".tif")
    assert target.read_text() == "half"
    assert [p.name for p in target.parent.iterdir()] == ["a.ome.tif"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_keeps_the_old_one_and_leaves_nothing(tmp_path, error):
    target = tmp_path / "a.csv"
    target.write_text("old")

    def fail():
        with atomic_path(target) as part:
            part.write_text("half")
            raise error

    pytest.raises(error, fail)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.csv", "old")]


def test_folders_are_replaced_with_all_they_hold(tmp_path):
    target = tmp_path / "a.ome.zarr"
    for content in ("one", "two"):
        with atomic_path(target) as part:
            (part / "0").mkdir(parents=True)
            (part / "0" / content).write_text(content)
        assert [p.name for p in target.rglob("*") if p.is_file()] == [content]
    assert [p.name for p in tmp_path.iterdir()] == ["a.ome.zarr"]

    def fail():
        with atomic_path(target) as part:
            part.mkdir()
            raise ValueError

    pytest.raises(ValueError, fail)
    assert [p.name for p in target.rglob("*") if p.is_file()] == ["two"]


@pytest.mark.skipif(os.name != "posix", reason="asking whether a process lives is safe on POSIX only")
def test_what_a_killed_process_left_is_cleared_but_not_that_of_a_living_one(tmp_path):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    dead = tmp_path / f".{_mark()}{child}-abcd.part.a.ome.zarr"
    living = tmp_path / f".{_mark()}{os.getppid()}-abcd.part.a.ome.zarr"
    other = tmp_path / f".{_mark()}{child}-abcd.part.b.csv"
    elsewhere = tmp_path / f".another-{child}-abcd.part.a.ome.zarr"
    dead.mkdir()
    (dead / "chunk").touch()
    for path in (living, other, elsewhere):
        path.touch()
    with atomic_path(tmp_path / "a.ome.zarr") as part:
        part.touch()
    assert not dead.exists()
    assert living.exists()
    assert other.exists()
    assert elsewhere.exists()


def test_tables_come_back(tmp_path):
    table = pd.DataFrame({"metric": ["area"], "value": [1 / 3], "low": [np.nan], "unit": ["um2"]})
    assert write_table(table, tmp_path / "metrics.csv") == tmp_path / "metrics.csv"
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "metrics.csv"), table)
    assert b"\r" not in (tmp_path / "metrics.csv").read_bytes()


@pytest.mark.parametrize("last", [{}, {"single": np.float32([1 / 3, 2])}], ids=["plain", "a type of pandas' own way"])
def test_tables_are_written_as_pandas_does(tmp_path, last):
    table = pd.DataFrame({
        "value": [np.nan, 1e-300], "count": pd.array([None, 3], "Int64"), "cut": [True, False], "frame": [1, 2],
        "text": ['a,"b"', None], "mixed": [np.inf, ""], **last,
    })  # fmt: skip
    for part in (table, table.iloc[:0], table[["text"]]):
        expected = part.to_csv(index=False, lineterminator="\n")
        assert write_table(part, tmp_path / "a.csv").read_text(encoding="utf-8") == expected


@dataclass
class Settings:
    tile_px: tuple[int, int]
    where: Path


def test_json_holds_plain_values_and_no_nan(tmp_path):
    data = {
        "settings": Settings((8, 9), Path("a") / "b"), "array": np.array([[1.5, np.nan]]), "count": np.int64(3),
        4: True, "unit": "µm", "infinite": float("inf"), "nothing": None,
    }  # fmt: skip
    write_json(data, tmp_path / "run.json")
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert "µm" in text
    assert json.loads(text) == {
        "settings": {"tile_px": [8, 9], "where": str(Path("a") / "b")}, "array": [[1.5, None]], "count": 3, "4": True,
        "unit": "µm", "infinite": None, "nothing": None,
    }  # fmt: skip
