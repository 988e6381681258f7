"""What a model already knows, kept where few labels say nothing: a pull towards the start on unlabelled pixels.

A stroke tells of a hundred pixels, drawn where its class is plain to see; a network fitted to strokes alone forgets the
rest within a few dozen steps. So on unlabelled pixels the network in training is asked to agree with the one it started
from (learning without forgetting), as far as that one deserves it: strokes it has never seen tell how much.

References
----------
Li and Hoiem, "Learning without forgetting", ECCV 2016.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from training.apply import predict
from training.label_codes import LabelCodes
from training.sources import LabelledImage

logger = logging.getLogger(__name__)

_IMAGES = 12
"""Labelled images at most by which the start is judged."""


class Anchor(nn.Module):
    """Divergence of the network from the one it started from, over unlabelled pixels.

    Parameters
    ----------
    start : nn.Module
        Stays as it is, but for `scales`: it looks at one scale, as the network does in training.
    known : sequence of int
        Outputs the start was trained on. Only the shares among these count: how much of a pixel goes to a class that
        is new is for the labels to say.
    weight : float
    """

    def __init__(self, start: nn.Module, known: Sequence[int], weight: float) -> None:
        super().__init__()
        self.start = start.eval().requires_grad_(False)
        self.start.scales = (1,)
        self.known = list(known)
        self.weight = weight if len(self.known) > 1 else 0.0

    def forward(
        self, images: torch.Tensor, logits: torch.Tensor | list[torch.Tensor], codes: torch.Tensor
    ) -> torch.Tensor:
        """Weighted mean of KL(start || network) over the pixels of code 0; images (B, 1, [Z,] Y, X)."""
        finest = logits if isinstance(logits, torch.Tensor) else logits[0]
        if not self.weight:
            return finest.new_zeros((), dtype=torch.float32)
        with torch.no_grad():
            wanted = functional.log_softmax(self.start(images)[:, self.known].float(), dim=1)
        found = functional.log_softmax(finest[:, self.known].float(), dim=1)
        apart = (wanted.exp() * (wanted - found)).sum(dim=1)  # (B, [Z,] Y, X)
        free = codes == 0
        return self.weight * (apart * free).sum() / free.sum().clamp_min(1)


def trust(
    start: nn.Module, images: Sequence[LabelledImage], codes: LabelCodes, *, device: torch.device, precision: str
) -> float:
    """How well a network names labelled pixels it was not trained on: 1 all of them, 0 no better than chance.

    Parameters
    ----------
    start : nn.Module
    images : sequence of LabelledImage
        Those that are not held out; a dozen of them, spread evenly, are looked at.

    Returns
    -------
    float
        The share named rightly, averaged over classes so that each counts the same, with chance (one by the number of
        outputs) put to 0.
    """
    labelled = [item for item in images if not item.held_out and item.codes.any()]
    spread = np.unique(np.linspace(0, len(labelled) - 1, min(_IMAGES, len(labelled))).round().astype(int))
    right, total = np.zeros(codes.n_codes), np.zeros(codes.n_codes)
    allowed = np.array([[k in codes.members(code) for k in range(codes.n_classes)] for code in range(codes.n_codes)])
    for item in (labelled[i] for i in spread):
        output = predict(start, item.image, device=device, precision=precision)
        hit = allowed[item.codes, output]
        total += np.bincount(item.codes.ravel(), minlength=codes.n_codes)
        right += np.bincount(item.codes.ravel(), weights=hit.ravel(), minlength=codes.n_codes)
    held = total[1:] > 0
    share = float((right[1:][held] / total[1:][held]).mean())
    chance = 1 / codes.n_classes
    return max(0.0, (share - chance) / (1 - chance))


def make_anchor(
    start: nn.Module, known: Sequence[int], strength: float, images: Sequence[LabelledImage], codes: LabelCodes, *,
    device: torch.device, precision: str,
) -> Anchor | None:  # fmt: skip
    """The anchor of strength `strength` times the square of `trust`, or None where that leaves nothing.

    Squared, because strokes lie where classes are plain: a start that names 70 % of them had an IoU of 0.2.
    """
    if not strength:
        return None
    start = copy.deepcopy(start).to(device).eval()
    believed = trust(start, images, codes, device=device, precision=precision)
    logger.info("the start names the labelled pixels with a skill of %.2f (1: all, 0: chance); it is kept to "
                "accordingly where nothing is labelled", believed)  # fmt: skip
    anchor = Anchor(start, known, strength * believed**2)
    return anchor if anchor.weight else None


def freeze_statistics(network: nn.Module) -> None:
    """Let batch normalisations keep the statistics they have, although the network is in training.

    Those of patches around strokes are not those of whole images, to which the model will be applied.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
