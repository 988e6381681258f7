"""What the command line accepts: commands, their options, and the options of a run that follow from them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from seg import __version__

if TYPE_CHECKING:
    from seg.options import RunOptions

EPILOG = """exit codes: 0 ok, 2 usage or configuration, 3 some inputs failed (see failures.csv), 4 nothing matched,
5 data or labels invalid, 6 model incompatible, 75 interrupted and resumable, 130 Ctrl-C, 1 a bug"""


def make_parser(actions: Mapping[str, Callable[[argparse.Namespace], int]]) -> argparse.ArgumentParser:
    """The parser of all commands; ``args.action`` is that of `actions` with the name of the command."""
    parser = argparse.ArgumentParser(
        prog="operandoseg",
        description="From operando microscopy of metal-battery electrodes to masks, and from masks to numbers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"operandoseg {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", help="more messages")
    common.add_argument("-q", "--quiet", action="store_true", help="warnings and errors only, no progress bar")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common], epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        command.set_defaults(action=actions[name])
        return command

    demo = add("demo", "run the whole job on a synthetic experiment, in about a minute")
    demo.add_argument("--out", type=Path, default=Path("demo_results"), metavar="DIR")
    demo.add_argument("--json", action="store_true", help="results as JSON on stdout")

    run = add("run", "images to masks, numbers and a report")
    _inputs(run, "INPUT", least="*")
    run.add_argument("--analysis", required=True, metavar="NAME|FILE", help="a preset or your own YAML file")
    run.add_argument("--model", metavar="NAME|DIR", help="default: the analysis' own")
    run.add_argument(
        "--mask-samples", type=int, metavar="N",
        help="measure N more masks per frame, drawn from the class probabilities, and widen the intervals by their "
        "spread (default: that of the analysis, 0)",
    )  # fmt: skip
    _results(run)
    _batch(run)

    predict = add("predict", "images to masks only")
    _inputs(predict, "INPUT", least="*")
    predict.add_argument("--model", required=True, metavar="NAME|DIR")
    _batch(predict)
    predict.add_argument(
        "--modality", default="optical", help="which shipped model --model auto takes (default: optical)"
    )
    predict.add_argument("--out", type=Path, required=True, metavar="DIR")

    measure = add("measure", "numbers and a report from masks made elsewhere")
    _inputs(measure, "LABELS", "*")
    _listing(measure)
    measure.add_argument("--analysis", required=True, metavar="NAME|FILE", help="a preset or your own YAML file")
    measure.add_argument("--image", type=Path, metavar="FILE", help="the image the labels belong to")
    measure.add_argument("--schema", metavar="NAME|FILE", help="what the values mean (default: that of the analysis)")
    measure.add_argument(
        "--label-map", metavar="MAP", help="value=class of each value, such as 0=electrolyte,1=deposit"
    )
    _results(measure)

    evaluate = add("evaluate", "scores of masks against truth: two files, or two folders")
    evaluate.add_argument("prediction", type=Path, metavar="PREDICTION")
    evaluate.add_argument("truth", type=Path, metavar="TRUTH")
    for side in ("prediction", "truth"):
        evaluate.add_argument(
            f"--{side}-map", metavar="MAP", help="value=class of its values, such as 0=electrolyte,1=deposit"
        )
    evaluate.add_argument("--analysis", metavar="NAME|FILE", help="measure both, and compare the numbers too")
    evaluate.add_argument(
        "--tolerance", metavar="LENGTH", default="1px", help='of boundary F1, such as "0.5um" or "2px" (default: 1px)'
    )
    evaluate.add_argument(
        "--specimen", metavar="REGEX", help="one group that finds the specimen in a file name (default: the name)"
    )
    evaluate.add_argument("--schema", metavar="NAME|FILE")
    evaluate.add_argument("--axes")
    evaluate.add_argument("--pixel-size", metavar="SIZE")
    evaluate.add_argument("--out", type=Path, required=True, metavar="DIR")

    report = add("report", "make the report of a result folder again")
    report.add_argument("folder", type=Path, metavar="DIR")

    synth = add("synth", "a synthetic twin of an experiment with its truth")
    synth.add_argument("family", metavar="FAMILY")
    synth.add_argument("--seed", type=int, default=0, metavar="N")
    synth.add_argument("--size", metavar="PX", help='"512x640" (rows x columns), for volumes "96x128x128"')
    synth.add_argument("--frames", type=int, metavar="N", help="frames of the series")
    synth.add_argument("--dial", type=float, metavar="S", help="strength of the instrument's faults, 0 to 1")
    synth.add_argument("--texture-only", action="store_true", help="classes differ by texture, not by brightness")
    synth.add_argument("--currents-mA-cm2", metavar="LIST", help="such as 0.5,1,2: one experiment per current density")
    synth.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any option of the family")
    synth.add_argument("--format", choices=["tif", "zarr"], default="tif", help="OME-TIFF or OME-Zarr (default: tif)")
    synth.add_argument("--out", type=Path, required=True, metavar="DIR")

    check = add("check", "look at inputs before a run: axes, units, values, blank or repeated frames")
    _inputs(check, "INPUT")
    check.add_argument("--schema", metavar="NAME|FILE", help="treat the inputs as labels of this schema")
    check.add_argument("--labels", metavar="PATTERN", help="'labels/*.tif': check images and labels as training data")
    check.add_argument("--label-map", metavar="MAP", help="value=class of each label value, such as 0=electrolyte")
    check.add_argument("--specimen", metavar="REGEX", help="one group: the specimen, in the name of each image")

    model = add("model", "list, show, test or export models, or join some into an ensemble")
    model.add_argument("what", choices=["list", "show", "test", "export", "join"])
    model.add_argument("names", nargs="*", metavar="NAME|DIR", help="one model; for join two or more")
    model.add_argument("--out", type=Path, metavar="DIR", help="folder that export and join make")
    model.add_argument("--format", choices=["bundle", "onnx", "torch", "bioimageio"], default="bundle",
                       help="of export: ours, ONNX, torch.export or bioimage.io (default: bundle)")  # fmt: skip

    label = add("label", "open napari on the labelling widget")
    label.add_argument("inputs", nargs="*", metavar="INPUT", help="images, folders or quoted patterns to label in turn")
    label.add_argument("--axes", help="axes of the inputs where the files do not say, such as tyx or zyx")

    commands.add_parser("train", help="train a model (Hydra overrides follow; same as operandoseg-train)")
    add("info", "versions, devices and paths, for a bug report")
    return parser


def _inputs(command: argparse.ArgumentParser, name: str, least: str = "+") -> None:
    command.add_argument("inputs", nargs=least, metavar=name, help="files, folders of frames, or quoted patterns")
    command.add_argument("--axes", help="axes of the inputs where the files do not say, such as tyx or zyx")
    command.add_argument("--pixel-size", metavar="SIZE", help='"z=1um,y=0.5um,x=0.5um" or 0.5um')
    command.add_argument(
        "--pixel-size-sd", metavar="SHARE",
        help="standard deviation of the pixel size, such as 2%%; widens the intervals of every number it enters",
    )  # fmt: skip
    command.add_argument("--frame-interval", metavar="TIME", help="time between frames, such as 2s")
    command.add_argument("--dataset", help="data set inside an HDF5 file")
    if name in ("INPUT", "LABELS"):
        command.add_argument(
            "--postprocess", choices=["analysis", "none"], default="",
            help="clean masks as the analysis says, or leave them as they are (default: masks predicted here are "
            "cleaned, masks made elsewhere are not)",
        )  # fmt: skip
    if name == "INPUT":
        command.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
        command.add_argument(
            "--precision", choices=["auto", "fp32", "bf16"], default="auto",
            help="auto: half precision where it is faster and, on crops of the input, changes the class of at most "
            "0.1 %% of the pixels, else float32; fp32: float32, the reference; bf16: half precision all the same",
        )  # fmt: skip
        command.add_argument(
            "--mirror", action="store_true", help="average with the answer on the mirror image: twice the time"
        )


def _listing(command: argparse.ArgumentParser) -> None:
    command.add_argument("--manifest", type=Path, metavar="FILE", help="CSV or YAML: inputs, each with its own options")
    command.add_argument("--data-root", type=Path, metavar="DIR", help="folder the manifest's paths are relative to")
    command.add_argument("--limit", type=int, metavar="N", help="the first N inputs only")


def _batch(command: argparse.ArgumentParser) -> None:
    _listing(command)
    command.add_argument(
        "--dry-run", action="store_true", help="say what would be done, memory and minutes; do nothing"
    )
    command.add_argument(
        "--cluster", metavar="local:N|slurm:FILE|tcp://...", help="share the work between processes or machines (Dask)"
    )


def _results(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--echem", type=Path, action="append", metavar="FILE|DIR",
        help="cycler file with time, voltage, current: one for all inputs, one per input (repeat the option in their "
        "order), or a folder with files named like the inputs",
    )  # fmt: skip
    command.add_argument(
        "--echem-offset", metavar="TIME|files|coverage",
        help="image time of the cycler's zero, such as 12s (before the first image: --echem-offset=-42s); or found "
        "from the dates in both files, or from how coverage follows the current",
    )  # fmt: skip
    command.add_argument("--echem-drift", metavar="TIME", help="what the image clock gains per hour, such as 1.5s")
    command.add_argument("--plating-current", choices=["negative", "positive"], default="negative",
                         help="sign of the current that plates (default: negative)")  # fmt: skip
    command.add_argument("--electrode-area-cm2", type=float, metavar="AREA")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument("--json", action="store_true", help="results as JSON on stdout")


def run_options(args: argparse.Namespace) -> RunOptions:
    """What the options of `run`, `predict`, `measure` and `check` say about the inputs and how to take them."""
    from seg.io import parse_duration_s, parse_label_map, parse_pixel_size, parse_rel_sd
    from seg.options import RunOptions

    offset = getattr(args, "echem_offset", None)
    clock = offset if offset in ("files", "coverage") else "offset"
    drift = getattr(args, "echem_drift", None)
    label_map = getattr(args, "label_map", None)
    cyclers = getattr(args, "echem", None) or []
    return RunOptions(
        axes=args.axes,
        pixel_size_um=parse_pixel_size(args.pixel_size) if args.pixel_size else None,
        pixel_size_rel_sd=parse_rel_sd(args.pixel_size_sd) if args.pixel_size_sd else None,
        frame_interval_s=parse_duration_s(args.frame_interval) if args.frame_interval else None,
        dataset=args.dataset,
        schema=getattr(args, "schema", None),
        label_map=parse_label_map(label_map) if label_map else None,
        image=getattr(args, "image", None),
        echem=cyclers[0] if len(cyclers) == 1 and not cyclers[0].is_dir() else None,
        echem_clock=clock,
        echem_offset_s=parse_duration_s(offset) if offset and clock == "offset" else None,
        echem_drift_s_per_h=parse_duration_s(drift) if drift else 0.0,
        plating_current=getattr(args, "plating_current", "negative"),
        electrode_area_cm2=getattr(args, "electrode_area_cm2", None),
        device=getattr(args, "device", "cpu"),
        precision=getattr(args, "precision", "auto"),
        mirror=getattr(args, "mirror", False),
        cluster=getattr(args, "cluster", None),
        postprocess=getattr(args, "postprocess", ""),
        command=args.command_line,
    )
