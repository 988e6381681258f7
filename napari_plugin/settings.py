"""What the user set for the plugin in napari's preferences, checked; the defaults where napari has no page for them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any

import yaml

PLUGIN = "operandoseg"


@dataclass(frozen=True)
class Settings:
    """The properties of ``configurations`` in ``napari.yaml``, which has their meaning, units and defaults."""

    classes: str
    instrument: str
    predict_after_stroke: bool
    brush_px: int
    autosave_min: int
    trees: int
    depth: int
    pixels: int
    memory_mib: int
    network: str
    training_min: float


def declared() -> dict[str, dict[str, dict[str, Any]]]:
    """Group to property to its declaration, as the manifest says."""
    manifest = yaml.safe_load((files("napari_plugin") / "napari.yaml").read_text(encoding="utf-8"))
    return {name: group["properties"] for name, group in manifest["contributions"]["configurations"].items()}


def load_settings() -> Settings:
    """The settings as they are now."""
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # napari before 0.9
        return settings_of(None)
    try:
        return settings_of(get_plugin_settings(PLUGIN))
    except KeyError:  # the plugin runs without being installed, as in some tests
        return settings_of(None)


def settings_of(stored: Any) -> Settings:
    """Settings from napari's object for them (``stored.forest.trees``); None: all defaults."""
    found = {}
    for group, properties in declared().items():
        mine = getattr(stored, group, None)
        found |= {name: getattr(mine, name, about["default"]) for name, about in properties.items()}
    return Settings(**{field.name: found[field.name] for field in fields(Settings)})
