"""A result folder as a run would leave it, made up but plausible: growing discs in plan view, plated then stripped."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from seg.labels import load_schema
from seg.metrics.table import Measurement, to_table

HOSTILE = '<script>alert("x")</script> & "Zelle" Ä.tif'
Y_UM, X_UM = 0.5, 0.4
SHAPE = (300, 420)


def discs(frame, n_frames):
    """Centres and radii in px, grown to three quarters of the series and shrinking after."""
    rng = np.random.default_rng(7)
    centres = rng.uniform((15, 15), (SHAPE[0] - 15, SHAPE[1] - 15), size=(34, 2))
    births = np.sort(rng.uniform(0, 0.45, 34))
    final = rng.lognormal(math.log(15), 0.25, 34)
    phase = (frame + 1) / n_frames
    grown = np.clip(min(phase, 0.75) - births, 0, None) ** 0.5 * np.where(phase > 0.75, 1 - 1.4 * (phase - 0.75), 1)
    alive = births < phase
    return centres[alive], np.maximum(final * grown, 1.5)[alive]


def labels_of(frame, n_frames):
    """Class indices: electrolyte, a substrate strip, deposits, one dendrite, an artefact in two frames."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    labels = np.ones(SHAPE, np.uint8)
    labels[-22:] = 2
    for (cy, cx), radius in zip(*discs(frame, n_frames), strict=True):
        labels[((y - cy) * Y_UM) ** 2 + ((x - cx) * X_UM) ** 2 < (radius * X_UM) ** 2] = 3
    height = int(110 * min(1.0, (frame + 1) / (0.75 * n_frames)))
    stem = (np.abs(x - 230 - 6 * np.sin(y / 13)) < 3) & (y > SHAPE[0] - 22 - height) & (y < SHAPE[0] - 22)
    labels[stem] = 4
    if frame in (11, 12):
        labels[40:110, 300:390] = 10
    labels[:6] = 0
    return labels


def image_of(labels, rng):
    """Grey values that belong to the labels, with shading and noise."""
    tone = np.array([70, 60, 120, 175, 200, 0, 0, 0, 0, 0, 235], float)
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    return np.clip(tone[labels] + 18 * np.cos(x / 170) + rng.normal(0, 9, labels.shape), 0, 255).astype(np.uint8)


def rows_of(frame, n_frames, time_s, rng, *, calibrated):
    """The per-frame measurements, some of them refused."""
    flags = () if calibrated else ("uncalibrated",)
    um, um2, per_cm2 = ("um", "um2", "1/cm2") if calibrated else ("px", "px2", "1/px2")
    centres, radii = discs(frame, n_frames)
    labels = labels_of(frame, n_frames)
    pixel = Y_UM * X_UM if calibrated else 1.0
    area = (labels > 0).sum() * pixel
    n = len(radii)
    low, high = n - 1.9 * math.sqrt(n), n + 2.2 * math.sqrt(n)
    per = 1e8 / area if calibrated else 1 / area
    at = {"frame": frame, "time_s": time_s}
    artefact = ("artifact-frame",) if frame in (11, 12) else ()
    diameters = 2 * radii * (X_UM if calibrated else 1)
    mean, spread = diameters.mean(), 2 * diameters.std() / math.sqrt(n)
    covered = ((labels == 3) | (labels == 4)).sum() / (labels > 0).sum()
    tall = (labels == 4).any(axis=1).sum() * (Y_UM if calibrated else 1)
    dendrite_ok = frame >= 3
    rows = [
        Measurement("object_count", n, "1", low, high, "deposit", n=n, method="counting frame, exact Poisson interval",
                    flags=artefact, **at),
        Measurement("areal_density", n * per, per_cm2, low * per, high * per, "deposit", n=n,
                    method="counting frame, exact Poisson interval", flags=(*flags, *artefact), **at),
        Measurement("detection_limit_diameter", 4 * (X_UM if calibrated else 1), um, flags=flags, **at),
        Measurement("mean_equivalent_diameter", mean if n > 3 else math.nan, um, mean - spread, mean + spread,
                    "deposit", n=n, method="bootstrap over objects",
                    flags=flags if n > 3 else (*flags, "few-pixels"), **at),
        *(Measurement("class_fraction", float((labels == i).sum() / (labels > 0).sum()), "1", class_name=name, **at)
          for i, name in ((1, "electrolyte"), (2, "substrate"), (3, "deposit"), (4, "dendrite"))),
        Measurement("covered_fraction", covered, "1", covered * 0.94, covered * 1.06, "deposit+dendrite",
                    method="boundary shifted by half a pixel", flags=artefact, **at),
        Measurement("dendrite_height", tall if dendrite_ok else math.nan, um, tall * 0.97, tall * 1.03, "dendrite",
                    flags=flags if dendrite_ok else (*flags, "below-detection-limit"), **at),
        Measurement("tip_count", 1 + frame // 6, "1", class_name="dendrite", **at),
    ]  # fmt: skip
    for side, offset in (("left", -3.0), ("right", 3.0), ("mean", 0.0)):
        bad = frame % 7 == 5
        value = 58 + offset + 12 * math.sin(frame / 6) + rng.normal(0, 1.0)
        rows.append(
            Measurement("contact_angle", math.nan if bad else value, "deg", value - 4, value + 4, "deposit", side=side,
                        method="circle fit", flags=("no-credible-baseline",) if bad else (), **at)
        )  # fmt: skip
    return rows


def build(
    folder: Path, *, n_frames=20, calibrated=True, electrochem=True, model=True, images=True, name=HOSTILE,
    modality="optical",
) -> Path:  # fmt: skip
    """Write a result folder; the options leave out what an experiment may lack."""
    rng = np.random.default_rng(3)
    schema = load_schema("lithium")
    times = [30.0 * i for i in range(n_frames)] if n_frames > 1 else None
    folder.mkdir(parents=True, exist_ok=True)
    rows, objects = [], []
    for frame in range(n_frames):
        time_s = None if times is None else times[frame]
        rows += rows_of(frame, n_frames, time_s, rng, calibrated=calibrated)
        _, radii = discs(frame, n_frames)
        unit, size = ("um", X_UM) if calibrated else ("px", 1.0)
        objects += [
            {"frame": frame, "object_id": i + 1, f"equivalent_diameter_{unit}": 2 * r * size,
             "below_detection_limit": bool(2 * r < 4)}
            for i, r in enumerate(radii)
        ]  # fmt: skip
    table = to_table(rows)
    if n_frames > 1:
        whole = [
            Measurement("area_rate", 31.4, "um2/s" if calibrated else "px2/s", 29.9, 32.7, "deposit+dendrite",
                        method="straight line by least squares", flags=() if calibrated else ("uncalibrated",)),
        ]  # fmt: skip
    else:
        whole = [Measurement("area_rate", math.nan, "um2/s", class_name="deposit", flags=("single-frame",))]
    table = pd.concat([table, to_table(whole)], ignore_index=True)
    table.to_csv(folder / "metrics.csv", index=False)
    pd.DataFrame(objects).to_csv(folder / "objects.csv", index=False)
    if electrochem:
        half = ["rest" if i < 2 else "plating" if i < 15 else "stripping" for i in range(n_frames)]
        current = [{"rest": 0.0, "plating": -1.2, "stripping": 1.2}[h] for h in half]
        capacity = np.cumsum([0.0] + [-c * 30 / 3600 for c in current])[:-1]
        voltage = [
            {"rest": 0.0, "plating": -0.08, "stripping": 0.07}[h] + 0.02 * math.exp(-i / 5) for i, h in enumerate(half)
        ]
        pd.DataFrame(
            {"frame": range(n_frames), "time_s": times, "voltage_V": voltage, "current_mA": current,
             "capacity_mAh": capacity, "cycle": 1, "half_cycle": half}
        ).to_csv(folder / "electrochem.csv", index=False)  # fmt: skip
    (folder / "keyframes").mkdir(exist_ok=True)
    for frame in sorted({round(i * (n_frames - 1) / 4) for i in range(5)}):
        labels = labels_of(frame, n_frames)
        Image.fromarray(labels).save(folder / "keyframes" / f"frame_{frame:05d}_labels.png")
        if images:
            Image.fromarray(image_of(labels, rng)).save(folder / "keyframes" / f"frame_{frame:05d}_image.png")
    run = {
        "operandoseg": "0.1.0", "created": "2026-11-21T10:00:00+00:00",
        "command": f"operandoseg run '{name}' --analysis optical-plan --out results",
        "input": {
            "name": name, "path": f"/data/{name}", "shape": [n_frames, *SHAPE] if n_frames > 1 else list(SHAPE),
            "axes": "tyx" if n_frames > 1 else "yx", "dtype": "uint8", "fingerprint": "9f" * 32,
            "pixel_size_um": {"y": Y_UM, "x": X_UM} if calibrated else {}, "frame_times_s": times,
            "calibration_source": "file" if calibrated else "none",
        },
        "analysis": {
            "name": "optical-plan", "title": "Optical, plan view",
            "description": "Nucleation and growth of deposits seen from above.", "modality": modality, "view": "plan",
            "schema": "lithium", "model": "auto",
            "objects": {"classes": ["deposit", "dendrite"], "split_touching": True, "min_diameter_px": 4.0},
            "metrics": {"counting": {}, "size": {}, "cover": {"classes": ["deposit", "dendrite"]}, "growth": {},
                        "dendrite": {"classes": ["dendrite"]}, "wetting": {}},
            "headline": ["areal_density", "object_count", "mean_equivalent_diameter", "covered_fraction", "area_rate",
                         "contact_angle", "dendrite_height"],
            "key_frames": 5, "min_confidence": 0.6,
        },
        "schema": schema.to_dict(),
        "model": {
            "name": "optical-2d", "weights_sha256": "3c" * 32,
            "card": "# optical-2d\n\nTrained on <b>twins</b> & images.",
            "spec": {"name": "optical-2d", "architecture": "unet", "dims": 2, "class_indices": [1, 2, 3, 4, 10],
                     "arguments": {"width": 24, "depth": 4}, "licence": "BSD-3-Clause", "schema": schema.to_dict()},
        } if model else None,
        "normalisation": {"low": 41.0, "high": 213.5} if model else None,
        "settings": {"tile_px": 512, "overlap": 0.25, "precision": "auto"} if model else {},
        "device": "cpu", "seeds": {"bootstrap": 0}, "timings_s": {"segment": 41.2, "measure": 6.8},
        "versions": {"numpy": "2.4.6", "torch": "2.15.0"},
        "warnings": [] if calibrated else ["The input has no pixel size: lengths are in pixels."],
        "frames_doubtful": [{"frame": 12, "reason": "mean class probability 0.52 is below 0.60"}][: n_frames // 13],
        "electrochem": {"path": "/data/cell & co.mpt", "offset_s": -12.5, "area_cm2": 0.785} if electrochem else None,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return folder
