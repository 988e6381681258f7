"""Killed again and again, at moments nobody chose, the same command ends with the same result."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seg import masks
from seg.pipeline import RunOptions, predict

PREDICT = """
import sys
from pathlib import Path
from seg import masks
from seg.analysis import AnalysisConfig
from seg.pipeline import RunOptions, predict
masks.ZARR_FRAME_BYTES = int(sys.argv[4])
config = AnalysisConfig("predict", "masks only", "", "optical", "plan", {}, model=sys.argv[2])
predict([Path(sys.argv[1])], config, Path(sys.argv[3]), RunOptions(device="cpu"))
"""


def content(folder: Path) -> str:
    labels = masks.labels_of(folder)
    digest = hashlib.sha256()
    for file in sorted(labels.rglob("*")) if labels.is_dir() else [labels]:
        if file.is_file():
            digest.update(file.relative_to(labels.parent).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="other systems know no SIGKILL")
@pytest.mark.parametrize(("zarr_from_bytes", "marks"), [(2**28, "*.npz"), (1000, "done/*.json")])
def test_killed_again_and_again(zarr_from_bytes, marks, video, masks_only, tmp_path, monkeypatch):
    monkeypatch.setattr(masks, "ZARR_FRAME_BYTES", zarr_from_bytes)
    predict([video], masks_only, tmp_path / "calm", RunOptions(device="cpu"))
    out = tmp_path / "out"
    finished = 0
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", PREDICT, str(video), masks_only.model, str(out), str(zarr_from_bytes)]
        )
        deadline = time.monotonic() + 200
        # One part more than before, and then whatever it is doing.
        while child.poll() is None and time.monotonic() < deadline:
            if len(list((out / "video" / ".work").glob(f"slabs-*/{marks}"))) > finished:
                break
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        child.wait()
        # What is killed leaves the whole result or none of it, and never less finished work than before.
        if masks.labels_of(out / "video").exists():
            assert content(out / "video") == content(tmp_path / "calm" / "video")
            break
        finished, before = len(list((out / "video" / ".work").glob(f"slabs-*/{marks}"))), finished
        assert finished > before
    predict([video], masks_only, out, RunOptions(device="cpu"))
    assert content(out / "video") == content(tmp_path / "calm" / "video")
