"""Patches for training: which image, where, how magnified; each one a function of the seed and its number alone."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as v2f

from training.augment import make_transform, margin_px
from training.config import AugmentConfig, DataConfig
from training.sources import LabelledImage
from training.synthetic import SyntheticPool

POSITIONS_PER_CODE = 4000
SPARSE = 0
"""Key among the positions of codes that marks an image most of whose pixels are unlabelled."""


class PatchDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Sample `i` is drawn with a generator seeded by (seed, i): the same on any number of workers, after any resume.

    Parameters
    ----------
    images : sequence of LabelledImage
        Those held out are left aside. Planes, or volumes where `data.patch_z_px` is set.
    synthetic : SyntheticPool or None
    ground : sequence of int
        Codes that `training.augment.GroundPattern` may mark.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        synthetic: SyntheticPool | None,
        data: DataConfig,
        augment: AugmentConfig,
        ground: Sequence[int] = (),
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
        self.transform = make_transform(augment, data.patch_px, ground)
        side = margin_px(augment, data.patch_px)
        self.window_px = (side, side) if data.patch_z_px is None else (data.patch_z_px, side, side)
        self._positions: dict[int, dict[int, np.ndarray]] = {}
        self._holders: dict[str, dict[int, list[LabelledImage]]] = {}

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (1, [Z,] Y, X) float32 and codes ([Z,] Y, X) uint8."""
        rng = np.random.default_rng([self.data.seed, 1, index])
        name = self.names[rng.choice(len(self.names), p=self.shares)]
        code = None
        if name in self.by_source:
            labelled, code = self._pick(name, rng)
            image, codes, zoom = labelled.image, labelled.codes, self.data.sources[name].zoom
        else:
            assert self.synthetic is not None
            image, codes = self.synthetic[int(rng.integers(len(self.synthetic)))]
            zoom = self.data.synthetic.zoom
        magnification = np.exp(rng.uniform(*np.log(zoom)))
        sides = [max(min(8, side), round(side / magnification)) for side in self.window_px]
        centre = self._centre(codes, rng, code)
        starts = [at - side // 2 for at, side in zip(centre, sides, strict=True)]
        patch, patch_codes = _cut(image, starts, sides).astype(np.float32), _cut(codes, starts, sides)
        if self.augment.percentile_jitter:
            low, high = (self.augment.percentile_jitter * rng.uniform(-1, 1, 2)).tolist()  # a numpy float would widen
            patch = (patch - low) / (1 + high - low)
        if patch.ndim == 3 and self.augment.flip and rng.random() < 0.5:
            patch, patch_codes = patch[::-1], patch_codes[::-1]
        return self._augmented(patch, patch_codes, seed=int(rng.integers(2**62)))

    def _pick(self, name: str, rng: np.random.Generator) -> tuple[LabelledImage, int | None]:
        """An image of a source; by classes, one that holds a code drawn evenly, and that code."""
        images = self.by_source[name]
        if self.data.balance == "class" and rng.random() < self.data.rare_share:
            if name not in self._holders:
                self._holders[name] = {}
                for image in images:
                    for code in self._positions_of(image.codes).keys() - {SPARSE}:
                        self._holders[name].setdefault(code, []).append(image)
            codes = sorted(self._holders[name])
            code = codes[rng.integers(len(codes))]
            holders = self._holders[name][code]
            return holders[rng.integers(len(holders))], code
        return images[rng.integers(len(images))], None

    def _positions_of(self, codes: np.ndarray) -> dict[int, np.ndarray]:
        key = id(codes)
        if key not in self._positions:
            self._positions[key] = _positions(codes)
        return self._positions[key]

    def _centre(self, codes: np.ndarray, rng: np.random.Generator, code: int | None) -> tuple[int, ...]:
        """A pixel of `code`, else of a code drawn evenly for `rare_share` of the patches; else any pixel.

        Where most pixels are unlabelled, always a labelled one: a patch without labels teaches nothing.
        """
        positions = self._positions_of(codes)
        if code is not None or rng.random() < self.data.rare_share or SPARSE in positions:
            named = [c for c in positions if c != SPARSE]
            of_code = positions[named[rng.integers(len(named))] if code is None else code]
            at = np.unravel_index(int(of_code[rng.integers(len(of_code))]), codes.shape)
            jitter = rng.integers(-self.data.patch_px // 4, self.data.patch_px // 4 + 1, 2)
            if self.data.patch_z_px is not None:
                quarter = self.data.patch_z_px // 4
                jitter = np.concatenate([rng.integers(-quarter, quarter + 1, 1), jitter])
            centre = np.clip(np.asarray(at) + jitter, 0, [n - 1 for n in codes.shape])
            return tuple(int(c) for c in centre)
        return tuple(int(rng.integers(n)) for n in codes.shape)

    def _augmented(self, patch: np.ndarray, codes: np.ndarray, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        # The planes of a volume are the channels of one picture: all are turned and warped alike.
        volume = patch.ndim == 3
        image = _resized(torch.from_numpy(np.ascontiguousarray(patch if volume else patch[None])), self.window_px)
        mask = _resized(torch.from_numpy(np.ascontiguousarray(codes if volume else codes[None])), self.window_px)
        with torch.random.fork_rng(devices=[]):  # the transforms draw from the global generator
            torch.manual_seed(seed)
            image, mask = self.transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
        image, mask = image.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor)
        return (image[None], mask) if volume else (image, mask[0])


def _resized(planes: torch.Tensor, window_px: Sequence[int]) -> torch.Tensor:
    """Planes (Z, Y, X) to the shape of the window: values linearly, codes (uint8) by the nearest."""
    side = [window_px[-2], window_px[-1]]
    if planes.dtype == torch.uint8:
        planes = v2f.resize(planes, side, InterpolationMode.NEAREST)
        if len(window_px) == 3 and len(planes) != window_px[0]:
            planes = functional.interpolate(planes[None, None], (window_px[0], *side), mode="nearest-exact")[0, 0]
        return planes
    planes = v2f.resize(planes, side, antialias=True)
    if len(window_px) == 3 and len(planes) != window_px[0]:
        planes = functional.interpolate(planes[None, None], (window_px[0], *side), mode="trilinear")[0, 0]
    return planes


def _positions(codes: np.ndarray) -> dict[int, np.ndarray]:
    """Flat indices of some pixels of every code in the image, evenly spread; the same every time.

    The key `SPARSE` is there, without positions, where less than half of the pixels are labelled.
    """
    flat = codes.ravel()
    found = {}
    counts = np.bincount(flat)
    for code in (np.flatnonzero(counts[1:]) + 1).tolist():
        where = np.flatnonzero(flat == code)
        found[code] = where[:: max(1, len(where) // POSITIONS_PER_CODE)].astype(np.int64)
    if counts[0] > 0.5 * flat.size:
        found[SPARSE] = np.empty(0, np.int64)
    return found


def _cut(array: np.ndarray, starts: Sequence[int], sides: Sequence[int]) -> np.ndarray:
    """A box of the array, shifted inside where it fits and mirrored at the edges where it does not."""
    for axis, (start, side) in enumerate(zip(starts, sides, strict=True)):
        size = array.shape[axis]
        if side <= size:
            start = min(max(start, 0), size - side)
            array = array[(slice(None),) * axis + (slice(start, start + side),)]
        else:
            before = (side - size) // 2
            pad = [(0, 0)] * array.ndim
            pad[axis] = (before, side - size - before)
            array = np.pad(array, pad, mode="symmetric")
    return array


class StepSampler(Sampler[list[int]]):
    """Batches of sample numbers from step `start` on, without end: nothing to save, nothing to restore.

    Of several processes each takes an equal share of every batch.
    """

    def __init__(self, batch: int, start: int, *, process: int = 0, n_processes: int = 1) -> None:
        self.batch, self.start = batch, start
        share = batch // n_processes
        self.low, self.high = process * share, (process + 1) * share

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start
        while True:
            yield list(range(step * self.batch + self.low, step * self.batch + self.high))
            step += 1


def make_loader(
    dataset: PatchDataset, *, batch: int, workers: int, start_step: int, process: int = 0, n_processes: int = 1,
    pinned: bool = False,
) -> DataLoader:  # fmt: skip
    """Batches, or the share of one of several processes in them, from step `start_step` on.

    In `pinned` memory they go to a GPU while it computes.
    """
    return DataLoader(
        dataset,
        batch_sampler=StepSampler(batch, start_step, process=process, n_processes=n_processes),
        num_workers=workers,
        pin_memory=pinned,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_quiet_worker if workers else None,
    )


class Batches:
    """The batches of a loader, whose workers start with the first one and end with the block.

    Workers ignore the signals that end processes at exit; an error whose frames kept the loader would wait for them
    for ever.
    """

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader
        self._iterator: Iterator[Any] | None = None

    def __enter__(self) -> Batches:
        return self

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self._loader)
        return next(self._iterator)

    def __exit__(self, kind: object, error: object, trace: TracebackType | None) -> None:
        traceback.clear_frames(trace)
        self._iterator = None


def _quiet_worker(worker: int) -> None:
    torch.set_num_threads(1)
    # Being stopped is the business of the parent, which saves and ends the workers; schedulers signal the whole group.
    # A worker that was forgotten must end all the same, else the parent waits for it as it exits: a minute later.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(60))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
