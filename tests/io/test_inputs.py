"""What the command line names becomes a list of inputs."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from seg.batch import result_folders
from seg.errors import DataError, NothingMatchedError
from seg.io import find_inputs, fingerprint, inputs, open_stack


@pytest.fixture
def tree(tmp_path, make):
    """A folder as users have them."""
    pixels = np.zeros((8, 8), np.uint8)
    for name in ("img2.png", "img10.png", "img1.png", ".hidden.png"):
        (tmp_path / "series").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "series" / name)
    stacks = tmp_path / "stacks"
    stacks.mkdir()
    for name in ("b.tif", "a10.tif", "a9.tif"):
        tifffile.imwrite(
            stacks / name, np.zeros((3, 8, 8), np.uint8), metadata={"axes": "TYX"}, photometric="minisblack"
        )
    for name in ("a9.calibration.yaml", "a9.labels.json", "notes.txt", "times.csv", ".b.part.tif"):
        (stacks / name).write_text("x")
    make.zarr(stacks / "c.ome.zarr", pixels, "yx")
    return tmp_path


def names(paths, start):
    return [path.relative_to(start).as_posix() for path in paths]


def test_a_folder_of_images_is_one_series_and_other_folders_are_their_files(tree):
    assert names(find_inputs([tree / "series"]), tree) == ["series"]
    assert names(find_inputs([tree / "stacks"]), tree / "stacks") == ["a9.tif", "a10.tif", "b.tif", "c.ome.zarr"]
    assert names(find_inputs([tree / "stacks" / "c.ome.zarr"]), tree) == ["stacks/c.ome.zarr"]


@pytest.mark.parametrize(
    ("shape", "options", "single"),
    [
        ((8, 9), {}, True),
        ((8, 9, 3), {"photometric": "rgb"}, True),
        ((3, 8, 9), {"photometric": "rgb", "planarconfig": "separate"}, True),
        ((3, 8, 9), {"photometric": "minisblack", "ome": True, "metadata": {"axes": "CYX"}}, True),
        ((5, 8, 9), {"metadata": {"axes": "TYX"}}, False),
        ((5, 8, 9), {"metadata": None}, False),
    ],
)
def test_a_folder_of_tiffs_is_a_series_only_when_they_are_single_images(tmp_path, shape, options, single):
    for i in range(2):
        tifffile.imwrite(tmp_path / f"{i}.tif", np.zeros(shape, np.uint8), **options)
    files = [tmp_path / "0.tif", tmp_path / "1.tif"]
    assert find_inputs([tmp_path]) == ([tmp_path] if single else files)
    if single:
        assert open_stack(tmp_path).axes == "tyx"  # equal channels are one


def test_the_folder_one_stands_in_goes_by_its_name(tree, monkeypatch):
    monkeypatch.chdir(tree / "series")
    (tree / "series.calibration.yaml").write_text("{axes: tyx, pixel_size_um: {y: 0.5, x: 0.4}}")
    for given in (".", "..//series", "./"):
        assert find_inputs([given])[0].samefile(tree / "series")
        assert result_folders(find_inputs([given]), Path("out")) == [Path("out/series")]
        stack = open_stack(given)
        assert (stack.name, stack.calibration.pixel_size_um) == ("series", {"y": 0.5, "x": 0.4})
    (tree / "series" / "below").mkdir()
    monkeypatch.chdir(tree / "series" / "below")
    assert find_inputs([".."]) == [(tree / "series").resolve()]
    # not out/.., which would be beside the results
    assert result_folders([Path("..")], Path("out")) == [Path("out/series")]
    assert result_folders([Path("..")] + [tree / "other" / "series"], Path("out"))[0] == Path(f"out/{tree.name}_series")


def test_globs_are_sorted_naturally_and_skip_what_is_no_image(tree):
    found = find_inputs([str(tree / "stacks" / "*")])
    assert names(found, tree / "stacks") == ["a9.tif", "a10.tif", "b.tif", "c.ome.zarr"]
    assert names(find_inputs([str(tree / "stacks" / "a*.tif")]), tree / "stacks") == ["a9.tif", "a10.tif"]
    assert names(find_inputs([str(tree / "*")]), tree)[0] == "series"


def test_two_stars_reach_any_depth_but_not_into_zarr(tree):
    found = names(find_inputs([str(tree / "**" / "*")]), tree)
    assert found == [
        "series/img1.png", "series/img2.png", "series/img10.png", "stacks/a9.tif", "stacks/a10.tif", "stacks/b.tif",
        "stacks/c.ome.zarr",
    ]  # fmt: skip


def test_each_once_in_the_order_given(tree):
    one, two = tree / "stacks" / "b.tif", tree / "stacks" / "a9.tif"
    assert find_inputs([one, str(tree / "stacks" / "*.tif"), two]) == [one, two, tree / "stacks" / "a10.tif"]


def test_a_file_with_brackets_in_its_name_is_a_file(tree):
    path = tree / "stacks" / "a[1].tif"
    path.write_bytes((tree / "stacks" / "b.tif").read_bytes())
    assert find_inputs([path]) == [path]


def test_nothing_matched(tree, caplog):
    (tree / "empty").mkdir()
    for pattern in (tree / "*.mrc", tree / "gone.tif", tree / "empty"):
        with pytest.raises(NothingMatchedError, match="Nothing matched") as caught:
            find_inputs([pattern])
        assert caught.value.exit_code == 4
    with pytest.raises(NothingMatchedError, match="an empty list"):
        find_inputs([])
    found = find_inputs([tree / "gone.tif", tree / "*.mrc", tree / "stacks" / "b.tif"])
    assert found == [tree / "gone.tif", tree / "stacks" / "b.tif"]  # the first fails when it is opened
    assert "nothing matched" in caplog.text


# --- fingerprints ---------------------------------------------------------------------------------------------------


def test_the_same_content_has_the_same_fingerprint(tmp_path):
    a, b = tmp_path / "a.npy", tmp_path / "b.npy"
    a.write_bytes(b"x" * 1000)
    b.write_bytes(b"x" * 1000)
    os.utime(b, (1, 1))
    assert fingerprint(a) == fingerprint(b)
    assert fingerprint(a).startswith("sha256:")
    b.write_bytes(b"x" * 999 + b"y")
    assert fingerprint(a) != fingerprint(b)


def test_folders_count_names_and_contents(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "0").mkdir(parents=True)
        (tmp_path / name / "0" / "chunk").write_bytes(b"12")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    (tmp_path / "b" / "0" / "chunk").rename(tmp_path / "b" / "0" / "other")
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")


def test_huge_files_are_sampled_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "FULL_HASH_BYTES", 1000)
    monkeypatch.setattr(inputs, "_SAMPLE_BYTES", 10)
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(5000))
    os.utime(path, ns=(10**18, 10**18))
    before = fingerprint(path)
    assert before.startswith("sampled-sha256:")
    assert fingerprint(path) == before
    for place in (0, 4999):  # both ends are among the samples
        content = bytearray(5000)
        content[place] = 1
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18))
        assert fingerprint(path) != before
    path.write_bytes(bytes(5000))
    os.utime(path, ns=(10**18 + 1, 10**18 + 1))
    assert fingerprint(path) != before


def test_a_missing_file_has_none(tmp_path):
    with pytest.raises(DataError, match="may not be read: No such file"):
        fingerprint(tmp_path / "gone")
