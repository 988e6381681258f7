"""Arrays as readers hand them over: lazy or in memory, axes in our order, numbers in native byte order."""

from __future__ import annotations

import math
import mmap
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from seg.errors import DataError, SegError

# Above this a stack stays on disk and is read slab by slab; below it one read is simpler and faster.
LAZY_ABOVE_BYTES = 256 * 2**20
# Of a mapped file so many bytes are read before their pages are let go of; else all of it would count as memory in use.
MAPPED_BYTES = 2**25
# Larger than any camera or tomograph makes: such a header is damaged, and believing it would exhaust the memory.
MAX_PIXELS = 2**36


class LazyArray:
    """An array that is read from disk when it is indexed.

    Parameters
    ----------
    source : array-like
        Anything with ``shape``, ``dtype`` and basic indexing that gives numpy arrays.
    dims : sequence of (int or None)
        For each axis of this array the axis of `source` it shows; None is a new axis of length 1. Axes of `source`
        that are not named must have length 1.
    name : str
        What messages call it.
    then : callable or None
        Applied to what was read; must keep the shape. Used to give label values their meaning.
    dtype : dtype or None
        Type after `then`; default that of `source` in native byte order, uint8 for bool.

    Notes
    -----
    Indexing knows integers, slices with a positive step and ``...``; a failing read becomes a `DataError`, and so do
    NaN and infinity, which a stack in memory would have been refused for on opening.
    """

    def __init__(
        self, source: Any, dims: Sequence[int | None], *, name: str,
        then: Callable[[np.ndarray], np.ndarray] | None = None, dtype: np.dtype | None = None,
    ) -> None:  # fmt: skip
        self._source, self._dims, self.name, self._then = source, tuple(dims), name, then
        self._lock = threading.Lock()  # several libraries below share one file position between reads
        self._read_bytes = 0  # since pages were let go of
        self.dtype = native_dtype(source.dtype) if dtype is None else np.dtype(dtype)
        self.shape = tuple(1 if d is None else int(source.shape[d]) for d in self._dims)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes the whole array would take in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self[...]
        return array if dtype is None else array.astype(dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        wanted = self._full_key(key)
        stored: list[Any] = [0] * len(self._source.shape)
        for axis, part in zip(self._dims, wanted, strict=True):
            if axis is not None:
                stored[axis] = slice(part, part + 1) if isinstance(part, int) else part
        try:
            with self._lock:
                array = np.asarray(self._source[tuple(stored)])
                self._let_go(array.nbytes)
        except SegError:
            raise
        except Exception as error:
            raise damaged(self.name, error) from error
        # integers dropped the unnamed axes; what is left follows the order of the source
        kept = [d for d in self._dims if d is not None]
        array = array.transpose([sorted(kept).index(d) for d in kept])
        array = np.expand_dims(array, [i for i, d in enumerate(self._dims) if d is None])
        array = array[tuple(0 if isinstance(part, int) else slice(None) for part in wanted)]
        array = np.ascontiguousarray(array).astype(native_dtype(array.dtype), copy=False)
        if array.dtype.kind == "f":
            check_finite(array, self.name)
        return array if self._then is None else self._then(array)

    def mapped(self, function: Callable[[np.ndarray], np.ndarray], dtype: np.dtype) -> LazyArray:
        """The same array with `function` applied to whatever is read."""
        return LazyArray(self, range(self.ndim), name=self.name, then=function, dtype=dtype)

    @property
    def is_mapped(self) -> bool:
        """Whether what is indexed are pages of a file."""
        return getattr(self._source, "_mmap", None) is not None

    def close_with(self, close: Callable[[], None]) -> None:
        """Call `close` when this array is no longer used."""
        weakref.finalize(self, close)

    def _let_go(self, read_bytes: int) -> None:
        """Give pages of a mapped file back to the system; those that are still wanted come again from its cache."""
        self._read_bytes += read_bytes
        if self.is_mapped and self._read_bytes > MAPPED_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            self._source._mmap.madvise(mmap.MADV_DONTNEED)  # numpy has no other name for it
            self._read_bytes = 0

    def _full_key(self, key: Any) -> list[Any]:
        """One integer or slice per axis."""
        parts = list(key) if isinstance(key, tuple) else [key]
        if parts.count(Ellipsis) > 1:
            raise IndexError("an index can hold only one '...'")
        if Ellipsis in parts:
            at = parts.index(Ellipsis)
            parts[at : at + 1] = [slice(None)] * (self.ndim - len(parts) + 1)
        if len(parts) > self.ndim:
            raise IndexError(f"{self.name!r} has {self.ndim} axes; {len(parts)} indices were given.")
        parts += [slice(None)] * (self.ndim - len(parts))
        return [_one_index(part, size) for part, size in zip(parts, self.shape, strict=True)]


def _one_index(part: Any, size: int) -> int | slice:
    if isinstance(part, slice):
        start, stop, step = part.indices(size)
        if step < 1:
            raise IndexError("a lazy array is read forwards only: use a positive step")
        return slice(start, max(start, stop), step)
    if isinstance(part, (int, np.integer)) and not isinstance(part, bool):
        index = int(part) + (size if part < 0 else 0)
        if not 0 <= index < size:
            raise IndexError(f"index {part} is out of range for an axis of length {size}")
        return index
    raise TypeError(f"a lazy array takes integers, slices and '...'; got {type(part).__name__}")


def native_dtype(dtype: Any) -> np.dtype:
    """`dtype` in the byte order of this machine; uint8 for bool, so that arithmetic works."""
    dtype = np.dtype(dtype)
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")


def check_dtype(dtype: Any, name: str) -> None:
    """Raise DataError unless `dtype` holds real numbers."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "biuf":
        kind = "complex numbers" if dtype.kind == "c" else f"values of type {dtype}"
        hint = "Save the amplitude or the phase as a real image." if dtype.kind == "c" else "Save it as a plain image."
        raise DataError(f"{name!r} holds {kind}; expected integers or floats. {hint}")


def check_finite(array: np.ndarray, where: str) -> None:
    """Raise DataError when `array` holds NaN or infinity, saying how many and where the first one is.

    Parameters
    ----------
    array : ndarray
    where : str
        What the message calls the array: file, frame, slab.
    """
    if array.dtype.kind != "f":
        return
    finite = np.isfinite(array)
    if finite.all():
        return
    count = int(finite.size - np.count_nonzero(finite))
    first = ", ".join(str(int(i)) for i in np.unravel_index(int(np.argmin(finite)), array.shape))
    raise DataError(
        f"{where!r} holds {count} NaN or infinite pixel(s) of {finite.size}, the first at index ({first}); "
        "fill or crop them before the analysis."
    )


def check_size(shape: Sequence[int], name: str, *, file_bytes: int | None = None, pixels_per_byte: int = 2**14) -> None:
    """Raise DataError for a size no file can hold, before memory is asked for.

    Parameters
    ----------
    shape : sequence of int
        What the header declares.
    name : str
    file_bytes : int or None
        Size of the file, for formats whose compression has a limit of `pixels_per_byte`.
    pixels_per_byte : int
        Deflate reaches 1032 bytes (8256 one-bit pixels) per byte, GIF about 2700 pixels.
    """
    pixels = math.prod(int(n) for n in shape)
    size = " x ".join(str(int(n)) for n in shape)
    if pixels == 0:
        raise DataError(f"{name!r} has no pixels: it declares a size of {size}.")
    if pixels > MAX_PIXELS or (file_bytes is not None and pixels > pixels_per_byte * file_bytes):
        raise DataError(f"{name!r} declares {size} pixels, more than it can hold; the header is damaged.")


def damaged(name: str, error: BaseException | str, *, what: str = "") -> DataError:
    """The error for a file a library gave up on: one line, with its reason."""
    if isinstance(error, MemoryError):
        return DataError(f"{name!r} does not fit in memory: {error or 'the array is too large'}.")
    lines = str(error).strip().splitlines()
    reason = (lines[0] if lines else type(error).__name__).rstrip(".")[:200]
    return DataError(f"{name!r} cannot be read{what} ({reason}); it is damaged or cut off, copy or export it again.")
