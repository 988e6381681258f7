"""What a model already knows, kept where few labels say nothing, as far as the labels bear it out.

A stroke tells of a hundred pixels, drawn where its class is plain to see; a network fitted to strokes alone forgets the
rest within a few dozen steps. So on unlabelled pixels it is asked to agree with the model it started from (learning
without forgetting), class by class as far as that one names the strokes rightly, which it has never seen; and for the
rest with a forest fitted to the strokes on filtered intensities and the network's own features (pseudo-labels).

References
----------
Li and Hoiem, "Learning without forgetting", ECCV 2016. Lee, "Pseudo-label", ICML workshop 2013. Wortsman et al.,
"Robust fine-tuning of zero-shot models", CVPR 2022 (weights between the start and the end).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional

from seg.errors import UsageError
from training.apply import predict
from training.config import LossConfig
from training.guesses import GUESSED, guess
from training.label_codes import LabelCodes
from training.losses import MaskedLoss
from training.second_image import SPARSE
from training.sources import LabelledImage

logger = logging.getLogger(__name__)

_IMAGES = 12
"""Labelled images at most by which the start is judged."""

_SHARPNESS = 4
"""Power of the trust: strokes lie where classes are plain, so a start that names 70 % of them had an IoU of 0.2."""


_OWN_WORD = 2
"""Strokes of each class that weigh as much as this: a model was made for images of this modality and no other, and its
card says how well it does on specimens that it never saw. One stroke falls where it falls: on open SEM images of
dendrites, where the IoU of `sem-2d` is 0.64, the only dendrite stroke fell on what it misses; taken for the whole
truth, that made it 0.38, 0.45 and 0.45 (three seeds), with this 0.65, 0.68 and 0.60."""


@dataclass(frozen=True)
class Trust:
    """How far a network is borne out by labels it was not trained on; 1 fully, 0 no better than chance.

    Parameters
    ----------
    overall : float
        Share of labelled pixels named rightly, each label counting the same.
    per_output : ndarray of float, shape (K,)
        Of what is given each name, the share that bears it; 0 for names never given.
    """

    overall: float
    per_output: np.ndarray


def judge(
    start: nn.Module, images: Sequence[LabelledImage], codes: LabelCodes, *, device: torch.device, precision: str
) -> Trust:
    """Compare a network with the labels of a dozen images, spread evenly, that are not held out."""
    labelled = [item for item in images if not item.held_out and item.codes.any()]
    spread = np.unique(np.linspace(0, len(labelled) - 1, min(_IMAGES, len(labelled))).round().astype(int))
    said = np.zeros((codes.n_codes, codes.n_classes))
    for item in (labelled[i] for i in spread):
        output = predict(start, item.image, device=device, precision=precision)
        place = np.flatnonzero(item.codes)
        np.add.at(said, (item.codes.ravel()[place], output.ravel()[place]), 1)
    shares = said[1:] / np.maximum(said[1:].sum(axis=1, keepdims=True), 1)  # (codes - 1, K): each label sums to 1
    allowed = np.array([[k in codes.members(c) for k in range(codes.n_classes)] for c in range(1, codes.n_codes)])
    held = said[1:].any(axis=1)
    given = shares.sum(axis=0)
    rightly = np.divide((shares * allowed).sum(axis=0), given, out=np.zeros(codes.n_classes), where=given > 0)
    chance = 1 / codes.n_classes
    overall, per_output = (
        np.clip((x - chance) / (1 - chance), 0, 1) for x in ((shares * allowed).sum(axis=1)[held].mean(), rightly)
    )
    return Trust(float(overall), per_output)


class Anchor(nn.Module):
    """Pull of unlabelled pixels towards what the start says of them, and the guesses where it is not to be trusted.

    Parameters
    ----------
    start : nn.Module
        Stays as it is, but for `scales`: it looks at one scale, as the network does in training.
    known : sequence of int
        Outputs the start was trained on. Only the shares among these count: how much of a pixel goes to a class that
        is new is for labels and guesses to say.
    trusted : sequence of float
        Of every output of the start, 0 to 1.
    strength : float
    codes : LabelCodes
    """

    def __init__(
        self, start: nn.Module, known: Sequence[int], trusted: Sequence[float], strength: float, codes: LabelCodes
    ) -> None:
        super().__init__()
        self.start = start.eval().requires_grad_(False)
        self.start.scales = (1,)
        self.known, self.strength = list(known), strength
        self.register_buffer("trusted", torch.tensor([float(trusted[k]) for k in known]))
        self.loss_of_guess = MaskedLoss(codes, LossConfig(cross_entropy=1.0, dice=0.0))

    def forward(
        self, images: torch.Tensor, logits: torch.Tensor | list[torch.Tensor], codes: torch.Tensor
    ) -> torch.Tensor:
        """Loss of images (B, 1, [Z,] Y, X) over the pixels of code 0 and of codes from `GUESSED` on."""
        finest = (logits if isinstance(logits, torch.Tensor) else logits[0]).float()
        free = (codes == 0) | (codes >= GUESSED)
        n = free.sum().clamp_min(1)
        guesses = torch.where(codes >= GUESSED, codes - GUESSED, torch.zeros_like(codes))
        of_guess = self.loss_of_guess.per_pixel(finest, guesses)
        if not self.known:
            return self.strength * (of_guess * free).sum() / n
        with torch.no_grad():
            wanted = functional.log_softmax(self.start(images)[:, self.known].float(), dim=1)
            shape = (1, -1, *(1,) * (wanted.ndim - 2))
            trusted = (wanted.exp() * self.trusted.view(shape)).sum(dim=1)  # (B, [Z,] Y, X)
        found = functional.log_softmax(finest[:, self.known], dim=1)
        apart = (wanted.exp() * (wanted - found)).sum(dim=1)
        return self.strength * ((trusted * apart * free).sum() + ((1 - trusted) * of_guess).sum()) / n


def make_anchor(
    start: nn.Module, known: Sequence[int], strength: float, images: Sequence[LabelledImage], codes: LabelCodes, *,
    device: torch.device, precision: str, seed: int = 0, made_for_these: bool = False,
) -> tuple[Anchor, list[LabelledImage], float]:  # fmt: skip
    """The anchor, the images with guesses (codes from `GUESSED` on) where nothing is labelled, and the share to keep.

    Parameters
    ----------
    start : nn.Module
        Copied.
    known : sequence of int
        Outputs that it was trained on; none: it is random, and only the forest guesses.
    strength : float
        Of the anchor against the labels.
    images : sequence of LabelledImage
    codes : LabelCodes
    made_for_these : bool
        The start is a specialist for the modality of the images; then it is trusted as if `_OWN_WORD` further strokes
        of each class had borne it out.

    Returns
    -------
    anchor : Anchor
    images : list of LabelledImage
        For the patches to be trained on; those held out are left as they are.
    keep : float
        How far from the end of training back to the start the weights are best put: the trust, as far as pixels are
        unlabelled.
    """
    if codes.n_codes > GUESSED:
        raise UsageError(f"loss.anchor serves at most {GUESSED - 1} classes and sets of classes.")
    start = copy.deepcopy(start).to(device).eval()
    if not known:
        guessed = guess(None, [], [0.0] * codes.n_classes, images, codes, device=device, precision=precision, seed=seed)
        logger.info("hardly anything is labelled: elsewhere the network learns what a forest on the labels guesses")
        return Anchor(start, [], [], strength, codes).to(device), guessed, 0.0
    trust = judge(start, images, codes, device=device, precision=precision)
    logger.info(
        "the start names the labelled pixels with a skill of %.2f (1: all, 0: chance); where nothing is labelled it "
        "is kept to accordingly", trust.overall,
    )  # fmt: skip
    trained = [item for item in images if not item.held_out and item.codes.any()]
    free = sum(int((item.codes == 0).sum()) for item in trained) / sum(item.codes.size for item in trained)
    own = 0.0
    if made_for_these and free > 1 - SPARSE:  # else there is much to judge by, and strokes are none
        n_strokes = strokes_per_class(trained)
        own = _OWN_WORD / (_OWN_WORD + n_strokes)
        logger.info(
            "it is made for such images, so it is trusted by at least %.2f against %.3g stroke(s) per class; more "
            "strokes say more", own, n_strokes,
        )  # fmt: skip

    def believed(skill: float) -> float:
        return own + (1 - own) * skill**_SHARPNESS

    trusted = [believed(float(trust.per_output[k])) if k in known else 0.0 for k in range(codes.n_classes)]
    guessed = guess(start, known, trusted, images, codes, device=device, precision=precision, seed=seed)
    return Anchor(start, known, trusted, strength, codes).to(device), guessed, believed(trust.overall) * free


def strokes_per_class(images: Sequence[LabelledImage]) -> float:
    """Connected pieces of one label over all images, for each label that there is."""
    pieces = [
        (code, ndimage.label(item.codes == code, np.ones((3,) * item.codes.ndim))[1])
        for item in images
        for code in np.unique(item.codes[item.codes > 0]).tolist()
    ]
    return sum(n for _, n in pieces) / max(1, len({code for code, _ in pieces}))


def between(network: nn.Module, start: nn.Module, keep: float) -> nn.Module:
    """A network whose weights lie the share `keep` of the way from `network` to `start`."""
    if not keep:
        return network
    result = copy.deepcopy(network)
    with torch.no_grad():
        for value, first in zip(result.state_dict().values(), start.state_dict().values(), strict=True):
            if value.is_floating_point():
                value.lerp_(first.to(value), keep)
    return result


def without_guesses(codes: torch.Tensor) -> torch.Tensor:
    """Codes that somebody gave; guesses become unlabelled."""
    return torch.where(codes >= GUESSED, torch.zeros_like(codes), codes)


def freeze_statistics(network: nn.Module) -> None:
    """Let batch normalisations keep the statistics they have, although the network is in training.

    Those of patches around strokes are not those of whole images, to which the model will be applied.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
