"""The picture of a network in training: whose tiles it shows, when it is renewed, and what is in it."""

import numpy as np
import pytest
from PIL import Image

import training.preview
from seg.labels import load_schema
from training.label_codes import LabelCodes
from training.preview import Preview
from training.sources import LabelledImage

CODES = LabelCodes((1, 2, 3), ())


class Network:
    """Stands for a network: only its mode matters here."""

    training = True

    def train(self, mode: bool) -> None:
        self.training = mode


def labelled(name: str, *, held_out: bool, shape=(40, 60)) -> LabelledImage:
    rng = np.random.default_rng(1)
    codes = np.zeros(shape, np.uint8)
    codes[..., 5:15, 10:50] = 2
    codes[..., 20:30, 10:20] = 3
    return LabelledImage("mine", name, name, rng.random(shape).astype(np.float16), codes, held_out)


@pytest.fixture
def truth(monkeypatch):
    """Instead of a network the labels themselves, and the first class where nothing is labelled."""

    def predict(network, image, *, device, precision):
        network.training = False
        return np.broadcast_to(np.maximum(labelled("a", held_out=False).codes.astype(int) - 1, 0), image.shape)

    monkeypatch.setattr(training.preview, "predict", predict)


def preview(tmp_path, images, every_s=0.0):
    schema = load_schema()
    return Preview(tmp_path / "p.png", images, CODES, schema, device=None, precision="fp32", every_s=every_s), schema


def test_image_labels_and_prediction_stand_side_by_side(tmp_path, truth):
    shown, schema = preview(tmp_path, [labelled("a", held_out=False)])
    network = Network()
    assert shown.draw(network, 7)
    assert network.training
    sheet = np.asarray(Image.open(tmp_path / "p.png"))
    head, picture = sheet[:-46], sheet[-46:]
    assert picture.shape == (40 + 6, 3 * 60 + 2 * 8, 3)
    assert (head[:, :-2] < 128).any()
    assert (head[:, -2:] == 255).all()  # the text ends inside of the sheet
    colours = {index: next(c.rgb for c in schema.classes if c.index == index) for index in (1, 2, 3)}
    labels, output = picture[:40, 68:128], picture[:40, 136:]
    assert tuple(labels[8, 30]) == tuple(output[8, 30]) == colours[2]
    assert tuple(labels[25, 15]) == tuple(output[25, 15]) == colours[3]
    assert tuple(labels[35, 55]) == training.preview.UNKNOWN
    assert tuple(output[35, 55]) == colours[1]


def test_text_is_readable_in_a_widget_of_half_the_width(tmp_path, truth, monkeypatch):
    wide = labelled("a", held_out=False, shape=(40, 192))
    monkeypatch.setattr(training.preview, "predict", lambda network, image, **_: np.zeros(image.shape, int))
    shown, _ = preview(tmp_path, [wide])
    assert shown.draw(Network(), 123456)
    head = np.asarray(Image.open(tmp_path / "p.png").convert("L"))[:-46]
    ink = np.flatnonzero((head < 128).any(axis=1))
    assert np.ptp(ink) >= 20  # of 592 px width: 10 px from the top of a letter to the foot of a p at half of it


def test_held_out_images_come_first_and_it_waits_between_pictures(tmp_path, truth):
    images = [labelled(name, held_out=name in "cd") for name in "abcd"]
    shown, _ = preview(tmp_path, images, every_s=3600.0)
    names = [item.name for item, _ in shown.tiles]
    assert names[0] == "c"
    assert len(names) == 3
    assert not shown.draw(Network(), 1)  # not in runs of seconds
    shown._due = 0.0
    assert shown.draw(Network(), 2)
    assert not shown.draw(Network(), 3)


def test_nothing_labelled_draws_nothing(tmp_path, truth):
    item = labelled("a", held_out=True)
    item.codes[:] = 0
    shown, _ = preview(tmp_path, [item])
    assert not shown.draw(Network(), 1)
    assert not (tmp_path / "p.png").exists()


def test_tile_of_a_volume_is_of_its_most_labelled_plane(tmp_path, truth):
    item = labelled("v", held_out=False, shape=(30, 40, 60))
    item.codes[:] = 0
    item.codes[20, 5:15, 10:50] = 2
    shown, _ = preview(tmp_path, [item])
    assert shown.tiles[0][1][0] == 20
    assert shown.draw(Network(), 1)


def test_tile_is_where_the_rare_class_is():
    codes = np.zeros((400, 600), np.uint8)
    codes[:100, :300] = 2
    codes[350:360, 500:510] = 3
    rows, columns = training.preview._labelled_tile(codes)
    # all of a class weighs 1: the rare one counts in full, of the other a tile holds at most 100 x 192 of 30000 px
    assert (codes[rows, columns] == 3).sum() == 100
