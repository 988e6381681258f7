"""The experiments of ``data_samples/`` for napari's File > Open Sample: offline."""

from __future__ import annotations

import logging
import os
import shutil
from functools import partial
from pathlib import Path

from napari_plugin import layers
from napari_plugin.layers import LayerData

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "OPERANDOSEG_SAMPLES"


def samples_folder() -> Path:
    """Where samples are written, so that labels and results have a place beside them."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / "operandoseg_samples")


def sample_image(name: str) -> Path:
    """The image file of a sample; where it is not there yet it is copied from a source checkout, else drawn."""
    import seg

    folder = samples_folder() / name
    image = folder / "image.ome.tif"
    if not image.is_file():
        shipped = Path(seg.__file__).parents[1] / "data_samples" / name
        if (shipped / "image.ome.tif").is_file():
            shutil.copytree(shipped, folder, dirs_exist_ok=True)
        else:
            from seg.synthetic import make_sample, write_experiment

            write_experiment(make_sample(name), folder)
        logger.info("sample %r written to %s", name, folder)
    return image


def open_sample(name: str) -> list[LayerData]:
    """The image of a sample as a layer."""
    from seg.io import open_stack

    return [layers.image_layer(open_stack(sample_image(name)), name=f"{name} sample")]


optical = partial(open_sample, "optical")
tem = partial(open_sample, "tem")
xct = partial(open_sample, "xct")
cryoem = partial(open_sample, "cryoem")
sem = partial(open_sample, "sem")
