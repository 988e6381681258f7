"""Configurations: every file composes, and what is misspelt is named with its nearest neighbour."""

import pytest

from seg.errors import UsageError
from seg.models import ARCHITECTURES
from seg.resources import config_names
from training.config import compose_config, known_keys, to_train_config
from training.label_codes import LabelCodes
from training.loop import build_network

CODES = LabelCodes((1, 2, 3), ())
YOUR_IMAGES = {
    "finetune": [f"data.sources.mine.{key}" for key in ("images='a/*.tif'", "labels='b/*.tif'", "modality=optical")],
}  # fmt: skip
RUN = ["name=test", "trainer.max_steps=1", "data=synthetic"]


@pytest.mark.parametrize("name", config_names("experiment"))
def test_every_experiment_is_complete(name):
    config = to_train_config(compose_config([f"experiment={name}", *YOUR_IMAGES.get(name, [])]))
    assert config.name.startswith(name)
    assert config.trainer.max_steps or config.trainer.max_minutes
    assert build_network(config, CODES).n_classes == 3


@pytest.mark.parametrize(
    ("group", "name"),
    [(g, n) for g in ("model", "loss", "optimizer", "augment", "trainer", "debug") for n in config_names(g)],
)
def test_every_choice_of_a_group_works(group, name):
    config = to_train_config(
        compose_config(["name=test", "trainer.max_steps=1", "data=sem_dendrites", f"{group}={name}"])
    )
    assert build_network(config, CODES).dims == config.model.dims


@pytest.mark.parametrize("name", [n for n in config_names("data") if n != "folder"])
def test_every_data_set_is_complete(name):
    config = to_train_config(compose_config(["name=test", "trainer.max_steps=1", f"data={name}"]))
    assert set(config.data.sources) == ({name} if name != "synthetic" else set())


def test_data_sets_join():
    config = to_train_config(compose_config(["name=a", "trainer.max_steps=1", "data=[sem_dendrites,synthetic]"]))
    assert set(config.data.sources) == {"sem_dendrites"}
    assert config.data.synthetic.weight == 1.0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.lrr=1"], r"no key 'optimizer.lrr'; did you mean 'optimizer.lr'"),
        (["optimzer.lr=1"], r"did you mean 'optimizer'"),
        (["lr=1"], r"did you mean 'optimizer.lr'"),
        (["+optimizer.momentun=1"], r"no key 'optimizer.momentun'"),
        (["data=sem_dendrites", "data.sources.sem_dendrites.weigth=2"], r"sem_dendrites.weight"),
        (["model=unett"], r"no configuration file 'model/unett'; did you mean 'unet'"),
        (["data=[sem_dendrits]"], r"did you mean 'sem_dendrites'"),
        (["experiment=genralist"], r"did you mean 'generalist'"),
        (["model.width=wide"], r"model.width: .*wide"),
        (["lr={"], r"Cannot read 'lr=\{'"),
        (["trainer.resume=auot"], r"did you mean 'auto'"),
        (["trainer.max_steps=null"], r"trainer.max_steps=N or trainer.max_minutes=M"),
        (["trainer.max_steps=0"], r"trainer.max_steps=0; expected more than 0"),
        (["name=a/b"], r"name='a/b'"),
        (["data.synthetic.zoom=[2,1]"], r"data.synthetic.zoom"),
        (["data.synthetic.weight=0"], r"nothing to train on"),
        (["model.dims=4"], r"model.dims=4"),
        (["model.dims=3"], r"needs data.patch_z_px"),
        (["model=unet_3d"], r"data.synthetic draws planes"),
        (["trainer.accumulate=3"], r"cannot be shared"),
        (["data.folds=3", "data.fold=3"], r"fold 0 to folds - 1"),
        (["data=folder"], r"data.sources.mine.images"),
    ],
)
def test_wrong_settings_are_told_apart(overrides, message):
    with pytest.raises(UsageError, match=message):
        to_train_config(compose_config([*RUN, *overrides]))


def test_user_folder_of_configs(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(
        "sources:\n  mine: {images: 'a/*.tif', labels: 'b/*.tif', modality: sem}\n"
    )
    config = to_train_config(compose_config(["name=x", "trainer.max_steps=1", "data=mine"], config_dir=tmp_path))
    assert config.data.sources["mine"].modality == "sem"
    with pytest.raises(UsageError, match="no folder"):
        compose_config(RUN, config_dir=tmp_path / "absent")


def test_model_keys_are_arguments_of_every_architecture():
    import inspect

    from seg.models.unet import UNet

    keys = {k.removeprefix("model.") for k in known_keys() if k.startswith("model.")} - {"architecture", "init"}
    assert set(ARCHITECTURES) == {"unet", "ensemble"}  # ensembles are joined, not trained
    assert keys | {"in_channels", "n_classes"} == set(inspect.signature(UNet).parameters)
