"""HDF5 and NeXus."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from seg.errors import DataError
from seg.io.calibration import s_per, um_per
from seg.io.content import head
from seg.io.reading import NOTHING, Given, Raw, assemble, guarded
from seg.stack import Calibration, Stack

SUFFIXES = (".h5", ".hdf5", ".hdf", ".nxs", ".nx", ".nexus", ".he5")
NAME = "HDF5"
_MAGIC = b"\x89HDF\r\n\x1a\n"
_NAMES = {"t": "t", "time": "t", "frame": "t", "c": "c", "channel": "c", "z": "z", "y": "y", "x": "x"}


def can_open(path: Path) -> bool:
    """Whether an HDF5 signature stands at one of the places the format allows."""
    data = head(path, 2056)
    return any(data[at : at + 8] == _MAGIC for at in (0, 512, 1024, 2048))


def read(path: Path, given: Given = NOTHING) -> Stack:
    """Open a data set of an HDF5 or NeXus file.

    Parameters
    ----------
    path : Path
    given : Given
        ``dataset`` names the data set (``entry/data/data``).

    Returns
    -------
    Stack
        Without a name: the signal of the default NXdata group, else the only numeric data set of two or more
        dimensions, else an error that lists them. Axes from the NXdata ``axes``, the dimension labels or an ``axes``
        attribute; calibration from the axis data sets of NXdata where they have units and even steps, and from
        ``element_size_um``.
    """
    return guarded(path, lambda: assemble(path, _open(path, given.dataset), given))


def _open(path: Path, name: str | None) -> Raw:
    import h5py

    if importlib.util.find_spec("hdf5plugin") is not None:
        import hdf5plugin  # noqa: F401 - registers the compression filters of synchrotron detectors

    file = h5py.File(path, "r")
    try:
        dataset = _named(file, name, path.name) if name else _found(file, path.name)
        calibration, axes = _describe(dataset)
        data = _Dataset(dataset, path.name)
    except BaseException:
        file.close()
        raise
    return Raw(data, axes, calibration, {"dataset": dataset.name}, close=file.close)


class _Dataset:
    """An h5py data set whose missing compression filter is explained."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name, self.shape, self.dtype = dataset, name, dataset.shape, dataset.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        try:
            return np.asarray(self._dataset[key])
        except OSError as error:
            if "filter" in str(error) or "plugin" in str(error):
                raise DataError(
                    f"{self._name!r} is compressed with a filter that is not installed; pip install hdf5plugin."
                ) from error
            raise


def _candidates(file: Any) -> list[Any]:
    import h5py

    found: list[Any] = []

    def visit(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim >= 2 and item.dtype.kind in "biuf" and item.size:
            found.append(item)

    file.visititems(visit)
    return found


def _listed(found: list[Any]) -> str:
    text = ", ".join(f"{d.name.lstrip('/')} {tuple(d.shape)}" for d in found[:8])
    return text + (f" and {len(found) - 8} more" if len(found) > 8 else "")


def _named(file: Any, name: str, file_name: str) -> Any:
    import h5py

    item = file.get(name)
    if isinstance(item, h5py.Dataset):
        return item
    found = _candidates(file)
    holds = f"it holds {_listed(found)}" if found else "it holds no images"
    raise DataError(f"{file_name!r} has no data set {name!r}; {holds}.")


def _found(file: Any, file_name: str) -> Any:
    signal = _nexus_signal(file)
    if signal is not None:
        return signal
    found = _candidates(file)
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(f"{file_name!r} holds no numeric data set of two or more dimensions.")
    raise DataError(f"{file_name!r} holds {len(found)} data sets ({_listed(found)}); choose one with --dataset NAME.")


def _nexus_signal(file: Any) -> Any | None:
    """The data set a NeXus file wants plotted: follow ``default`` down to an NXdata group and take its ``signal``."""
    import h5py

    group = file
    for _ in range(8):  # entry / group / NXdata in practice; bounded against links that form a circle
        name = _text(group.attrs.get("default"))
        below = group.get(name) if name else None
        if not isinstance(below, h5py.Group):
            break
        group = below
    groups = [group] if _text(group.attrs.get("NX_class")) == "NXdata" else _only_nxdata(file)
    for candidate in groups:
        signal = candidate.get(_text(candidate.attrs.get("signal")) or "")
        if signal is None:  # before 2014 the data set itself was marked
            marked = [d for d in candidate.values() if isinstance(d, h5py.Dataset) and "signal" in d.attrs]
            signal = marked[0] if len(marked) == 1 else None
        if isinstance(signal, h5py.Dataset):
            return signal
    return None


def _only_nxdata(file: Any) -> list[Any]:
    import h5py

    found: list[Any] = []

    def visit(_: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and _text(item.attrs.get("NX_class")) == "NXdata":
            found.append(item)

    file.visititems(visit)
    return found if len(found) == 1 else []


def _describe(dataset: Any) -> tuple[Calibration, str]:
    """Calibration and axes of a data set, as far as the file states them."""
    names = _axis_names(dataset)
    letters = [_NAMES.get(name.lower(), "?") for name in names]
    letters = [a if letters.count(a) == 1 else "?" for a in letters]
    if letters[-2:] == ["?", "?"] and not {"y", "x"} & set(letters):
        letters[-2:] = ["y", "x"]  # image data are stored by rows unless the file says otherwise
    sizes: dict[str, float] = {}
    times: tuple[float, ...] | None = None
    parent = dataset.parent
    for axis, (letter, name) in enumerate(zip(letters, names, strict=True)):
        values, unit = _axis_values(parent, name, dataset.shape[axis])
        if values is None:
            continue
        if letter == "t" and s_per(unit) is not None:
            times = tuple(float(v) * (s_per(unit) or 0.0) for v in values)
        elif letter in ("z", "y", "x") and um_per(unit) is not None and len(values) > 1:
            steps = np.diff(values)
            step = float(abs(values[-1] - values[0]) / (len(values) - 1))
            if step > 0 and np.allclose(np.abs(steps), step, rtol=1e-3):
                sizes[letter] = step * (um_per(unit) or 0.0)
    element = dataset.attrs.get("element_size_um")
    if element is not None and np.size(element) == 3 and np.all(np.asarray(element, float) > 0):
        stated = dict(zip("zyx", np.asarray(element, float).ravel().tolist(), strict=True))
        sizes = {**{a: s for a, s in stated.items() if a in letters or a in "yx" or "?" in letters}, **sizes}
    return Calibration(sizes, times, "file"), "".join(letters)


def _axis_names(dataset: Any) -> list[str]:
    n = dataset.ndim
    stated = dataset.parent.attrs.get("axes")
    if stated is None:
        stated = dataset.attrs.get("axes")
    if stated is not None:
        items = [_text(item) for item in np.atleast_1d(stated).tolist()]
        if len(items) == 1 and len(items[0]) == n and n > 1:
            items = list(items[0])  # "tyx"
        elif len(items) == 1:
            items = [part for part in items[0].replace(",", ":").split(":") if part]  # "y:x"
        if len(items) == n:
            return items
    labels = [_text(dataset.dims[i].label) for i in range(n)]
    return labels if any(labels) else [""] * n


def _axis_values(group: Any, name: str, length: int) -> tuple[np.ndarray | None, str]:
    import h5py

    item = group.get(name) if name and name != "." else None
    if not isinstance(item, h5py.Dataset) or item.shape != (length,) or item.dtype.kind not in "iuf":
        return None, ""
    values = np.asarray(item[...], float)
    if not np.isfinite(values).all():
        return None, ""
    return values, _text(item.attrs.get("units"))


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size == 1 else ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value) if value is not None else ""
