"""Inputs and models are somebody else's: nothing is unpickled, bombs are refused by declared size, pages escape."""

import ast
import gzip
import io
import json
import pickle
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seg.batch import RunResult
from seg.cli import main
from seg.errors import ModelError, SegError
from seg.io import open_stack
from seg.models.bundle import load_bundle
from seg.study_page import write_study_page

ROOT = Path(__file__).parents[1]
ATTACK = '<script>alert("x")</script>'


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


# --- no pickle ------------------------------------------------------------------------------------------------------


def calls_of(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


# Training keeps the state of its optimiser in checkpoints of its own runs.
@pytest.mark.parametrize("path", sorted((ROOT / "seg").rglob("*.py")), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_module_of_the_engine_unpickles(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    assert not imported & {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
    for name, call in calls_of(tree):
        given = {k.arg: ast.unparse(k.value) for k in call.keywords}
        if name in ("np.load", "numpy.load"):
            assert given.get("allow_pickle") == "False"
        if name == "torch.load":
            assert given.get("weights_only") == "True"
        assert name not in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "pd.read_pickle", "eval", "exec")
        # archives may name paths outside
        assert name.split(".")[-1] not in ("extractall", "unpack_archive")


def test_pickled_arrays_are_refused_and_not_run(tmp_path):
    mark = tmp_path / "was-here"
    array = np.array([[Bomb(mark)] * 4] * 4, dtype=object)
    np.save(tmp_path / "bad.npy", array, allow_pickle=True)
    with pytest.raises(SegError):
        open_stack(tmp_path / "bad.npy")
    assert not mark.exists()


def test_a_model_of_pickles_is_refused_and_not_run(tmp_path):
    import shutil

    from seg.models.bundle import SELFTEST, WEIGHTS, model_path

    mark = tmp_path / "was-here"
    for name, content in ((WEIGHTS, pickle.dumps(Bomb(mark))), (SELFTEST, None)):
        folder = tmp_path / f"model-{name}"
        shutil.copytree(model_path("generalist-2d"), folder)
        spec = json.loads((folder / "model.json").read_text())
        spec.pop("weights_sha256", None)
        (folder / "model.json").write_text(json.dumps(spec))
        if content is not None:
            (folder / name).write_bytes(content)
        else:
            np.savez(folder / name, image=np.array([Bomb(mark)], dtype=object), logits=np.zeros(1))
        with pytest.raises(ModelError):
            load_bundle(folder)
        assert not mark.exists()


# --- bombs ----------------------------------------------------------------------------------------------------------


def png_bomb(side: int) -> bytes:
    """A PNG of a few kB that declares `side` x `side` pixels, all black."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
        + chunk(b"IEND", b"")
    )


def npy_bomb() -> bytes:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000, 100), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def tiff_bomb() -> bytes:
    """A TIFF whose one page declares 4 000 000 x 4 000 000 pixels, packed by deflate into a few bytes."""
    data = zlib.compress(b"\0" * 1000)
    tags = [(256, 4, 1, 4_000_000), (257, 4, 1, 4_000_000), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1),
            (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 4_000_000), (279, 4, 1, len(data))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("name", "content"), [("bomb.png", png_bomb(100_000)), ("bomb.npy", npy_bomb()), ("bomb.tif", tiff_bomb())]
)
def test_an_image_that_declares_more_than_it_can_hold_is_refused_at_once(name, content, tmp_path, capsys):
    path = tmp_path / name
    path.write_bytes(content)
    started = time.monotonic()
    assert main(["check", str(path)]) == 5
    assert time.monotonic() - started < 30  # and not after filling the memory
    assert "Traceback" not in capsys.readouterr().err


def test_a_zarr_that_declares_more_than_it_can_hold_is_refused(tmp_path):
    import zarr

    path = tmp_path / "bomb.zarr"
    array = zarr.create_array(str(path), shape=(8, 8), chunks=(8, 8), dtype="uint8")
    assert array.shape == (8, 8)
    meta = json.loads((path / "zarr.json").read_text())
    meta["shape"] = [10**7, 10**7]
    (path / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(SegError, match="damaged|more than it can hold"):
        open_stack(path)


def test_a_self_test_that_unpacks_to_gigabytes_is_refused(tmp_path):
    import shutil

    from seg.models.bundle import MAX_SELFTEST_BYTES, SELFTEST, model_path

    folder = tmp_path / "model"
    shutil.copytree(model_path("generalist-2d"), folder)
    with zipfile.ZipFile(folder / SELFTEST, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("image.npy", b"\0" * (MAX_SELFTEST_BYTES + 1))
    assert (folder / SELFTEST).stat().st_size < 200_000
    with pytest.raises(ModelError, match="unpacks to"):
        load_bundle(folder)


def test_gzip_is_no_input(tmp_path, capsys):
    """Archives are not unpacked at all, so that they can neither name paths outside nor unfold."""
    for name, content in (("a.tif.gz", gzip.compress(b"\0" * 10**6)), ("a.zip", zip_with_path())):
        path = tmp_path / name
        path.write_bytes(content)
        assert main(["check", str(path)]) == 5
        assert "not known" in capsys.readouterr().out
    assert not (tmp_path.parent / "evil.tif").exists()


def zip_with_path() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../evil.tif", b"II*\0")
    return buffer.getvalue()


# --- pages ----------------------------------------------------------------------------------------------------------


def test_the_page_over_all_inputs_escapes_every_string(tmp_path):
    headline = pd.DataFrame([{
        "metric": f"m{ATTACK}", "value": 1.0, "low": 0.5, "high": 2.0, "unit": ATTACK, "class": ATTACK, "side": "",
        "flags": ATTACK,
    }])  # fmt: skip
    results = [
        RunResult(Path(ATTACK), tmp_path / 'a"><b', headline=headline),
        RunResult(Path(f"bad{ATTACK}"), tmp_path / "bad", error=ATTACK),
    ]
    page = write_study_page(results, ATTACK, tmp_path / "study.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6
    assert "a&#34;&gt;&lt;b" in page


def test_every_template_environment_escapes():
    made = 0
    for path in sorted((ROOT / "seg").rglob("*.py")):
        for name, call in calls_of(ast.parse(path.read_text(encoding="utf-8"))):
            if name.split(".")[-1] == "Environment":
                made += 1
                assert {k.arg: ast.unparse(k.value) for k in call.keywords}.get("autoescape") == "True", path
    assert made >= 2
