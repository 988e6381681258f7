"""How far the numbers are from the truth, and how often their intervals hold it.

``python -m seg.accuracy --out DIR`` draws hundreds of small twins with exact truth, damages their masks in the ways
that segmentation does (`seg.accuracy.faults`), measures them and writes ``accuracy.csv`` and ``accuracy.md`` after
every scene. The same command goes on with the scenes that the table lacks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pandas as pd

from seg.accuracy import bodies, paths, plan, profile, series_of_pits
from seg.accuracy.faults import FAULTS
from seg.accuracy.trials import Scene, as_markdown, run_scene

__all__ = ["FAULTS", "SCENES", "Scene", "as_markdown", "n_twins", "run", "run_scene"]

_ALL = tuple(FAULTS)
_NONE = ("exact",)

SCENES: dict[str, Scene] = {
    scene.name: scene
    for scene in (
        Scene("discs", plan.scattered, 100, _ALL),
        Scene("discs in families", plan.clustered, 200, _NONE),
        Scene("nucleation", plan.nucleating, 40, _ALL),
        Scene("constant area rates", plan.growing, 50, _ALL),
        Scene("constant velocity", plan.advancing, 50, _ALL),
        Scene("points at random", plan.arranged, 400, _NONE),
        Scene("points at rims", plan.enriched, 60, _ALL),
        Scene("study of five currents", plan.study, 400, _NONE),
        Scene("cap on a line", profile.on_line, 100, _ALL),
        Scene("cap on a fibre", profile.on_fibre, 100, _ALL),
        Scene("ball on a plane", bodies.ball_on_plane, 60, _ALL),
        Scene("voids under a separator", bodies.voided, 60, _ALL),
        Scene("core and shell", bodies.shelled, 100, _ALL),
        Scene("rough layer", bodies.rough_layer, 60, _ALL),
        Scene("metal cut off", bodies.cut_off, 60, _ALL),
        Scene("combs", bodies.ramified, 30, _ALL),
        Scene("forks", paths.forked, 40, _ALL),
        Scene("filaments in a separator", paths.penetrating, 60, _ALL),
        Scene("pits that grow", series_of_pits.growing_pits, 40, _ALL),
        Scene("plated and stripped", bodies.plated_and_stripped, 40, _ALL),
        Scene("around grains", paths.around_grains, 60, _ALL),
    )
}


def run(
    *, share: float = 1.0, seed: int = 0, names: tuple[str, ...] = (), done: Collection[tuple[str, str]] = ()
) -> Iterator[pd.DataFrame]:
    """Run all scenes, or those named, with this share of their twins; yields a table per scene and kind of masks.

    Pairs of scene and masks that are `done` are left out.
    """
    for scene in SCENES.values():
        if names and scene.name not in names:
            continue
        for fault in scene.faults:
            if (scene.name, fault) in done:
                continue
            yield run_scene(scene, fault, twins=n_twins(scene, share), seed=seed)


def n_twins(scene: Scene, share: float) -> int:
    """How many twins of a scene, for each kind of masks, this share of a full run makes."""
    return max(2, round(scene.twins * share))
