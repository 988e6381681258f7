"""Versions, devices and paths: what a bug report needs."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from seg import __version__
from seg.resources import configs_dir

PACKAGES = (
    "numpy", "scipy", "scikit-image", "torch", "torchvision", "lightning", "hydra-core", "tifffile", "zarr", "pandas",
    "skan", "napari",
)  # fmt: skip


def collect() -> dict[str, str]:
    """The facts, as text by name."""
    facts = {
        "operandoseg": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": str(os.cpu_count()),
        "configurations": str(configs_dir()),
    }
    for name in PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    try:
        import torch

        facts["cuda"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no device"
    except ImportError as error:
        facts["cuda"] = f"torch cannot be imported: {error}"
    return facts
