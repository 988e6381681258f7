from pathlib import Path

import pytest

from seg.cyclers import with_cyclers
from seg.errors import UsageError

INPUTS = [Path("a/cell_1.ome.tif"), Path("b/cell_2.tif")]


def files(entries):
    return [(entry.path.name, entry.given["echem"].name) for entry in entries]


@pytest.fixture
def folder(tmp_path):
    for path in INPUTS:
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).touch()
    (tmp_path / "cyclers").mkdir()
    for name in ("cell_2.mpt", "cell_1.csv", "cell_10.csv", "notes.txt"):
        (tmp_path / "cyclers" / name).touch()
    return tmp_path


def test_one_file_is_that_of_all_inputs():
    assert files(with_cyclers(INPUTS, [Path("cell.mpt")])) == [
        ("cell_1.ome.tif", "cell.mpt"),
        ("cell_2.tif", "cell.mpt"),
    ]


def test_as_many_files_as_inputs_are_taken_in_order():
    entries = with_cyclers(INPUTS, [Path("x.mpt"), Path("a.mpt")])
    assert files(entries) == [("cell_1.ome.tif", "x.mpt"), ("cell_2.tif", "a.mpt")]


def test_files_of_a_folder_are_found_by_the_name_of_the_input(folder):
    entries = with_cyclers([folder / path for path in INPUTS], [folder / "cyclers"])
    assert files(entries) == [("cell_1.ome.tif", "cell_1.csv"), ("cell_2.tif", "cell_2.mpt")]


def test_what_does_not_fit_is_said(folder):
    inputs = [folder / path for path in INPUTS]
    with pytest.raises(UsageError, match=r"3 files for 2 input"):
        with_cyclers(inputs, [Path("a"), Path("b"), Path("c")])
    (folder / "cyclers" / "cell_1.mpt").touch()
    with pytest.raises(UsageError, match=r"several files of one name \(cell_1.csv, cell_1.mpt\)"):
        with_cyclers(inputs, [folder / "cyclers"])
    (folder / "cyclers" / "cell_2.mpt").unlink()
    with pytest.raises(UsageError, match=r"no cycler file named like cell_2.tif.*such as cell_2.mpt"):
        with_cyclers(inputs, [folder / "cyclers"])
