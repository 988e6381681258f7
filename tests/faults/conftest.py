"""A model, a video and a volume for runs that are made to fail."""

from pathlib import Path

import numpy as np
import pytest

from seg.analysis import AnalysisConfig
from seg.io import write_image
from seg.stack import Calibration


@pytest.fixture(scope="session")
def masks_only(tmp_path_factory) -> AnalysisConfig:
    """An analysis with an untrained network of three classes: its mechanics are those of a real one."""
    import torch

    from seg.labels import load_schema
    from seg.models.bundle import ModelSpec, save_bundle
    from seg.models.unet import UNet

    torch.manual_seed(3)
    arguments = {"n_classes": 3, "width": 4, "depth": 2}
    spec = ModelSpec("tiny", "unet", arguments, load_schema("lithium").to_dict(), (2, 3, 4), modalities=("optical",))
    model = save_bundle(tmp_path_factory.mktemp("models") / "tiny", UNet(**arguments), spec, "# Tiny", seed=1)
    return AnalysisConfig("predict", "masks only", "", "optical", "plan", {}, model=str(model))


@pytest.fixture
def video(tmp_path) -> Path:
    """Six frames that are computed one by one."""
    frames = np.random.default_rng(1).integers(0, 255, (6, 512, 516)).astype(np.uint8)
    path = tmp_path / "in" / "video.ome.tif"
    write_image(
        path, frames, shape=frames.shape, dtype=frames.dtype, axes="tyx",
        calibration=Calibration({"y": 0.4, "x": 0.25}, tuple(2.0 * t for t in range(6)), "file"),
    )  # fmt: skip
    return path


@pytest.fixture
def volume() -> np.ndarray:
    """Four planes that are computed one by one."""
    return np.random.default_rng(2).random((4, 512, 516), np.float32)
