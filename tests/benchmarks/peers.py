"""Networks of other packages on our data: the same split, the same CPU time, scored by the same code.

::

    pip install segmentation-models-pytorch nnunetv2 monai        # those that are absent are skipped
    export OMP_NUM_THREADS=1
    for c in otsu forest untouched scratch finetuned smp monai nnunet; do
        python tests/benchmarks/peers.py $c --out runs/peers --cpu-minutes 8
    done
    python tests/benchmarks/peers.py scratch --out runs/peers --cpu-minutes 4 'data=[sem_precipitates]' data.seed=1
    python tests/benchmarks/peers.py table --out runs/peers        # writes runs/peers/peers.md, seeds pooled

One process per contender, one thread; the budget is the CPU time of that process from the first step of training on,
loading and augmenting patches included, and every schedule ends with it. ``smp`` (U-Net, ResNet-34, random weights) and
``monai`` (residual U-Net with the channels of its tutorials) take our patches, loss, optimiser, schedule and average of
weights: only the network differs. ``nnunet`` plans, augments, trains and predicts by itself. Further words are
overrides of ``operandoseg train`` (default: ``data=[sem_precipitates]``).
"""

import argparse
import json
import logging
import os
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

SCORES = ("iou", "dice", "boundary_f1")
TITLES = {
    "otsu": "Otsu after a Gaussian of 1 px",
    "watershed": "watershed",
    "forest": "our forest on pixels",
    "nnunet": "nnU-Net v2, 2-D",
    "smp": "segmentation-models-pytorch U-Net, ResNet-34, no pretrained weights",
    "monai": "MONAI UNet, residual",
    "scratch": "ours, from scratch",
    "untouched": "ours, shipped sem-2d as it is",
    "finetuned": "ours, from the shipped sem-2d",
}


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=[*TITLES, "table"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cpu-minutes", type=float, default=8.0)
    parser.add_argument("--model", default="sem-2d", help="shipped model of untouched and finetuned")
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_intermixed_args(words)  # overrides after options too
    overrides = asked.overrides or ["data=[sem_precipitates]"]
    if asked.contender == "table":
        return table(asked.out, overrides)
    config, data = prepared(overrides)
    seed = config.data.seed
    began = time.process_time()
    predict, about = CONTENDERS[asked.contender](config, data, asked)
    about = {"total_cpu_s": time.process_time() - began, **about}
    folder = asked.out / (f"{asked.contender}-seed{seed}" if seed else asked.contender)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.process_time()
    for item in data.images:
        if item.held_out:
            np.save(folder / f"{item.name}.npy", predict(item).astype(np.uint8))
    about["predict_cpu_s"] = time.process_time() - began
    (folder / "about.json").write_text(json.dumps(about, indent=2))
    logger.info("%s %s", asked.contender, json.dumps(about))
    return 0


def prepared(overrides):
    from training.config import compose_config, to_train_config
    from training.loop import prepare

    fixed = [
        "name=peers", "trainer=cpu", "trainer.max_steps=1", "trainer.threads=1", "trainer.score_every=0",
        "trainer.resume=none", "trainer.baselines=false", "trainer.save_every=100000", "data.workers=0",
    ]  # fmt: skip
    config = to_train_config(compose_config([*fixed, *overrides]))
    return config, prepare(config)


class Budget:
    """CPU time of this process since it was made, as a share of what is allowed."""

    def __init__(self, minutes):
        self.began, self.seconds = time.process_time(), 60 * minutes

    @property
    def spent_s(self):
        return time.process_time() - self.began

    @property
    def share(self):
        return self.spent_s / self.seconds


# --- without a network, and ours ------------------------------------------------------------------------------------


def baseline(name):
    def contender(config, data, asked):
        from training.baselines import BASELINES

        trained = [item for item in data.images if not item.held_out]
        predict = BASELINES[name](trained, config.data.seed)
        return (lambda item: predict(item.image)), {}

    return contender


def ours(*, start):
    def contender(config, data, asked):
        from dataclasses import replace

        from seg.models.bundle import load_bundle
        from training import loop

        if start == "untouched":
            bundle = load_bundle(asked.model)
            return predictor(bundle, data, bundle.spec.class_indices), {"parameters": n_parameters(bundle.network)}
        budget = Budget(asked.cpu_minutes)
        trainer = replace(config.trainer, max_steps=None, max_minutes=asked.cpu_minutes)
        config = replace(config, name=f"{start}-{config.data.seed}", runs=str(asked.out / "runs"), trainer=trainer)
        if start == "finetuned":
            from training.initial import adopt

            # Labels are dense: smaller steps and less averaging than from scratch, nothing that few strokes need.
            gentle = replace(config.optimizer, lr=5e-4, ema_decay=0.98)
            config = replace(adopt(replace(config, model=replace(config.model, init=asked.model))), optimizer=gentle)
        loop._clock_from = lambda elapsed_s: lambda: budget.spent_s  # the schedule follows CPU time, as for the others
        result = loop.train(config, data, quiet=True)
        bundle = load_bundle(result.model_dir)
        about = {"steps": result.steps, "train_cpu_s": result.elapsed_s, "parameters": n_parameters(bundle.network)}
        return predictor(bundle, data, bundle.spec.class_indices), about

    return contender


def predictor(bundle, data, class_indices):
    """Codes of the labels; classes that they do not know count as the first one, the ground."""
    import torch

    from seg.models.device import resolve_precision
    from training.apply import predict

    device = torch.device("cpu")
    own = list(data.codes.class_indices)
    table = np.array([own.index(index) + 1 if index in own else 1 for index in class_indices], np.uint8)
    return lambda item: table[
        predict(bundle.network, item.image, device=device, precision=resolve_precision("auto", device))
    ]


def n_parameters(network):
    return sum(p.numel() for p in network.parameters())


# --- networks of others in our loop ---------------------------------------------------------------------------------


def foreign(build, package):
    def contender(config, data, asked):
        from dataclasses import replace

        import torch

        from seg.models.device import resolve_precision
        from training.dataset import PatchDataset, make_loader
        from training.loop import class_weights
        from training.losses import MaskedLoss
        from training.optim import WeightAverage, learning_rate, make_optimizer

        torch.manual_seed(config.data.seed)
        torch.set_num_threads(1)
        half = resolve_precision("auto", torch.device("cpu")) == "bf16"
        settings = replace(config.optimizer, lr=1e-3)
        network = build(data.codes.n_classes).to(memory_format=torch.channels_last).train()
        optimizer, average = make_optimizer(network, settings), WeightAverage(network, settings.ema_decay)
        loss_of = MaskedLoss(data.codes, config.loss, class_weights(config, data))
        dataset = PatchDataset(data.images, None, config.data, config.augment)
        batches = iter(make_loader(dataset, batch=config.data.batch, workers=0, start_step=0))
        budget, step = Budget(asked.cpu_minutes), 0
        while budget.share < 1:
            images, codes = next(batches)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(budget.share, settings)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                logits = network(images.to(memory_format=torch.channels_last))
            loss = loss_of(logits, codes)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
            optimizer.step()
            average.update(network, step)
            step += 1
            if step % 20 == 0:
                logger.info("step %d loss %.3f %.0f s", step, float(loss), budget.spent_s)
        about = {"steps": step, "train_cpu_s": budget.spent_s, "parameters": n_parameters(network),
                 "version": version(package)}  # fmt: skip

        def predict(item):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                tall, wide = item.image.shape
                pad = ((0, -tall % 32), (0, -wide % 32))
                image = torch.from_numpy(np.pad(item.image.astype(np.float32), pad, mode="symmetric"))
                return average.network(image[None, None])[0, :, :tall, :wide].argmax(0).numpy() + 1

        return predict, about

    return contender


def smp_unet(n_classes):
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet34", encoder_weights=None, in_channels=1, classes=n_classes)


def monai_unet(n_classes):
    from monai.networks.nets import UNet

    return UNet(spatial_dims=2, in_channels=1, out_channels=n_classes, channels=(16, 32, 64, 128, 256),
                strides=(2, 2, 2, 2), num_res_units=2, norm="batch")  # fmt: skip


# --- nnU-Net --------------------------------------------------------------------------------------------------------

# The plan for the 8 GB GPU of its defaults makes steps of a minute here; nnU-Net's own knob gives a smaller one.
NNUNET_MEMORY_GB = 1.0


def nnunet(config, data, asked):
    base = (asked.out / "nnunet-work").resolve()
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(base / name)
        (base / name).mkdir(parents=True, exist_ok=True)
    os.environ["nnUNet_n_proc_DA"] = "1"  # noqa: SIM112  planning takes it for a number of threads
    dataset = write_nnunet_dataset(data, base / "raw" / "Dataset501_Peers")
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(config.data.seed)
    np.random.seed(config.data.seed)  # noqa: NPY002  nnU-Net draws from it
    torch.set_num_threads(1)
    extract_fingerprints([501], num_processes=1, check_dataset_integrity=True)
    plan_experiments([501], gpu_memory_target_in_gb=NNUNET_MEMORY_GB)
    preprocess([501], configurations=["2d"], num_processes=[1])
    plans = json.loads((base / "preprocessed" / dataset / "nnUNetPlans.json").read_text())
    plan = plans["configurations"]["2d"]
    described = json.loads((base / "preprocessed" / dataset / "dataset.json").read_text())
    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112  patches are made in this process, whose time counts
    trainer = nnUNetTrainer({**plans, "continue_training": False}, "2d", "all", described, torch.device("cpu"))
    trainer.initialize()
    trainer.on_train_start()
    trainer.network.train()
    budget, step = Budget(asked.cpu_minutes), 0
    while budget.share < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - budget.share) ** 0.9  # its polynomial schedule
        loss = trainer.train_step(next(trainer.dataloader_train))["loss"]
        step += 1
        if step % 5 == 0:
            logger.info("step %d loss %.3f %.0f s", step, float(loss), budget.spent_s)
    about = {"steps": step, "train_cpu_s": budget.spent_s, "parameters": n_parameters(trainer.network),
             "version": version("nnunetv2"), "patch": plan["patch_size"], "batch": plan["batch_size"]}  # fmt: skip
    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager, None, described, "nnUNetTrainer",
        trainer.inference_allowed_mirroring_axes,
    )  # fmt: skip
    predictor.list_of_parameters = [trainer.network.state_dict()]

    def predict(item):
        image = np.asarray(item.image, np.float32)[None, None]
        return predictor.predict_single_npy_array(image, {"spacing": (999, 1, 1)})[0] + 1

    return predict, about


def write_nnunet_dataset(data, folder):
    """The training images as nnU-Net wants them: normalised intensities in TIFF, labels from 0 on."""
    import tifffile

    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    trained = [item for item in data.images if not item.held_out]
    for n, item in enumerate(trained):
        for name, array in (
            (f"imagesTr/case_{n:03d}_0000", item.image.astype(np.float32)),
            (f"labelsTr/case_{n:03d}", item.codes - 1),
        ):
            tifffile.imwrite(folder / f"{name}.tif", array[None])
            (folder / f"{name.removesuffix('_0000')}.json").write_text(json.dumps({"spacing": [999, 1, 1]}))
    labels = {"background": 0} | {f"class {k}": k for k in range(1, data.codes.n_classes)}
    (folder / "dataset.json").write_text(
        json.dumps(
            {"channel_names": {"0": "grey"}, "labels": labels, "numTraining": len(trained), "file_ending": ".tif",
             "overwrite_image_reader_writer": "Tiff3DIO"}
        )
    )  # fmt: skip
    return folder.name


CONTENDERS = {
    "otsu": baseline("otsu"), "watershed": baseline("watershed"), "forest": baseline("forest"),
    "untouched": ours(start="untouched"), "scratch": ours(start="scratch"), "finetuned": ours(start="finetuned"),
    "smp": foreign(smp_unet, "segmentation-models-pytorch"), "monai": foreign(monai_unet, "monai"), "nnunet": nnunet,
}  # fmt: skip


# --- the table ------------------------------------------------------------------------------------------------------


def table(out, overrides):
    """Scores of the last code (the objects) on the held-out images, pooled, and of each image."""
    _, data = prepared(overrides)
    held_out = {item.name: item for item in data.images if item.held_out}
    specimens = sorted({item.specimen for item in held_out.values()})
    n_trained = sum(not item.held_out for item in data.images)
    every = [about_of(folder) for name in TITLES for folder in runs_of(out, name)]
    minutes = max((about.get("train_cpu_s", 0) for about in every), default=0) / 60
    rows = [
        "# Networks of other packages beside ours",
        "",
        f"Made by `tests/benchmarks/peers.py`; its docstring has the commands. Data: {', '.join(overrides)}; "
        f"{n_trained} images to train on, held out {len(held_out)} image(s) of {len(specimens)} specimen(s) "
        f"({', '.join(specimens)}). Each network was trained for {minutes:.1f} minutes of CPU time on one thread; of "
        "several seeds the mean stands here, and from the lowest to the highest in brackets.",
        "",
        "- Interval: over specimens, from three on; with fewer there is none, and the range over images stands for it.",
        "- segmentation-models-pytorch and MONAI: their networks in our training loop (our patches, loss, optimiser, "
        "schedule, average of weights), without weights from ImageNet.",
        "- nnU-Net: its own plan (for a GPU of "
        f"{NNUNET_MEMORY_GB:g} GB, so that steps are short enough for a CPU), augmentation, loss and schedule, the "
        "latter shortened to the budget; it is meant for 250 000 steps on a GPU, and this says nothing of those.",
        "- Ours from the shipped model: that one was trained on the other specimens of this set, among other data, and "
        "not on the held-out ones.",
        "",
        "| method | seeds | IoU | Dice | boundary F1 (1 px) | IoU of the images | steps | CPU min | parameters |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, title in TITLES.items():
        folders = runs_of(out, name)
        if not folders:
            continue
        found = [scored({k: np.load(run / f"{k}.npy") for k in held_out}, held_out, data.codes) for run in folders]
        about, each = about_of(folders[0]), np.concatenate([images for _, images in found])
        steps = [about_of(run)["steps"] for run in folders if "steps" in about_of(run)]
        minutes = about.get("train_cpu_s", about["total_cpu_s"] if name in ("forest",) else 0) / 60
        size = f"{about['parameters'] / 1e6:.1f} M" if "parameters" in about else "–"
        scores = " | ".join(over_seeds([table for table, _ in found], metric) for metric in SCORES)
        rows.append(
            f"| {title} | {len(folders)} | {scores} | {each.min():.3f}–{each.max():.3f} | "
            f"{round(np.mean(steps)) if steps else '–'} | {minutes:.1f} | {size} |"
        )
    (out / "peers.md").write_text("\n".join(rows) + "\n", encoding="utf-8")
    logger.info("%s", "\n".join(rows))
    return 0


def runs_of(out, name):
    """Folders of the runs of a contender, one per seed."""
    return [run for run in [out / name, *sorted(out.glob(f"{name}-seed*"))] if (run / "about.json").is_file()]


def about_of(run):
    return json.loads((run / "about.json").read_text())


def over_seeds(tables, metric):
    """One run: its score, with the interval over specimens where there is one; several: mean and range."""
    values = np.array([table.loc[metric, "value"] for table in tables])
    if len(values) > 1:
        return f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})"
    low, high = tables[0].loc[metric, ["low", "high"]]
    return f"{values[0]:.3f}" + (f" [{low:.3f}, {high:.3f}]" if np.isfinite(low) else "")


def scored(predictions, held_out, codes):
    from seg.evaluation import Tally
    from seg.metrics.table import Scale

    objects = codes.n_classes
    tally = Tally(["objects"], Scale((1.0, 1.0), calibrated=False))
    for name, item in held_out.items():
        masks = predictions[name] == objects, item.codes == objects, item.codes > 0
        tally.add_masks({"objects": masks}, image=name, specimen=item.specimen)
    rows = tally.table().query("`class` == 'objects'").set_index("metric")
    return rows, tally.images()["iou"]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    raise SystemExit(main())
