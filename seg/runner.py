"""A network on a device: made fast, fed with batches, backing off when the memory does not suffice."""

from __future__ import annotations

import copy
import itertools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from seg.errors import ModelError, SegError, UsageError
from seg.memory import OUT_OF_MEMORY, keep_freed_memory
from seg.models.device import arithmetic, resolve_device, resolve_precision, true_float32
from seg.tiling import AxisTiles, Strips, choose_strips, choose_tiles

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from seg.models.bundle import Bundle
    from seg.models.streamed import Stream

T = TypeVar("T")
logger = logging.getLogger(__name__)

# Memory for the values inside the network, by device. Fixed numbers, not what happens to be free: where tiles are
# blended the result depends on how an image is cut, and the same command must give the same masks.
BUDGET_BYTES = {"cpu": 2**29, "cuda": 4 * 2**30}
# Planes of volumes on their way through a network may take so many times as much, and the second where the first does
# not do: tiles that small compute three times the voxels, or blend.
STRIPS_OVER_TILES = (2, 4)
# Pixels that go through the network at once: small tiles are put together until they keep all cores busy.
BATCH_PX = {"cpu": 512**2, "cuda": 4 * 1024**2}
# Pixels whose class is decided at once on a CPU.
DECIDED_PX = 2**15


@dataclass(frozen=True)
class InferenceSettings:
    """How the engine cuts and computes; the defaults choose by network, device and image.

    Parameters
    ----------
    tile_px : int or None
        Longest side of a tile, halo included.
    overlap : float or None
        Share of the kept part of a tile that its neighbour keeps too and that is blended with Gaussian weights.
        None: nothing where tiles are exact (blending equal values changes nothing), else 0.25.
    batch : int or None
        Tiles that go through the network at once.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    precision : str
        ``auto``, ``fp32``, ``bf16`` or ``fp16``. ``auto`` takes half precision where it is faster; whether its masks
        are those of float32 is for `seg.precision` to find out.
    halo_px : int or None
        Margin of each tile that is computed from true neighbours and thrown away. None: the receptive field of the
        network, with which tiles are exact; where that does not fit or costs too much, 0 and blending, with a warning.
    mirror : bool
        Average the probabilities of every tile with those of its mirror image, left for right: twice the time. Up
        stays up, because gravity and the electrode tell classes apart.
    relabel : tuple of (int, int)
        Label values whose probability another one gets before classes are decided: (3, 6) calls deposits pits.
    """

    tile_px: int | None = None
    overlap: float | None = None
    batch: int | None = None
    device: str = "auto"
    precision: str = "auto"
    halo_px: int | None = None
    mirror: bool = False
    relabel: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("tile_px", 1), ("batch", 1), ("halo_px", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(
                    f"{name} is {value}; expected at least {least}, or nothing to choose it automatically."
                )
        if self.overlap is not None and not 0 <= self.overlap < 1:
            raise UsageError(f"overlap is {self.overlap}; expected a share from 0 to below 1.")


class Runner:
    """A network made ready for a device, and the tiles and batches it can afford there.

    Parameters
    ----------
    bundle : Bundle
    settings : InferenceSettings
    aloud : bool
        Log where the network runs and how images are cut.
    """

    def __init__(self, bundle: Bundle, settings: InferenceSettings, *, aloud: bool = True) -> None:
        import torch

        self.settings, self.spec, self._aloud = settings, bundle.spec, aloud
        self.device = resolve_device(settings.device)
        self.precision = resolve_precision(settings.precision, self.device)
        self.ready = ready_network(bundle.network, self.device, self.precision)
        if aloud:
            _say_where(bundle.network, self.device, self.precision)
        self.network = self.ready.network
        self.n_classes = len(bundle.spec.class_indices)
        self.temperature = bundle.spec.temperature
        self.moved = _channels(bundle.spec.name, bundle.spec.class_indices, settings.relabel)
        self.label_values = torch.tensor(bundle.spec.class_indices, dtype=torch.uint8, device=self.device)
        self.bytes_per_px = self.ready.values_per_px * (4 if self.precision == "fp32" else 2)
        self.max_tile_px = BUDGET_BYTES[self.device.type] // self.bytes_per_px
        self.batch_px = min(BATCH_PX[self.device.type], self.max_tile_px)
        self._affordable: dict[tuple[int, ...], int] = {}  # by tile shape; learned by running out of memory
        self.backed_off: list[str] = []  # a sentence for each time that happened
        self._constants: dict[tuple[Any, ...], Any] = {}
        self._strip_share = 1  # of the rows of a strip; grows by running out of memory

    def tiles(self, shape: Sequence[int]) -> tuple[AxisTiles, ...]:
        """How to cut an image of `shape`."""
        return choose_tiles(
            tuple(shape),
            multiple=self.network.tile_multiple,
            exact_halo_px=self.network.halo_px if self.network.tile_invariant else None,
            max_tile_px=self.max_tile_px,
            tile_px=self.settings.tile_px,
            overlap=self.settings.overlap,
            halo_px=self.settings.halo_px,
            aloud=self._aloud,
        )

    def strips(self, shape: Sequence[int]) -> Strips | None:
        """How to take an image of `shape` through the network from top to bottom; None: it is cut into tiles.

        On a CPU, for networks that allow it, where nothing is said of tiles and where an image makes a batch of its
        own; volumes that make several tiles, whose halos would be computed again.
        """
        said, multiple = self.settings, self.network.tile_multiple
        given = said.tile_px or said.overlap is not None or said.batch or said.halo_px is not None or said.mirror
        solid = len(shape) == 3
        small = math.prod(shape) <= (self.max_tile_px if solid else self.batch_px)
        if given or small or not getattr(self.ready.compute, "streams", False):
            return None
        sizes = {"multiple": multiple, "halo_px": self.network.halo_px}
        alive_px = [times * self.max_tile_px for times in (STRIPS_OVER_TILES if solid else (1,))]
        tried = (choose_strips(tuple(shape), **sizes, max_alive_px=most) for most in alive_px)
        strips = next((found for found in tried if found is not None), None)
        if strips is None or self._strip_share == 1:
            return strips
        return replace(strips, rows_px=max(strips.rows_px // self._strip_share // multiple, 1) * multiple)

    def narrower_strips(self, strips: Strips) -> bool:
        """Take half as many rows at a time from here on, for want of memory; False where there are no fewer."""
        if strips.rows_px <= self.network.tile_multiple:
            return False
        self._strip_share *= 2
        size = " x ".join(str(axis.tile_px) for axis in strips.columns)
        self.backed_off.append(
            f"Out of memory on device {self.device}; going on with half of {strips.rows_px} "
            f"{'rows' if len(strips.columns) == 1 else 'planes'} of {size} px at once."
        )
        logger.warning("%s", self.backed_off[-1])
        return True

    def stream(self) -> Stream:
        """A new image on its way from top to bottom."""
        from seg.models.streamed import Stream

        return Stream(self.ready.compute)

    def push(self, stream: Stream, rows: np.ndarray, *, last: bool) -> list[Tensor]:
        """Logits (K, y', X) that are finished once the stream has its next normalised rows (y, X); or planes."""
        import torch

        with torch.inference_mode():
            given = torch.from_numpy(rows).to(self.ready.dtype)[None, None]
            return [found[0] for found in stream.push(given, last=last)]

    def tiles_at_once(self, tiles: Sequence[AxisTiles]) -> int:
        """How many tiles make a batch."""
        return self.settings.batch or max(self.batch_px // math.prod(axis.tile_px for axis in tiles), 1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of logits (K, ...) under the temperature of the model, added up where a class is relabelled."""
        logits = logits.float()
        shares = (logits if self.temperature == 1 else logits / self.temperature).softmax(0)
        for old, new in self.moved:
            shares[new] += shares[old]
            shares[old] = 0
        return shares

    def decide(self, scores: Tensor, *, normalised: bool = False) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """Label values and the probability of the class chosen, of logits (K, n, ...) or of probabilities.

        Returns
        -------
        callable
            Gives labels (uint8) and confidence (float16), shape (n, ...). On a GPU they are under way when this
            returns: call it after the next tiles were sent there, so that neither side waits for the other.
        """
        import torch

        shape = scores.shape[1:]
        labels = torch.empty(shape, dtype=torch.uint8, device=scores.device)
        confidence = torch.empty(shape, dtype=torch.float16, device=scores.device)
        # In pieces that stay in the cache of a CPU: whole tiles would go through memory four times.
        step = max(DECIDED_PX // max(math.prod(shape[1:]), 1), 1) if scores.device.type == "cpu" else shape[0]
        for low in range(0, shape[0], step):
            piece = scores[:, low : low + step].float()
            sure, channel = (piece if normalised else self.probabilities(piece)).max(0)
            labels[low : low + step] = self.label_values.to(scores.device)[channel]
            confidence[low : low + step] = sure
        if scores.device.type == "cpu":
            return lambda: (labels.numpy(), confidence.numpy())
        on_host = [torch.empty(shape, dtype=t.dtype, pin_memory=True) for t in (labels, confidence)]
        for there, here in zip((labels, confidence), on_host, strict=True):
            here.copy_(there, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(torch.cuda.current_stream(scores.device))  # not that of the first GPU, where this is another

        def fetch() -> tuple[np.ndarray, np.ndarray]:
            arrived.synchronize()
            return on_host[0].numpy(), on_host[1].numpy()

        return fetch

    @property
    def tiles_in_flight(self) -> int:
        """How many tiles may wait to be fetched; none where computing is done when the call returns."""
        return 64 if self.device.type == "cuda" else 0

    def of_constant(self, tile: np.ndarray) -> Tensor:
        """Logits (K, ...) of a tile (...) whose values are all equal: the last ones are kept, as empty tiles repeat."""
        key = (tile.shape, float(tile.flat[0]))
        return self.remembered(key, lambda: self(tile[np.newaxis, np.newaxis])[0])

    def remembered(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What `make` gave for the same key, if that was one of the last two."""
        if key not in self._constants:
            if len(self._constants) > 1:
                self._constants.pop(next(iter(self._constants)))
            self._constants[key] = make()
        return self._constants[key]

    def __call__(self, images: np.ndarray) -> list[Tensor]:
        """Logits (K, ...) of each of the normalised tiles (B, 1, ...)."""
        shape = images.shape[2:]
        done: list[Tensor] = []
        while len(done) < len(images):
            left = images[len(done) :]
            at_once = min(self._affordable.get(shape, len(left)), len(left))
            try:
                done.extend(self._forward(left[:at_once]) if at_once else [self._in_parts(left[0])])
                continue
            except RuntimeError as error:
                if not at_once or not is_out_of_memory(error):
                    raise
            # Outside the handler, whose traceback keeps the tensors of the failed attempt alive.
            self._go_on_with(at_once // 2, shape)
        return done

    def _forward(self, images: np.ndarray) -> Tensor:
        import torch

        logits = self._compute(images)
        if not self.settings.mirror:
            return logits
        with torch.inference_mode():
            other = self._compute(np.ascontiguousarray(images[..., ::-1])).flip(-1)
            share = (logits.float().softmax(1) + other.float().softmax(1)) / 2
            return share.clamp_min(torch.finfo(torch.float32).tiny).log()

    def _compute(self, images: np.ndarray) -> Tensor:
        import torch

        layout = torch.channels_last if images.ndim == 4 else torch.channels_last_3d
        tiles = torch.from_numpy(images)
        dtype = self.ready.dtype
        with torch.inference_mode(), true_float32():
            if self.device.type == "cpu":  # the weights are in `dtype`
                return self.ready.compute(tiles.to(dtype, memory_format=layout))
            with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                return self.network(tiles.pin_memory().to(self.device, non_blocking=True).to(memory_format=layout))

    def _go_on_with(self, at_once: int, shape: tuple[int, ...]) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._affordable[shape] = at_once
        size = " x ".join(map(str, shape))
        then = f"{at_once} tile(s) of {size} px at once" if at_once else f"tiles of half of {size} px"
        self.backed_off.append(f"Out of memory on device {self.device}; going on with {then}.")
        logger.warning("%s", self.backed_off[-1])

    def _in_parts(self, image: np.ndarray) -> Tensor:
        """Logits (K, ...) of a tile (1, ...) that is too large for the memory, from tiles of half its size."""
        import torch

        shape = image.shape[1:]
        multiple = self.network.tile_multiple
        side = max(shape) // 2 // multiple * multiple
        if side == 0:
            instead = "give this one more memory" if self.device.type == "cpu" else "pass --device cpu"
            raise SegError(
                f"Device {self.device} has not enough memory for the network on a single tile of "
                f"{' x '.join(map(str, shape))} px. Close other programs that use it, or {instead}."
            )
        tiles = choose_tiles(
            shape,
            multiple=multiple,
            exact_halo_px=self.network.halo_px if self.network.tile_invariant else None,
            max_tile_px=self.max_tile_px,
            tile_px=side,
        )
        logits = torch.empty(self.n_classes, *shape)
        for place in itertools.product(*(range(len(axis.starts)) for axis in tiles)):
            axes = list(zip(tiles, place, strict=True))
            cut = tuple(slice(axis.starts[p], axis.starts[p] + axis.tile_px) for axis, p in axes)
            part = self(np.ascontiguousarray(image[(slice(None), *cut)])[np.newaxis])[0]
            kept = tuple(slice(*axis.kept[p]) for axis, p in axes)
            logits[(slice(None), *kept)] = part[(slice(None), *(axis.inner(p) for axis, p in axes))].float().cpu()
        return logits


@dataclass(frozen=True)
class Ready:
    """A network made ready for a device.

    Parameters
    ----------
    network : torch.nn.Module
        Norms folded, fast memory layout; its weights are in `dtype` on a CPU and in float32 on a GPU (autocast).
    compute : callable
        Its forward pass, fused where that is to be had.
    dtype : torch.dtype
        Of the arithmetic.
    values_per_px : int
        Values of that type alive at the peak of a forward pass, per pixel of the tile.
    """

    network: Any
    compute: Callable[[Tensor], Tensor]
    dtype: torch.dtype
    values_per_px: int


_READY: WeakKeyDictionary[nn.Module, tuple[Any, Ready]] = WeakKeyDictionary()


def ready_network(network: nn.Module, device: torch.device, precision: str) -> Ready:
    """A copy of `network` with folded norms, fast memory layout and type, kept until the weights change."""
    import torch

    stamp = (str(device), precision, tuple((t.data_ptr(), t._version) for t in network.state_dict().values()))
    known = _READY.get(network)
    if known is not None and known[0] == stamp:
        return known[1]
    own = copy.deepcopy(network).float().eval().requires_grad_(False)
    own = own.fold().to(device)
    if precision == "bf16" and device.type == "cpu":
        own = own.bfloat16()
    own = own.to(memory_format=torch.channels_last if network.dims == 2 else torch.channels_last_3d)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    fused = None
    if device.type == "cpu":
        from seg.models.fused import fused_forward

        keep_freed_memory()
        fused = fused_forward(own)
    ready = Ready(own, fused or own, dtype, fused.values_per_px if fused else own.values_per_px)
    _READY[network] = (stamp, ready)
    return ready


_SAID: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def _say_where(network: nn.Module, device: torch.device, precision: str) -> None:
    """Log where a network runs, unless that was said of it last."""
    import torch

    where = f"{torch.cuda.get_device_name(device)} in {precision}" if device.type == "cuda" else ""
    if not where:
        threads = torch.get_num_threads()
        where = f"the CPU, {threads} thread{'s' * (threads != 1)}, in {arithmetic(precision)}"
    if _SAID.get(network) != where:
        _SAID[network] = where
        logger.info("the network runs on %s", where)


def _channels(model: str, values: Sequence[int], relabel: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Channels for pairs of label values; what the model does not know need not be relabelled."""
    values = list(values)
    for old, new in relabel:
        if old in values and new not in values:
            raise ModelError(
                f"Class {old} is to be relabelled as {new}, which model {model!r} does not know; "
                "take another model or leave `relabel` out of the analysis."
            )
    return [(values.index(old), values.index(new)) for old, new in relabel if old in values]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the host or the device had not enough."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)
