from importlib import import_module
from inspect import signature

import numpy as np

from seg.synthetic import FAMILIES, sheet


def test_contact_sheet(monkeypatch):
    """One row per family, five tiles wide; families stand in for each other here to keep it short."""
    made = {name: (np.full((20, 30), 9, np.uint8), np.full((20, 30), 2, np.uint8)) for name in FAMILIES}
    monkeypatch.setattr(sheet, "picture", lambda family, **_: made[family])
    drawn = sheet.contact_sheet(tile_px=16)
    assert drawn.shape == (16 * len(FAMILIES), 16 * 5, 3)
    np.testing.assert_array_equal(drawn[0, 0], [0x8C, 0x8C, 0x8C])
    np.testing.assert_array_equal(drawn[0, 20], [9, 9, 9])
    variants = sheet.variants_sheet(tile_px=16)
    assert variants.shape == (16 * len(sheet.VARIANTS) // 2, 16 * 4, 3)


def test_variants_name_families_and_options():
    for family, options in sheet.VARIANTS:
        assert set(options) <= set(signature(import_module(f"seg.synthetic.{family}").make).parameters)


def test_pictures_of_images_and_volumes():
    for family in ("sei", "interface"):
        image, labels = sheet.picture(family, dial=0.0)
        assert image.ndim == 2
        assert image.shape == labels.shape
