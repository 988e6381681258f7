"""Manifests: options per input, patterns, and nothing that leads out of their folder."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from seg.analysis import load_analysis
from seg.cli import main
from seg.errors import NothingMatchedError, UsageError
from seg.manifest import Entry, read_manifest
from seg.options import RunOptions
from seg.pipeline import measure


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three label images of 4, 4 and 9 squares of 6 x 6 px, in two folders."""
    for name, side in (("a/one.tif", 2), ("b/two.tif", 2), ("b/three.tif", 3)):
        labels = np.full((80, 100), 2, np.uint8)
        for n in range(side * side):
            y, x = 8 + 22 * (n // side), 8 + 28 * (n % side)
            labels[y : y + 6, x : x + 6] = 3
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / name, labels, photometric="minisblack")
    return tmp_path


def manifest(folder: Path, text: str, name: str = "inputs.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_csv_gives_options_to_each_input_and_expands_patterns(folder):
    path = manifest(folder, "input,pixel_size,frame_interval,name\na/one.tif,250nm,2s,first\nb/*.tif,,,\n")
    first, *others = read_manifest(path)
    assert first == Entry(
        folder / "a" / "one.tif", {"pixel_size_um": {"z": 0.25, "y": 0.25, "x": 0.25}, "frame_interval_s": 2.0}, "first"
    )
    assert [entry.path.name for entry in others] == ["three.tif", "two.tif"]
    common = RunOptions(pixel_size_um={"y": 0.5, "x": 0.4}, axes="yx")
    assert first.options(common).pixel_size_um["x"] == 0.25
    assert others[0].options(common) == common


def test_yaml_says_the_same_as_csv(folder):
    text = "- {input: a/one.tif, pixel_size: 250nm, frame_interval: 2s, name: first}\n- input: b/*.tif\n"
    table = manifest(folder, "input,pixel_size,frame_interval,name\na/one.tif,250nm,2s,first\nb/*.tif,,,\n")
    assert read_manifest(manifest(folder, text, "inputs.yaml")) == read_manifest(table)


def test_numbers_of_each_input_follow_its_own_pixel_size(folder):
    entries = read_manifest(manifest(folder, "input,pixel_size,name\na/one.tif,1um,coarse\na/one.tif,0.5um,fine\n"))
    results = measure(entries, load_analysis("sem"), folder / "out", RunOptions())
    assert [result.error for result in results] == ["", ""]
    areas = []
    for name in ("coarse", "fine"):
        table = pd.read_csv(folder / "out" / name / "metrics.csv")
        areas.append(table[table.metric == "covered_area"].value.iloc[0])
    assert areas == pytest.approx([4 * 36.0, 4 * 36.0 / 4])  # um2: squares of 6 px
    page = (folder / "out" / "study.html").read_text()
    assert "coarse/report.html" in page
    assert "fine/report.html" in page
    assert "2 inputs, 0 failed" in page


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("input,pixel_siz\na/one.tif,1um\n", "m.csv", "did you mean 'pixel_size'"),
        ("input,pixel_size\na/one.tif,5\n", "m.csv", "no unit"),
        ("input,electrode_area_cm2\na/one.tif,large\n", "m.csv", "expected a number"),
        ("name\nx\n", "m.csv", "names no input"),
        ("input,name\nb/*.tif,both\n", "m.csv", "names 2 inputs"),
        ("a: [", "m.yaml", "not readable YAML"),
        ("just text", "m.yaml", "must be a list"),
        ("- !!python/object/apply:os.system ['true']", "m.yaml", "not readable YAML"),
        ("- &x {input: a/one.tif}\n- *x\n", "m.yaml", "YAML alias"),
        ("input\na/one.tif\n", "m.txt", "ends in .csv, .yaml"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said(folder, text, name, says):
    with pytest.raises(UsageError, match=says):
        read_manifest(manifest(folder, text, name))


def test_an_empty_manifest_matches_nothing(folder):
    with pytest.raises(NothingMatchedError):
        read_manifest(manifest(folder, "input,name\n"))


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "../secret.tif", "a/../../secret.tif", "~/secret.tif", "C:\\secret.tif", "..\\secret.tif"]
)
def test_no_path_leads_out_of_the_folder_of_the_manifest(folder, path):
    inner = folder / "a"
    for column in ("input", "echem"):
        text = f"input,echem\n{path if column == 'input' else 'one.tif'},{path if column == 'echem' else ''}\n"
        with pytest.raises(UsageError, match="leads out of"):
            read_manifest(manifest(inner, text))


def test_no_link_leads_out_either_and_data_root_opens_another_folder(folder):
    inner = folder / "a"
    os.symlink(folder / "b" / "two.tif", inner / "link.tif")
    with pytest.raises(UsageError, match="leads out of"):
        read_manifest(manifest(inner, "input\nlink.tif\n"))
    with pytest.raises(UsageError, match="leads out of"):
        read_manifest(manifest(inner, "input\n*.tif\n"))
    path = manifest(inner, "input\nb/two.tif\n")
    assert [entry.path for entry in read_manifest(path, root=folder)] == [folder / "b" / "two.tif"]


@pytest.mark.parametrize("name", ["../up", "a/b", "a\\b", ".hidden", "..", "c:", "line\nbreak"])
def test_a_name_is_the_name_of_one_folder(folder, name):
    with pytest.raises(UsageError, match="cannot be the name of a folder"):
        read_manifest(manifest(folder, f"- {{input: a/one.tif, name: {name!r}}}\n".replace("'", '"'), "m.yaml"))


def test_dry_run_writes_nothing_and_limit_takes_the_first(folder, capsys):
    path = manifest(folder, "input,pixel_size,axes\nb/*.tif,0.5um,yx\na/one.tif,0.5um,yx\n")
    out = folder / "out"
    arguments = ["run", "--manifest", str(path), "--analysis", "sem", "--device", "cpu", "--out", str(out), "-q"]
    assert main([*arguments, "--dry-run", "--limit", "2"]) == 0
    said = capsys.readouterr().out
    assert said.count("GB RAM") == 2
    assert "three.tif" in said
    assert "one.tif" not in said
    assert "2 input(s)" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "says"), [([], "Name the inputs"), (["--limit", "0", "x.tif"], "--limit is 0"),
                            (["--data-root", ".", "x.tif"], "belongs to --manifest")],
)  # fmt: skip
@pytest.mark.parametrize("command", ["run", "measure"])
def test_options_that_make_no_sense_are_refused(command, arguments, says, tmp_path, capsys):
    assert main([command, *arguments, "--analysis", "sem", "--out", str(tmp_path / "out"), "-q"]) == 2
    assert says in capsys.readouterr().err


def test_masks_are_measured_by_a_manifest_as_images_are(folder):
    path = manifest(folder, "input,pixel_size,name\na/one.tif,0.5um,a\nb/three.tif,0.25um,b\n")
    out = folder / "out"
    arguments = [
        "measure",
        "--manifest",
        str(path),
        "--analysis",
        "sem",
        "--schema",
        "lithium",
        "--out",
        str(out),
        "-q",
    ]
    assert main(arguments) == 0
    rows = pd.concat([pd.read_csv(out / name / "metrics.csv").assign(of=name) for name in "ab"])
    areas = rows[rows["metric"] == "valid_area"].groupby("of")["value"].first()
    assert areas.to_dict() == pytest.approx({"a": 8000 * 0.25, "b": 8000 * 0.0625})
    assert (out / "study.html").exists()
