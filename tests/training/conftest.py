"""Small data sets for training: a bright grainy film on a dark ground, drawn with a known edge."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.config import TrainConfig, compose_config, to_train_config
from training.loop import prepare, train


def film(rng: np.random.Generator, shape: tuple[int, int] = (72, 80)) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels (7 film, 3 ground, 0 unlabelled in a corner); the film is the lower part, with a wavy edge."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    edge = shape[0] * rng.uniform(0.35, 0.65) + 4 * np.sin(x / 9 + rng.uniform(0, 6))
    inside = y > edge
    image = np.where(inside, 150.0, 70.0) + rng.normal(0, 12, shape)
    labels = np.where(inside, 7, 3).astype(np.uint8)
    labels[:6, :6] = 0
    return image.clip(0, 255).astype(np.uint8), labels


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Six images of three specimens on disk: ``cellA_0.png`` ... ``cellC_1.png``."""
    rng = np.random.default_rng(7)
    for kind in ("images", "labels"):
        (tmp_path / "films" / kind).mkdir(parents=True)
    for specimen in "ABC":
        for n in range(2):
            image, labels = film(rng)
            Image.fromarray(image).save(tmp_path / "films" / "images" / f"cell{specimen}_{n}.png")
            Image.fromarray(labels).save(tmp_path / "films" / "labels" / f"cell{specimen}_{n}.png")
    return tmp_path / "films"


FAST = [
    "model.width=8", "model.depth=2", "data.patch_px=32", "data.batch=4", "data.workers=0", "trainer.device=cpu",
    "trainer.threads=1",
    "trainer.log_every=1", "trainer.score_every=0",
]  # fmt: skip


@pytest.fixture
def film_words(films: Path, tmp_path: Path) -> list[str]:
    """Command-line words for three steps on `films` with a tiny network."""
    return [
        "name=film", "data=folder", f"data.root={films}", f"runs={tmp_path / 'runs'}", *FAST,
        "data.sources.mine.images='images/*.png'", "data.sources.mine.labels='labels/*.png'",
        "data.sources.mine.modality=optical", "data.sources.mine.classes={0:null,3:electrolyte,7:sei}",
        "data.sources.mine.foreground=[sei]", "data.sources.mine.held_out=[cellC]", "trainer.max_steps=3",
        "trainer.baselines=false",  # a forest takes longer than the three steps
    ]  # fmt: skip


@pytest.fixture
def film_config(film_words: list[str]) -> Callable[..., TrainConfig]:
    """Makes a configuration for `films`; further overrides as arguments."""

    def make(*overrides: str) -> TrainConfig:
        return to_train_config(compose_config([*film_words, *overrides]))

    return make


@pytest.fixture(scope="session")
def _trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("start") / "model"


@pytest.fixture
def start(film_config, _trained_once, tmp_path):
    """Folder of a model of electrolyte and sei, width 8, that some steps made better than chance; a copy of one."""
    if not _trained_once.exists():
        words = ["trainer.max_steps=40", "augment=light", "optimizer.lr=5e-3", "optimizer.ema_decay=0.9"]
        config = film_config("name=start", "trainer.baselines=false", *words)
        shutil.copytree(train(config, prepare(config), quiet=True).model_dir, _trained_once)
    return shutil.copytree(_trained_once, tmp_path / "model")
