"""Finished parts of a segmentation on disk, each whole or absent, so that a killed run continues where it was."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np


class LabelSlab(Protocol):
    """What is saved of one part: ``seg.inference.Slab``."""

    frame: int
    z_start: int
    labels: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class SlabFolder:
    """The parts of one segmentation, one file each.

    Parameters
    ----------
    path : Path
        Named after the key of what they were made from.
    """

    path: Path

    def save(self, slab: LabelSlab) -> None:
        """Save one part: written beside, then renamed."""
        target = self.path / f"{slab.frame:07d}_{slab.z_start:07d}.npz"
        part = target.with_suffix(".part")
        with part.open("wb") as file:
            np.savez_compressed(file, labels=slab.labels, confidence=np.float64(slab.confidence.mean(dtype=np.float64)))
        part.replace(target)

    def finished(self) -> frozenset[tuple[int, int]]:
        """The ``(frame, z_start)`` of all saved parts."""
        return frozenset(_place(file) for file in self.path.glob("*.npz"))

    def frames(self, n_frames: int) -> Iterator[np.ndarray]:
        """Labels frame by frame, shape ([Z,] Y, X); one frame in memory at a time."""
        parts = self._by_frame()
        for frame in range(n_frames):
            labels = [_load(file)[0] for file in parts[frame]]
            yield labels[0] if len(labels) == 1 else np.concatenate(labels)

    def confidence(self, n_frames: int) -> list[float]:
        """Mean class probability of each frame."""
        parts = self._by_frame()
        means = []
        for frame in range(n_frames):
            loaded = [_load(file) for file in parts[frame]]
            means.append(float(np.average([c for _, c in loaded], weights=[v.size for v, _ in loaded])))
        return means

    def remove(self) -> None:
        """Delete the parts: they are in the result now."""
        shutil.rmtree(self.path)

    def _by_frame(self) -> dict[int, list[Path]]:
        found: dict[int, list[Path]] = {}
        for file in sorted(self.path.glob("*.npz")):
            found.setdefault(_place(file)[0], []).append(file)
        return found


def open_slabs(work: Path, key: str) -> SlabFolder:
    """The folder of the parts made under `key`; parts made under another key are deleted."""
    folder = SlabFolder(work / f"slabs-{key[:16]}")
    for other in work.glob("slabs-*"):
        if other != folder.path:
            shutil.rmtree(other)
    folder.path.mkdir(exist_ok=True)
    return folder


def _place(file: Path) -> tuple[int, int]:
    frame, z_start = file.stem.split("_")
    return int(frame), int(z_start)


def _load(file: Path) -> tuple[np.ndarray, float]:
    with np.load(file, allow_pickle=False) as saved:
        return saved["labels"], float(saved["confidence"])
