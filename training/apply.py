"""A network in training, applied by the engine that will apply the finished model: tiles, halos, blending and all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from seg.inference import predict_probabilities, segment
from seg.models.bundle import Bundle
from seg.models.spec import ModelSpec
from seg.preprocess import SeriesNormalisation
from seg.runner import InferenceSettings
from seg.stack import Stack

AS_IT_IS = SeriesNormalisation(0.0, 1.0)


def predict(network: nn.Module, image: np.ndarray, *, device: torch.device, precision: str) -> np.ndarray:
    """Network output of highest probability per pixel of a normalised image or volume ([Z,] Y, X)."""
    bundle, settings = _as_bundle(network), InferenceSettings(device=str(device), precision=precision)
    stack = Stack(image.astype(np.float32), "zyx"[-image.ndim :], name="held-out image")
    slabs = list(segment(stack, bundle, settings=settings, normalisation=AS_IT_IS))
    if image.ndim == 2:
        return slabs[0].labels.astype(np.int64) - 1
    return np.concatenate([slab.labels for slab in sorted(slabs, key=lambda s: s.z_start)]).astype(np.int64) - 1


def probabilities(network: nn.Module, image: np.ndarray, *, device: torch.device, precision: str) -> np.ndarray:
    """Class probabilities (K, [Z,] Y, X), float32, of a normalised image or volume ([Z,] Y, X)."""
    settings = InferenceSettings(device=str(device), precision=precision)
    return predict_probabilities(_as_bundle(network), image.astype(np.float32), settings, normalisation=AS_IT_IS)


def _as_bundle(network: nn.Module) -> Bundle:
    """The network as the engine takes it; its outputs are numbered from 1."""
    outputs = range(1, network.n_classes + 1)
    schema = {"name": "outputs", "classes": [{"index": k, "name": f"output {k}"} for k in outputs]}
    spec = ModelSpec("in training", "unet", {"n_classes": network.n_classes}, schema, tuple(outputs), dims=network.dims)
    return Bundle(spec, network, Path(), "", "")
