"""How the engine scales: memory against length, workers against one, and which stage takes the time.

::

    python tests/benchmarks/scale.py length --out DIR [--frames 50,500,5000] [--px 256] [--planes 64,256,1024]
    python tests/benchmarks/scale.py workers --out DIR [--planes 48] [--px 1024]
    python tests/benchmarks/scale.py stages --out DIR [--frames 4] [--px 2048]

``length``: peak of memory of a process that predicts a series of small frames, and a mapped volume plane by plane,
beside its length; writes ``length.csv`` and ``length.png``. ``workers``: the planes of a volume by one and by two
processes of one thread each, each pair warmed up on a small volume; needs two free cores. ``stages``: CPU time and
wall time of reading, network, deciding and writing. Every measurement is a process of its own; the network
has random weights (of the shipped size in ``workers`` and ``stages``, a tiny one in ``length``, where memory follows
the length and not the network).
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

MIB = 2**20
SHIPPED, TINY = {"width": 24, "depth": 4}, {"width": 4, "depth": 2}


def make_model(folder: Path, sizes: dict[str, int]) -> Path:
    import torch

    from seg.labels import load_schema
    from seg.models.bundle import save_bundle
    from seg.models.spec import ModelSpec
    from seg.models.unet import UNet

    torch.manual_seed(0)
    arguments = {"n_classes": 5, **sizes}
    network = UNet(**arguments)
    for _ in range(5):
        network(torch.rand(2, 1, 64, 64))
    spec = ModelSpec("random", "unet", arguments, load_schema().to_dict(), (1, 2, 3, 4, 10), modalities=("optical",))
    return save_bundle(folder / "model", network, spec, "# Random", seed=1)


def make_input(path: Path, shape: tuple[int, int, int]) -> Path:
    """Noise on a gradient in every plane: no tile is empty, and no two planes are equal."""
    rng = np.random.default_rng(0)
    base = np.linspace(1000, 40000, shape[2], dtype=np.float32) + rng.normal(0, 2000, shape[1:]).astype(np.float32)
    data = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint16, shape=shape)
    for n in range(shape[0]):
        data[n] = np.roll(base, n, axis=0).clip(0, 65535)
    data.flush()
    return path


def status(key: str) -> int:
    """Bytes of one line of what the system says of this process."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def predicted(
    path: Path, model: Path, out: Path, axes: str, cluster: str | None = None, *, raw: bool = False
) -> None:  # fmt: skip
    from seg.analysis import AnalysisConfig
    from seg.pipeline import RunOptions, predict

    config = AnalysisConfig("predict", "masks only", "", "optical", "plan", {}, model=str(model))
    # In one arithmetic, whatever the length: by itself a series of few pixels, or of noise, would take float32.
    options = RunOptions(
        device="cpu", precision="bf16", axes=axes, cluster=cluster, postprocess="none" if raw else ""
    )  # fmt: skip
    (result,) = predict([path], config, out, options)
    assert not result.error, result.error


# --- children: one measurement, printed as JSON ---------------------------------------------------------------------


def child_length(folder: Path, axes: str) -> dict[str, float]:
    predicted(folder / "small.npy", folder / "model", folder / "out", axes)
    held, cpu = status("RssAnon"), time.process_time()
    # Mapped pages of the input are the system's to take back: no memory of ours.
    peaks, done = [held], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peaks.append(max(peaks.pop(), status("RssAnon")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    predicted(folder / "input.npy", folder / "model", folder / "out", axes)
    done.set()
    watcher.join()
    return {"held": held, "peak": peaks[0], "cpu_s": time.process_time() - cpu}


def child_workers(folder: Path, where: str, raw: bool) -> dict[str, float]:
    from seg.cluster import connect
    from seg.models.bundle import find_model

    # The shipped model: masks of random weights are noise, and noise is slow to clean, which one process does.
    model, out = find_model("optical-2d"), folder / where.replace(":", "-")
    predicted(folder / "small.npy", model, out, "zyx", where, raw=raw)
    client = connect(where)
    before = sum(client.run(time.process_time).values())
    wall, cpu = time.perf_counter(), time.process_time()
    predicted(folder / "input.npy", model, out, "zyx", where, raw=raw)
    seconds, own = time.perf_counter() - wall, time.process_time() - cpu
    return {"s": seconds, "main_cpu_s": own, "workers_cpu_s": sum(client.run(time.process_time).values()) - before}


def child_stages(folder: Path) -> dict[str, list[float]]:
    import threading

    import seg.inference
    import seg.masks
    import seg.preprocess
    import seg.runner
    import seg.slabs

    predicted(folder / "small.npy", folder / "model", folder / "out", "tyx")
    spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    lock = threading.Lock()

    def watch(owner: object, name: str, stage: str) -> None:
        work = getattr(owner, name)

        def watched(*args: object, **kwargs: object) -> object:
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                with lock:
                    spent[stage][0] += time.thread_time() - cpu
                    spent[stage][1] += time.perf_counter() - wall

        setattr(owner, name, watched)

    watch(seg.inference, "read_grey", "read (thread of its own)")
    watch(seg.masks, "fingerprint", "fingerprint of the input")
    watch(seg.preprocess.SeriesNormalisation, "apply", "normalise")
    watch(seg.runner.Runner, "push", "network")
    watch(seg.runner.Runner, "decide", "softmax, class, confidence")
    watch(seg.slabs.SlabFolder, "save", "write parts (thread of its own)")
    watch(seg.masks, "write_labels", "join and write the result")
    cpu, wall = time.process_time(), time.perf_counter()
    predicted(folder / "input.npy", folder / "model", folder / "out", "tyx")
    return {**spent, "all": [time.process_time() - cpu, time.perf_counter() - wall]}


# --- parents --------------------------------------------------------------------------------------------------------


def measured(kind: str, folder: Path, *arguments: str, **environment: str) -> dict:
    """One measurement in a process of one thread."""
    result = subprocess.run(
        [sys.executable, __file__, kind, "--child", "--out", str(folder), *arguments], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPERANDOSEG_THREADS": "1", **environment},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def length(out: Path, frames: list[int], planes: list[int], px: int) -> list[dict[str, float]]:
    """Peak of memory beside the length, as table and figure."""
    make_model(out, TINY)
    make_input(out / "small.npy", (4, px, px))
    rows = []
    for axes, lengths, side in (("tyx", frames, px), ("zyx", planes, 2 * px)):
        for n in lengths:
            make_input(out / "input.npy", (n, side, side))
            found = measured("length", out, "--axes", axes)
            rows.append({
                "axes": axes, "length": n, "px": side, "input_mib": n * side**2 * 2 / MIB,
                "libraries_mib": found["held"] / MIB, "peak_mib": found["peak"] / MIB, "cpu_s": found["cpu_s"],
            })  # fmt: skip
            text = "{axes} {length:6d} x {px}^2: peak {peak_mib:.0f} MiB, {cpu_s:.0f} CPU s\n"
            sys.stdout.write(text.format(**rows[-1]))
            (out / "input.npy").unlink()
    with (out / "length.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, out / "length.png")
    return rows


def draw(rows: list[dict[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for kind, name, colour in (("tyx", "series of frames", "C0"), ("zyx", "volume, plane by plane", "C1")):
        own = [row for row in rows if row["axes"] == kind]
        axes.plot([r["input_mib"] for r in own], [r["peak_mib"] for r in own], "o-", color=colour, label=name)
    axes.plot(*[sorted(r["input_mib"] for r in rows)] * 2, "k:", lw=1, label="size of the input")
    axes.set(xlabel="size of the input (MiB)", ylabel="peak memory of the process (MiB)", xscale="log", ylim=(0, 1500))
    axes.legend()
    figure.savefig(path, dpi=120)


def workers(out: Path, planes: int, px: int, raw: bool) -> float:
    """Speed of two workers over that of one."""
    out.mkdir(parents=True, exist_ok=True)
    make_input(out / "small.npy", (4, px, px))
    make_input(out / "input.npy", (planes, px, px))
    one, two = (measured("workers", out, "--where", f"local:{n}", *["--raw"] * raw) for n in (1, 2))
    for name, found in (("one", one), ("two", two)):
        sys.stdout.write(f"{name:4s} {json.dumps({k: round(v, 2) for k, v in found.items()})}\n")
    ratio = one["s"] / two["s"]
    serial = two["main_cpu_s"] / (two["main_cpu_s"] + two["workers_cpu_s"])
    sys.stdout.write(
        f"two workers are {ratio:.2f} times as fast as one; {100 * serial:.1f} % of the CPU time is serial\n"
    )
    return ratio


def stages(out: Path, frames: int, px: int) -> dict[str, list[float]]:
    """CPU and wall time by stage."""
    make_model(out, SHIPPED)
    make_input(out / "small.npy", (2, 256, 256))
    make_input(out / "input.npy", (frames, px, px))
    shutil.rmtree(out / "out", ignore_errors=True)  # what is there is not made again
    found = measured("stages", out)
    total_cpu, total_wall = found["all"]
    megapixels = frames * px**2 / 1e6
    sys.stdout.write(
        f"{frames} frames of {px} x {px} px\n\n| stage | CPU s | share of CPU | wall s | CPU s per Mpx |\n"
    )
    sys.stdout.write("|---|---|---|---|---|\n")
    for stage, (cpu, wall) in found.items():
        sys.stdout.write(f"| {stage} | {cpu:.2f} | {cpu / total_cpu:.1%} | {wall:.2f} | {cpu / megapixels:.4f} |\n")
    share = found["network"][1] / total_wall
    sys.stdout.write(f"\nthe network computes during {share:.0%} of the wall time\n")
    return found


def numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["length", "workers", "stages"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=numbers)
    parser.add_argument("--planes", type=numbers)
    parser.add_argument("--px", type=int)
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--axes", default="")
    parser.add_argument("--where", default="")
    parser.add_argument("--raw", action="store_true", help="of workers: masks are not cleaned, which one process does")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.child:
        import torch

        torch.set_num_threads(1)
        child = {
            "length": lambda: child_length(given.out, given.axes),
            "workers": lambda: child_workers(given.out, given.where, given.raw),
            "stages": lambda: child_stages(given.out),
        }[given.kind]
        sys.stdout.write("\n" + json.dumps(child()) + "\n")
    elif given.kind == "length":
        length(given.out, given.frames or [50, 500, 5000], given.planes or [64, 256, 1024], given.px or 256)
    elif given.kind == "workers":
        workers(given.out, (given.planes or [48])[0], given.px or 1024, given.raw)
    else:
        stages(given.out, (given.frames or [4])[0], given.px or 2048)


if __name__ == "__main__":
    main()
