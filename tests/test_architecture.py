"""The direction of imports, and what may be loaded when."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_import_contracts_hold():
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-4000:]


def modules_after(code: str) -> set[str]:
    listing = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listing.stdout.split())


def test_reading_measuring_and_reporting_load_neither_torch_nor_a_gui():
    code = "import seg, seg.io, seg.measure, seg.metrics, seg.report, seg.evaluation, seg.pipeline, seg.cli"
    loaded = modules_after(code)
    assert loaded.isdisjoint({"torch", "lightning", "hydra", "napari", "qtpy", "matplotlib.pyplot"})


def test_help_loads_nothing_heavy():
    loaded = modules_after("from seg.cli import _parser; _parser()")
    assert loaded.isdisjoint({"torch", "pandas", "scipy", "skimage", "zarr"})


def test_modalities_are_told_apart_in_one_file_only():
    offenders = [
        path
        for path in (ROOT / "seg").rglob("*.py")
        if path.name != "modality.py" and "if modality ==" in path.read_text(encoding="utf-8")
    ]
    assert offenders == []
