"""What the fuzz test mutates: a small valid file of every kind that somebody else may have made, and how."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IMAGES = ("tif", "ome.tif", "big.tif", "lzw.tif", "png", "jpg", "gif", "bmp", "npy", "mrc", "h5", "avi", "ome.zarr")
SIZE = {"y": 0.4, "x": 0.25}
# Door to the files that go through it, and how often it is chosen. The first are by far the cheapest to refuse.
DOORS: dict[str, tuple[int, tuple[str, ...]]] = {
    "image": (10, tuple(f"a.{kind}" for kind in IMAGES)),
    "labels": (2, ("labels.ome.tif", "labels.ome.zarr", "labels.png")),
    "model": (2, ("model",)),
    "manifest": (2, ("manifest.csv", "manifest.yaml")),
    "cycler": (2, ("cell.csv", "cell.mpt")),
    "sidecar": (1, ("sidecar.yaml",)),
    "analysis": (1, ("analysis.yaml",)),
    "work": (1, ("half", "whole")),
}
MANIFEST = "input,pixel_size,frame_interval,electrode_area_cm2,echem,name\na.ome.tif,0.5um,2s,0.785,cell.csv,first\n"
MANIFEST += "a.png,0.25um,,,,\n"
MPT = """EC-Lab ASCII FILE
Nb header lines : 4
Acquisition started on : 11/20/2026 10:00:00
mode\ttime/s\tEwe/V\t<I>/mA\t(Q-Qo)/mA.h\tcycle number
1\t0,000E+000\t-5,00E-002\t-1,0E+000\t0,0E+000\t0,0E+000
1\t2,000E+000\t-4,00E-002\t-1,0E+000\t-1,0E-001\t0,0E+000
1\t4,000E+000\t5,00E-002\t1,0E+000\t-2,0E-001\t1,0E+000
"""
# What numbers, names and structure go wrong with.
TOKENS = (
    "nan", "inf", "-1", "0", "1e308", "1e-320", "99999999999999999999", "''", "[]", "{}", "null", "~", "true", "../..",
    "/etc/passwd", "\0", "ä", "0x7fffffff", "- ", ": ", ",", '"', "&a", "*a", "!!python/object:os.system", "\t", "\n",
)  # fmt: skip
NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


@dataclass(frozen=True)
class Case:
    """A mutated file among the others it needs."""

    door: str
    path: Path


def make_originals(folder: Path, model: Path) -> None:
    """Every file of `DOORS`, all of them valid."""
    import h5py
    import mrcfile
    import tifffile
    import yaml
    from PIL import Image

    from seg.analysis import load_analysis
    from seg.io import write_image, write_labels
    from seg.labels import load_schema
    from seg.stack import Calibration

    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (3, 40, 52)).astype(np.uint8)
    size = Calibration(SIZE, (0.0, 2.0, 4.0), "file")
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / "a.tif", frames, imagej=True, metadata={"axes": "TYX", "unit": "um"})
    about = {"photometric": "minisblack", "metadata": {"axes": "TYX"}}
    tifffile.imwrite(folder / "a.big.tif", frames, bigtiff=True, **about)
    tifffile.imwrite(folder / "a.lzw.tif", frames, compression="lzw", tile=(16, 16), **about)
    for name in ("a.ome.tif", "a.ome.zarr"):
        write_image(folder / name, frames, shape=frames.shape, dtype=frames.dtype, axes="tyx", calibration=size)
    for kind in ("png", "jpg", "bmp"):
        Image.fromarray(frames[0]).save(folder / f"a.{kind}")
    Image.fromarray(frames[0]).save(folder / "a.gif", save_all=True, append_images=[Image.fromarray(f) for f in frames])
    np.save(folder / "a.npy", frames[0])
    with mrcfile.new(folder / "a.mrc", overwrite=True) as mrc:
        mrc.set_data(frames[0].astype(np.int16))
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("image", data=frames[0], chunks=(20, 26), compression="gzip")
    write_video(folder / "a.avi", frames)
    labels = np.where(frames > 128, 3, 10).astype(np.uint8)
    schema = load_schema("lithium")
    for name in ("labels.ome.tif", "labels.ome.zarr"):
        write_labels(folder / name, labels, shape=labels.shape, axes="tyx", calibration=size, schema=schema)
    Image.fromarray(labels[0]).save(folder / "labels.png")
    shutil.copytree(model, folder / "model", dirs_exist_ok=True)
    (folder / "manifest.csv").write_text(MANIFEST, encoding="utf-8")
    rows = [{"input": "a.ome.tif", "pixel_size": "0.5um", "name": "first"}, {"input": "a.p*", "frame_interval": "2s"}]
    (folder / "manifest.yaml").write_text(yaml.safe_dump(rows), encoding="utf-8")
    text = "time_s,voltage_V,current_mA\n" + "".join(f"{t},{-0.05 * (t < 3)},{-1 + 2 * (t > 2)}\n" for t in range(6))
    (folder / "cell.csv").write_text(text, encoding="utf-8")
    (folder / "cell.mpt").write_text(MPT, encoding="latin-1")
    sidecar = {"axes": "yx", "pixel_size_um": SIZE, "frame_interval_s": 2}
    (folder / "sidecar.yaml").write_text(yaml.safe_dump(sidecar), encoding="utf-8")
    analysis = {key: value for key, value in load_analysis("optical-plan").to_dict().items() if value is not None}
    (folder / "analysis.yaml").write_text(yaml.safe_dump(analysis), encoding="utf-8")


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


def make_case(number: int, seed: int, originals: Path, folder: Path, door: str | None = None) -> Case:
    """Case `number` of `seed`, in `folder` beside what it speaks of; the same each time."""
    rng = np.random.default_rng([seed, number])
    weights = np.array([DOORS[name][0] for name in DOORS], float)
    door = door or str(rng.choice(list(DOORS), p=weights / weights.sum()))
    names = DOORS[door][1]
    name = names[int(rng.integers(0, len(names)))]
    path = folder / name
    if door in ("manifest", "sidecar"):  # they speak of files beside them
        for other in ("a.ome.tif", "a.png", "cell.csv"):
            shutil.copy(originals / other, folder)
    if (originals / name).is_dir():
        shutil.copytree(originals / name, path)
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix != ".md")
        file = files[int(rng.integers(0, len(files)))]
    else:
        file = Path(shutil.copy(originals / name, path))
    data = file.read_bytes()
    text = file.suffix in (".json", ".yaml", ".csv", ".mpt")
    file.write_bytes(mutate_text(data, rng) if text and rng.random() < 0.8 else mutate(data, rng))
    if door == "sidecar":  # of an image in the same folder
        path.rename(folder / "a.calibration.yaml")
        path = folder / "a.png"
    return Case(door, path)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to eight changes, most of them near the start, where headers are."""
    changed = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3, 5, 8]))):
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
            value = int(rng.choice(NUMBERS)) & (256**width - 1)
            changed[at : at + width] = value.to_bytes(width, "little" if rng.random() < 0.5 else "big")
        elif kind == 3:
            del changed[at:]
        elif kind == 4:
            del changed[at : at + int(rng.integers(1, 40))]
        elif kind == 5:
            changed[at:at] = changed[: int(rng.integers(1, 200))]
        else:
            changed[at:at] = rng.bytes(int(rng.integers(1, 40)))
    return bytes(changed)


def mutate_text(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three words, numbers or lines replaced, repeated or taken away: the grammar often survives."""
    text = data.decode("latin-1")
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        spans = [match.span() for match in re.finditer(r"[\w.+-]+|\S", text)]
        if not spans:
            break
        start, end = spans[int(rng.integers(0, len(spans)))]
        kind = int(rng.integers(0, 5))
        if kind < 2:
            text = text[:start] + TOKENS[int(rng.integers(0, len(TOKENS)))] + text[end:]
        elif kind == 2:
            text = text[:start] + text[end:]
        else:
            lines = text.splitlines(keepends=True)
            at, to = (int(n) for n in rng.integers(0, len(lines), 2))
            lines[to:to] = [lines[at]] if kind == 3 else [lines.pop(at)] * int(rng.integers(0, 3))
            text = "".join(lines)
    return text.encode("latin-1")
