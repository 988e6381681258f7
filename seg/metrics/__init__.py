"""What can be measured: one `MetricGroup` per topic, in `METRICS`, each with the names and options it knows.

Importing this package loads none of the topic modules; a group loads its own when it is first used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from seg.errors import UsageError
from seg.metrics.names import METRIC_UNITS, metric_unit
from seg.metrics.table import Measurement

__all__ = ["METRICS", "METRIC_UNITS", "MetricGroup", "check_options", "check_requirements", "metric_unit"]


@dataclass(frozen=True)
class Deferred:
    """A function of a topic module that is imported when it is first called or asked for."""

    module: str
    function: str

    def resolve(self) -> Callable[..., list[Measurement]]:
        """Import the module and give the function itself."""
        function: Callable[..., list[Measurement]] = getattr(import_module(self.module), self.function)
        return function

    # Options pass through: the signature that documents and checks them is the one of the topic module.
    def __call__(self, subject: Any, **options: Any) -> list[Measurement]:
        return self.resolve()(subject, **options)


@dataclass(frozen=True)
class MetricGroup:
    """A topic that an analysis can ask for.

    Parameters
    ----------
    name : str
        Key in the ``metrics:`` section of an analysis.
    description : str
    metrics : tuple of str
        Names the group may give, keys of `METRIC_UNITS`.
    measure_frame : callable or None
        ``(frame: Frame, *, options) -> list[Measurement]``.
    measure_series : callable or None
        ``(table: DataFrame, *, options) -> list[Measurement]``; gets the rows of all frames of an input, so that a
        series never has to be in memory. A group with both takes the same options in both.
    needs_instances : bool
        Whether it reads ``Frame.instances``.
    requires : tuple of str
        Groups whose rows `measure_series` reads.
    """

    name: str
    description: str
    metrics: tuple[str, ...]
    measure_frame: Callable[..., list[Measurement]] | None = None
    measure_series: Callable[..., list[Measurement]] | None = None
    needs_instances: bool = False
    requires: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """Options of the group with their defaults, from the signatures of its functions."""
        found = {}
        for measure in (self.measure_frame, self.measure_series):
            if measure is None:
                continue
            function = measure.resolve() if isinstance(measure, Deferred) else measure
            for parameter in inspect.signature(function).parameters.values():
                if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                    found[parameter.name] = parameter.default
        return found


def _frame(module: str) -> Deferred:
    return Deferred(f"seg.metrics.{module}", "measure_frame")


METRICS: dict[str, MetricGroup] = {
    group.name: group
    for group in (
        MetricGroup(
            "counting",
            "How many objects, per area or volume, with exact Poisson intervals.",
            ("object_count", "areal_density", "volume_density", "valid_area", "detection_limit_diameter"),
            _frame("counting"),
            needs_instances=True,
        ),
        MetricGroup(
            "size",
            "Mean size of the objects, corrected for those cut by the frame, and the lognormal law of their sizes.",
            ("mean_equivalent_diameter", "size_lognormal_mu", "size_lognormal_sigma"),
            _frame("size"),
            needs_instances=True,
        ),
        MetricGroup(
            "cover",
            "Covered area and fraction, share of each class, mean thickness, volume.",
            ("covered_fraction", "covered_area", "class_fraction", "mean_thickness", "porosity", "volume"),
            _frame("cover"),
        ),
        MetricGroup(
            "growth",
            "Rates of area, volume and radius over the series and from frame to frame.",
            ("area_rate", "volume_rate", "radial_velocity", "local_current_density"),
            measure_series=Deferred("seg.metrics.growth", "measure_series"),
            requires=("cover",),
        ),
        MetricGroup(
            "dendrite",
            "Height, length, tips and branches of ramified metal.",
            (
                "skeleton_length", "longest_path", "tip_count", "branch_point_count", "branch_angle", "tortuosity",
                "branch_width", "dendrite_height", "box_dimension", "mass_radius_dimension", "penetration_depth",
                "percolates",
            ),
            _frame("dendrite"),
        ),
        MetricGroup(
            "wetting",
            "Contact angle, base width and height of deposits in profile.",
            ("contact_angle", "base_width", "cap_height", "baseline_tilt"),
            _frame("contact_angle"),
            needs_instances=True,
        ),
        MetricGroup(
            "facets",
            "Straight facets of the outlines, their share and corners; the size at which droplets become faceted.",
            ("facet_count", "facet_fraction", "corner_count", "equivalent_diameter", "facet_transition_diameter"),
            _frame("facets"),
            needs_instances=True,
        ),
        MetricGroup(
            "shape",
            "Roundness, elongation and extent of every object.",
            ("circularity", "solidity", "aspect_ratio", "sphericity", "orientation", "feret_diameter"),
            _frame("shape"),
            needs_instances=True,
        ),
        MetricGroup(
            "voids",
            "Void fraction, number, size and shape, and the contact they cost.",
            (
                "void_fraction", "void_count", "void_diameter", "void_volume", "void_sphericity",
                "void_distance_to_interface", "contact_loss_fraction", "interface_area", "interface_area_ratio",
            ),
            _frame("voids"),
        ),
        MetricGroup(
            "sei",
            "Thickness, evenness and coverage of the interphase on metal.",
            (
                "sei_thickness_mean", "sei_thickness_sd", "sei_thickness_cv", "sei_coverage", "sei_roughness_inner",
                "sei_roughness_outer", "core_to_sei_ratio",
            ),
            _frame("sei"),
        ),
    )
}  # fmt: skip


def _group(name: str) -> MetricGroup:
    if name not in METRICS:
        near = get_close_matches(name, METRICS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(METRICS)}."
        raise UsageError(f"There is no metric group {name!r}; {hint}")
    return METRICS[name]


def check_options(group: str, options: Mapping[str, Any]) -> None:
    """Raise UsageError unless every key of `options` is an option of the group; it names the nearest one."""
    known = _group(group).options
    for key in options:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}."
            raise UsageError(f"Metric group {group!r} has no option {key!r}; {hint}")


def check_requirements(groups: Iterable[str]) -> None:
    """Raise UsageError where a group of an analysis reads rows of one that the analysis lacks."""
    chosen = list(groups)
    for name in chosen:
        missing = [needed for needed in _group(name).requires if needed not in chosen]
        if missing:
            raise UsageError(f"Metric group {name!r} needs {', '.join(missing)}; add `{missing[0]}: {{}}` to metrics.")
