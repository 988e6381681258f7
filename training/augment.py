"""Random changes of a patch, as torchvision transforms: geometry for image and labels, intensity for the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import v2

from training.config import AugmentConfig

ELASTIC_CELL_PX = 48
"""Distance between independent displacements of the elastic warp."""


def margin_px(config: AugmentConfig, patch_px: int) -> int:
    """Side of the window a patch of `patch_px` is cut from after warping, so that no corner is empty."""
    angle = math.radians(config.rotate_deg)
    return math.ceil(patch_px * (math.cos(angle) + math.sin(angle)) + 4 * config.elastic_px)


def make_transform(config: AugmentConfig, patch_px: int, ground: Sequence[int] = ()) -> v2.Transform:
    """From a window (1, Y, X) of `margin_px` and its codes to an augmented patch of `patch_px`.

    A volume (Z, Y, X) goes through plane by plane: geometry, contrast and shading are those of the whole, noise is new
    in every plane. `ground` are the codes that `GroundPattern` may mark.

    Images are normalised (0 and 1 are percentiles), so strengths mean the same on every instrument.
    """
    steps: list[v2.Transform] = []
    if config.flip:
        steps += [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    if config.quarter_turns:
        steps.append(QuarterTurns())
    if config.rotate_deg or config.elastic_px:
        steps.append(Warp(config.rotate_deg, config.elastic_px))
    steps.append(v2.CenterCrop(patch_px))
    if config.ground_pattern and ground:
        steps.append(v2.RandomApply([GroundPattern(ground)], config.ground_pattern))
    intensity = [Gamma(config.gamma), Linear(config.contrast, config.brightness), Shading(config.shading)]
    if config.blur_px:
        kernel = 2 * math.ceil(2 * config.blur_px) + 1
        intensity.append(v2.GaussianBlur(kernel, (0.1, config.blur_px)))
    intensity.append(Noise(config.noise))
    if config.invert:
        steps.append(v2.RandomInvert(config.invert))
    if config.probability:
        steps += [v2.RandomApply([step], config.probability) for step in intensity]
    steps.append(Clip())
    return v2.Compose(steps)


class QuarterTurns(v2.Transform):
    """Turn by 0, 90, 180 or 270 degrees."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"turns": int(torch.randint(4, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return tv_tensors.wrap(torch.rot90(inpt.as_subclass(torch.Tensor), params["turns"], (-2, -1)), like=inpt)


class Warp(v2.Transform):
    """Rotation by up to `degrees` and a smooth displacement of about `elastic_px`, in one interpolation."""

    def __init__(self, degrees: float, elastic_px: float) -> None:
        super().__init__()
        self.degrees, self.elastic_px = degrees, elastic_px

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = flat_inputs[0].shape[-2:]
        angle = math.radians((2 * float(torch.rand(())) - 1) * self.degrees)
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        cos, sin = math.cos(angle) - 1, math.sin(angle)
        displacement = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)[None]  # (1, Y, X, 2) as (x, y)
        if self.elastic_px:
            cells = (max(2, height // ELASTIC_CELL_PX), max(2, width // ELASTIC_CELL_PX))
            # bicubic interpolation of unit noise has a spread near 0.6; a strength drawn per patch keeps some unwarped
            strength = 2 * self.elastic_px * float(torch.rand(())) / max(height, width)
            noise = torch.randn(1, 2, *cells) * strength
            smooth = functional.interpolate(noise, (height, width), mode="bicubic", align_corners=False)
            displacement = displacement + smooth.movedim(1, -1)
        return {"displacement": displacement}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        mode = v2.InterpolationMode.NEAREST if isinstance(inpt, tv_tensors.Mask) else v2.InterpolationMode.BILINEAR
        return self._call_kernel(v2.functional.elastic, inpt, params["displacement"], interpolation=mode, fill=0)


class _OnImage(v2.Transform):
    """Changes intensities, so it leaves masks alone."""

    _transformed_types = (tv_tensors.Image,)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        # Arithmetic on a tv_tensor gives a plain tensor, which the next transform would not know as an image.
        return tv_tensors.wrap(self.change(inpt.as_subclass(torch.Tensor), params), like=inpt)

    def change(self, image: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        """The changed image (1, Y, X) or volume (Z, Y, X)."""
        raise NotImplementedError


class Gamma(_OnImage):
    """Exponent within exp(-strength) to exp(strength); values below 0 stay as they are."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"gamma": math.exp((2 * float(torch.rand(())) - 1) * self.strength)}

    def change(self, image: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        return torch.where(image > 0, image.clamp_min(1e-6) ** params["gamma"], image)


class Linear(_OnImage):
    """Contrast about the middle by up to +-contrast, and brightness by up to +-brightness."""

    def __init__(self, contrast: float, brightness: float) -> None:
        super().__init__()
        self.contrast, self.brightness = contrast, brightness

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        a, b = (2 * torch.rand(2) - 1).tolist()
        return {"factor": 1 + a * self.contrast, "offset": b * self.brightness}

    def change(self, image: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        return (image - 0.5) * params["factor"] + 0.5 + params["offset"]


class Shading(_OnImage):
    """A smooth multiplicative field within 1 +- strength: uneven illumination."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        coarse = (2 * torch.rand(1, 1, 3, 3) - 1) * self.strength
        size = flat_inputs[0].shape[-2:]
        return {"field": 1 + functional.interpolate(coarse, size, mode="bicubic", align_corners=True)[0]}

    def change(self, image: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        return image * params["field"]


class Noise(_OnImage):
    """Gaussian noise, white or with a grain of two pixels, of a spread up to `strength`; planes are independent."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        planes, height, width = flat_inputs[0].shape
        sigma = self.strength * float(torch.rand(()))
        if torch.rand(()) < 0.5:
            return {"noise": sigma * torch.randn(planes, height, width)}
        coarse = torch.randn(planes, 1, (height + 1) // 2, (width + 1) // 2)
        return {"noise": sigma * functional.interpolate(coarse, (height, width), mode="bilinear")[:, 0]}

    def change(self, image: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        return image + params["noise"]


class GroundPattern(v2.Transform):
    """Marks on electrode and electrolyte that are no objects: a lattice of discs, lines, or a gradient.

    Patterned current collectors, scratches and uneven brightness are common, and few labelled images show them.

    Parameters
    ----------
    ground : sequence of int
        Codes of the pixels that may be marked.
    """

    PITCH_PX = (8.0, 160.0)
    STRENGTH = (0.03, 0.25)
    """Of the normalised grey range, either sign."""

    def __init__(self, ground: Sequence[int]) -> None:
        super().__init__()
        self.ground = torch.tensor(list(ground), dtype=torch.uint8)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        codes = next(x for x in flat_inputs if isinstance(x, tv_tensors.Mask)).as_subclass(torch.Tensor)
        height, width = codes.shape[-2:]
        kind = int(torch.randint(3, ()))
        strength = math.copysign(_log_uniform(*self.STRENGTH), float(torch.rand(())) - 0.5)
        if kind == 2:
            field = functional.interpolate(2 * torch.rand(1, 1, 3, 3) - 1, (height, width), mode="bicubic")[0]
        else:
            field = _lattice(height, width, _log_uniform(*self.PITCH_PX), lines=kind == 1)
        return {"pattern": strength * field * torch.isin(codes, self.ground)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        return tv_tensors.wrap(inpt.as_subclass(torch.Tensor) + params["pattern"], like=inpt)


def _log_uniform(low: float, high: float) -> float:
    return low * (high / low) ** float(torch.rand(()))


def _lattice(height: int, width: int, pitch_px: float, *, lines: bool) -> torch.Tensor:
    """Discs on a square or hexagonal lattice, or parallel lines, turned at random; (1, Y, X), 0 to 1, soft edges."""
    angle, fill = math.pi * float(torch.rand(())), 0.2 + 0.25 * float(torch.rand(()))
    y, x = torch.meshgrid(torch.arange(height) / pitch_px, torch.arange(width) / pitch_px, indexing="ij")
    shift = torch.rand(2)
    u = x * math.cos(angle) + y * math.sin(angle) + shift[0]
    v = y * math.cos(angle) - x * math.sin(angle) + shift[1]
    if lines:
        away = (u - u.floor() - 0.5).abs()
    else:
        row_height = math.sqrt(3) / 2 if torch.rand(()) < 0.7 else 1.0
        row = (v / row_height).floor()
        if row_height < 1:
            u = u + 0.5 * (row % 2)
        away = torch.hypot(u - u.floor() - 0.5, v - (row + 0.5) * row_height)
    return ((fill - away) * pitch_px + 0.5).clamp(0, 1)[None]


class Clip(_OnImage):
    """To the range that inference feeds the network."""

    def change(self, image: torch.Tensor, params: dict[str, Any]) -> torch.Tensor:
        return image.clamp(-0.5, 1.5)
