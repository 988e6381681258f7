"""Mutated input files through ``operandoseg check`` and ``predict``: none may hang, crash or exhaust the memory.

``python tests/faults/fuzz.py --cases 5000 --seed 1`` prints one line per fault and a count. A case is a seed: the file
of a fault is made again with ``--keep DIR --first N --cases 1``. Cases run in a child process with a limit on memory
and an alarm per case; a child that dies names its case and another goes on behind it.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

SECONDS_PER_CASE = 60
MEMORY_BYTES = 2 * 2**30  # beyond what the libraries take when they are loaded
PREDICTED_PX = 300_000
FORMATS = ("tif", "ome.tif", "big.tif", "lzw.tif", "png", "jpg", "gif", "bmp", "npy", "mrc", "h5", "avi", "ome.zarr")


def make_originals(folder: Path) -> list[Path]:
    """A small valid file of every format."""
    import h5py
    import mrcfile
    import tifffile
    from PIL import Image

    from seg.io import write_image
    from seg.stack import Calibration

    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (3, 40, 52)).astype(np.uint8)
    size = Calibration({"y": 0.4, "x": 0.25}, (0.0, 2.0, 4.0), "file")
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / "a.tif", frames, imagej=True, metadata={"axes": "TYX", "unit": "um"})
    tifffile.imwrite(folder / "a.big.tif", frames, bigtiff=True, photometric="minisblack", metadata={"axes": "TYX"})
    tifffile.imwrite(
        folder / "a.lzw.tif",
        frames,
        compression="lzw",
        photometric="minisblack",
        metadata={"axes": "TYX"},
        tile=(16, 16),
    )
    for name in ("a.ome.tif", "a.ome.zarr"):
        write_image(folder / name, frames, shape=frames.shape, dtype=frames.dtype, axes="tyx", calibration=size)
    for kind in ("png", "jpg", "bmp"):
        Image.fromarray(frames[0]).save(folder / f"a.{kind}")
    Image.fromarray(frames[0]).save(folder / "a.gif", save_all=True, append_images=[Image.fromarray(f) for f in frames])
    np.save(folder / "a.npy", frames[0])
    with mrcfile.new(folder / "a.mrc") as mrc:
        mrc.set_data(frames[0].astype(np.int16))
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("image", data=frames[0], chunks=(20, 26), compression="gzip")
    write_video(folder / "a.avi", frames)
    return [folder / f"a.{kind}" for kind in FORMATS]


def write_video(path: Path, frames: np.ndarray) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=5)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuvj420p"
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to eight changes, most of them near the start, where headers are."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if not changed:
            break
        near = rng.random() < 0.6
        at = int(rng.integers(0, min(len(changed), 600) if near else len(changed)))
        kind = int(rng.integers(0, 7))
        width = int(rng.choice([1, 2, 4, 8]))
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            changed[at : at + width] = rng.bytes(width)
        elif kind == 2:  # the numbers that sizes and offsets go wrong with
            value = int(rng.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]))
            changed[at : at + width] = (value & (256**width - 1)).to_bytes(
                width, "little" if rng.random() < 0.5 else "big"
            )
        elif kind == 3:
            del changed[at:]
        elif kind == 4:
            del changed[at : at + int(rng.integers(1, 40))]
        elif kind == 5:
            changed[at:at] = changed[: int(rng.integers(1, 200))]
        else:
            changed[at:at] = rng.bytes(int(rng.integers(1, 40)))
    return bytes(changed)


def make_case(case: int, seed: int, originals: list[Path], folder: Path) -> Path:
    rng = np.random.default_rng([seed, case])
    original = originals[int(rng.integers(0, len(originals)))]
    path = folder / f"{case:06d}{original.name[1:]}"
    if original.is_dir():
        shutil.copytree(original, path)
        files = sorted(file for file in path.rglob("*") if file.is_file())
        file = files[int(rng.integers(0, len(files)))]
        file.write_bytes(mutate(file.read_bytes(), rng))
    else:
        path.write_bytes(mutate(original.read_bytes(), rng))
    return path


class TooSlowError(BaseException):
    """Not an Exception: nothing that catches those may swallow it."""


def ring(*_: object) -> None:
    raise TooSlowError


def outcome(path: Path, model: Path, out: Path) -> str:
    """``ok`` and the exit codes, or what went wrong."""
    from seg.cli import main
    from seg.io import open_stack

    said = io.StringIO()
    signal.alarm(SECONDS_PER_CASE)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            codes = [main(["check", str(path), "-q"])]
            if codes[0] == 0 and np.prod(open_stack(path).shape) <= PREDICTED_PX:
                arguments = ["predict", str(path), "--model", str(model), "--device", "cpu", "--out", str(out), "-q"]
                codes.append(main(arguments))
    except TooSlowError:
        return f"hangs for {SECONDS_PER_CASE} s"
    except BaseException as error:
        return f"raises {type(error).__name__}: {str(error)[:150]}"
    finally:
        signal.alarm(0)
        shutil.rmtree(out, ignore_errors=True)
    if set(codes) - {0, 5}:
        return f"ends with {codes}: {said.getvalue().strip()[-200:]}"
    return f"ok {codes}"


def child(arguments: argparse.Namespace) -> None:
    """Cases one after the other; each outcome is a line, so that a death names its case."""
    import torch

    torch.set_num_threads(1)
    import seg.cli
    import seg.masks  # noqa: F401  # loaded before the limit

    with open("/proc/self/status", encoding="ascii") as status:
        held = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (held + MEMORY_BYTES, held + MEMORY_BYTES))
    signal.signal(signal.SIGALRM, ring)
    work = Path(arguments.work)
    originals = [work / "originals" / f"a.{kind}" for kind in FORMATS]
    for case in range(arguments.first, arguments.first + arguments.cases):
        path = make_case(case, arguments.seed, originals, work)
        sys.stdout.write(f"{case} ")
        sys.stdout.flush()
        sys.stdout.write(json.dumps([path.name, outcome(path, work / "model", work / "out")]) + "\n")
        sys.stdout.flush()
        if arguments.keep:
            shutil.copytree(path, Path(arguments.keep) / path.name) if path.is_dir() else shutil.copy(
                path, arguments.keep
            )
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def fuzz(cases: int, seed: int, model: Path, *, first: int = 0, keep: str = "") -> tuple[Counter, list[str]]:
    """How often each outcome came, and the faults."""
    counts: Counter = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        make_originals(Path(folder) / "originals")
        shutil.copytree(model, Path(folder) / "model")
        end = first + cases
        while first < end:
            command = [
                sys.executable,
                __file__,
                "--child",
                "--work",
                folder,
                "--seed",
                str(seed),
                "--first",
                str(first),
            ]
            result = subprocess.run(
                [*command, "--cases", str(end - first), "--keep", keep], capture_output=True, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            last = first - 1
            for line in result.stdout.splitlines():
                number, _, rest = line.partition(" ")
                last = int(number)
                name, what = json.loads(rest) if rest else ("", f"kills the process ({result.returncode})")
                kind = Path(name).name[6:] or "?"
                counts[f"{kind}: {what if what.startswith('ok') else 'FAULT'}"] += 1
                if not what.startswith("ok"):
                    faults.append(f"case {last} {name}: {what}")
            if last < first:
                raise RuntimeError(f"the child does not start: {result.stderr[-1000:]}")
            first = last + 1
    return counts, faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", default="")
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--work", default="")
    given = parser.parse_args()
    if given.child:
        child(given)
    else:
        from seg.models.bundle import model_path

        found, wrong = fuzz(
            given.cases, given.seed, given.model or model_path("generalist-2d"), first=given.first, keep=given.keep
        )
        sys.stdout.write("\n".join([*wrong, *(f"{n:6d} {kind}" for kind, n in sorted(found.items()))]) + "\n")
        sys.exit(bool(wrong))
