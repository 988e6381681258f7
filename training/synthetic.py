"""Drawn scenes as a data set: image `j` of a pool is a function of the seed and `j`."""

from __future__ import annotations

import logging

import numpy as np

from seg.errors import DataError
from seg.labels import LabelSchema
from seg.modality import modality
from seg.preprocess import SeriesNormalisation
from seg.stack import Stack
from seg.synthetic.training import training_sample
from training.config import SyntheticConfig
from training.label_codes import LabelCodes

logger = logging.getLogger(__name__)


class SyntheticPool:
    """A fixed number of drawn images, each drawn when first asked for and then kept.

    Parameters
    ----------
    stream : int
        Pools of different streams share no image: 0 to train on, 1 to score.
    """

    def __init__(
        self, config: SyntheticConfig, codes: LabelCodes, schema: LabelSchema, *, seed: int, stream: int, n: int
    ) -> None:
        self.config, self.codes, self.schema = config, codes, schema
        self.seed, self.stream, self.n = seed, stream, n
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, j: int) -> tuple[np.ndarray, np.ndarray]:
        """Normalised image (Y, X) float16 and codes (Y, X) uint8."""
        if j not in self._kept:
            self._kept[j] = self._draw(j)
        return self._kept[j]

    def modality_of(self, j: int) -> str | None:
        """Modality of image `j` where the configuration lists some; None: the generator chooses."""
        return self.config.modalities[j % len(self.config.modalities)] if self.config.modalities else None

    def _draw(self, j: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, 2, self.stream, j])
        kind = self.modality_of(j)
        image, labels = training_sample(rng, size_px=self.config.size_px, modality=kind)
        percentiles = modality(kind or "optical").normalisation_percentiles
        normalisation = SeriesNormalisation.fit(Stack(image, "yx", name="synthetic"), percentiles)
        return normalisation.apply(image).astype(np.float16), self._to_codes(labels)

    def _to_codes(self, labels: np.ndarray) -> np.ndarray:
        table = np.full(256, -1, np.int16)
        table[0] = 0
        for k, index in enumerate(self.codes.class_indices):
            table[index] = k + 1
        codes = table[labels]
        if (codes < 0).any():
            unknown = ", ".join(self.schema.class_name(int(v)) for v in np.unique(labels[codes < 0]))
            raise DataError(f"A synthetic image holds {unknown}, which the model has no output for.")
        return codes.astype(np.uint8)
