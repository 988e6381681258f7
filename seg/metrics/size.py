"""How large the objects are: mean diameter without the bias of cut objects, and the law of their sizes."""

from __future__ import annotations

import math
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from seg.blocks import on_disk, slabs
from seg.metrics.frame import Frame
from seg.metrics.table import Measurement
from seg.objects import equivalent_diameter
from seg.uncertainty import OUTLINE_OFFSET_PX, bootstrap_ratio_interval, combine_intervals

MIN_MEAN_DIAMETER_PX = 16.0  # the mean is good to 2 % from here on
MIN_OBJECTS_FOR_LAW = 10
_PLACEMENTS = 4096  # positions tried per box where artefacts cut the valid area


def sampling_weights(lower: np.ndarray, upper: np.ndarray, valid: np.ndarray, folder: Path | None = None) -> np.ndarray:
    """Miles-Lantuejoul weights: large objects are cut by the frame more often, so whole ones stand for more.

    Parameters
    ----------
    lower, upper : ndarray of int, shape (N, D)
        Half-open bounding boxes of objects that nothing cuts.
    valid : ndarray of bool, shape ([Z,] Y, X)
    folder : Path or None
        For a table of sums that does not fit in memory.

    Returns
    -------
    ndarray of float, shape (N,)
        1 / (number of positions, in pixels, at which the box fits into the valid area without touching its edge).

    Notes
    -----
    In a full frame of W x H pixels a box of w x h fits at (W - w - 1)(H - h - 1) positions. Where artefacts cut the
    valid area, the share of positions that stays is found by trying about 4000 on a regular grid for a few box sizes,
    and between them by interpolation.
    """
    extent = upper - lower
    if not len(extent):
        return np.zeros(0)
    hit = [
        np.flatnonzero(valid.any(axis=tuple(a for a in range(valid.ndim) if a != axis))) for axis in range(valid.ndim)
    ]
    window = valid[tuple(slice(h[0], h[-1] + 1) for h in hit)]
    free = np.asarray(window.shape) - extent - 1
    positions = np.prod(np.maximum(free, 1), axis=1).astype(float)
    if not window.all():
        from scipy.interpolate import RegularGridInterpolator

        table = _summed(window, folder)
        nodes = [_box_sizes(column) for column in extent.T]
        shares = [_fitting_share(table, np.array(box) + 2) for box in product(*nodes)]
        share_of = RegularGridInterpolator(nodes, np.reshape(shares, [len(n) for n in nodes]))
        positions = positions * share_of(extent)
    # An object that fits nowhere on the coarse grid of trials still fitted once.
    return 1 / np.maximum(positions, 1.0)


def truncated_lognormal(
    diameters: np.ndarray, weights: np.ndarray, limit: float
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Fit a lognormal law to sizes of which those under a limit were not seen.

    Parameters
    ----------
    diameters, weights : ndarray of float, shape (N,)
    limit : float
        Detection limit in the unit of `diameters`; 0 = none.

    Returns
    -------
    (mu, low, high), (sigma, low, high)
        Mean and standard deviation of ln(diameter), each with its 95 % interval (from the curvature of the
        likelihood); NaN where the sizes do not determine the law.
    """
    from scipy.optimize import minimize
    from scipy.special import log_ndtr

    logs = np.log(diameters)
    weights = weights / weights.mean()
    mean = float(np.average(logs, weights=weights))
    spread = math.sqrt(float(np.average((logs - mean) ** 2, weights=weights)))
    edge = math.log(limit) if limit > 0 else -math.inf
    nothing = (math.nan, math.nan, math.nan)
    if spread < 1e-3:  # equal sizes: no law
        return nothing, nothing

    total = float(weights.sum())

    def minus_log_likelihood(theta: np.ndarray) -> float:
        # Mean and spread hold all that a normal law wants to know of the logarithms.
        mu, log_sigma = (float(v) for v in theta)
        seen = 0.0 if math.isinf(edge) else float(log_ndtr((mu - edge) * math.exp(-log_sigma)))
        return total * (0.5 * (spread**2 + (mean - mu) ** 2) * math.exp(-2 * log_sigma) + log_sigma + seen)

    def slope(theta: np.ndarray) -> np.ndarray:
        mu, log_sigma = (float(v) for v in theta)
        inverse = math.exp(-log_sigma)
        above = (mu - edge) * inverse
        hazard = (
            0.0 if math.isinf(edge) else math.exp(-(above**2) / 2 - float(log_ndtr(above))) / math.sqrt(2 * math.pi)
        )
        by_mu = (mu - mean) * inverse**2 + hazard * inverse
        by_log_sigma = 1 - (spread**2 + (mean - mu) ** 2) * inverse**2 - (hazard * above if hazard else 0.0)
        return total * np.array([by_mu, by_log_sigma])

    start = np.array([mean, math.log(spread)])
    # A law whose mode lies far under the limit has no finite best fit: keep mu within reach of the data.
    bounds = [(mean - 5 * spread, mean + spread), (start[1] - 1, start[1] + 1.5)]
    fit = minimize(minus_log_likelihood, start, jac=slope, method="L-BFGS-B", bounds=bounds)
    at_bound = any(not low + 1e-6 < x < high - 1e-6 for x, (low, high) in zip(fit.x, bounds, strict=True))
    # Weighted objects inform like fewer equal ones (Kish).
    effective = weights.sum() ** 2 / np.sum(weights**2) / len(weights)
    covariance = _inverse_hessian(minus_log_likelihood, fit.x, step=0.02 * spread) / effective
    if at_bound or not fit.success or not (np.diag(covariance) > 0).all():
        return nothing, nothing
    mu, log_sigma = (float(v) for v in fit.x)
    half_mu, half_log = 1.96 * np.sqrt(np.diag(covariance))
    sigma = math.exp(log_sigma)
    return (mu, mu - half_mu, mu + half_mu), (sigma, sigma * math.exp(-half_log), sigma * math.exp(half_log))


def measure_frame(frame: Frame, *, seed: int = 0) -> list[Measurement]:
    """Mean equivalent diameter and lognormal law of the objects of one frame.

    Parameters
    ----------
    frame : Frame
        With instances. Sizes of single objects are columns of the object table.
    seed : int
        Of the bootstrap.

    Returns
    -------
    list of Measurement
        ``mean_equivalent_diameter``, ``size_lognormal_mu`` and ``size_lognormal_sigma`` over the objects that nothing
        cuts and that are not under the detection limit; NaN where there are none (or fewer than ten, for the law).
    """
    if frame.instances is None:
        raise ValueError("The size group needs frame.instances; call label_objects first.")
    scale, ndim = frame.scale, frame.labels.ndim
    pixels = frame.pixels
    whole, weights, cut = whole_objects(frame)
    diameters = equivalent_diameter(pixels.counts[whole] * scale.pixel, ndim)
    flags = list(scale.flags)
    if cut and not len(whole):
        flags.append("touches-border")
    row = partial(
        Measurement, class_name="+".join(frame.object_classes), frame=frame.index, time_s=frame.time_s, n=len(whole)
    )  # fmt: skip

    mean, low, high = math.nan, math.nan, math.nan
    # Outlines that are off as a whole, by half a pixel on either side of every object.
    shift = 2 * 1.96 * OUTLINE_OFFSET_PX * scale.pixel ** (1 / ndim)
    if len(whole):
        mean = float(np.average(diameters, weights=weights))
        low, high = bootstrap_ratio_interval(
            diameters * weights, weights, rng=np.random.default_rng([seed, frame.index])
        )  # fmt: skip
        if math.isfinite(low):
            low, high = combine_intervals(mean, (low, high), (mean - shift, mean + shift))
        if float(np.average(pixels.diameters_px[whole], weights=weights)) < MIN_MEAN_DIAMETER_PX:
            flags.append("few-pixels")
    rows = [
        row(
            "mean_equivalent_diameter", mean, scale.unit("um"), low=low, high=high, flags=tuple(flags),
            method="Miles-Lantuejoul weights over whole objects, bootstrap over objects, outlines ±0.5 px",
        )
    ]  # fmt: skip

    nothing = (math.nan, math.nan, math.nan)
    law = (nothing, nothing)
    if len(whole) >= MIN_OBJECTS_FOR_LAW:
        law = truncated_lognormal(diameters, weights, frame.min_diameter_px * scale.pixel ** (1 / ndim))
    if math.isnan(law[0][0]):
        flags.append("ambiguous")
    moved = _moved_law(diameters, weights, shift) if math.isfinite(law[0][0]) else np.zeros((2, 2))
    names = ("size_lognormal_mu", "size_lognormal_sigma")
    for name, (value, low, high), (less, more) in zip(names, law, moved, strict=True):
        if math.isfinite(low):
            low, high = combine_intervals(value, (low, high), (value - less, value + more))
        rows.append(
            row(
                name, value, "1", low=low, high=high, flags=tuple(flags),
                method=f"diameters in {scale.unit('um')}, likelihood truncated at the detection limit, outlines "
                "±0.5 px",
            )
        )  # fmt: skip
    return rows


def whole_objects(frame: Frame) -> tuple[np.ndarray, np.ndarray, int]:
    """Ids of the objects above the detection limit that the frame does not cut, their weights, and how many it cuts.

    The weights are those of `sampling_weights`.
    """
    pixels, valid = frame.pixels, frame.valid
    large = np.flatnonzero((pixels.counts > 0) & (pixels.diameters_px >= frame.min_diameter_px))
    whole = large[_in_the_clear(pixels.lower[large] - 1, pixels.upper[large] + 1, valid, frame.on_disk)]
    weights = sampling_weights(pixels.lower[whole], pixels.upper[whole], valid, frame.on_disk)
    return whole, weights, len(large) - len(whole)


def _moved_law(diameters: np.ndarray, weights: np.ndarray, shift: float) -> np.ndarray:
    """By how much mean (first row) and spread of the logarithms fall and rise when all outlines move in and out."""

    def moments(by: float) -> np.ndarray:
        logs = np.log(np.maximum(diameters + by, 1e-3 * diameters))
        mean = np.average(logs, weights=weights)
        return np.array([mean, math.sqrt(np.average((logs - mean) ** 2, weights=weights))])

    changes = np.stack([moments(by) - moments(0.0) for by in (-shift, shift)], axis=1)
    return np.stack([np.maximum(-changes, 0).max(axis=1), np.maximum(changes, 0).max(axis=1)], axis=1)


def _in_the_clear(lower: np.ndarray, upper: np.ndarray, valid: np.ndarray, folder: Path | None = None) -> np.ndarray:
    """Which boxes lie inside the frame and hold valid pixels only; bool, shape (N,)."""
    inside = ((lower >= 0) & (upper <= np.asarray(valid.shape))).all(axis=1)
    if not valid.all() and inside.any():
        table = _summed(valid, folder)
        invalid = np.zeros(int(inside.sum()), np.int64)
        for corner in np.ndindex((2,) * valid.ndim):
            at = np.where(np.array(corner, bool), upper[inside], lower[inside])
            invalid += (-1) ** (valid.ndim - sum(corner)) * table[tuple(at.T)]
        inside[inside] = invalid == 0
    return np.asarray(inside)


def _box_sizes(extent: np.ndarray) -> np.ndarray:
    """Sizes along one axis at which fitting positions are tried: both ends and some between, at equal ratios."""
    low, high = int(extent.min()), int(extent.max())
    return np.unique(np.round(np.geomspace(low, high, 6)).astype(int)) if high > low else np.array([low, low + 1])


def _summed(valid: np.ndarray, folder: Path | None = None) -> np.ndarray:
    """Summed-area table of what is not valid, with a leading zero along every axis; in a file of `folder`, if given."""
    shape = tuple(n + 1 for n in valid.shape)
    table = np.zeros(shape, np.int64) if folder is None else on_disk(shape, np.int64, folder)
    inner = (slice(1, None),) * (valid.ndim - 1)
    for slab in slabs(valid.shape, halo=0):
        part = (~valid[slab.owned]).astype(np.int64)
        for axis in range(valid.ndim):
            np.cumsum(part, axis=axis, out=part)
        part += table[slab.owned.start][inner]
        table[(slice(slab.owned.start + 1, slab.owned.stop + 1), *inner)] = part
    return table


def _fitting_share(table: np.ndarray, box: np.ndarray) -> float:
    """Share of the positions inside the window at which a box holds no invalid pixel."""
    ndim = table.ndim
    room = np.asarray(table.shape) - 1 - box + 1
    if (room < 1).any():
        return 0.0
    per_axis = max(1, round(_PLACEMENTS ** (1 / ndim)))
    starts = [np.unique(np.linspace(0, r - 1, min(r, per_axis)).astype(int)) for r in room]
    invalid = np.zeros(tuple(len(s) for s in starts), np.int64)
    for corner in np.ndindex((2,) * ndim):
        at = [s + c * b for s, c, b in zip(starts, corner, box, strict=True)]
        invalid += (-1) ** (ndim - sum(corner)) * table[np.ix_(*at)]
    return float(np.mean(invalid == 0))


def _inverse_hessian(function: object, at: np.ndarray, *, step: float) -> np.ndarray:
    """Inverse of the matrix of second differences of a function of two parameters; NaN where it is singular."""
    assert callable(function)
    n = len(at)
    hessian = np.empty((n, n))
    steps = np.eye(n) * step
    for i in range(n):
        for j in range(n):
            hessian[i, j] = (
                function(at + steps[i] + steps[j]) - function(at + steps[i] - steps[j])
                - function(at - steps[i] + steps[j]) + function(at - steps[i] - steps[j])
            ) / (4 * step**2)  # fmt: skip
    try:
        return np.linalg.inv(hessian)
    except np.linalg.LinAlgError:
        return np.full((n, n), math.nan)
