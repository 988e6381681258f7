"""Every metric name with its unit and what it means; the report and the tests read it."""

from __future__ import annotations

import re
from difflib import get_close_matches

from seg.errors import UsageError

_COUNTING = {
    "object_count": ("1", "Objects counted by the counting-frame rule."),
    "areal_density": ("1/cm2", "Objects per valid area of the frame."),
    "volume_density": ("1/um3", "Objects per valid volume."),
    "valid_area": ("um2", "Area whose labels mean something: neither unlabelled nor artefact."),
    "detection_limit_diameter": ("um", "Equivalent diameter under which objects are not counted."),
}

_SIZE = {
    "equivalent_diameter": ("um", "Diameter of the disc (sphere) with the area (volume) of the object."),
    "area": ("um2", "Area of the object."),
    "volume": ("um3", "Volume of the object, or of the class in the frame where no object is given."),
    "perimeter": ("um", "Length of the outline by Crofton's formula over four directions."),
    "surface_area": ("um2", "Area of the surface by Crofton's formula over thirteen directions."),
    "mean_equivalent_diameter": ("um", "Number-weighted mean diameter, corrected for objects cut by the frame."),
    "size_lognormal_mu": ("1", "Mean of ln(diameter / 1 um) of a lognormal law truncated at the detection limit."),
    "size_lognormal_sigma": ("1", "Standard deviation of ln(diameter) of the same law."),
}

_COVER = {
    "covered_fraction": ("1", "Share of the valid area that the classes cover (projected, in a volume)."),
    "covered_area": ("um2", "Area that the classes cover (projected, in a volume)."),
    "class_fraction": ("1", "Share of the valid pixels that belong to one class."),
    "mean_thickness": ("um", "Amount of the classes per unit of base: area per width, or volume per area."),
    "porosity": ("1", "Pores per pores and solid."),
}

_NUCLEATION = {
    "nucleation_density": ("1/cm2", "Births per valid area to date."),
    "nucleation_rate": ("1/cm2/s", "Births per bare area and time."),
    "nucleation_saturation_density": ("1/cm2", "Density N0 of nucleation sites."),
    "nucleation_rate_constant": ("1/s", "Rate constant A at which free sites nucleate."),
    "nucleation_mode": ("1", "Probability of the law named in `method`."),
    "nucleation_mode_textbook": ("1", "Probability of the textbook law named in `method`."),
    "instantaneous_fraction": ("1", "Share of the nuclei that appear at once."),
    "density_current_slope": ("1", "Slope of log density against log current density."),
}

_SPATIAL = {
    "clark_evans_ratio": ("1", "Mean nearest-neighbour distance over that of complete randomness (Donnelly)."),
    "ripley_l_max_deviation": ("1", "Largest deviation of Ripley's L from randomness, in envelope widths."),
    "spatial_class": ("1", "p value of the arrangement named in `method`."),
    "enrichment": ("1", "Density near the reference named in `method` over that elsewhere."),
    "enrichment_p": ("1", "p value of the enrichment."),
}

_EVENTS = {
    "birth_count": ("1", "Objects that appear inside the frame."),
    "merge_count": ("1", "Coalescences; k objects into one are k - 1."),
    "split_count": ("1", "Divisions of one object into several."),
    "disappearance_count": ("1", "Objects that vanish inside the frame."),
}

_GROWTH = {
    "area_rate": ("um2/s", "Change of the covered area per time."),
    "volume_rate": ("um3/s", "Change of the volume per time."),
    "radial_velocity": ("um/s", "Change of the equivalent radius per time."),
    "front_velocity": ("um/s", "Velocity of the growth front along its normal."),
    "front_height": ("um", "Height of the growth front above the substrate."),
    "tip_velocity": ("um/s", "Velocity of the foremost tip."),
    "local_current_density": ("mA/cm2", "Velocity of the metal surface as current density, by Faraday's law."),
    "growth_asymmetry": ("1", "Difference over sum of the growth to both sides."),
}

_WETTING = {
    "contact_angle": ("deg", "Angle through the deposit between substrate and deposit surface."),
    "base_width": ("um", "Width of the contact with the substrate."),
    "cap_height": ("um", "Height of the deposit above the substrate."),
    "baseline_tilt": ("deg", "Tilt of the substrate line against the image rows."),
    "stripping_regime": ("1", "Probability of the regime named in `method`."),
    "adhesion_work": ("J/m2", "Young-Dupre work of adhesion."),
}

_FACETS = {
    "facet_count": ("1", "Straight runs of the outline longer than a circle's would be."),
    "facet_fraction": ("1", "Share of the outline that is straight."),
    "corner_count": ("1", "Corners between facets."),
    "facet_transition_diameter": ("um", "Diameter at which droplets become faceted."),
}

_SHAPE = {
    "circularity": ("1", "4 pi area / perimeter^2, with the Crofton perimeter; 1 for a disc."),
    "solidity": ("1", "Area over that of the convex hull."),
    "aspect_ratio": ("1", "Long over short axis of the ellipse (ellipsoid) with the same second moments."),
    "sphericity": ("1", "Surface of the sphere of equal volume over the surface."),
    "orientation": ("deg", "Direction of the long axis, from x towards falling y, -90 to 90."),
    "feret_diameter": ("um", "Largest distance between two points of the outline."),
    "morphology_class": ("1", "Probability of the morphology named in `method`."),
}

_DENDRITE = {
    "skeleton_length": ("um", "Length of the centre lines."),
    "longest_path": ("um", "Longest path along the centre lines."),
    "tip_count": ("1", "Ends of branches, the root and ends cut by the frame left out."),
    "branch_point_count": ("1", "Points where branches meet."),
    "branch_angle": ("deg", "Angle between daughter branches."),
    "tortuosity": ("1", "Length of the path from root to tip over the chord."),
    "branch_width": ("um", "Width of the branches."),
    "dendrite_height": ("um", "Greatest distance of the dendrite from the reference surface."),
    "box_dimension": ("1", "Box-counting dimension."),
    "mass_radius_dimension": ("1", "Exponent of mass against radius about the seed."),
    "penetration_depth": ("um", "Greatest distance that metal reaches into the separator."),
    "percolates": ("1", "1 where metal connects both electrodes, else 0."),
    "onset_time": ("s", "Time of the first dendrite."),
}

_THEORY = {
    "sand_time": ("s", "Sand's time."),
    "sand_time_ratio": ("1", "Observed onset over Sand's time."),
    "chazalviel_current": ("mA/cm2", "Limiting current density after Chazalviel."),
    "critical_radius": ("nm", "Critical radius of nucleation."),
    "faraday_thickness": ("um", "Thickness of a dense film that the charge deposits."),
    "nucleation_barrier": ("J", "Free energy of the critical nucleus."),
}

_PITS = {
    "pit_count": ("1", "Pits counted by the counting-frame rule."),
    "pit_density": ("1/cm2", "Pits per valid area."),
    "pit_diameter": ("um", "Diameter of the disc with the area of the opening."),
    "pit_opening_area": ("um2", "Area of the opening in the surface plane."),
    "pit_depth": ("um", "Greatest depth under the surface plane."),
    "pit_volume": ("um3", "Volume under the surface plane."),
    "pit_rate_major": ("um/s", "Growth of the long half axis."),
    "pit_rate_minor": ("um/s", "Growth of the short half axis."),
    "pit_anisotropy": ("1", "Long over short rate."),
    "rim_enrichment": ("1", "Density of deposits at pit rims over that elsewhere."),
    "memory_fraction": ("1", "Share of sites that are used again beyond chance."),
}

_VOIDS = {
    "void_fraction": ("1", "Voids per voids and metal."),
    "void_count": ("1", "Voids counted by the counting-frame rule."),
    "void_diameter": ("um", "Diameter of the sphere (disc) with the size of the void."),
    "void_volume": ("um3", "Volume of the void."),
    "void_sphericity": ("1", "Surface of the sphere of equal volume over that of the void."),
    "void_distance_to_interface": ("um", "Distance from the void to the interface."),
    "contact_loss_fraction": ("1", "Share of the interface that voids cover."),
    "interface_area": ("um2", "Area of the interface."),
    "interface_area_ratio": ("1", "Area of the interface over its projection."),
    "void_rate_per_charge": ("um3/mAh", "Growth of the void volume per charge."),
}

_DEAD = {
    "dead_fraction": ("1", "Share of the metal without a path to the current collector; connectivity in `method`."),
    "dead_volume": ("um3", "Volume of that metal."),
    "dead_fraction_sensitivity": ("1", "Range of dead_fraction when the metal loses or gains a layer of pixels."),
    "detachment_count": ("1", "Bodies that lose their path."),
    "darkening_front_height": ("um", "Height of the darkening front."),
    "reattached_volume": ("um3", "Dead metal that finds a path again."),
}

_SEI = {
    "sei_thickness_mean": ("um", "Mean distance from the outer boundary to the metal."),
    "sei_thickness_sd": ("um", "Spread of that distance, pixelation removed."),
    "sei_thickness_cv": ("1", "Spread over mean."),
    "sei_coverage": ("1", "Share of the metal outline under at least one pixel of SEI."),
    "sei_roughness_inner": ("um", "Roughness of the metal boundary."),
    "sei_roughness_outer": ("um", "Roughness of the outer boundary."),
    "core_to_sei_ratio": ("1", "Width of the metal core over the thickness of the SEI."),
    "sei_texture": ("1", "Probability of the texture named in `method`."),
    "crystalline_fraction": ("1", "Share of the SEI that is crystalline."),
}

_LAYERS = {
    "layer_thickness": ("um", "Thickness of the layer."),
    "roughness_sa": ("um", "Mean absolute height after removing the plane."),
    "roughness_sq": ("um", "Root mean square height after removing the plane."),
    "developed_area_ratio": ("1", "Surface over projected area."),
    "tortuosity_factor": ("1", "Porosity times free over effective diffusivity."),
    "specific_surface": ("1/um", "Surface per volume."),
    "compact_interphase_thickness": ("um", "Thickness of the compact interphase."),
}

_BALANCE = {
    "deposit_volume": ("um3", "Volume of deposited metal."),
    "expected_volume": ("um3", "Volume that the charge deposits at 100 % efficiency."),
    "volume_charge_ratio": ("1", "Imaged over expected volume."),
    "imaged_porosity": ("1", "1 - metal volume over the volume under its envelope."),
    "imaging_efficiency": ("1", "Share of the plated volume that stripping removes."),
    "rest_shrinkage_rate": ("um3/h", "Loss of volume at rest."),
}

_QUALITY = {
    "dice": ("1", "Twice the overlap over the sum of both masks."),
    "iou": ("1", "Overlap over union."),
    "boundary_f1": ("1", "F1 score of the boundary at a tolerance."),
    "hd": ("um", "Largest distance between the boundaries (Hausdorff)."),
    "hd95": ("um", "95 % quantile of the distance between the boundaries."),
    "panoptic_quality": ("1", "Sum of IoU over matched objects / (TP + FP/2 + FN/2)."),
    "object_f1": ("1", "F1 score of objects at IoU > 0.5."),
    "expected_calibration_error": ("1", "Mean gap between confidence and accuracy."),
}

METRIC_UNITS: dict[str, tuple[str, str]] = {
    **_COUNTING, **_SIZE, **_COVER, **_NUCLEATION, **_SPATIAL, **_EVENTS, **_GROWTH, **_WETTING, **_FACETS, **_SHAPE,
    **_DENDRITE, **_THEORY, **_PITS, **_VOIDS, **_DEAD, **_SEI, **_LAYERS, **_BALANCE, **_QUALITY,
}  # fmt: skip
"""Metric name -> (unit of calibrated data, definition in one sentence)."""

# Metrics whose result is a word: it opens `method`, the value is its probability (for spatial_class, p of chance).
TEXT_METRICS = (
    "nucleation_mode", "nucleation_mode_textbook", "spatial_class", "stripping_regime", "morphology_class",
    "sei_texture",
)  # fmt: skip


NO_INTERVAL = (
    "valid_area", "detection_limit_diameter", "enrichment_p", "dead_fraction_sensitivity", *TEXT_METRICS,
)  # fmt: skip
"""Metrics that estimate nothing, and so have no interval: what was looked at and how finely, p values and
probabilities of a verdict, and a range."""


def text_result(name: str, method: str) -> str | None:
    """The word that a metric of `TEXT_METRICS` found, from its `method`; None for all other metrics."""
    return re.split(r"[;:,(]", method, maxsplit=1)[0].strip() or None if name in TEXT_METRICS else None


def metric_unit(name: str) -> str:
    """Give the unit of a metric on calibrated data; UsageError names the nearest when there is no such metric."""
    if name not in METRIC_UNITS:
        near = get_close_matches(name, METRIC_UNITS, n=1)
        raise UsageError(f"There is no metric {name!r}" + (f"; did you mean {near[0]!r}?" if near else "."))
    return METRIC_UNITS[name][0]
