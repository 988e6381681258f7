"""All families at three settings of the dial, and texture only: ``python -m seg.synthetic.sheet OUT.png``."""

from __future__ import annotations

import sys

import numpy as np

from seg.labels import load_schema
from seg.synthetic import FAMILIES, make_experiment

DIALS = (0.0, 0.5, 1.0)


def picture(family: str, *, dial: float, texture_only: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A late frame (of a volume: the section across the interface with most void) and its labels."""
    made = make_experiment(family, 1, dial=dial, texture_only=texture_only)
    if made.images.axes == "zyx":
        labels = made.labels.frame(0)
        row = int(np.argmax((labels == 7).sum(axis=(0, 2))))
        return made.images.frame(0)[:, row], labels[:, row]
    frame = made.images.n_frames * 6 // 10
    return made.images.frame(frame), made.labels.frame(frame)


def contact_sheet(tile_px: int = 160) -> np.ndarray:
    """Labels, three dials and texture only, one family per row; uint8, shape (Y, X, 3)."""
    from PIL import Image

    colours = np.zeros((256, 3), np.uint8)
    for label_class in load_schema("lithium").classes:
        colours[label_class.index] = label_class.rgb
    rows = []
    for family in FAMILIES:
        views = [picture(family, dial=dial) for dial in DIALS] + [picture(family, dial=0.3, texture_only=True)]
        tiles = [colours[views[0][1]], *(np.repeat(image[..., None], 3, axis=2) for image, _ in views)]
        rows.append(np.hstack([np.asarray(Image.fromarray(t).resize((tile_px, tile_px))) for t in tiles]))
    return np.vstack(rows)


if __name__ == "__main__":
    from PIL import Image

    Image.fromarray(contact_sheet()).save(sys.argv[1], optimize=True)
