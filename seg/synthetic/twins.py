"""A folder of random twins of every family: training data whose labels are exact.

``python -m seg.synthetic.twins DIR --per-family 24 --seed 0`` writes ``DIR/images/NAME.ome.tif`` and
``DIR/labels/NAME.ome.tif``; the same seed gives the same folder. ``configs/data/twins.yaml`` trains on it.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seg import __version__
from seg.io import write_image, write_labels
from seg.metrics.table import UM2_PER_CM2
from seg.progress import Progress, silent
from seg.stack import Stack
from seg.synthetic import FAMILIES, Experiment
from seg.synthetic.droplet import REGIMES

TEXTURE_ONLY_SHARE = 0.08
SEEN_BY = {
    "optical": ("nucleation", "dendrite", "pits", "dead"), "sem": ("dendrite",), "cryoem": ("droplet", "sei"),
    "xct": ("interface",),
}  # fmt: skip
"""Families that each modality shows."""
VARIED = ("nucleation", "dendrite", "pits", "dead")
"""Families whose look is drawn anew for each twin where light shows them; droplets always are."""


def _nucleation(rng: np.random.Generator) -> dict[str, Any]:
    # From first nuclei to a nearly closed film: where only small grains are deposits, a network learns the size.
    interval_s = float(np.exp(rng.uniform(np.log(60), np.log(2400))))
    return {
        "shape_px": (256, 256), "n_frames": 5, "frame_interval_s": interval_s,
        "mode": str(rng.choice(["instantaneous", "progressive", "mixed"])),
        "density_per_cm2": float(np.exp(rng.uniform(np.log(5e4), np.log(4e5)))),
        "grain_um": float(rng.uniform(30, 90)), "bubble": bool(rng.random() < 0.5),
    }  # fmt: skip


def _droplet(rng: np.random.Generator) -> dict[str, Any]:
    # From one that fills the field to a row of nuclei a few pixels high: no magnification is the usual one.
    shape, pixel = (256, int(rng.choice([320, 416, 512]))), float(np.exp(rng.uniform(np.log(0.0008), np.log(0.0035))))
    pixels, n = shape[0] * shape[1], int(rng.choice([1, 1, 1, 2, 3, 6, 12, 24]))
    grown_px = pixels * float(np.exp(rng.uniform(np.log(0.01), np.log(0.3)))) / n
    support = str(rng.choice(["flat", "tilted", "fibre"] if n <= 3 else ["flat", "tilted"]))
    options = {
        "shape_px": shape, "n_frames": 5, "pixel_um": (pixel * float(rng.uniform(0.95, 1.05)), pixel),
        "support": support, "tilt_deg": float(rng.uniform(-12, 12)), "n_droplets": n,
        "fibre_radius_um": shape[1] * pixel * float(rng.uniform(0.4, 1.0)),
        "area_rate_um2_s": grown_px * pixel**2 / 2.4, "rate_spread": float(rng.uniform(0, 0.5)),
        "coalescence": n > 3, "plating_angle_deg": float(rng.uniform(40, 130)),
        "receding_angle_deg": float(rng.uniform(20, 60)), "regime": str(rng.choice(REGIMES)),
        "inverted": bool(rng.random() < 0.4), "variety": 1.0,
    }  # fmt: skip
    if rng.random() < 0.5:
        across = 2 * float(np.sqrt(grown_px / np.pi)) * pixel
        options |= {"facet_diameter_um": across * float(rng.uniform(0.5, 1.3)), "facet_count": int(rng.integers(4, 8))}
    return options


def _droplet_thin(rng: np.random.Generator) -> dict[str, Any]:
    # Metal a few pixels high: flat droplets that are being stripped, and nuclei of every age side by side.
    n = int(rng.choice([1, 1, 1, 2, 3, 12, 24, 40]))
    shape = (int(rng.choice([160, 224])), 768 if n > 3 else int(rng.choice([320, 448, 576])))
    pixel, frames = float(np.exp(rng.uniform(np.log(0.0008), np.log(0.0035)))), 7
    plating_share = float(rng.uniform(0.3, 0.6) if n <= 3 else rng.uniform(0.6, 1.0))
    grown_px = shape[0] * shape[1] * float(np.exp(rng.uniform(np.log(0.008), np.log(0.2)))) / n
    support = str(rng.choice(["flat", "tilted", "fibre"] if n <= 3 else ["flat", "tilted"]))
    options = {
        "shape_px": shape, "n_frames": frames, "pixel_um": (pixel * float(rng.uniform(0.95, 1.05)), pixel),
        "support": support, "tilt_deg": float(rng.uniform(-12, 12) if n <= 3 else rng.uniform(-3, 3)), "n_droplets": n,
        "fibre_radius_um": shape[1] * pixel * float(rng.uniform(0.4, 1.0)),
        "plating_share": plating_share, "area_rate_um2_s": grown_px * pixel**2 / (plating_share * (frames - 1)),
        "rate_spread": float(rng.uniform(0, 0.5)), "coalescence": n > 3,
        "plating_angle_deg": float(rng.uniform(30, 110)), "receding_angle_deg": float(rng.uniform(10, 50)),
        "regime": str(rng.choice(REGIMES)), "inverted": bool(rng.random() < 0.3), "variety": 1.0,
    }  # fmt: skip
    if n > 3:
        options |= {
            "instantaneous_fraction": float(rng.choice([0.0, rng.uniform(0, 0.8)])),
            "rate_constant_per_s": float(rng.uniform(0.3, 2)),
        }
    elif rng.random() < 0.5:
        across = 2 * float(np.sqrt(grown_px / np.pi)) * pixel
        options |= {"facet_diameter_um": across * float(rng.uniform(0.7, 1.3)), "facet_count": int(rng.integers(4, 8))}
    return options


def _dendrite(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "shape_px": (288, 400), "n_frames": 4, "modality": str(rng.choice(["sem", "optical"])),
        "n_trees": int(rng.integers(2, 7)), "width_um": float(rng.uniform(0.45, 1.2)),
        "height_share": float(rng.uniform(0.4, 0.9)), "orders": int(rng.integers(1, 3)),
        "side_angle_deg": float(rng.uniform(40, 75)), "moss_um": float(rng.choice([0.0, rng.uniform(1, 4)])),
    }  # fmt: skip


def _pits(rng: np.random.Generator) -> dict[str, Any]:
    # Pits of every size in one twin, as deposits are: where only small ones are pits, a network learns the size.
    frames, interval_s = 8, 60.0  # a cycle strips for two frames, then plates
    largest_um = float(np.exp(rng.uniform(np.log(1.5), np.log(6.5))))
    room = 0.33 / (2.7 * largest_um) ** 2 * UM2_PER_CM2 / 2**0.5  # they must not run into each other
    return {
        "shape_px": (256, 288), "n_frames": frames, "frame_interval_s": interval_s,
        "rate_major_um_s": largest_um / (2 * interval_s),
        "density_per_cm2": min(float(np.exp(rng.uniform(np.log(5e4), np.log(2e5)))), room),
        "anisotropy": float(rng.uniform(1, 1.8)), "facet_count": int(rng.integers(4, 8)),
        "nucleus_radius_um": float(np.exp(rng.uniform(np.log(0.9), np.log(2.5)))),
    }  # fmt: skip


def _interface(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "shape_px": (64, 96, 96), "contact_loss": float(rng.uniform(0.05, 0.3)),
        "void_radius_um": float(rng.uniform(2.5, 6)), "tilt_deg": float(rng.uniform(-6, 6)),
        "n_filaments": int(rng.integers(0, 5)), "n_cracks": int(rng.integers(0, 2)),
    }  # fmt: skip


def _sei(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "shape_px": (320, 320), "n_particles": int(rng.integers(1, 3)),
        "thickness_um": float(rng.uniform(0.003, 0.008)), "core_radius_um": float(rng.uniform(0.009, 0.017)),
        "relative_sd": float(rng.uniform(0, 0.3)), "n_whiskers": int(rng.integers(0, 2)),
    }  # fmt: skip


def _dead(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "shape_px": (240, 320), "n_frames": 6, "n_columns": int(rng.integers(4, 12)),
        "column_height_um": float(rng.uniform(35, 70)), "column_width_um": float(rng.uniform(4, 12)),
    }  # fmt: skip


DRAWS: dict[str, Callable[[np.random.Generator], dict[str, Any]]] = {
    "nucleation": _nucleation, "droplet": _droplet, "dendrite": _dendrite, "pits": _pits, "interface": _interface,
    "sei": _sei, "dead": _dead,
}  # fmt: skip
CORNERS = {"droplet_thin": _droplet_thin}
"""Corners of families (named before the underscore), drawn only where they are asked for by name."""


def draw_twin(family: str, seed: int, modality: str | None = None) -> Experiment:
    """One twin of `family` with random geometry, instrument faults and burnt-in text; a function of the seed.

    `modality` decides where the family is seen by several; None draws it.
    """
    draws = DRAWS | CORNERS
    rng = np.random.default_rng([seed, list(draws).index(family)])
    options = draws[family](rng)
    if modality is not None and "modality" in options:
        options["modality"] = modality
    options |= {"dial": float(rng.uniform(0.05, 0.7)), "texture_only": bool(rng.random() < TEXTURE_ONLY_SHARE)}
    if family in VARIED and options.get("modality", "optical") == "optical":
        # Draws of its own: the twins of other modalities stay those that the shipped models were trained on.
        options["variety"] = float(np.random.default_rng([seed, list(DRAWS).index(family), 1]).uniform())
    if family != "interface":
        options["burnt_in"] = bool(rng.random() < 0.6)
    return FAMILIES[family.partition("_")[0]](int(rng.integers(2**31)), **options)


def write_twins(
    out: Path,
    *,
    per_family: int,
    seed: int,
    modality: str | None = None,
    families: Sequence[str] = (),
    progress: Progress = silent,
) -> int:
    """Write `per_family` twins of every family, those `modality` shows, or `families`; returns the pairs of files.

    Volumes are cut across their layers, where a slice shows metal, interface and separator at once.
    """
    for kind in ("images", "labels"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    (out / "SOURCE.txt").write_text(
        f"licence : as this software, BSD-3-Clause\n"
        f"note : synthetic; python -m seg.synthetic.twins --per-family {per_family} --seed {seed}"
        f"{f' --modality {modality}' if modality else ''}{f' --families {shlex.join(families)}' if families else ''}, "
        f"operandoseg {__version__}\n",
        encoding="utf-8",
    )
    every = SEEN_BY[modality] if modality else list(DRAWS)
    wanted = [(family, n) for family in families or every for n in range(per_family)]
    for family, n in progress(wanted, total=len(wanted), desc="drawing twins"):
        twin = draw_twin(family, seed * 100_000 + n, modality)
        image, labels = (_across(s) if s.spatial_axes == "zyx" else s for s in (twin.images, twin.labels))
        name = f"{family}-{n:04d}.ome.tif"
        form = {"shape": image.shape, "axes": image.axes, "calibration": image.calibration}
        write_image(out / "images" / name, _frames(image), dtype=image.dtype, **form)
        write_labels(out / "labels" / name, _frames(labels), schema=twin.schema, **form)
    return len(wanted)


def _across(volume: Stack) -> Stack:
    """Six slices of a volume that stand on its layers, as a series of images."""
    data = np.asarray(volume.data)
    picked = np.linspace(0, data.shape[1] - 1, 6).round().astype(int)
    size = volume.calibration.pixel_size_um
    calibration = type(volume.calibration)({"y": size["z"], "x": size["x"]}, None, "file")
    return Stack(np.moveaxis(data[:, picked], 1, 0), "tyx", calibration, volume.name)


def _frames(stack: Stack) -> Iterator[np.ndarray]:
    return (stack.frame(t) for t in range(stack.n_frames))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--per-family", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modality", choices=sorted(SEEN_BY), help="only families that this modality shows")
    parser.add_argument("--families", nargs="+", choices=[*DRAWS, *CORNERS], default=(), help="only these")
    args = parser.parse_args()
    write_twins(args.out, per_family=args.per_family, seed=args.seed, modality=args.modality, families=args.families)
