"""3-D training: from a folder of volumes and label volumes to a model that the batch command applies."""

import numpy as np
import pytest
import tifffile
import torch

from seg.cli import main as operandoseg
from seg.errors import DataError
from seg.io import open_stack, write_image
from seg.models.bundle import load_bundle
from seg.stack import Calibration
from training.config import compose_config, to_train_config
from training.dataset import PatchDataset
from training.loop import prepare, train

SHAPE = (24, 40, 48)
SPACING = Calibration({"z": 0.9, "y": 0.42, "x": 0.4}, source="file")


def cell(rng, shape=SHAPE):
    """Voids (7) as bright balls in metal (3) under a separator (9), which is the brightest half; noise a third."""
    z, y, x = np.indices(shape)
    labels = np.where(z < shape[0] * rng.uniform(0.35, 0.5), 9, 3)
    for _ in range(6):
        centre = [rng.uniform(0.55 * shape[0], shape[0]), rng.uniform(0, shape[1]), rng.uniform(0, shape[2])]
        labels[(z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < 5**2] = 7
    grey = np.array([0, 0, 0, 60, 0, 0, 0, 120, 0, 200])[labels] + rng.normal(0, 15, shape)
    return grey.clip(0, 255).astype(np.uint8), labels.astype(np.uint8)


def write(path, array, calibration=SPACING):
    axes = "zyx"[-array.ndim :]
    write_image(path, [array], shape=array.shape, dtype=array.dtype, axes=axes, calibration=calibration)


@pytest.fixture
def cells(tmp_path, rng):
    """Two specimens as ZYX OME-TIFF, one as a series of two volumes (TZYX)."""
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for name in ("cellA_1", "cellB_1"):
        image, labels = cell(rng)
        write(tmp_path / "images" / f"{name}.ome.tif", image)
        write(tmp_path / "labels" / f"{name}.ome.tif", labels)
    series, labels = (np.stack(part) for part in zip(*(cell(rng) for _ in range(2)), strict=True))
    tifffile.imwrite(tmp_path / "images" / "cellC_1.tif", series, metadata={"axes": "TZYX"}, ome=True)
    tifffile.imwrite(tmp_path / "labels" / "cellC_1.tif", labels)  # says nothing of its axes
    return tmp_path


@pytest.fixture
def cell_config(cells):
    def make(*overrides):
        return to_train_config(
            compose_config([
                "name=cells", "data=folder", "model=unet_3d", f"data.root={cells}", f"runs={cells / 'runs'}",
                "model.width=8", "model.depth=2", "data.patch_px=24", "data.patch_z_px=16", "data.workers=0",
                "trainer.device=cpu", "trainer.threads=1", "trainer.log_every=1", "trainer.score_every=0",
                "data.sources.mine.images='images/*.tif'", "data.sources.mine.labels='labels/*.tif'",
                "data.sources.mine.modality=xct", "data.sources.mine.zoom=[0.8,1.25]",
                "data.sources.mine.held_out=[cellB_1]", "data.sources.mine.specimen='^(.*)$'",
                "data.sources.mine.exclude=[]", "trainer.max_steps=35", "optimizer.lr=1e-2",
                "optimizer.ema_decay=0.9", "augment=light", *overrides,
            ])
        )  # fmt: skip

    return make


def test_volumes_are_trained_on_and_predicted_by_the_batch_command(cell_config, cells, schema):
    config = cell_config()
    result = train(config, prepare(config), quiet=True)
    bundle = load_bundle(result.model_dir, schema=schema)
    assert bundle.spec.dims == 3
    assert bundle.spec.percentiles == (0.1, 99.9)  # what xct volumes are normalised by, here and in training
    scores = result.scores.set_index("class")["iou"]
    # grey levels 60 apart under noise of 15 (4 sigma): a voxel alone is right in 97 %
    assert scores["deposit"] > 0.8
    assert scores["separator"] > 0.8

    code = operandoseg([
        "predict", str(cells / "images" / "cellB_1.ome.tif"), "--model", str(result.model_dir), "--modality", "xct",
        "--out", str(cells / "masks"), "--quiet",
    ])  # fmt: skip
    assert code == 0
    made = open_stack(next((cells / "masks").rglob("labels.ome.tif")))
    assert made.axes == "zyx"
    assert made.spacing_um == pytest.approx((0.9, 0.42, 0.4))
    truth = np.asarray(open_stack(cells / "labels" / "cellB_1.ome.tif").data)
    assert (np.asarray(made.data) == truth).mean() > 0.85


def test_patches_of_volumes_keep_image_and_labels_together(cell_config):
    config = cell_config("augment=standard", "augment.probability=0", "augment.invert=0")
    data = prepare(config)
    dataset = PatchDataset(data.images, None, config.data, config.augment)
    assert {i.name for i in data.images} == {"cellA_1", "cellB_1", "cellC_1", "cellC_1[1]"}
    for index in range(6):
        image, codes = dataset[index]
        assert image.shape == (1, 16, 24, 24)
        assert codes.shape == (16, 24, 24)
        grey = torch.tensor([0.3, 0.6, 1.0])[codes.long() - 1]  # deposit, void, separator in units of the percentiles
        assert torch.corrcoef(torch.stack([image[0].flatten(), grey.flatten()]))[0, 1] > 0.8
    assert torch.equal(dataset[3][0], PatchDataset(data.images, None, config.data, config.augment)[3][0])


def test_noise_differs_between_planes(cell_config):
    config = cell_config("augment=none", "augment.probability=1", "augment.noise=0.5")
    data = prepare(config)
    image, _ = PatchDataset(data.images, None, config.data, config.augment)[0]
    plain, _ = PatchDataset(data.images, None, config.data, cell_config("augment=none").augment)[0]
    assert torch.corrcoef((image - plain)[0].flatten(1))[0, 1].abs() < 0.5


def test_a_plane_is_refused(cell_config, cells):
    write(cells / "images" / "cellD.ome.tif", np.zeros((9, 9), np.uint8), Calibration())
    write(cells / "labels" / "cellD.ome.tif", np.ones((9, 9), np.uint8), Calibration())
    with pytest.raises(DataError, match=r"cellD.ome.tif: a 3-D network needs volumes"):
        prepare(cell_config())
