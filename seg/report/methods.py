"""The methods paragraph and the summary, written from ``run.json``."""

from __future__ import annotations

import numpy as np

from seg.metrics import METRICS
from seg.report.saved import Saved
from seg.report.words import VIEW_WORDS, count, duration, joined, option_words, plain

_SOURCES = {
    "file": "as the file states it",
    "sidecar": "from the calibration file beside it",
    "options": "as given by the user",
}


def extent_text(saved: Saved) -> str:
    """Frames and pixels of the input: ``"20 frames of 512 × 640 pixels"``."""
    axes = [axis for axis in "zyx" if axis in str(saved.input.get("axes", ""))]
    pixels = " × ".join(str(saved.size(axis)) for axis in axes)
    what = "voxels (z, y, x)" if "z" in axes else "pixels (y, x)"
    n_frames = saved.size("t")
    if n_frames == 1:
        return f"one {'volume' if 'z' in axes else 'image'} of {pixels} {what}"
    return f"{count(n_frames, 'volume' if 'z' in axes else 'frame')} of {pixels} {what}"


def pixel_text(saved: Saved) -> str:
    """Pixel size in the unit of the modality, one number where it is the same along all axes."""
    sizes = saved.pixel_size_um
    nm = saved.modality.length_unit == "nm"
    factor, unit = (1000.0, "nm") if nm else (1.0, "um")
    shown = {axis: plain(size * factor, unit) for axis, size in sorted(sizes.items(), key=lambda i: "zyx".index(i[0]))}
    if len(set(shown.values())) == 1:
        return next(iter(shown.values()))
    return joined([f"{text} along {axis}" for axis, text in shown.items()])


def methods(saved: Saved) -> list[str]:
    """Paragraphs that say what was done, for the methods section of a paper."""
    return [text for text in (_input(saved), _masks(saved), _measuring(saved), _electrochem(saved)) if text]


def _input(saved: Saved) -> str:
    analysis, given = saved.analysis, saved.input
    view = VIEW_WORDS.get(str(analysis.get("view")), str(analysis.get("view", "")))
    text = (
        f"The input {given.get('name', 'without a name')} ({extent_text(saved)}, {given.get('dtype', 'unknown type')}) "
        f"was analysed as {saved.modality.title} in {view} with OperandoSeg {saved.run.get('operandoseg', '')}, "
        f"analysis “{analysis.get('title') or analysis.get('name', '')}”. "
    )
    source = _SOURCES.get(str(given.get("calibration_source")), "")
    if saved.pixel_size_um:
        text += f"The pixel size was {pixel_text(saved)}{', ' + source if source else ''}. "
        doubt = given.get("pixel_size_rel_sd")
        text += (
            "How well it is known was not given: intervals hold no error of the pixel size. "
            if doubt is None
            else f"Its standard deviation, {plain(100 * doubt, '%')}, is part of every interval that it enters. "
        )
    else:
        text += "No pixel size was known: lengths are in pixels, and areal densities are not given per cm². "
    times = saved.frame_times_s
    if saved.size("t") > 1:
        if times is None:
            text += "Frame times were not known: rates are per frame."
        else:
            steps = np.diff(times)
            even = steps.size and np.allclose(steps, steps[0], rtol=1e-3)
            text += f"The series spans {duration(float(times[-1] - times[0]))}" + (
                f" with a frame every {duration(float(steps[0]))}."
                if even
                else " with uneven intervals between frames."
            )
    return text.strip()


def _masks(saved: Saved) -> str:
    model, settings = saved.run.get("model"), saved.run.get("settings") or {}
    if not model:
        return (
            f"The masks were made elsewhere and given by the user; classes are those of the schema "
            f"“{saved.schema.name}”, where 0 means unlabelled and is not part of any denominator."
        )
    spec = model.get("spec") or {}
    network = {"unet": "U-Net"}.get(str(spec.get("architecture")), str(spec.get("architecture", "network")))
    text = ""
    normalisation = saved.run.get("normalisation") or {}
    if "low" in normalisation and "high" in normalisation:
        text += (
            f"Grey values were normalised once for the whole input ({plain(normalisation['low'])} to 0 and "
            f"{plain(normalisation['high'])} to 1), so that frames stay comparable. "
        )
    dims = f"{spec['dims']}-D " if "dims" in spec else ""
    text += (
        f"Each pixel was given a class by the {dims}{network} “{model.get('name', '')}” "
        f"(weights SHA-256 {str(model.get('weights_sha256', ''))[:12]}), applied in overlapping tiles whose "
        f"probabilities were blended"
    )
    known = {
        key: settings[key] for key in ("tile_px", "overlap", "precision") if settings.get(key) not in (None, "auto")
    }
    text += (f" ({option_words(known)})" if known else "") + ". "
    precision = saved.run.get("precision") or {}
    # What was asked for and changes too much stands among the warnings.
    if precision.get("used") == "fp32" and precision.get("said"):
        text += f"{precision['said']} "
    analysis = saved.analysis
    if saved.run.get("frames_doubtful") is not None and analysis.get("min_confidence") is not None:
        of_classes = analysis.get("min_class_confidence")
        text += (
            f"Numbers of frames whose mean class probability fell below {analysis['min_confidence']}"
            + (f", and of classes for which it did below {of_classes}," if of_classes is not None else "")
            + f" are flagged: {len(saved.run['frames_doubtful']) or 'none'} of {saved.size('t')} frames."
        )
    return text.strip()


def _measuring(saved: Saved) -> str:
    analysis = saved.analysis
    text = ""
    objects = analysis.get("objects") or {}
    if objects:
        classes = joined([str(name).replace("_", " ") for name in objects.get("classes", ())])
        text += f"Objects are connected regions of {classes}"
        text += ", with touching ones separated" if objects.get("split_touching") else ", touching ones kept as one"
        if objects.get("min_diameter_px"):
            limit = plain(float(objects["min_diameter_px"]))
            text += f"; those with an equivalent diameter under {limit} px are not counted"
        text += ". "
    groups = []
    for name, options in (analysis.get("metrics") or {}).items():
        words = option_words(dict(options or {}))
        groups.append(name + (f" ({words})" if words else ""))
    if groups:
        text += f"The metric groups {joined(groups)} were computed; each metric is defined below. "
    text += (
        "Values are given with 95 % intervals in brackets where one is known. A number that could not be trusted is "
        "not reported, and the reason is named."
    )
    seeds = saved.run.get("seeds") or {}
    if seeds:
        text += " Random numbers were seeded (" + option_words(dict(seeds)) + ")."
    return text


def _electrochem(saved: Saved) -> str:
    record = saved.run.get("electrochem")
    if not record:
        return ""
    name = str(record.get("path", "")).replace("\\", "/").rsplit("/", 1)[-1]
    text = (
        f"Voltage, current and capacity come from {name}, "
        "interpolated linearly at the time of each frame and never extrapolated"
    )
    offset = record.get("offset_s")
    if offset:
        text += f"; the cycler's clock started at {plain(float(offset), 's')} of image time"
    text += ". Capacity is the net charge plated since the first record"
    if record.get("area_cm2"):
        text += f", per electrode area of {plain(float(record['area_cm2']), 'cm2')}"
    return text + "."


def group_description(name: str) -> str:
    """One sentence on a metric group, where this version knows it."""
    return METRICS[name].description if name in METRICS else ""
