"""Every reader on every way of storing the same series, and on files that are broken."""

import logging

import numpy as np
import pytest

from seg.errors import DataError, SegError
from seg.io import READERS, arrays, open_stack
from seg.io.registry import known_suffix, reader_of


def stored(way, folder, data):
    name, write, axes = way
    write(folder / name, data)
    return folder / name, axes


@pytest.fixture(params=["in memory", "lazy"])
def laziness(request, monkeypatch):
    if request.param == "lazy":
        monkeypatch.setattr(arrays, "LAZY_ABOVE_BYTES", 0)
    return request.param


@pytest.mark.usefixtures("laziness")
def test_all_formats_give_the_same_pixels(way, tmp_path, make):
    data = make.series()
    path, axes = stored(way, tmp_path, data)
    stack = open_stack(path, axes=axes)
    assert (stack.axes, stack.shape, stack.name, stack.source) == ("tyx", data.shape, path.name, path)
    assert stack.dtype.isnative
    if path.suffix != ".gif":
        np.testing.assert_array_equal(np.asarray(stack.data), data)
        # out of order, as a seeking reader would get it wrong
        for index in (3, 0, 4, 1, 2, 2):
            np.testing.assert_array_equal(stack.frame(index), data[index])
        np.testing.assert_array_equal(stack.data[1:4, 5:20, 7], data[1:4, 5:20, 7])


def test_every_way_is_known_by_one_reader_and_by_content(way, tmp_path, make):
    path, _ = stored(way, tmp_path, make.series())
    assert [reader.NAME for reader in READERS if reader.can_open(path)] == [reader_of(path).NAME]


def test_every_reader_is_complete_and_never_raises_on_asking(tmp_path):
    asked = [tmp_path / "missing", tmp_path, tmp_path / "text.txt"]
    asked[2].write_text("no image")
    for reader in READERS:
        assert reader.NAME
        assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in reader.SUFFIXES)
        assert callable(reader.read)
        assert "given" in reader.read.__annotations__
        assert [reader.can_open(path) for path in asked] == [False, False, False]
        assert known_suffix(tmp_path / f"A{reader.SUFFIXES[0].upper()}")


def test_the_ways_cover_every_reader(tmp_path, make):
    used = set()
    for name, (write, _) in make.ways.items():
        write(tmp_path / name, make.series((2, 16, 16)))
        used.add(reader_of(tmp_path / name).NAME)
    assert used == {reader.NAME for reader in READERS}


def attempt(path, axes):
    """Pixels of the stack, or None where it was refused; anything but a SegError escapes."""
    refusal = None
    try:
        return np.asarray(open_stack(path, axes=axes).data)
    except SegError as error:
        refusal = error
    assert refusal.exit_code == 5
    assert 0 < len(str(refusal)) < 600
    return None


@pytest.mark.usefixtures("laziness")
def test_a_truncated_file_is_refused_or_whole_but_never_different(way, tmp_path, make):
    path, axes = stored(way, tmp_path, make.series())
    if path.is_dir():
        pytest.skip("a folder is not cut off in the middle")
    content, whole = path.read_bytes(), np.asarray(open_stack(path, axes=axes).data)
    size = len(content)
    ends = {*range(0, 24, 3), *np.linspace(0, size - 1, 18).astype(int).tolist(), *(size - k for k in range(1, 6))}
    refused = 0
    cut = path.with_name(f"cut{path.suffix}")
    for end in sorted(ends):
        cut.write_bytes(content[:end])
        got = attempt(cut, axes)
        refused += got is None
        if got is not None:
            np.testing.assert_array_equal(got, whole)
    assert refused >= len(ends) // 2


def test_flipped_header_bytes_never_escape_as_anything_but_a_sentence(way, tmp_path, make, rng):
    path, axes = stored(way, tmp_path, make.series())
    if path.is_dir():
        target = path / "zarr.json" if (path / "zarr.json").exists() else next(path.glob("*.png"), path / ".zattrs")
    else:
        target = path
    content = target.read_bytes()
    for _ in range(30):
        broken = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            broken[rng.integers(0, min(len(broken), 600))] = rng.integers(0, 256)
        target.write_bytes(broken)
        attempt(path, axes)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".avi", ".mrc", ".h5", ".npy"])
def test_text_renamed_is_called_text(tmp_path, suffix):
    path = tmp_path / f"notes{suffix}"
    path.write_text("time,voltage\n" * 200)
    with pytest.raises(DataError, match="content is text") as caught:
        open_stack(path)
    assert caught.value.exit_code == 5


def test_missing_empty_unknown_and_forbidden_files(tmp_path, monkeypatch, make):
    with pytest.raises(DataError, match="There is no file .*gone.tif"):
        open_stack(tmp_path / "gone.tif")
    (tmp_path / "empty.tif").touch()
    with pytest.raises(DataError, match=r"'empty.tif' is empty \(0 bytes\)"):
        open_stack(tmp_path / "empty.tif")
    (tmp_path / "what.xyz").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match="'what.xyz' is of a format that is not known"):
        open_stack(tmp_path / "what.xyz")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="The folder 'nothing' holds neither images nor an OME-Zarr"):
        open_stack(tmp_path / "nothing")
    np.save(tmp_path / "secret.npy", make.series()[0])

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "load", refuse)
    with pytest.raises(DataError, match="secret.npy may not be read: permission denied"):
        open_stack(tmp_path / "secret.npy")


def test_memory_and_unknown_failures_become_one_sentence(tmp_path, monkeypatch, make):
    np.save(tmp_path / "a.npy", make.series()[0])
    for error, expected in (
        (MemoryError("cannot allocate 3 TiB"), "does not fit in memory: cannot allocate 3 TiB"),
        (KeyError("IFD"), r"cannot be read \('IFD'\); it is damaged"),
    ):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(np, "load", fail)
        with pytest.raises(DataError, match=expected) as caught:
            open_stack(tmp_path / "a.npy")
        assert caught.value.__cause__ is error


def test_warnings_of_libraries_go_to_the_log(tmp_path, monkeypatch, make, caplog):
    np.save(tmp_path / "a.npy", make.series()[0])
    load = np.load

    def warn(*args, **options):
        import warnings

        warnings.warn("the header is odd", RuntimeWarning, stacklevel=1)
        return load(*args, **options)

    monkeypatch.setattr(np, "load", warn)
    with caplog.at_level(logging.WARNING):
        open_stack(tmp_path / "a.npy")
    assert "a.npy: the header is odd" in caplog.text
