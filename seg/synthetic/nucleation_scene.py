"""Nuclei on a foil over time: where they lie, when they start, how they grow and meet, and the truth that follows.

Everything here is known without the pixels of the images. In terms of the growth coordinate G (see `Nuclei`), every
point is reached at an explicit moment; the nucleus that comes first keeps it.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from seg.errors import UsageError
from seg.metrics.table import UM2_PER_CM2, Measurement
from seg.synthetic.area import circle, mask_rectangles, union_area
from seg.synthetic.burnt_in import scale_bar, time_stamp
from seg.synthetic.cycler import UM_PER_MAH_CM2
from seg.synthetic.foil import grain_seeds, open_sites
from seg.synthetic.nuclei import FIRST_RADIUS_UM, Nuclei

LARGEST_VELOCITY_UM_S = 0.03  # before nuclei can take up the charge, the rest of it builds SEI
_BAND_ROWS = 1024  # of the grid for truth that are in memory at once


class Scene:
    """Nuclei, their growth and everything that follows from both without a pixel of the images."""

    def __init__(self, seed: int, parameters: dict, times: np.ndarray) -> None:
        self.p, self.times = parameters, times
        self.shape, self.pixel = parameters["shape_px"], np.asarray(parameters["pixel_um"])
        self.field = tuple(np.asarray(self.shape) * self.pixel)  # µm
        rng = np.random.default_rng([seed, 1])
        j = parameters["jitter_px"]
        self.shifts = np.zeros((len(times), 2), int)
        self.shifts[1:] = rng.integers(-j, j + 1, (len(times) - 1, 2)) if j else 0
        sites, self.grain_seeds = self._sites(rng)
        self.nuclei, self.clock, self.growth_of_time = self._grow(rng, sites)
        self.growth = np.interp(times, self.clock, self.growth_of_time)
        self._bubble(np.random.default_rng([seed, 2]))
        self._arrival()

    # Sites and growth

    def _margin(self) -> float:
        thickness = UM_PER_MAH_CM2 * self.p["current_density_mA_cm2"] * self.times[-1] / 3600
        radius = (thickness * UM2_PER_CM2 / self._density() * 1.5 / math.pi) ** (1 / 3) if thickness > 0 else 1.0
        return 2.0 * radius + self.p["jitter_px"] * float(self.pixel.max())

    def _density(self) -> float:
        return self.p["density_per_cm2"] * self.p["current_density_mA_cm2"] ** self.p["density_exponent"]

    def _sites(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Sites with the asked mean density, denser along grain boundaries."""
        margin = self._margin()
        low, high = np.full(2, -margin), np.asarray(self.field) + margin
        if self.p["foil"] is not None:
            return self._sites_of_foil(low, high)
        grain = self.p["grain_um"]
        n_grains = max(4, round(float(np.prod((high - low) / grain + 2))))
        seeds = rng.uniform(low - grain, high + grain, (n_grains, 2))
        self.padded = (low, high)
        enrichment, width = self.p["boundary_enrichment"], self.p["boundary_width_um"]
        trial = rng.uniform(low, high, (20_000, 2))
        near = self.to_boundary(seeds, trial) < width
        share = float(near.mean())
        mean_weight = (1 + (enrichment - 1) * share) / max(enrichment, 1.0)
        wanted = rng.poisson(self._density() / UM2_PER_CM2 * float(np.prod(high - low)))
        # Poisson number of sites, placed one after the other where the density and the spacing let them.
        points = rng.uniform(low, high, (int(60 * (wanted + 20) / mean_weight), 2))
        weight = np.where(self.to_boundary(seeds, points) < width, enrichment, 1.0) / max(enrichment, 1.0)
        points = points[rng.uniform(size=len(points)) < weight]
        if self.p["spacing_um"] <= 0:
            return points[:wanted], seeds
        kept = np.empty((0, 2))
        for point in points:
            if len(kept) == wanted:
                return kept, seeds
            if not len(kept) or np.min(np.sum((kept - point) ** 2, axis=1)) >= self.p["spacing_um"] ** 2:
                kept = np.vstack([kept, point])
        raise UsageError(
            f"{wanted} sites do not fit at {self.p['spacing_um']:g} um from each other; "
            "make spacing_um or density_per_cm2 smaller."
        )

    def _sites_of_foil(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sites and grains that only depend on the foil; the current density decides which sites are open."""
        p, foil = self.p, self.p["foil"]
        self.padded = (low, high)
        # A region of its own, so that the mean weight is a property of the foil.
        corner = np.full(2, 12 * p["grain_um"])
        trial = np.random.default_rng([foil, 73]).uniform(0, corner, (20_000, 2))
        seeds = grain_seeds(foil, np.zeros(2), corner, p["grain_um"])
        share = float((self.to_boundary(seeds, trial) < p["boundary_width_um"]).mean())
        seeds = grain_seeds(foil, low, high, p["grain_um"])
        mean = 1 + (p["boundary_enrichment"] - 1) * share

        def weight(points: np.ndarray) -> np.ndarray:
            near = self.to_boundary(seeds, points) < p["boundary_width_um"]
            return np.where(near, p["boundary_enrichment"], 1.0) / mean

        most = max(p["boundary_enrichment"], 1.0) / mean
        unit = p["density_per_cm2"] / UM2_PER_CM2
        return open_sites(foil, low, high, self._density() / UM2_PER_CM2, unit, weight, most), seeds

    @staticmethod
    def to_boundary(seeds: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Distance of points to the nearest Voronoi edge."""
        if not len(points):
            return np.zeros(0)
        near, index = KDTree(seeds).query(points, k=4)
        gap = np.linalg.norm(seeds[index[:, 1:]] - seeds[index[:, :1]], axis=2)
        return ((near[:, 1:] ** 2 - near[:, :1] ** 2) / (2 * gap)).min(axis=1)

    def _grow(self, rng: np.random.Generator, sites: np.ndarray) -> tuple[Nuclei, np.ndarray, np.ndarray]:
        n = len(sites)
        p = self.p
        waiting = rng.exponential(1 / p["rate_constant_per_s"], n)
        at_once = rng.uniform(0, 0.02 * max(self.times[-1], 1.0), n)
        share = {"instantaneous": 1.0, "progressive": 0.0, "mixed": p["instantaneous_fraction"]}[p["mode"]]
        birth = np.where(rng.uniform(size=n) < share, at_once, waiting)
        order = np.argsort(birth)
        sites, birth = sites[order], birth[order]
        activity = np.exp(rng.normal(0, p["activity_spread"], n))
        k = np.arange(2, 8)
        harmonics = 0.075 / k**1.2 * (rng.normal(size=(n, 6)) + 1j * rng.normal(size=(n, 6)))
        harmonics *= np.minimum(1, 0.35 / np.maximum(np.abs(harmonics).sum(axis=1, keepdims=True), 1e-9))
        all_sites = Nuclei(sites, birth, np.zeros(n), activity, harmonics)

        end = max(float(self.times[-1]), 1e-6)
        clock = np.linspace(0, end, max(600, 12 * len(self.times)))
        volume_rate = (
            UM_PER_MAH_CM2 * p["current_density_mA_cm2"] / 3600 * float(np.prod(self.padded[1] - self.padded[0]))
        )
        growth = np.zeros(len(clock))
        alive: list[int] = []
        following = 0
        born = all_sites.birth_growth  # filled as sites are born
        for step in range(1, len(clock)):
            while following < n and birth[following] <= clock[step]:
                if not self._covered(all_sites, alive, sites[following], growth[step - 1]):
                    born[following] = growth[step - 1]
                    alive.append(following)
                following += 1
            which = np.asarray(alive, int)
            surface = float(np.sum(activity[which] * 2 * math.pi * all_sites.radius(growth[step - 1], which) ** 2))
            velocity = min(volume_rate / surface, LARGEST_VELOCITY_UM_S) if surface > 0 else 0.0
            growth[step] = growth[step - 1] + velocity * (clock[step] - clock[step - 1])
        which = np.asarray(alive, int)
        parts = (
            getattr(all_sites, name)[which] for name in ("position", "birth_s", "birth_growth", "activity", "harmonics")
        )
        return Nuclei(*parts), clock, growth

    @staticmethod
    def _covered(nuclei: Nuclei, alive: list[int], point: np.ndarray, growth: float) -> bool:
        if not alive:
            return False
        which = np.asarray(alive, int)
        away = point - nuclei.position[which]
        distance, radius = np.hypot(*away.T), nuclei.radius(growth, which)
        for index, d, r, (dy, dx) in zip(which, distance, radius, away, strict=True):
            if d < 1.6 * r and d < r * nuclei.shape_factor(index, np.array(math.atan2(dy, dx))):
                return True
        return False

    # Pixels

    def arrival(
        self, low_px: np.ndarray, high_px: np.ndarray, per_px: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """When (in G) each point of a grid is reached, by which nucleus (-1: none by the end), and how fast there.

        The grid has `per_px` points along each axis of a pixel and spans pixels `low_px` to `high_px` (exclusive).
        """
        step = self.pixel / per_px
        origin = low_px * self.pixel + step / 2
        shape = tuple(((high_px - low_px) * per_px).tolist())
        reached = np.full(shape, np.inf)
        owner = np.full(shape, -1, np.int32)
        speed = np.ones(shape)
        nuclei, last = self.nuclei, self.growth_of_time[-1]
        reach = nuclei.radius(last) * 1.4 + 2 * float(self.pixel.max())
        for i in range(len(nuclei)):
            a = np.clip(np.floor((nuclei.position[i] - reach[i] - origin) / step).astype(int), 0, shape)
            b = np.clip(np.ceil((nuclei.position[i] + reach[i] - origin) / step).astype(int) + 1, 0, shape)
            if (b <= a).any():
                continue
            box = (slice(a[0], b[0]), slice(a[1], b[1]))
            dy = (origin[0] + np.arange(a[0], b[0]) * step[0] - nuclei.position[i, 0])[:, None]
            dx = (origin[1] + np.arange(a[1], b[1]) * step[1] - nuclei.position[i, 1])[None]
            factor = nuclei.shape_factor(i, np.arctan2(dy, dx))
            when = nuclei.birth_growth[i] + (np.hypot(dy, dx) / factor - FIRST_RADIUS_UM) / nuclei.activity[i]
            when = np.maximum(when, nuclei.birth_growth[i])
            first = when < reached[box]
            reached[box][first] = when[first]
            owner[box][first] = i
            speed[box][first] = (nuclei.activity[i] * factor)[first]
        return reached, owner, speed

    def _arrival(self) -> None:
        """Territories and contacts, at two points per pixel and with a margin, so that whole territories are seen."""
        low = np.floor(self.padded[0] / self.pixel).astype(int)
        high = np.ceil(self.padded[1] / self.pixel).astype(int)
        n, frames = len(self.nuclei), len(self.times)
        counts = np.zeros((n, frames + 1), np.int64)
        meetings: list[pd.DataFrame] = []
        for top in range(int(low[0]), int(high[0]), _BAND_ROWS // 2):
            # One row more than belongs to the band, for contacts with the next.
            bottom = min(top + _BAND_ROWS // 2 + 1, int(high[0]))
            reached, owner, _ = self.arrival(np.array([top, low[1]]), np.array([bottom, high[1]]), 2)
            meetings.append(self._meetings(reached, owner))
            reached, owner = reached[:_BAND_ROWS], owner[:_BAND_ROWS]
            # The moment counts, not the pixel: what is reached between two frames belongs to the later one.
            mine = owner >= 0
            frame = np.searchsorted(self.growth, reached[mine])  # first frame that shows the point
            counts += np.bincount(owner[mine].astype(np.int64) * (frames + 1) + frame, minlength=counts.size).reshape(
                counts.shape
            )
        self.territory_um2 = np.cumsum(counts[:, :-1], axis=1) * float(np.prod(self.pixel)) / 4
        table = pd.concat(meetings).groupby(["first", "second"], as_index=False)["growth"].min()
        table = table[table["growth"] <= self.growth_of_time[-1]].astype({"first": int, "second": int})
        table["time_s"] = np.interp(table["growth"], self.growth_of_time, self.clock)
        self.contacts = table.sort_values(["time_s", "first", "second"], ignore_index=True)

    @staticmethod
    def _meetings(reached: np.ndarray, owner: np.ndarray) -> pd.DataFrame:
        """First G at which two nuclei touch in a grid, within a quarter of a pixel of growth."""
        found = []
        for axis in (0, 1):
            a, b = np.moveaxis(owner, axis, 0)[:-1], np.moveaxis(owner, axis, 0)[1:]
            ga, gb = np.moveaxis(reached, axis, 0)[:-1], np.moveaxis(reached, axis, 0)[1:]
            meet = (a != b) & (a >= 0) & (b >= 0)
            found.append(np.column_stack([np.minimum(a, b)[meet], np.maximum(a, b)[meet], np.maximum(ga, gb)[meet]]))
        table = pd.DataFrame(np.concatenate(found), columns=["first", "second", "growth"])
        return table.groupby(["first", "second"], as_index=False)["growth"].min()

    # Artefacts

    def _bubble(self, rng: np.random.Generator) -> None:
        n = len(self.times)
        self.bubble_um = np.zeros((n, 3))  # y, x, radius
        if not self.p["bubble"] or n < 3:
            return
        start = int(0.55 * n)
        center = rng.uniform(0.25, 0.75, 2) * self.field
        final = 0.09 * min(self.field)
        for f in range(start, n):
            age = (f - start + 1) / max(n - start, 1)
            self.bubble_um[f] = (*(center + 0.04 * np.asarray(self.field) * age), final * age ** (1 / 3))

    def bubble_outline(self, frame: int) -> np.ndarray | None:
        """Polygon of the bubble, in the coordinates of the frame."""
        y, x, r = self.bubble_um[frame]
        if r <= 0:
            return None
        return circle(y, x, r, 512)

    def text(self, frame: int) -> np.ndarray:
        """Burnt-in pixels."""
        if not self.p["burnt_in"]:
            return np.zeros(self.shape, bool)
        return scale_bar(self.shape, self.pixel[1]) | time_stamp(self.shape, float(self.times[frame]))

    def artifacts(self, frame: int) -> list[np.ndarray]:
        """Everything that hides the scene, as polygons (µm) in the coordinates of the frame."""
        bubble = self.bubble_outline(frame)
        return mask_rectangles(self.text(frame), self.pixel) + ([bubble] if bubble is not None else [])

    def offset_um(self, frame: int) -> np.ndarray:
        """Position of the frame's corner in the scene."""
        return self.shifts[frame] * self.pixel

    # Truth

    def clusters(self, frame: int) -> np.ndarray:
        """For each nucleus the oldest nucleus it has merged with (itself where nuclei keep apart)."""
        oldest = np.arange(len(self.nuclei))
        if self.p["coalescence"] == "merge":
            joined = self.contacts[self.contacts["growth"] <= self.growth[frame]]
            for a, b in zip(joined["first"], joined["second"], strict=True):
                low, high = sorted((oldest[a], oldest[b]))
                oldest[oldest == high] = low
        return oldest

    def truth(self) -> list[Measurement]:
        """Rows for every frame, and for the series."""
        rows: list[Measurement] = []
        area = math.prod(self.field)
        alive_at = [self.nuclei.birth_s <= t for t in self.times]
        covered = np.zeros(len(self.times))
        # A whole number of scan lines per pixel: text and bar, which follow the pixels, are exact.
        lines = self.shape[0] * math.ceil(4096 / self.shape[0])
        for f, time_s in enumerate(self.times):
            offset = self.offset_um(f)
            hidden = self.artifacts(f)
            blind = union_area(hidden, self.field, lines=lines)
            outlines = [self.nuclei.outline(i, self.growth[f]) - offset for i in np.flatnonzero(alive_at[f])]
            covered[f] = union_area(outlines + hidden, self.field, lines=lines) - blind
            place = self.nuclei.position - offset
            inside = ((place >= 0) & (place < self.field)).all(axis=1)
            pixel = np.clip((place / self.pixel).astype(int), 0, np.asarray(self.shape) - 1)
            inside &= ~self.text(f)[pixel[:, 0], pixel[:, 1]]
            y, x, r = self.bubble_um[f]
            inside &= np.hypot(place[:, 0] - y, place[:, 1] - x) >= r
            oldest = self.clusters(f)
            heads = alive_at[f] & inside & (oldest == np.arange(len(oldest)))
            sizes = np.bincount(oldest[alive_at[f]], self.territory_um2[alive_at[f], f], minlength=len(oldest))[heads]

            def row(
                metric: str, value: float, unit: str, method: str, n: int | None = None, f: int = f, t: float = time_s
            ) -> None:
                rows.append(
                    Measurement(
                        metric, float(value), unit, class_name="deposit", frame=f, time_s=float(t), n=n, method=method
                    )
                )

            count, births = int(heads.sum()), int((alive_at[f] & inside).sum())
            row("object_count", count, "1", "first site of the object lies in the valid area", count)
            row("areal_density", count / (area - blind) * UM2_PER_CM2, "1/cm2", "first sites in the valid area", count)
            row("nucleation_density", births / (area - blind) * UM2_PER_CM2, "1/cm2", "sites born to date", births)
            row("valid_area", area - blind, "um2", "field less artefacts, scan lines")
            row("covered_area", covered[f], "um2", "union of outlines less artefacts, scan lines")
            row("covered_fraction", covered[f] / (area - blind), "1", "union of outlines less artefacts, scan lines")
            if count:
                row(
                    "mean_equivalent_diameter",
                    np.mean(2 * np.sqrt(sizes / math.pi)),
                    "um",
                    "mean over objects whose first site lies in the valid area; territories at two points per pixel",
                    count,
                )
            if f:
                rate = (covered[f] - covered[f - 1]) / (self.times[f] - self.times[f - 1])
                row("area_rate", rate, "um2/s", "difference to the frame before")
        return rows + self._series_truth()

    @property
    def law(self) -> str:
        """Law that the births follow, in the words of the metric.

        Sites without burst nucleate at one rate constant A each while they are bare: N0 (1 - exp(-A t)). That is the
        progressive law while A t is small, and saturates after.
        """
        saturates = self.p["rate_constant_per_s"] * self.times[-1] > 0.5
        return "saturating" if self.p["mode"] == "progressive" and saturates else str(self.p["mode"])

    def _series_truth(self) -> list[Measurement]:
        p = self.p
        share = {"instantaneous": 1.0, "progressive": 0.0, "mixed": p["instantaneous_fraction"]}[p["mode"]]
        density = self._density()
        rows = [
            Measurement("nucleation_mode", 1.0, "1", class_name="deposit", method=self.law),
            Measurement("instantaneous_fraction", share, "1", class_name="deposit", method="parameter"),
            Measurement(
                "nucleation_saturation_density", density, "1/cm2", class_name="deposit", method="mean site density"
            ),
            Measurement("density_current_slope", p["density_exponent"], "1", class_name="deposit", method="parameter"),
            Measurement("enrichment", p["boundary_enrichment"], "1", class_name="deposit", method="grain boundary"),
        ]
        if share < 1:
            rows.append(
                Measurement(
                    "nucleation_rate_constant",
                    p["rate_constant_per_s"],
                    "1/s",
                    class_name="deposit",
                    method="parameter",
                )
            )
        inside = ((self.nuclei.position >= 0) & (self.nuclei.position < self.field)).all(axis=1)
        born = int((inside & (self.nuclei.birth_s <= self.times[-1])).sum())
        rows.append(Measurement("birth_count", born, "1", class_name="deposit", n=born, method="sites in the field"))
        return rows

    def lineage(self) -> pd.DataFrame:
        """One row per nucleus that the padded field ever holds; ``merged_into`` where nuclei merge."""
        n = len(self.nuclei)
        table = pd.DataFrame({"object_id": np.arange(1, n + 1), "birth_s": self.nuclei.birth_s})
        table["death_s"], table["merged_into"] = math.nan, pd.array([pd.NA] * n, dtype="Int64")
        if self.p["coalescence"] == "merge":
            oldest = np.arange(n)
            for a, b, t in zip(self.contacts["first"], self.contacts["second"], self.contacts["time_s"], strict=True):
                low, high = sorted((oldest[a], oldest[b]))
                if low != high:
                    table.loc[high, ["death_s", "merged_into"]] = [t, low + 1]
                    oldest[oldest == high] = low
        table["y_um"], table["x_um"] = self.nuclei.position.T
        table["in_field"] = ((self.nuclei.position >= 0) & (self.nuclei.position < self.field)).all(axis=1)
        return table
