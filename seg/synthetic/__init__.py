"""Synthetic experiments whose every number is known, and random labelled images to train on.

A *family* makes a scene (geometry over time, with exact truth) and has an instrument look at it. `FAMILIES` holds
them by name; `SAMPLES` are the small fixed experiments of ``data_samples/``.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

from seg.errors import UsageError
from seg.synthetic.experiment import Experiment, describe, write_experiment

__all__ = ["FAMILIES", "SAMPLES", "Experiment", "describe", "make_experiment", "make_sample", "write_experiment"]


def _family(module: str) -> Callable[..., Experiment]:
    def make(seed: int, **options: Any) -> Experiment:
        made: Experiment = import_module(f"seg.synthetic.{module}").make(seed, **options)
        return made

    make.__doc__ = f"See `seg.synthetic.{module}.make`."
    return make


def _options_of(family: str) -> dict[str, Parameter]:
    """Keyword arguments of a family's ``make``."""
    found = signature(import_module(f"seg.synthetic.{family}").make).parameters
    return {name: parameter for name, parameter in found.items() if name != "seed"}


FAMILIES: dict[str, Callable[..., Experiment]] = {
    name: _family(name) for name in ("nucleation", "droplet", "dendrite", "pits", "interface", "sei", "dead")
}

# Name -> family, seed, arguments. Together they are the content of data_samples/.
SAMPLES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "optical": (
        "nucleation",
        12,
        {
            "shape_px": (512, 512),
            "n_frames": 20,
            "frame_interval_s": 144.0,
            "density_per_cm2": 1.5e5,
            "spacing_um": 16.0,
            "boundary_enrichment": 2.0,
            "dial": 0.25,
        },
    ),
    "cryoem": ("sei", 2, {"shape_px": (320, 320)}),
    "tem": ("droplet", 3, {"shape_px": (256, 320), "n_frames": 12, "support": "tilted"}),
    "xct": ("interface", 11, {"shape_px": (80, 112, 112)}),
    "sem": ("dendrite", 5, {"shape_px": (384, 512), "n_frames": 4, "n_trees": 5}),
}


def make_experiment(family: str, seed: int, **options: Any) -> Experiment:
    """One synthetic experiment.

    Parameters
    ----------
    family : str
        A key of `FAMILIES`.
    seed : int
    **options
        Keyword arguments of the family's ``make``; all know ``shape_px``, ``n_frames``, ``dial`` and
        ``texture_only``.
    """
    if family not in FAMILIES:
        near = get_close_matches(family, FAMILIES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(FAMILIES)}."
        raise UsageError(f"There is no synthetic family {family!r}; {hint}")
    known = _options_of(family)
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
            raise UsageError(f"The family {family!r} has no option {name!r}; {hint}")
    for name, value in options.items():
        default = known[name].default
        if isinstance(default, tuple) and not (isinstance(value, (tuple, list)) and len(value) == len(default)):
            raise UsageError(
                f"The option {name!r} of {family!r} is {value!r}; give {len(default)} values, [a, b, ...]."
            )
    shape, axes = options.get("shape_px"), len(known["shape_px"].default)
    if shape is not None and (len(shape) != axes or min(shape) < 1):
        raise UsageError(f"The size is {' x '.join(map(str, shape))}; {family!r} needs {axes} lengths above 0.")
    if options.get("n_frames", 1) < 1:
        raise UsageError(f"The number of frames is {options['n_frames']}; give 1 or more.")
    if not 0 <= options.get("dial", 0) <= 1:
        raise UsageError(f"The dial is {options['dial']:g}; give 0 (hardly any fault) to 1 (as bad as published).")
    if seed < 0:
        raise UsageError(f"The seed is {seed}; give 0 or a positive number.")
    return FAMILIES[family](seed, **options)


def make_sample(name: str) -> Experiment:
    """One of the experiments of ``data_samples/``, by the name of its folder."""
    if name not in SAMPLES:
        near = get_close_matches(name, SAMPLES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(SAMPLES)}."
        raise UsageError(f"There is no sample {name!r}; {hint}")
    family, seed, options = SAMPLES[name]
    return make_experiment(family, seed, **options)
