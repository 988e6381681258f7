"""Which device and which arithmetic a network runs with here."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from seg.errors import UsageError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def resolve_device(name: str = "auto") -> torch.device:
    """The torch device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; UsageError when it is not there."""
    import torch

    kind, _, number = name.partition(":")
    if kind not in DEVICES or (number and (kind != "cuda" or not number.isdigit())):
        raise UsageError(f"There is no device {name!r}; choose auto, cpu, cuda or cuda:N.")
    if kind == "cpu" or (kind == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError(
            f"Device {name!r} was asked for but torch {torch.__version__} finds no CUDA device; "
            "use --device cpu or auto."
        )
    if number and int(number) >= torch.cuda.device_count():
        raise UsageError(f"Device {name!r} was asked for but there are {torch.cuda.device_count()} CUDA device(s).")
    return torch.device(kind if kind != "auto" else "cuda", int(number) if number else None)


def resolve_precision(name: str, device: torch.device) -> str:
    """The arithmetic for ``auto``: half precision where it is fast on `device`, else ``fp32``."""
    import torch

    if name not in PRECISIONS:
        raise UsageError(f"There is no precision {name!r}; choose one of {', '.join(PRECISIONS)}.")
    if name == "fp16" and device.type == "cpu":
        raise UsageError("Precision fp16 is slower than fp32 on a CPU; use auto, bf16 or fp32 there.")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if cpu_bf16_feature() else "fp32"


@contextmanager
def true_float32() -> Iterator[None]:
    """Float32 is float32 meanwhile: GPUs otherwise round the factors of convolutions to ten bits (TF32) by default.

    Masks in float32 are what half precision is measured against, and what images get that half precision would change.
    """
    import torch

    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = False
        yield
    finally:
        for switch, was in zip(switches, before, strict=True):
            switch.allow_tf32 = was


def arithmetic(precision: str) -> str:
    """What the CPU computes in, in words: ``half precision, which it has instructions for (amx_bf16)``."""
    feature = cpu_bf16_feature()
    if precision == "fp32":
        return f"float32; its half precision ({feature}) would be faster" if feature else "float32"
    if feature is None:
        return "half precision (bf16), for which it has no instructions: float32 would be faster"
    return f"half precision (bf16), for which it has instructions ({feature})"


@cache
def cpu_bf16_feature() -> str | None:
    """The CPU feature that makes bf16 faster than fp32 (``amx_bf16``, ``avx512_bf16``), or None.

    Read from ``/proc/cpuinfo``: other systems than Linux count as not having it, which costs speed only.
    """
    if platform.system() != "Linux":
        return None
    with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as file:
        flags = next((line.split() for line in file if line.startswith("flags")), [])
    return next((name for name in ("amx_bf16", "avx512_bf16") if name in flags), None)
