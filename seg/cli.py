"""The command line. Exit codes are those of ``seg.errors``; stdout is for results, stderr for the rest."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg.arguments import make_parser, run_options
from seg.errors import InterruptedRunError, SegError, UsageError
from seg.memory import STARTING_BYTES, is_short, require_memory

if TYPE_CHECKING:
    from seg.batch import RunResult


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["train"]:
        return _train(arguments[1:])
    args = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.INFO if not args.quiet else logging.WARNING,
        format="%(levelname)s %(message)s" if args.verbose else "%(message)s",
        stream=sys.stderr,
    )
    # Behind a sentence on a damaged chunk zarr's other reads would complain that nobody waited for them.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    args.command_line = shlex.join(["operandoseg", *arguments])
    signal.signal(signal.SIGTERM, _interrupted)
    # Before torch is loaded: threads that wait do not spin, which costs nothing alone and much on a shared machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        if "scipy.linalg" not in sys.modules:  # which brings OpenBLAS
            require_memory(STARTING_BYTES)
        with _logging_beside_progress(args):
            return int(args.action(args))
    except SegError as error:
        print(f"operandoseg: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("operandoseg: stopped by Ctrl-C; what is finished is kept, the same command continues.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except (MemoryError, ImportError) as error:
        if not is_short(error):
            raise
        print("operandoseg: There is not enough memory to start; close other programs, or raise the limit of the shell "
              "(ulimit -v, -d).", file=sys.stderr)  # fmt: skip
        return 1


def _interrupted(signum: int, frame: Any) -> None:
    raise InterruptedRunError("asked to stop; what is finished is kept, the same command continues.")


def _parser() -> argparse.ArgumentParser:
    return make_parser({
        "demo": _demo, "run": _run, "predict": _predict, "measure": _measure, "evaluate": _evaluate,
        "report": _report, "synth": _synth, "check": _check, "model": _model, "label": _label, "info": _info,
    })  # fmt: skip


# --- commands -------------------------------------------------------------------------------------------------------


def _run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from seg.analysis import load_analysis
    from seg.pipeline import run

    config = load_analysis(args.analysis)
    if args.model:
        config = replace(config, model=args.model)
    if args.mask_samples is not None:
        config = replace(config, mask_samples=args.mask_samples)
    if args.dry_run:
        return _dry_run(args, config)
    results = run(_listed(args), config, args.out, run_options(args), progress=_progress(args))
    return _finish(results, args)


def _listed(args: argparse.Namespace) -> list[Any]:
    """The inputs of the command line and of the manifest."""
    from seg.io import find_inputs
    from seg.manifest import read_manifest

    if args.data_root and not args.manifest:
        raise UsageError("--data-root belongs to --manifest FILE.")
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit is {args.limit}; expected a number of inputs from 1.")
    if not args.inputs and not args.manifest:
        raise UsageError("Name the inputs: files, folders, quoted patterns, or --manifest FILE.")
    found: list[Any] = list(find_inputs(args.inputs)) if args.inputs else []
    found = _with_cyclers(found, args)
    if args.manifest:
        found += read_manifest(args.manifest, root=args.data_root)
    return found[: args.limit]


def _with_cyclers(inputs: list[Path], args: argparse.Namespace) -> list[Any]:
    """The inputs, each with its cycler file where --echem names several; a single one is among the options of all."""
    given = getattr(args, "echem", None) or []
    if len(given) < 2 and not any(path.is_dir() for path in given):
        return inputs
    from seg.cyclers import with_cyclers

    if getattr(args, "manifest", None):
        raise UsageError("A manifest names the cycler file of each input (echem); give --echem one file at most.")
    return with_cyclers(inputs, given)


def _dry_run(args: argparse.Namespace, config: Any) -> int:
    from seg.check import plan_inputs

    findings = plan_inputs(_listed(args), config, args.out, run_options(args))
    for finding in findings:
        print(finding)
    return max((f.exit_code for f in findings), default=0)


def _predict(args: argparse.Namespace) -> int:
    from seg.analysis import AnalysisConfig, ObjectOptions
    from seg.pipeline import predict

    counted = ObjectOptions(("deposit", "dendrite"))
    config = AnalysisConfig("predict", "masks only", "", args.modality, "plan", {}, model=args.model, objects=counted)
    if args.dry_run:
        return _dry_run(args, config)
    results = predict(_listed(args), config, args.out, run_options(args), progress=_progress(args))
    return _finish(results, args)


def _measure(args: argparse.Namespace) -> int:
    from seg.analysis import load_analysis
    from seg.pipeline import measure

    inputs = _listed(args)
    if args.image and len(inputs) > 1:
        raise UsageError(f"--image names one image, but {len(inputs)} label files were given; measure them one by one.")
    results = measure(inputs, load_analysis(args.analysis), args.out, run_options(args), progress=_progress(args))
    return _finish(results, args)


def _evaluate(args: argparse.Namespace) -> int:
    from seg.analysis import load_analysis
    from seg.evaluation import evaluate_files
    from seg.io import parse_label_map, parse_pixel_size

    size = parse_pixel_size(args.pixel_size) if args.pixel_size else None
    tolerance, unit = _tolerance(args.tolerance)
    found = evaluate_files(
        args.prediction, args.truth, args.out, schema=args.schema, axes=args.axes, pixel_size_um=size,
        analysis=load_analysis(args.analysis) if args.analysis else None, specimen=args.specimen,
        prediction_map=parse_label_map(args.prediction_map) if args.prediction_map else None,
        truth_map=parse_label_map(args.truth_map) if args.truth_map else None,
        progress=_progress(args), **{f"tolerance_{unit}": tolerance},
    )  # fmt: skip
    shown = found.scores[found.scores["n"] > 0]
    print(shown[["metric", "class", "value", "low", "high", "unit", "n"]].to_string(index=False))
    print(args.out / "evaluation.html")
    return 0


def _tolerance(text: str) -> tuple[float, str]:
    """Number and unit of ``--tolerance``: µm or px."""
    from seg.io import parse_pixel_size

    number = text.strip().removesuffix("px")
    try:
        value, unit = (float(number), "px") if number != text.strip() else (parse_pixel_size(text, "x")["x"], "um")
        if not 0 <= value < float("inf"):
            raise ValueError
    except (UsageError, ValueError):
        raise UsageError(f'--tolerance has {text!r}; write a length such as "0.5um" or "2px".') from None
    return value, unit


def _report(args: argparse.Namespace) -> int:
    from seg.report import write_report

    print(write_report(args.folder))
    return 0


def _synth(args: argparse.Namespace) -> int:
    from seg.synthetic import make_experiment, write_experiment
    from seg.synthetic.study import write_study

    options = _synth_options(args)
    if args.currents_mA_cm2 is None:
        write_experiment(make_experiment(args.family, args.seed, **options), args.out, image_format=args.format)
    else:
        currents = _numbers(args.currents_mA_cm2, "--currents-mA-cm2", ",")
        write_study(args.family, args.seed, currents, args.out, image_format=args.format, **options)
    print(args.out)
    return 0


def _synth_options(args: argparse.Namespace) -> dict[str, Any]:
    """Options of the family that the command line gives."""
    import yaml

    options: dict[str, Any] = {}
    for text in args.set:
        name, sign, value = text.partition("=")
        if not sign:
            raise UsageError(f"--set has {text!r}; write NAME=VALUE.")
        given = yaml.safe_load(value)
        options[name] = tuple(given) if isinstance(given, list) else given
    if args.size:
        options["shape_px"] = tuple(int(n) for n in _numbers(args.size.lower(), "--size", "x"))
    if args.frames is not None:
        options["n_frames"] = args.frames
    if args.dial is not None:
        options["dial"] = args.dial
    if args.texture_only:
        options["texture_only"] = True
    return options


def _numbers(text: str, option: str, separator: str) -> list[float]:
    try:
        return [float(part) for part in text.split(separator)]
    except ValueError:
        raise UsageError(f"{option} has {text!r}; write numbers with {separator!r} between them.") from None


def _demo(args: argparse.Namespace) -> int:
    from seg.analysis import load_analysis
    from seg.pipeline import RunOptions, run
    from seg.synthetic import make_sample, write_experiment

    data = args.out / "data"
    experiment = make_sample("optical")
    write_experiment(experiment, data)
    options = RunOptions(echem=data / "cycler.csv", echem_offset_s=experiment.clock_offset_s, command=args.command_line)
    config = load_analysis("optical-plan")
    results = run([data / "image.ome.tif"], config, args.out, options, progress=_progress(args))
    return _finish(results, args)


def _check(args: argparse.Namespace) -> int:
    from seg.check import SPECIMEN, check_inputs, check_pairs
    from seg.io import find_inputs

    options, inputs = run_options(args), find_inputs(args.inputs)
    if args.labels:
        findings = check_pairs(inputs, args.labels, options, schema=args.schema, specimen=args.specimen or SPECIMEN)
    elif args.specimen or args.label_map:
        raise UsageError("--specimen and --label-map belong to --labels 'PATTERN'.")
    else:
        findings = check_inputs(inputs, options, schema=args.schema)
    for finding in findings:
        print(finding)
    return max((f.exit_code for f in findings), default=0)


def _model(args: argparse.Namespace) -> int:
    from seg.models.bundle import export_bundle, list_models, load_bundle

    if args.what == "list":
        for path in list_models():
            print(f"{path.name}\t{path}")
        return 0
    if not args.names or (len(args.names) > 1 and args.what != "join"):
        raise UsageError(f"`operandoseg model {args.what}` needs the name or folder of one model.")
    if args.what in ("export", "join") and args.out is None:
        raise UsageError(f"`operandoseg model {args.what}` needs --out DIR.")
    bundles = [load_bundle(name) for name in args.names]
    if args.what == "join":
        from seg.models.join import join_bundles

        print(join_bundles(bundles, args.out))
        return 0
    (bundle,) = bundles
    if args.what == "show":
        print(json.dumps(bundle.spec.to_dict(), indent=2))
        print(bundle.card)
    elif args.what == "test":
        print(f"{bundle.spec.name}: self-test passed, weights {bundle.weights_sha256[:16]}")
    elif args.format == "bundle":
        print(export_bundle(bundle, args.out))
    else:
        from seg.models.exchange import FORMATS

        print(FORMATS[args.format](bundle, args.out))
    return 0


def _info(args: argparse.Namespace) -> int:
    from seg.info import collect

    for key, value in collect().items():
        print(f"{key:<16} {value}")
    return 0


def _train(overrides: list[str]) -> int:
    """Hand over to the training command, in a process of its own: seg never imports Hydra."""
    command = [sys.executable, "-m", "training", *overrides]
    if os.name == "posix":
        sys.stdout.flush()
        os.execv(sys.executable, command)
    return subprocess.call(command)


def _label(args: argparse.Namespace) -> int:
    """Hand over to napari, in a process of its own: seg never imports a GUI."""
    from importlib.util import find_spec

    from seg.io import find_inputs

    if find_spec("napari") is None:
        raise UsageError("`operandoseg label` needs napari and a Qt library: pip install 'operandoseg[napari]' PySide6")
    inputs = [str(path) for path in find_inputs(args.inputs)] if args.inputs else []
    axes = [f"--axes={args.axes}"] if args.axes else []
    return subprocess.call([sys.executable, "-m", "napari_plugin", *axes, "--", *inputs])


def _logging_beside_progress(args: argparse.Namespace) -> Any:
    """Let messages appear above a progress bar instead of through it."""
    from contextlib import nullcontext

    if args.quiet:
        return nullcontext()
    from tqdm.contrib.logging import logging_redirect_tqdm

    return logging_redirect_tqdm()


# --- output ---------------------------------------------------------------------------------------------------------


def _progress(args: argparse.Namespace) -> Any:
    from seg.progress import silent

    if args.quiet:
        return silent
    from functools import partial

    from tqdm import tqdm

    return partial(tqdm, file=sys.stderr, dynamic_ncols=True, mininterval=0.5)


def _finish(results: Sequence[RunResult], args: argparse.Namespace) -> int:
    """Print what came out, list what failed, and choose the exit code."""
    failed = [r for r in results if r.error]
    done = [r for r in results if not r.error]
    if getattr(args, "json", False):
        print(json.dumps([_as_json(r) for r in results], indent=2))
    else:
        for result in done:
            print(f"\n{result.source}  ({result.seconds:.1f} s)")
            if len(result.headline):
                print(_headline_text(result.headline))
            report = result.folder / "report.html"
            print(f"  {'report' if report.exists() else 'masks'}: {report if report.exists() else result.folder}")
    if failed and len(results) > 1:
        print(f"{len(failed)} of {len(results)} inputs failed; see {args.out / 'failures.csv'}", file=sys.stderr)
        return 3
    return failed[0].exit_code if failed else 0


def _headline_text(rows: Any) -> str:
    """The rows as an aligned table; flags at the end."""
    import pandas as pd

    from seg.metrics.names import text_result

    cells = []
    for row in rows.rename(columns={"class": "class_name"}).itertuples():
        of = ", ".join(part for part in (row.class_name, row.side, text_result(row.metric, row.method)) if part)
        of = f" ({of})" if of else ""
        cells.append(
            (
                f"{row.metric}{of}",
                "not reported" if row.value != row.value else f"{row.value:.4g}",
                "" if row.low != row.low else f"[{row.low:.4g}, {row.high:.4g}]",
                str(row.unit),
                "whole series" if pd.isna(row.frame) else f"frame {row.frame}",
                row.flags,
            )
        )
    widths = [max(len(c[i]) for c in cells) for i in range(5)]
    return "\n".join(
        "  "
        + "  ".join(
            [c[0].ljust(widths[0]), c[1].rjust(widths[1]), *(c[i].ljust(widths[i]) for i in (2, 3, 4)), c[5]]
        ).rstrip()
        for c in cells
    )


def _as_json(result: RunResult) -> dict[str, Any]:
    rows = result.headline.astype(object).where(result.headline.notna(), None) if len(result.headline) else None
    return {
        "input": str(result.source),
        "folder": str(result.folder),
        "error": result.error or None,
        "exit_code": result.exit_code,
        "seconds": round(result.seconds, 2),
        "metrics": [] if rows is None else rows.to_dict("records"),
    }


if __name__ == "__main__":
    sys.exit(main())
