"""Plan view: discs that lie at random, are born by a law, and grow."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from seg.accuracy.faults import FAULTS
from seg.accuracy.trials import Trial, only
from seg.analysis import AnalysisConfig, ObjectOptions
from seg.labels import load_schema
from seg.measure import make_tracker, measure_frames, measure_over_time
from seg.metrics import counting, cover, size
from seg.metrics.enrichment import enrichment
from seg.metrics.frame import Frame
from seg.metrics.history import History
from seg.metrics.nucleation import density_current_slope
from seg.metrics.point_pattern import Window, clark_evans
from seg.metrics.table import UM2_PER_CM2, Measurement, Scale, to_table
from seg.objects import label_objects
from seg.segmentation import Segmentation
from seg.stack import Calibration, Stack
from seg.synthetic.area import circle, union_area

PIXEL_UM = (0.42, 0.40)
PIXEL = math.sqrt(math.prod(PIXEL_UM))
_FAR = -1e3  # signed distance where no disc is near


def disc_level(centers: np.ndarray, radii: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Signed distance (px) to the nearest outline of discs in um, as far as 8 px around each."""
    level = np.full(shape, _FAR)
    spacing = np.asarray(PIXEL_UM)
    for center, radius in zip(centers, radii, strict=True):
        low = np.maximum(np.floor((center - radius) / spacing).astype(int) - 8, 0)
        high = np.minimum(np.ceil((center + radius) / spacing).astype(int) + 9, shape)
        if (low >= high).any():
            continue
        y, x = ((np.arange(a, b) + 0.5) * s for a, b, s in zip(low, high, spacing, strict=True))
        here = (radius - np.hypot(y[:, None] - center[0], x[None] - center[1])) / PIXEL
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        level[box] = np.maximum(level[box], here)
    return level


def place_apart(
    rng: np.random.Generator, radii: np.ndarray, low: np.ndarray, high: np.ndarray, *, gap: float
) -> np.ndarray:
    """Centres of discs in a box that keep `gap` between their outlines; each is placed again until it fits.

    The first ones may leave no room for the last: all are then placed anew.
    """
    for _ in range(20):
        placed = np.empty((0, 2))
        for radius in radii:
            for _ in range(1000):
                spot = rng.uniform(low, high)
                apart = np.hypot(*(placed - spot).T)
                if (apart > radii[: len(placed)] + radius + gap).all():
                    placed = np.vstack([placed, spot])
                    break
            else:
                break
        if len(placed) == len(radii):
            return placed
    raise ValueError(f"{len(radii)} discs do not fit.")


def _frame(mask: np.ndarray, index: int = 0) -> Frame:
    schema, scale = load_schema("lithium"), Scale(PIXEL_UM)
    instances = label_objects(mask, scale=scale, split_touching=True, min_diameter_px=4.0)
    labels = np.where(mask, 3, 2).astype(np.uint8)
    return Frame(
        labels, schema, scale, index, None, instances=instances, object_classes=("deposit",), min_diameter_px=4.0
    )  # fmt: skip


def scattered(rng: np.random.Generator, fault: str, *, clustered: bool = False) -> list[Trial]:
    """About 40 discs of lognormal size (median 14 px) in a frame of 400 x 512 px; their number is a Poisson one.

    Density and mean diameter are those of the population, the covered fraction is that of the very frame.
    """
    shape, density_px, mean_log, sd_log = (400, 512), 2e-4, math.log(14.0), 0.25
    field, margin = np.asarray(shape) * PIXEL_UM, 30 * PIXEL
    low, high = np.full(2, -margin), field + margin
    density = density_px / PIXEL**2
    proposals = None
    if clustered:
        # Neyman-Scott: families of 4 on average within 25 px (standard deviation); one count in four is an excess.
        wide = 100 * PIXEL
        parents = rng.uniform(low - wide, high + wide, (rng.poisson(density / 4 * np.prod(high - low + 2 * wide)), 2))
        children = np.repeat(parents, rng.poisson(4, len(parents)), axis=0)
        children = children + rng.normal(0, 25 * PIXEL, children.shape)
        proposals = children[((children > low) & (children < high)).all(axis=1)]
        n = len(proposals)
    else:
        n = rng.poisson(density * np.prod(high - low))
    radii = np.exp(rng.normal(mean_log, sd_log, n)) * PIXEL / 2
    gap = 2.5 * PIXEL
    # Families would not fit anywhere else: what overlaps is moved a little.
    centers = place_apart(rng, radii, low, high, gap=gap) if proposals is None else _spread(rng, proposals, radii, gap)
    frame = _frame(FAULTS[fault](rng)(disc_level(centers, radii, shape)))
    outlines = [circle(y, x, r) for (y, x), r in zip(centers, radii, strict=True)]
    covered = union_area(outlines, (float(field[0]), float(field[1]))) / float(np.prod(field))
    rows = counting.measure_frame(frame) + size.measure_frame(frame) + cover.measure_frame(frame)
    found = [Trial.of(only(rows, "areal_density"), density * UM2_PER_CM2)]
    if clustered:
        return found
    mean = 14.0 * math.exp(sd_log**2 / 2) * PIXEL
    truths = {
        "mean_equivalent_diameter": mean, "size_lognormal_mu": math.log(14.0 * PIXEL), "size_lognormal_sigma": sd_log,
        "covered_fraction": covered,
    }  # fmt: skip
    return found + [Trial.of(only(rows, name), truth) for name, truth in truths.items()]


def _spread(rng: np.random.Generator, proposals: np.ndarray, radii: np.ndarray, gap: float) -> np.ndarray:
    """Move each disc by as little as it takes to keep its gap to those before it."""
    placed = np.empty((0, 2))
    for spot, radius in zip(proposals, radii, strict=True):
        step = 0.0
        trial = spot
        while len(placed) and not (np.hypot(*(placed - trial).T) > radii[: len(placed)] + radius + gap).all():
            step += 0.5 * PIXEL
            trial = spot + rng.normal(0, step, 2)
        placed = np.vstack([placed, trial])
    return placed


def clustered(rng: np.random.Generator, fault: str) -> list[Trial]:
    """As `scattered`, in families."""
    return scattered(rng, fault, clustered=True)


def measured_series(
    masks: list[np.ndarray], dt_s: float, metrics: dict, *, name: str = "deposit"
) -> list[Measurement]:  # fmt: skip
    """Measure a series of masks of one class on a substrate as an analysis would."""
    times = tuple(dt_s * k for k in range(len(masks)))
    calibration = Calibration(dict(zip("yx", PIXEL_UM, strict=True)), times, "user")
    schema = load_schema("lithium")
    data = np.where(np.stack(masks), schema.index(name), schema.index("substrate")).astype(np.uint8)
    stack = Stack(data, "tyx", calibration, "twin")
    config = AnalysisConfig("twin", "", "", "optical", "plan", metrics, objects=ObjectOptions((name,)))
    segmentation = Segmentation(stack, schema)
    tracker = make_tracker(config, stack)
    results = list(measure_frames(segmentation, config, tracker=tracker))
    rows = [row for result in results for row in result.measurements]
    history = History(
        to_table(rows), Scale.of(stack), pd.concat([r.objects for r in results], ignore_index=True),
        None if tracker is None else tracker.finish(), None, (name,),
    )  # fmt: skip
    return rows + measure_over_time(history, config)


RATE_PER_S, SHARE = 0.45, 0.4


def nucleating(rng: np.random.Generator, fault: str) -> list[Trial]:
    """Sites of density N0 of which 40 % are born at once and the others at the rate 0.45/s, over 12 frames of 0.8 s."""
    shape, n_frames, dt_s, density_px = (288, 352), 12, 0.8, 8e-4
    field = np.asarray(shape) * PIXEL_UM
    density = density_px / PIXEL**2
    margin = 12 * PIXEL
    n = rng.poisson(density * np.prod(field + 2 * margin))
    full = np.full(n, 5.5 * PIXEL)
    centers = place_apart(rng, full, np.full(2, -margin), field + margin, gap=2.5 * PIXEL)
    born = np.where(rng.uniform(size=n) < SHARE, 0.05 * dt_s, rng.exponential(1 / RATE_PER_S, n))
    mask_of, masks = FAULTS[fault](rng), []
    for k in range(n_frames):
        age = k * dt_s - born
        radii = np.where(age > 0, np.minimum(3.2 + 0.5 * age, 5.5), 0) * PIXEL
        masks.append(mask_of(disc_level(centers[age > 0], radii[age > 0], shape)))
    groups: dict = {"counting": {}, "cover": {}, "events": {}, "nucleation": {"onset_s": 0.0}}
    rows = measured_series(masks, dt_s, groups)
    end = (n_frames - 1) * dt_s
    to_date = SHARE + (1 - SHARE) * (1 - math.exp(-RATE_PER_S * end))
    mode = only(rows, "nucleation_mode")
    right = mode.method.startswith("mixed")
    return [
        Trial.of(only(rows, "nucleation_density", frame=n_frames - 1), density * to_date * UM2_PER_CM2),
        Trial.of(only(rows, "nucleation_saturation_density"), density * UM2_PER_CM2),
        Trial.of(only(rows, "nucleation_rate_constant"), RATE_PER_S),
        Trial.of(only(rows, "instantaneous_fraction"), SHARE),
        Trial("nucleation_mode (law found)", 1.0, mode.value if math.isnan(mode.value) else float(right), math.nan,
              math.nan, "1"),
    ]  # fmt: skip


def growing(rng: np.random.Generator, fault: str) -> list[Trial]:
    """Eight discs whose areas grow at rates of their own, for 8 frames."""
    shape, n_frames, dt_s = (256, 256), 8, 2.0
    field = np.asarray(shape) * PIXEL_UM
    first = rng.uniform(6, 9, 8) * PIXEL
    rates = rng.uniform(15, 40, 8) * PIXEL**2
    last = np.sqrt(first**2 + rates * (n_frames - 1) * dt_s / math.pi)
    centers = place_apart(rng, last, last.max() + 4 * PIXEL, field - last.max() - 4 * PIXEL, gap=3 * PIXEL)
    mask_of, masks = FAULTS[fault](rng), []
    for k in range(n_frames):
        masks.append(mask_of(disc_level(centers, np.sqrt(first**2 + rates * k * dt_s / math.pi), shape)))
    rows = measured_series(masks, dt_s, {"cover": {}, "events": {}, "growth": {}, "counting": {}})
    return [Trial.of(only(rows, "area_rate", frame=None), float(rates.sum()))]


def advancing(rng: np.random.Generator, fault: str) -> list[Trial]:
    """Ten discs whose radii grow at one velocity of 0.3 to 0.9 px per frame, for 8 frames."""
    shape, n_frames, dt_s = (256, 256), 8, 2.0
    field = np.asarray(shape) * PIXEL_UM
    first = rng.uniform(6, 12, 10) * PIXEL
    velocity = rng.uniform(0.15, 0.45) * PIXEL
    last = first + velocity * (n_frames - 1) * dt_s
    centers = place_apart(rng, last, last.max() + 4 * PIXEL, field - last.max() - 4 * PIXEL, gap=3 * PIXEL)
    mask_of, masks = FAULTS[fault](rng), []
    for k in range(n_frames):
        masks.append(mask_of(disc_level(centers, first + velocity * k * dt_s, shape)))
    rows = measured_series(masks, dt_s, {"cover": {}, "events": {}, "growth": {}, "counting": {}})
    return [Trial.of(only(rows, name, frame=None), velocity) for name in ("front_velocity", "radial_velocity")]


def arranged(rng: np.random.Generator, fault: str) -> list[Trial]:
    """About 80 points at random: their Clark-Evans ratio is 1."""
    window = Window(np.ones((300, 400), bool), PIXEL_UM)
    ratio, low, high = clark_evans(window.uniform(max(rng.poisson(80), 20), rng), window, rng=rng)
    return [Trial("clark_evans_ratio", 1.0, ratio, low, high, "1")]


def enriched(rng: np.random.Generator, fault: str) -> list[Trial]:
    """About 90 points that are two and a half times as dense near the rims of six pits."""
    shape, band, ratio = (300, 400), 6 * PIXEL, 2.5
    field = np.asarray(shape) * PIXEL_UM
    radii = np.full(6, 22 * PIXEL)
    centers = place_apart(rng, radii, radii[0] + band, field - radii[0] - band, gap=2 * band)
    pits = FAULTS[fault](rng)(disc_level(centers, radii, shape))
    trial = rng.uniform(0, field, (4000, 2))
    to_rim = np.min(np.abs(np.hypot(*(trial[:, None] - centers).transpose(2, 0, 1)) - radii), axis=1)
    kept = trial[rng.uniform(size=len(trial)) < np.where(to_rim < band, 1.0, 1 / ratio)][: rng.poisson(90)]
    found = enrichment(
        kept - np.asarray(PIXEL_UM) / 2, pits, np.ones(shape, bool), spacing=PIXEL_UM, band=band, rng=rng
    )  # fmt: skip
    return [Trial("enrichment", ratio, found.ratio, found.low, found.high, "1")]


def study(rng: np.random.Generator, fault: str) -> list[Trial]:
    """Five current densities, three fields each, with and without scatter between fields beyond chance."""
    current = np.repeat(np.geomspace(0.2, 5, 5), 3)
    areas = rng.uniform(0.5, 2, len(current))
    expected = 40 * areas * current**0.7
    found = []
    for scatter in (0.0, 0.25):
        mean = expected * rng.gamma(1 / scatter**2, scatter**2, len(expected)) if scatter else expected
        row = density_current_slope(rng.poisson(mean), areas, current)
        found.append(Trial.of(row, 0.7, "density_current_slope" + (" (fields differ)" if scatter else "")))
    return found
