"""Reading, splitting by specimen, patches that are functions of their number, augmentation."""

import multiprocessing

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from seg.errors import DataError, NothingMatchedError, UsageError
from training.augment import GroundPattern, make_transform, margin_px
from training.config import AugmentConfig
from training.dataset import Batches, PatchDataset, StepSampler, make_loader
from training.loop import prepare


def test_split_is_by_specimen(film_config):
    data = prepare(film_config())
    assert {i.specimen for i in data.images if i.held_out} == {"cellC"}
    assert {i.specimen for i in data.images if not i.held_out} == {"cellA", "cellB"}
    assert data.codes.class_indices == (1, 8)  # electrolyte, sei


def test_a_share_of_specimens_is_drawn_by_the_seed(film_config):
    share = ["data.sources.mine.held_out=[]", "data.sources.mine.held_out_share=0.34"]
    first, again = (prepare(film_config(*share)) for _ in range(2))
    held_out = {i.specimen for i in first.images if i.held_out}
    assert len(held_out) == 1
    assert held_out == {i.specimen for i in again.images if i.held_out}
    assert not held_out & {i.specimen for i in first.images if not i.held_out}


def test_label_values_of_the_schema_need_no_map(film_config, films):
    data = prepare(film_config("data.sources.mine.classes=null"))
    assert data.codes.class_indices == (3, 7)  # deposit, void: what the files hold, no other class


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["data.sources.mine.images='none/*.png'"], NothingMatchedError, "nothing matches"),
        (["data.sources.mine.labels='labels/x.png'"], UsageError, r"needs a \*"),
        (["data.sources.mine.labels='gone/*.png'"], DataError, "6 labelled image.s. cannot be used"),
        (["data.sources.mine.specimen='cell'"], UsageError, "one group"),
        (["data.sources.mine.specimen='(cell'"], UsageError, "not a regular expression"),
        (["data.sources.mine.specimen='(frame)'"], DataError, "no specimen in the name"),
        (["data.sources.mine.held_out=[cellX]"], UsageError, "no specimen cellX; there are cellA, cellB, cellC"),
        (["data.sources.mine.held_out=[cellA,cellB,cellC]"], DataError, "nothing is left to train on"),
        (["data.sources.mine.held_out_share=0.5"], UsageError, "not both"),
        (["data.sources.mine.classes={0:null,3:null,7:sei}"], DataError, "at least two classes"),
        (["data.sources.mine.classes={0:null,3:electrolite,7:sei}"], UsageError, "did you mean 'electrolyte'"),
        (["data.sources.mine.modality=optikal"], UsageError, "did you mean 'optical'"),
    ],
)
def test_wrong_data_is_told_before_the_first_step(film_config, overrides, error, message):
    with pytest.raises(error, match=message):
        prepare(film_config(*overrides))


def test_all_bad_files_are_listed_at_once(film_config, films):
    Image.fromarray(np.full((72, 80), 9, np.uint8)).save(films / "labels" / "cellC_1.png")
    (films / "images" / "cellA_0.png").write_bytes(b"not an image")
    Image.fromarray(np.full((10, 11), 3, np.uint8)).save(films / "labels" / "cellB_0.png")
    with pytest.raises(DataError, match=r"(?s)3 labelled image.s.*cellA_0.*cellB_0.*72, 80.*10, 11.*cellC_1.*9; its"):
        prepare(film_config())


def test_a_sample_depends_on_its_number_alone(film_config):
    config = film_config()
    data = prepare(config)
    one, other = (PatchDataset(data.images, None, config.data, config.augment) for _ in range(2))
    other[3], torch.rand(5)
    image, codes = one[17]
    again, codes_again = other[17]
    assert torch.equal(image, again)
    assert torch.equal(codes, codes_again)
    assert image.shape == (1, 32, 32)
    assert (image.dtype, codes.dtype) == (torch.float32, torch.uint8)
    assert codes.shape == (32, 32)
    assert image.min() >= -0.5
    assert image.max() <= 1.5
    assert not torch.equal(image, one[18][0])


def test_held_out_images_are_never_sampled(film_config):
    config = film_config()
    data = prepare(config)
    dataset = PatchDataset(data.images, None, config.data, config.augment)
    assert {i.specimen for images in dataset.by_source.values() for i in images} == {"cellA", "cellB"}


def test_steps_continue_where_they_stopped():
    batches = iter(StepSampler(4, start=3))
    assert next(batches) == [12, 13, 14, 15]
    assert next(batches) == [16, 17, 18, 19]


def test_rare_classes_are_found(film_config, films):
    """One pixel in six thousand: with half the patches centred on a class drawn evenly, a quarter aim at it."""
    config = film_config("augment=none", "data.sources.mine.zoom=[1,1]", "data.sources.mine.held_out=[]")
    for file in (films / "labels").iterdir():
        labels = np.full((72, 80), 3, np.uint8)
        labels[40, 50] = 7
        Image.fromarray(labels).save(file)
    data = prepare(config)
    dataset = PatchDataset(data.images, None, config.data, config.augment)
    seen = np.mean([bool((dataset[i][1] == 2).any()) for i in range(200)])
    # aimed at in 1/4 and then inside the patch (jitter of a quarter patch); by chance in 32 * 32 / (72 * 80) = 0.18
    assert seen > 0.3


def test_geometry_moves_image_and_labels_together(rng):
    """A disc whose image is its own mask: after any warp the two still agree but for interpolation at the rim."""
    config = AugmentConfig(probability=0.0, invert=0.0)
    side = margin_px(config, 64)
    y, x = np.mgrid[:side, :side]
    disc = ((y - 30) ** 2 / 2 + (x - 50) ** 2 < 20**2).astype(np.uint8)
    transform = make_transform(config, 64)
    torch.manual_seed(3)
    for _ in range(8):
        image, mask = transform(tv_tensors.Image(torch.from_numpy(disc)[None].float()), tv_tensors.Mask(disc[None]))
        assert image.shape == mask.shape == (1, 64, 64)
        disagree = ((image > 0.5) != (mask > 0)).float().mean().item()
        assert disagree < 0.01  # nearest against bilinear: a share of the rim pixels, about 110 of 4096


def test_intensity_changes_leave_labels_alone():
    config = AugmentConfig(flip=False, quarter_turns=False, rotate_deg=0, elastic_px=0, probability=1.0, invert=1.0)
    side = margin_px(config, 64)
    torch.manual_seed(0)
    image, mask = torch.rand(1, side, side), torch.randint(0, 5, (1, side, side), dtype=torch.uint8)
    changed, same = make_transform(config, 64)(tv_tensors.Image(image), tv_tensors.Mask(mask))
    start = (side - 64) // 2
    assert torch.equal(same, mask[:, start : start + 64, start : start + 64])
    assert (changed - image[:, start : start + 64, start : start + 64]).abs().mean() > 0.05
    assert isinstance(changed, tv_tensors.Image)


def test_patterns_mark_the_ground_and_no_object():
    plain = {"probability": 0.0, "invert": 0.0, "flip": False, "quarter_turns": False, "rotate_deg": 0, "elastic_px": 0}
    config = AugmentConfig(ground_pattern=1.0, **plain)
    transform = make_transform(config, 64, ground=[1, 5])
    codes = torch.zeros(1, 64, 64, dtype=torch.uint8)
    codes[:, :20], codes[:, 20:40], codes[:, 40:] = 1, 5, 3
    torch.manual_seed(0)
    marked = 0
    for _ in range(20):
        image, same = transform(tv_tensors.Image(torch.full((1, 64, 64), 0.5)), tv_tensors.Mask(codes))
        assert torch.equal(same, codes)
        assert (image[codes == 3] == 0.5).all()
        # never stronger than its range; a gradient may overshoot by its bicubic interpolation
        assert (image - 0.5).abs().max() < 1.3 * GroundPattern.STRENGTH[1]
        marked += bool((image[codes != 3] - 0.5).abs().max() > 0)
    assert marked > 15  # the widest lattice may have no disc in so small a patch


class Spoiled(torch.utils.data.Dataset):
    def __getitem__(self, index):
        raise DataError("no such patch")


def test_workers_end_with_the_error_of_one_even_while_it_is_kept():
    loader = make_loader(Spoiled(), batch=2, workers=1, start_step=0)
    others = set(multiprocessing.active_children())
    with pytest.raises(DataError) as kept, Batches(loader) as batches:
        next(batches)
    assert set(multiprocessing.active_children()) <= others
    assert "no such patch" in str(kept.value)
