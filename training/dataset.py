"""Patches for training: which image, where, how magnified; each one a function of the seed and its number alone."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as v2f

from training.augment import make_transform, margin_px
from training.config import AugmentConfig, DataConfig
from training.sources import LabelledImage
from training.synthetic import SyntheticPool

POSITIONS_PER_CODE = 4000


class PatchDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Sample `i` is drawn with a generator seeded by (seed, i): the same on any number of workers, after any resume.

    Parameters
    ----------
    images : sequence of LabelledImage
        Those held out are left aside.
    synthetic : SyntheticPool or None
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        synthetic: SyntheticPool | None,
        data: DataConfig,
        augment: AugmentConfig,
    ) -> None:
        self.data, self.augment = data, augment
        self.by_source = {
            name: [i for i in images if i.source == name and not i.held_out and i.codes.any()]
            for name in sorted({i.source for i in images})
        }
        self.synthetic = synthetic
        self.names = [*self.by_source, *(["synthetic"] if synthetic else [])]
        weights = [data.sources[n].weight if n in self.by_source else data.synthetic.weight for n in self.names]
        self.shares = np.asarray(weights, float) / sum(weights)
        self.transform = make_transform(augment, data.patch_px)
        self.margin_px = margin_px(augment, data.patch_px)
        self._positions: dict[int, dict[int, np.ndarray]] = {}

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (1, Y, X) float32 and codes (Y, X) uint8."""
        rng = np.random.default_rng([self.data.seed, 1, index])
        name = self.names[rng.choice(len(self.names), p=self.shares)]
        if name in self.by_source:
            labelled = self.by_source[name][rng.integers(len(self.by_source[name]))]
            image, codes, zoom = labelled.image, labelled.codes, self.data.sources[name].zoom
        else:
            assert self.synthetic is not None
            image, codes = self.synthetic[int(rng.integers(len(self.synthetic)))]
            zoom = self.data.synthetic.zoom
        magnification = np.exp(rng.uniform(*np.log(zoom)))
        side = max(8, round(self.margin_px / magnification))
        window = _window(self._centre(image, codes, rng), side)
        patch, patch_codes = _cut(image, window).astype(np.float32), _cut(codes, window)
        if self.augment.percentile_jitter:
            low, high = (self.augment.percentile_jitter * rng.uniform(-1, 1, 2)).tolist()  # a numpy float would widen
            patch = (patch - low) / (1 + high - low)
        return self._augmented(patch, patch_codes, seed=int(rng.integers(2**62)))

    def _centre(self, image: np.ndarray, codes: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
        """A labelled pixel, of a code drawn evenly for `rare_share` of the patches; else any pixel."""
        key = id(codes)
        if key not in self._positions:
            self._positions[key] = _positions(codes)
        positions = self._positions[key]
        if rng.random() < self.data.rare_share or not codes[0, 0]:
            of_code = positions[list(positions)[rng.integers(len(positions))]]
            y, x = divmod(int(of_code[rng.integers(len(of_code))]), codes.shape[1])
            jitter = rng.integers(-self.data.patch_px // 4, self.data.patch_px // 4 + 1, 2)
            centre = np.clip([y + jitter[0], x + jitter[1]], 0, [n - 1 for n in codes.shape])
            return int(centre[0]), int(centre[1])
        return int(rng.integers(codes.shape[0])), int(rng.integers(codes.shape[1]))

    def _augmented(self, patch: np.ndarray, codes: np.ndarray, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        size = [self.margin_px, self.margin_px]
        image = v2f.resize(torch.from_numpy(np.ascontiguousarray(patch))[None], size, antialias=True)
        mask = v2f.resize(torch.from_numpy(np.ascontiguousarray(codes))[None], size, InterpolationMode.NEAREST)
        with torch.random.fork_rng(devices=[]):  # the transforms draw from the global generator
            torch.manual_seed(seed)
            image, mask = self.transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return image.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor)[0]


def _positions(codes: np.ndarray) -> dict[int, np.ndarray]:
    """Flat indices of some pixels of every code in the image, evenly spread; the same every time."""
    flat = codes.ravel()
    found = {}
    for code in np.unique(flat[flat > 0]).tolist():
        where = np.flatnonzero(flat == code)
        found[code] = where[:: max(1, len(where) // POSITIONS_PER_CODE)].astype(np.int64)
    return found


def _window(centre: tuple[int, int], side: int) -> tuple[int, int, int]:
    return centre[0] - side // 2, centre[1] - side // 2, side


def _cut(array: np.ndarray, window: tuple[int, int, int]) -> np.ndarray:
    """A square of the array, shifted inside where it fits and mirrored at the edges where it does not."""
    side = window[2]
    for axis, start in enumerate(window[:2]):
        size = array.shape[axis]
        if side <= size:
            start = min(max(start, 0), size - side)
            array = _slice(array, axis, start, side)
        else:
            before = (side - size) // 2
            pad = [(0, 0)] * array.ndim
            pad[axis] = (before, side - size - before)
            array = np.pad(array, pad, mode="symmetric")
    return array


def _slice(array: np.ndarray, axis: int, start: int, side: int) -> np.ndarray:
    return array[start : start + side] if axis == 0 else array[:, start : start + side]


class StepSampler(Sampler[list[int]]):
    """Batches of sample numbers from step `start` on, without end: nothing to save, nothing to restore."""

    def __init__(self, batch: int, start: int) -> None:
        self.batch, self.start = batch, start

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start
        while True:
            yield list(range(step * self.batch, (step + 1) * self.batch))
            step += 1


def make_loader(dataset: PatchDataset, *, batch: int, workers: int, start_step: int) -> DataLoader:
    """Batches from step `start_step` on."""
    return DataLoader(
        dataset,
        batch_sampler=StepSampler(batch, start_step),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_quiet_worker if workers else None,
    )


def _quiet_worker(worker: int) -> None:
    torch.set_num_threads(1)
    # Being stopped is the business of the parent, which saves and ends the workers; schedulers signal the whole group.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
