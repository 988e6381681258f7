"""What can be measured: one `MetricGroup` per topic, in `METRICS`, each with the names and options it knows.

Importing this package loads none of the topic modules; a group loads its own when it is first used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from types import MappingProxyType
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
    def __call__(self, *subjects: Any, **options: Any) -> list[Measurement]:
        return self.resolve()(*subjects, **options)


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
    measure_pair : callable or None
        ``(before: Frame, frame: Frame, *, shift_px, options) -> list[Measurement]``: two consecutive frames of a
        series, and how far the sample has moved between them.
    measure_whole : callable or None
        ``(history: History, *, options) -> list[Measurement]``: what also needs objects, tracks or the current.
        Groups are asked in the order of `METRICS`; each sees the rows of those before it.
    in_memory : tuple of str or None
        Metrics that `measure_frame` and `measure_pair` can give only for a frame that is in memory as a whole; none
        are left of a group that reads its frames slab by slab. None: all of `metrics`.
    """

    name: str
    description: str
    metrics: tuple[str, ...]
    measure_frame: Callable[..., list[Measurement]] | None = None
    measure_series: Callable[..., list[Measurement]] | None = None
    needs_instances: bool = False
    requires: tuple[str, ...] = ()
    measure_pair: Callable[..., list[Measurement]] | None = None
    measure_whole: Callable[..., list[Measurement]] | None = None
    in_memory: tuple[str, ...] | None = None

    @property
    def of_whole_frames(self) -> tuple[str, ...]:
        """Metrics that a frame which does not fit in memory has to do without; none: the group works slab by slab."""
        if self.measure_frame is None and self.measure_pair is None:
            return ()
        return self.metrics if self.in_memory is None else self.in_memory

    @property
    def hooks(self) -> tuple[Callable[..., list[Measurement]], ...]:
        """The functions it has."""
        hooks = (self.measure_frame, self.measure_pair, self.measure_series, self.measure_whole)
        return tuple(hook for hook in hooks if hook is not None)

    @property
    def options(self) -> dict[str, Any]:
        """Options of the group with their defaults, from the signatures of its functions."""
        found = {}
        for hook in self.hooks:
            found |= options_of(hook)
        return found


# How far the sample moved is told to a function, not chosen by an analysis.
_TOLD = {"shift_px"}


def options_of(hook: Callable[..., list[Measurement]]) -> Mapping[str, Any]:
    """Options of one function of a group with their defaults."""
    return _options_of(hook.resolve() if isinstance(hook, Deferred) else hook)


@lru_cache(maxsize=256)  # asked for every frame
def _options_of(function: Callable[..., list[Measurement]]) -> Mapping[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return MappingProxyType(
        {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name not in _TOLD}
    )


def apply(hook: Callable[..., list[Measurement]], *subjects: Any, options: Mapping[str, Any], **told: Any) -> Any:
    """Call a function of a group with those of the group's options that it takes."""
    known = options_of(hook)
    return hook(*subjects, **{key: value for key, value in options.items() if key in known}, **told)


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
            in_memory=(),
        ),
        MetricGroup(
            "size",
            "Mean size of the objects, corrected for those cut by the frame, and the lognormal law of their sizes.",
            ("mean_equivalent_diameter", "size_lognormal_mu", "size_lognormal_sigma"),
            _frame("size"),
            needs_instances=True,
            in_memory=(),
        ),
        MetricGroup(
            "cover",
            "Covered area and fraction, share of each class, mean thickness, volume.",
            ("covered_fraction", "covered_area", "class_fraction", "mean_thickness", "porosity", "volume"),
            _frame("cover"),
            in_memory=(),
        ),
        MetricGroup(
            "spatial",
            "Whether objects lie at random, in clusters or evenly, and prefer the outline of a class.",
            ("clark_evans_ratio", "ripley_l_max_deviation", "spatial_class", "enrichment", "enrichment_p"),
            _frame("spatial"),
            needs_instances=True,
        ),
        MetricGroup(
            "events",
            "Tracks of the objects; births, merges, splits and disappearances.",
            ("birth_count", "merge_count", "split_count", "disappearance_count"),
            measure_whole=Deferred("seg.metrics.events", "measure_whole"),
            needs_instances=True,
        ),
        MetricGroup(
            "nucleation",
            "Births per area over time, the law they follow and its parameters.",
            (
                "nucleation_density", "nucleation_rate", "nucleation_mode", "nucleation_mode_textbook",
                "nucleation_saturation_density", "nucleation_rate_constant", "instantaneous_fraction",
            ),
            measure_whole=Deferred("seg.metrics.nucleation", "measure_whole"),
            requires=("counting", "events"),
        ),
        MetricGroup(
            "growth",
            "Rates of area, volume, radius and front over the series, its half-cycles, its tracks and frame to frame.",
            (
                "area_rate", "volume_rate", "radial_velocity", "front_velocity", "local_current_density",
                "growth_asymmetry",
            ),
            measure_pair=Deferred("seg.metrics.front", "measure_pair"),
            measure_whole=Deferred("seg.metrics.growth", "measure_whole"),
            requires=("cover",),
            in_memory=("front_velocity", "local_current_density", "growth_asymmetry"),
        ),
        MetricGroup(
            "dendrite",
            "Height, length, tips, branches and fractal dimension of ramified metal; the front and what lies under it.",
            (
                "skeleton_length", "longest_path", "tip_count", "branch_point_count", "branch_angle", "tortuosity",
                "branch_width", "dendrite_height", "box_dimension", "mass_radius_dimension", "front_height",
                "covered_fraction", "tip_velocity", "onset_time",
            ),
            _frame("dendrite"),
            measure_whole=Deferred("seg.metrics.dendrite_series", "measure_whole"),
        ),
        MetricGroup(
            "filaments",
            "Metal in a separator or solid electrolyte: depth, short circuit, kind of every filament.",
            ("penetration_depth", "percolates", "morphology_class"),
            _frame("filament"),
            in_memory=(),
        ),
        MetricGroup(
            "morphology",
            "Hemispherical, columnar, needle, mossy, fractal, rod, flattened or film: every deposit and the frame.",
            ("morphology_class",),
            _frame("morphology"),
        ),
        MetricGroup(
            "wetting",
            "Contact angle, base width and height of deposits, and how droplets shrink.",
            ("contact_angle", "base_width", "cap_height", "baseline_tilt", "stripping_regime", "adhesion_work"),
            _frame("contact_angle"),
            measure_whole=Deferred("seg.metrics.wetting_series", "measure_whole"),
            needs_instances=True,
        ),
        MetricGroup(
            "cap",
            "Contact angle of the deposits of a volume from their volume and their area in top view, taken as caps.",
            ("contact_angle",),
            _frame("cap"),
            needs_instances=True,
        ),
        MetricGroup(
            "facets",
            "Straight facets of the outlines, their share and corners; the size at which droplets become faceted.",
            ("facet_count", "facet_fraction", "corner_count", "equivalent_diameter", "facet_transition_diameter"),
            _frame("facets"),
            measure_whole=Deferred("seg.metrics.facet_transition", "measure_whole"),
            needs_instances=True,
        ),
        MetricGroup(
            "shape",
            "Roundness, elongation and extent of every object.",
            ("circularity", "solidity", "aspect_ratio", "sphericity", "orientation", "feret_diameter"),
            _frame("shape"),
            needs_instances=True,
            in_memory=(),
        ),
        MetricGroup(
            "pits",
            "Number, size, depth and growth by direction of pits, nuclei at their rims, sites that are used again.",
            (
                "pit_count", "pit_density", "pit_diameter", "pit_opening_area", "pit_depth", "pit_volume",
                "aspect_ratio", "pit_rate_major", "pit_rate_minor", "pit_anisotropy", "radial_velocity",
                "rim_enrichment", "enrichment_p", "memory_fraction",
            ),
            _frame("pits"),
            measure_whole=Deferred("seg.metrics.pits_series", "measure_whole"),
            needs_instances=True,
        ),
        MetricGroup(
            "voids",
            "Void fraction, number, size and shape, and the contact they cost.",
            (
                "void_fraction", "void_count", "void_diameter", "void_volume", "void_sphericity",
                "void_distance_to_interface", "contact_loss_fraction", "interface_area", "interface_area_ratio",
                "void_rate_per_charge", "local_current_density",
            ),
            _frame("voids"),
            measure_whole=Deferred("seg.metrics.voids", "measure_whole"),
            in_memory=(),
        ),
        MetricGroup(
            "dead",
            "Metal without a path to the current collector, bodies that lose or find one, the darkening front.",
            (
                "dead_fraction", "dead_volume", "dead_fraction_sensitivity", "darkening_front_height",
                "detachment_count", "reattached_volume",
            ),
            _frame("dead"),
            measure_series=Deferred("seg.metrics.dead", "measure_series"),
            measure_pair=Deferred("seg.metrics.dead", "measure_pair"),
            in_memory=(),
        ),
        MetricGroup(
            "sei",
            "Thickness, evenness, roughness, coverage and texture of the interphase on metal.",
            (
                "sei_thickness_mean", "sei_thickness_sd", "sei_thickness_cv", "sei_coverage", "sei_roughness_inner",
                "sei_roughness_outer", "core_to_sei_ratio", "crystalline_fraction", "sei_texture",
            ),
            _frame("sei"),
        ),
        MetricGroup(
            "layers",
            "Thickness, porosity, roughness, surface and tortuosity of a layer; the compact interphase.",
            (
                "layer_thickness", "porosity", "roughness_sa", "roughness_sq", "developed_area_ratio",
                "specific_surface", "tortuosity_factor", "compact_interphase_thickness", "local_current_density",
            ),
            _frame("layers"),
            measure_whole=Deferred("seg.metrics.layers", "measure_whole"),
            in_memory=(),
        ),
        MetricGroup(
            "balance",
            "Metal in the image against charge in the cell: volume, porosity, efficiency, loss at rest.",
            (
                "deposit_volume", "mean_thickness", "imaged_porosity", "expected_volume", "volume_charge_ratio",
                "imaging_efficiency", "rest_shrinkage_rate",
            ),
            _frame("balance"),
            measure_whole=Deferred("seg.metrics.balance", "measure_whole"),
            in_memory=(),
        ),
        MetricGroup(
            "theory",
            "What Sand, Chazalviel, Faraday and nucleation theory expect under the conditions of the experiment.",
            (
                "sand_time", "sand_time_ratio", "chazalviel_current", "faraday_thickness", "critical_radius",
                "nucleation_barrier",
            ),
            measure_series=Deferred("seg.metrics.theory", "measure_series"),
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
