"""Pictures of all families: ``python -m seg.synthetic.sheet FAMILIES.jpg VARIANTS.jpg``.

The first shows, per family, labels, three settings of the dial and texture only; the second what their options make.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from seg.labels import load_schema
from seg.synthetic import FAMILIES, make_experiment

DIALS = (0.0, 0.5, 1.0)
# Share of the series at which a frame shows most: pits and nuclei together, a front under way, facets before stripping.
MOMENT = {"dendrite": 1.0, "pits": 0.45, "dead": 1.0}
VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("dendrite", {"kind": "needle", "n_trees": 7}),
    ("dendrite", {"kind": "columnar", "n_trees": 12, "width_um": 2.0}),
    ("dendrite", {"kind": "crown", "orders": 4}),
    ("dendrite", {"kind": "fractal"}),
    ("dendrite", {"kind": "moss", "modality": "optical"}),
    ("dendrite", {"moss_um": 4.0, "moss_until": 0.4, "modality": "optical"}),
    ("dendrite", {"seen_from": "above"}),
    ("dendrite", {"kind": "fractal", "seen_from": "above", "modality": "optical"}),
    ("dendrite", {"kind": "rod", "seen_from": "above", "n_trees": 16, "width_um": 2.0, "height_share": 0.4}),
    ("droplet", {"n_droplets": 5, "coalescence": True, "plating_share": 0.9}),
    ("droplet", {"support": "fibre", "facet_diameter_um": 0.06}),
    ("droplet", {"support": "tilted", "facet_diameter_um": 0.06, "inverted": True}),
    ("nucleation", {"mode": "instantaneous", "density_per_cm2": 5e5, "coalescence": "merge"}),
    ("interface", {"waviness_um": 1.5, "n_cracks": 2}),
    ("interface", {"hollowing": 0.5, "dead_share": 0.06, "loss_length_um": 40.0}),
    ("sei", {"shell": "random", "interior": "layered", "gap_deg": 60.0, "n_kinks": 3}),
    ("nucleation", {"mode": "progressive", "foil": 1, "grain_um": 30.0, "boundary_enrichment": 12.0, "bubble": False}),
    ("sei", {"shell": "uniform", "interior": "amorphous", "electrolyte_contrast": 0.03}),
)


def picture(family: str, seed: int = 1, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """A telling frame (of a volume: the section across the interface with most void) and its labels."""
    made = make_experiment(family, seed, **options)
    if made.images.axes == "zyx":
        labels = made.labels.frame(0)
        row = int(np.argmax((labels == 7).sum(axis=(0, 2))))
        return made.images.frame(0)[:, row], labels[:, row]
    frame = round((made.images.n_frames - 1) * MOMENT.get(family, 0.6))
    return made.images.frame(frame), made.labels.frame(frame)


def contact_sheet(tile_px: int = 160) -> np.ndarray:
    """Labels, three dials and texture only, one family per row; uint8, shape (Y, X, 3)."""
    rows = []
    for family in FAMILIES:
        views = [picture(family, dial=dial) for dial in DIALS] + [picture(family, dial=0.3, texture_only=True)]
        rows.append(np.hstack([_tile(views[0][1], tile_px, True), *(_tile(image, tile_px) for image, _ in views)]))
    return np.vstack(rows)


def variants_sheet(tile_px: int = 160) -> np.ndarray:
    """Labels and image of every entry of `VARIANTS`, two to a row; uint8, shape (Y, X, 3)."""
    pairs = []
    for family, options in VARIANTS:
        image, labels = picture(family, **options)
        pairs.append(np.hstack([_tile(labels, tile_px, True), _tile(image, tile_px)]))
    return np.vstack([np.hstack(pairs[k : k + 2]) for k in range(0, len(pairs), 2)])


def _tile(picture: np.ndarray, tile_px: int, is_labels: bool = False) -> np.ndarray:
    """Square of `tile_px`, grey or in the colours of the schema; shape (tile_px, tile_px, 3)."""
    from PIL import Image

    colours = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    for label_class in load_schema("lithium").classes if is_labels else ():
        colours[label_class.index] = label_class.rgb
    return np.asarray(Image.fromarray(colours[picture]).resize((tile_px, tile_px)))


if __name__ == "__main__":
    from PIL import Image

    for path, sheet in zip(sys.argv[1:], (contact_sheet, variants_sheet), strict=False):
        Image.fromarray(sheet()).save(path, optimize=True)
