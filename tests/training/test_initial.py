"""Starting from a finished model: what is taken over, what is new, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from seg.errors import ModelError, UsageError
from seg.models.bundle import load_bundle
from training.config import compose_config, to_train_config
from training.initial import load_initial_weights, made_for
from training.label_codes import LabelCodes
from training.loop import build_network, prepare, train

IMAGES = ["data.sources.mine.images='a/*.tif'", "data.sources.mine.labels='b/*.tif'"]


def test_outputs_follow_the_names_of_classes(film_config, start, schema):
    """Order and number of classes change; where a class is kept, its logit is that of the model to the bit."""
    config = film_config(f"model.init={start}")
    codes = LabelCodes((schema.index("void"), schema.index("sei")), ())
    network = build_network(config, codes).eval()
    fresh = network.head.weight.detach().clone()
    load_initial_weights(network, config, codes, schema)
    image = torch.rand(1, 1, 32, 32)
    bundle = load_bundle(start)
    sei = bundle.spec.class_names.index("sei")
    with torch.no_grad():
        assert torch.equal(network(image)[:, 1], bundle.network(image)[:, sei])
    assert torch.equal(network.head.weight[0], fresh[0])


def test_few_labels_suffice_where_the_model_knows_the_classes(film_config, films, start):
    """One labelled corner of 10 x 10 px on each side of one edge, 5 steps: the start is kept, not unlearnt."""
    for file in sorted((films / "labels").iterdir()):
        labels = np.asarray(Image.open(file)).copy()
        if not file.stem.startswith("cellC"):
            sparse = np.zeros_like(labels)
            sparse[8:18, 20:30], sparse[-10:, 20:30] = labels[8:18, 20:30], labels[-10:, 20:30]
            labels = sparse
        Image.fromarray(labels).save(file)
    settings = ["trainer.max_steps=5", "data.balance=class", "optimizer.lr=1e-4"]
    scores = {}
    for name, init in (("scratch", "null"), ("finetuned", str(start))):
        config = film_config(f"name={name}", *settings, f"model.init={init}")
        result = train(config, prepare(config), quiet=True)
        scores[name] = result.scores.set_index(["class", "method"])["iou"]["sei", "network"]
    assert scores["finetuned"] > 0.9
    assert scores["finetuned"] > scores["scratch"] + 0.2
    assert "Started from `model`" in (result.model_dir / "card.md").read_text()


def test_only_a_model_of_one_modality_is_made_for_its_images(film_config, start):
    config = film_config(f"model.init={start}")
    assert made_for(config)
    name, source = next((n, s) for n, s in config.data.sources.items() if s.weight > 0)
    other = "optical" if source.modality != "optical" else "sem"
    sources = {**config.data.sources, name: replace(source, modality=other)}
    assert not made_for(replace(config, data=replace(config.data, sources=sources)))
    assert not made_for(replace(config, model=replace(config.model, init="generalist-2d")))


def test_architecture_and_pixel_size_are_taken_over(start, tmp_path):
    import json

    spec = json.loads((start / "model.json").read_text())
    spec["pixel_size_um"] = 0.4
    (start / "model.json").write_text(json.dumps(spec))
    words = ["name=x", "trainer.max_steps=1", "data=folder", *IMAGES, "data.sources.mine.modality=optical"]
    config = to_train_config(compose_config([*words, f"model.init={start}"]))
    assert (config.model.width, config.model.depth, config.data.pixel_size_um) == (8, 2, 0.4)
    assert (
        to_train_config(compose_config([*words, f"model.init={start}", "data.pixel_size_um=0"])).data.pixel_size_um == 0
    )
    with pytest.raises(UsageError, match=r"model.width=12, but 'start'.* has 8"):
        to_train_config(compose_config([*words, f"model.init={start}", "model.width=12"]))
    with pytest.raises(ModelError, match="no model 'nowhere'"):
        to_train_config(compose_config([*words, "model.init=nowhere"]))


def test_auto_takes_the_shipped_model_of_the_modality():
    words = ["experiment=finetune", *IMAGES, "data.sources.mine.modality=sem"]
    config = to_train_config(compose_config(words))
    spec = load_bundle(config.model.init).spec
    assert "sem" in spec.modalities
    assert config.model.width == spec.arguments["width"]
    # Made before the key existed: on the pixels' own grid, whatever the default is now.
    assert "stem_px" not in spec.arguments
    assert config.model.stem_px == 1
