"""Splits by specimen, by block of a series, by fold; leaks; what each part holds; sparse strokes."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from seg.errors import DataError, UsageError
from training.dataset import PatchDataset
from training.loop import prepare, train
from training.splits import presence, refuse_leaks

BLOCK = ["data.sources.mine.held_out=[]", "data.sources.mine.held_out_block=0.25", "data.sources.mine.gap_frames=2"]


@pytest.fixture
def series(films: Path, rng):
    """One specimen in place of the films: 20 frames of unlike noise as one TYX file, every other frame labelled."""
    for kind in ("images", "labels"):
        for file in (films / kind).iterdir():
            file.unlink()
    frames = ndimage.gaussian_filter(rng.normal(size=(20, 64, 72)), (0, 2, 2))
    frames = (255 * (frames - frames.min()) / np.ptp(frames)).astype(np.uint8)
    labels = np.where(frames > 128, 7, 3).astype(np.uint8)
    labels[1::2] = 0
    for kind, values in (("images", frames), ("labels", labels)):
        tifffile.imwrite(films / kind / "cellS_1.tif", values, metadata={"axes": "TYX"}, ome=True)
    return ["data.sources.mine.images='images/*.tif'", "data.sources.mine.labels='labels/*.tif'"]


def times(data, *, held_out):
    return sorted(i.time for i in data.images if i.held_out == held_out)


def test_a_block_at_the_end_is_held_out_with_a_gap(film_config, series):
    """Labelled are frames 0, 2 ... 18: the last 2.5, rounded to 2, are held out, and those within 2 before left out."""
    data = prepare(film_config(*series, *BLOCK))
    assert times(data, held_out=True) == [16, 18]
    assert times(data, held_out=False) == [0, 2, 4, 6, 8, 10, 12]


def test_folds_of_one_series_are_blocks_that_cover_it(film_config, series):
    folds = [prepare(film_config(*series, *BLOCK, "data.folds=5", f"data.fold={n}")) for n in range(5)]
    assert [times(f, held_out=True) for f in folds] == [[0, 2], [4, 6], [8, 10], [12, 14], [16, 18]]
    assert times(folds[2], held_out=False) == [0, 2, 4, 14, 16, 18]


def test_folds_of_specimens_hold_out_each_once(film_config):
    folds = [prepare(film_config("data.folds=3", f"data.fold={n}")) for n in range(3)]
    held_out = [{i.specimen for i in f.images if i.held_out} for f in folds]
    assert all(len(part) == 1 for part in held_out)
    assert set.union(*held_out) == {"cellA", "cellB", "cellC"}


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["data.sources.mine.held_out=[cellS]"], UsageError, "one of held_out"),
        (["data.sources.mine.held_out_block=1.5"], UsageError, "expected 0 to 1"),
        (["data.sources.mine.gap_frames=50"], DataError, "none of the 10 labelled frames is left to train on"),
    ],
)
def test_blocks_that_cannot_be_cut_are_refused(film_config, series, overrides, error, message):
    with pytest.raises(error, match=message):
        prepare(film_config(*series, *BLOCK, *overrides))


def test_the_specimen_may_be_a_folder(film_config, films):
    for kind in ("images", "labels"):
        for specimen in "ABC":
            (films / kind / specimen).mkdir()
            for file in sorted((films / kind).glob(f"cell{specimen}_?.png")):
                file.rename(films / kind / specimen / file.name.replace(f"cell{specimen}_", f"frame{specimen}"))
    words = [
        "data.sources.mine.images='images/*/*.png'", "data.sources.mine.labels='labels/**/*.png'",
        "data.sources.mine.specimen='/([ABC])/[^/]*$'", "data.sources.mine.held_out=[C]",
    ]  # fmt: skip
    data = prepare(film_config(*words))
    assert {i.specimen for i in data.images if i.held_out} == {"C"}


# --- leaks ----------------------------------------------------------------------------------------------------------


def textured(rng, shape=(72, 80)):
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    return 128 + 60 * smooth / smooth.std()


def test_a_frame_that_comes_again_is_refused(film_config, films, rng):
    """The same scene under new noise (a tenth of its contrast) and other brightness, as a moment later in a series."""
    scene = textured(rng)
    for name, seen in (("cellA_0", scene), ("cellC_1", 0.8 * scene + 20 + rng.normal(0, 6, scene.shape))):
        Image.fromarray(seen.clip(0, 255).astype(np.uint8)).save(films / "images" / f"{name}.png")
    with pytest.raises(DataError, match=r"(?s)1 pair.*mine/cellA_0 \(trained on\) and mine/cellC_1 \(held out\): corr"):
        prepare(film_config())
    assert prepare(film_config("data.leak_similarity=null")).images
    # in one specimen the two may be alike
    assert prepare(film_config("data.sources.mine.specimen='(cell[AC]|cellB)'", "data.sources.mine.held_out=[cellB]"))


def test_unlike_scenes_in_the_same_cell_are_no_leak(rng, film_config):
    """Straight layers at the same height, as cells of one make show them, under different textures."""
    data = prepare(film_config())
    layers = np.where(np.arange(72)[:, None] > 36, 150.0, 0.0)
    images = []
    for item in data.images:
        from dataclasses import replace

        images.append(replace(item, image=((layers + textured(rng)) / 300).astype(np.float16)))
    refuse_leaks(images, 0.8)


# --- what each part holds -------------------------------------------------------------------------------------------


def test_presence_counts_labelled_pixels(film_config, films, caplog):
    for file in (films / "labels").glob("cellC_*.png"):
        labels = np.asarray(Image.open(file)).copy()
        labels[labels == 7] = 3
        Image.fromarray(labels).save(file)
    config = film_config()
    data = prepare(config)
    table = presence(data.images, data.codes, data.schema).set_index(["part", "class"])
    assert table.loc[("held_out", "electrolyte"), "labelled_px"] == 2 * (72 * 80 - 36)
    assert tuple(table.loc[("held_out", "sei")][["labelled_px", "n_images", "n_specimens"]]) == (0, 0, 0)
    assert tuple(table.loc[("train", "sei")][["n_images", "n_specimens"]]) == (4, 2)
    assert "sei: in no held-out image of this split" in caplog.text


# --- sparse strokes -------------------------------------------------------------------------------------------------


@pytest.fixture
def strokes(films):
    """Of 72 x 80 px only two strokes of two px per image are labelled: 0.07 %, in three of the four trained images."""
    for file in sorted((films / "labels").iterdir()):
        if file.stem.startswith("cellC"):
            continue
        labels = np.asarray(Image.open(file))
        sparse = np.zeros_like(labels)
        sparse[10, 30:32], sparse[-6, 50:52] = labels[10, 30:32], labels[-6, 50:52]
        Image.fromarray(sparse).save(file)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_thousandth_of_labels_is_enough_to_learn(film_config, strokes, seed):
    """Bright film on dark ground, noise a seventh of the step: four labelled pixels per image tell the two apart."""
    config = film_config(
        "data.balance=class", "trainer.max_steps=60", "augment=light", "optimizer.lr=5e-3", "optimizer.ema_decay=0.9",
        f"data.seed={seed}",
    )  # fmt: skip
    data = prepare(config)
    table = presence(data.images, data.codes, data.schema).groupby("part")["labelled_px"].sum()
    assert table["train"] / (4 * 72 * 80) < 0.001
    result = train(config, data, quiet=True)
    assert result.scores.set_index(["class", "method"])["iou"]["sei", "network"] > 0.85


def test_every_patch_of_sparse_labels_holds_some(film_config, strokes):
    """Half the patches aim at a class, the others at any label; warping may push a stroke of two px out of some."""
    config = film_config("augment=none", "data.sources.mine.zoom=[1,1]")
    data = prepare(config)
    dataset = PatchDataset(data.images, None, config.data, config.augment)
    assert all((dataset[i][1] > 0).any() for i in range(60))


def test_a_class_in_one_of_many_images_is_found(film_config, films):
    """By image its patches are aimed at in 1/2 * 1/4 * 1/2 of all; by class in 1/2 * 1/2 and half of the rest too."""
    for file in sorted((films / "labels").iterdir()):
        labels = np.full((72, 80), 3, np.uint8)
        if file.stem in ("cellA_1", "cellC_1"):
            labels[40, 50] = 7
        Image.fromarray(labels).save(file)
    seen = {}
    for balance in ("image", "class"):
        config = film_config("augment=none", "data.sources.mine.zoom=[1,1]", f"data.balance={balance}")
        data = prepare(config)
        dataset = PatchDataset(data.images, None, config.data, config.augment)
        seen[balance] = np.mean([bool((dataset[i][1] == 2).any()) for i in range(240)])
    assert seen["image"] == pytest.approx(1 / 16 + 15 / 16 * 0.18 / 4, abs=0.05)  # 32 * 32 / (72 * 80) by chance
    assert seen["class"] > 0.2


def test_frames_without_labels_are_left_out_and_files_without_are_refused(film_config, series, films):
    data = prepare(film_config(*series, *BLOCK))
    assert all(i.codes.any() for i in data.images)
    tifffile.imwrite(films / "images" / "cellT.tif", np.zeros((64, 72), np.uint8) + np.arange(72, dtype=np.uint8))
    tifffile.imwrite(films / "labels" / "cellT.tif", np.zeros((64, 72), np.uint8))
    with pytest.raises(DataError, match=r"cellT.tif: no pixel of cellT.tif is labelled .*exclude=\[cellT\]"):
        prepare(film_config(*series, *BLOCK))


def test_all_that_is_wrong_is_said_at_once(film_config, films):
    """A corrupt image, labels of another size, values outside the map, no label file, no labels, no specimen."""
    (films / "images" / "cellA_0.png").write_bytes((films / "images" / "cellA_0.png").read_bytes()[:200])
    Image.fromarray(np.full((10, 11), 3, np.uint8)).save(films / "labels" / "cellA_1.png")
    Image.fromarray(np.full((72, 80), 9, np.uint8)).save(films / "labels" / "cellB_0.png")
    (films / "labels" / "cellB_1.png").unlink()
    Image.fromarray(np.zeros((72, 80), np.uint8)).save(films / "labels" / "cellC_0.png")
    Image.fromarray(np.zeros((72, 80), np.uint8)).save(films / "images" / "odd.png")
    with pytest.raises(DataError) as caught:
        prepare(film_config("data.sources.mine.specimen='^(cell.)_'"))
    text = str(caught.value)
    for part in (
        "6 labelled image(s)", "cellA_0.png: 'cellA_0.png' cannot be read", "(72, 80), its labels (10, 11)",
        "label value(s) 9", "no label file", "no pixel of cellC_0.png is labelled", "odd.png: no specimen in the name",
    ):  # fmt: skip
        assert part in text
    assert caught.value.exit_code == 5


def test_images_are_resampled_to_one_pixel_size(film_config, films):
    """Films of 0.5 um pixels on a grid of 1 um: half as many pixels, the same shares of the classes."""
    words = ["data.sources.mine.pixel_size_um=0.5", "data.pixel_size_um=1.0"]
    fine, coarse = prepare(film_config(words[0])), prepare(film_config(*words))
    assert coarse.images[0].image.shape == (36, 40)
    for a, b in zip(fine.images, coarse.images, strict=True):
        assert (a.codes == 2).mean() == pytest.approx((b.codes == 2).mean(), abs=0.02)  # half a pixel of 36
        assert b.image[b.codes == 2].mean() == pytest.approx(a.image[a.codes == 2].mean(), abs=0.02)
    with pytest.raises(DataError, match="no pixel size is known"):
        prepare(film_config(words[1]))
    result = train(film_config(*words, "data.sources.mine.zoom=[0.5,2]"), coarse, quiet=True)
    from seg.models.bundle import read_spec

    spec = read_spec(result.model_dir)
    assert (spec.pixel_size_um, spec.pixel_size_range_um) == (1.0, (0.5, 2.0))
