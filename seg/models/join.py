"""Several finished models as one bundle whose probabilities are their average."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seg.errors import ModelError, UsageError
from seg.models import ARCHITECTURES
from seg.models.bundle import Bundle, save_bundle
from seg.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

MEMBERS_BELOW = "\n---\n"
"""In the card of an ensemble: what stands above is of the ensemble, what stands below of its members."""


def join_bundles(bundles: Sequence[Bundle], path: str | Path) -> Path:
    """Write an ensemble of `bundles` to the folder `path`; it is used like any other model.

    Parameters
    ----------
    bundles : sequence of Bundle
        Two or more for the same classes, normalisation and pixel size, such as the folds of a cross-validation.
    path : str or Path

    Raises
    ------
    ModelError
        Where they differ in what their outputs mean or in what they must be given.
    """
    if len(bundles) < 2:
        raise UsageError("An ensemble needs two models or more.")
    first = bundles[0].spec
    for spec in (b.spec for b in bundles[1:]):
        for what, mine, theirs in (
            ("classes", list(zip(first.class_indices, first.class_names, strict=True)),
             list(zip(spec.class_indices, spec.class_names, strict=True))),
            ("normalisation", first.percentiles, spec.percentiles),
            ("pixel size", first.pixel_size_um, spec.pixel_size_um),
            ("dimensions", first.dims, spec.dims),
        ):  # fmt: skip
            if mine != theirs:
                raise ModelError(f"{first.name!r} and {spec.name!r} cannot be joined: {what} {mine} and {theirs}.")
    members = [_members(b.spec) for b in bundles]
    arguments = {"n_classes": len(first.class_indices), "members": [m for part in members for m in part]}
    network = ARCHITECTURES["ensemble"](**arguments)
    trained = [
        (member, bundle.spec)
        for bundle in bundles
        for member in (bundle.network.members if bundle.spec.architecture == "ensemble" else [bundle.network])
    ]
    for member, (weights, spec) in zip(network.members, trained, strict=True):
        member.load_state_dict(weights.state_dict())
        _temper(member, spec)
    ranges = [b.spec.pixel_size_range_um for b in bundles]
    known = [r for r in ranges if r is not None]
    name = Path(path).name
    spec = ModelSpec(
        name=name,
        architecture="ensemble",
        arguments=arguments,
        schema=first.schema,
        class_indices=first.class_indices,
        dims=first.dims,
        modalities=tuple(sorted({m for b in bundles for m in b.spec.modalities})),
        pixel_size_um=first.pixel_size_um,
        pixel_size_range_um=(max(r[0] for r in known), min(r[1] for r in known)) if len(known) == len(ranges) else None,
        normalisation=first.normalisation,
        licence=first.licence,
        slices=first.slices,
        views=tuple(sorted({v for b in bundles for v in b.spec.views})) if all(b.spec.views for b in bundles) else (),
        training={
            "members": [
                {"name": b.spec.name, "weights_sha256": b.weights_sha256, "training": dict(b.spec.training)}
                for b in bundles
            ]
        },
    )
    return save_bundle(path, network, spec, _card(name, bundles), seed=0)


def _temper(network: nn.Module, spec: ModelSpec) -> None:
    """Put the temperature of a model into its last layer: what is averaged are its calibrated probabilities."""
    import torch

    if spec.temperature == 1:
        return
    if spec.architecture == "ensemble":
        raise ModelError(f"{spec.name!r} is an ensemble with a temperature of its own; join its members instead.")
    with torch.no_grad():
        network.head.weight /= spec.temperature
        network.head.bias /= spec.temperature


def _members(spec: ModelSpec) -> list[dict]:
    """Architecture and arguments of the networks of a model, without the number of classes they share."""
    if spec.architecture == "ensemble":
        return [dict(member) for member in spec.arguments["members"]]
    arguments = {key: value for key, value in spec.arguments.items() if key != "n_classes"}
    return [{"architecture": spec.architecture, **arguments}]


def _card(name: str, bundles: Sequence[Bundle]) -> str:
    listed = "\n".join(f"- {b.spec.name} (weights {b.weights_sha256[:16]})" for b in bundles)
    cards = f"\n{MEMBERS_BELOW}\n".join(b.card.strip() for b in bundles)
    return (
        f"# {name}: ensemble of {len(bundles)} models\n\nClass probabilities are averaged.\n\n{listed}\n\n"
        "No score below is of the ensemble: each is of one member on what that member held out. Members of a "
        "cross-validation held out different specimens, so together they have seen all of them; score the ensemble on "
        "others with `operandoseg evaluate`.\n\n"
        "Members are calibrated, but their average is right more often than it says. `python -m training.assessment "
        "--model DIR --out OUT --into-card TEXT` on labelled specimens that no member has seen fits a temperature of "
        f"the ensemble's own and puts its scores here.\n{MEMBERS_BELOW}\n{cards}\n"
    )
