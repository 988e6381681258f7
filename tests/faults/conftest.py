"""A model, a video and a volume for runs that are made to fail."""

from pathlib import Path

import numpy as np
import pytest

from seg.analysis import AnalysisConfig
from seg.io import write_image
from seg.stack import Calibration


@pytest.fixture(scope="session")
def masks_only(tiny_model_of) -> AnalysisConfig:
    """An analysis with an untrained network: its mechanics are those of a real one."""
    return AnalysisConfig("predict", "masks only", "", "optical", "plan", {}, model=str(tiny_model_of("optical")))


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
