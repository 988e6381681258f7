"""The command line: exit codes, one clear sentence, and no traceback whatever comes in."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from seg.cli import main

COMMANDS = ["demo", "run", "predict", "measure", "evaluate", "report", "synth", "check", "model", "train", "info"]


def operandoseg(*arguments: object, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "seg", *map(str, arguments)], capture_output=True, text=True, timeout=240, **kwargs
    )


def test_help_names_every_command_and_is_quick_to_load():
    result = operandoseg("--help")
    assert result.returncode == 0
    assert [c for c in COMMANDS if c not in result.stdout] == []


@pytest.mark.timeout(60)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of other systems differ")
@pytest.mark.parametrize(
    ("command", "limit_mb", "says"),
    [
        (["check"], 100, "not enough memory to start"),
        (["predict", "--model", "optical-2d", "--out", "out"], 300, "for this input"),
    ],
)
def test_a_limit_too_small_for_the_libraries_is_said_at_once(tmp_path, command, limit_mb, says):
    """SciPy's OpenBLAS would ask for its buffers without end, and torch's CUDA libraries end the process."""
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_mb * 2**20,) * 2)

    tifffile.imwrite(tmp_path / "a.tif", np.arange(4096, dtype=np.uint16).reshape(64, 64))
    given = [command[0], tmp_path / "a.tif", *command[1:]]
    result = operandoseg(*given, cwd=tmp_path, preexec_fn=limit, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 1
    assert says in result.stderr
    assert result.stderr.count("There is not enough memory") == 1
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("line", ["VmData", "VmSize"])
def test_torch_is_not_loaded_where_its_libraries_would_end_the_process(line, monkeypatch):
    """With CUDA they take 662 MiB of `ulimit -d` and 2.9 GiB of `ulimit -v`; with a little less they abort."""
    from seg import memory

    monkeypatch.setattr(memory, "memory_left_bytes", lambda: 2**40)
    monkeypatch.setattr(memory, "_left_of_limits", lambda: {line: memory.CUDA_BYTES[line] - 1})
    monkeypatch.setattr(memory, "_has_cuda", lambda: True)
    with pytest.raises(MemoryError, match="are needed"):
        memory.require_memory_for_torch()
    monkeypatch.setattr(memory, "_has_cuda", lambda: False)
    memory.require_memory_for_torch()  # torch for CPUs takes less


def test_version():
    assert operandoseg("--version").stdout.startswith("operandoseg 0.")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "nothing_*.tif", "--analysis", "sem", "--out", "OUT"], 4, "nothing_"),
        (["run", "IMAGE", "--analysis", "sme", "--out", "OUT"], 2, "did you mean 'sem'"),
        (["run", "IMAGE", "--analysis", "sem", "--pixel-size", "5", "--out", "OUT"], 2, "unit"),
        (["run", "IMAGE", "--analysis", "sem", "--model", "nonesuch", "--out", "OUT"], 6, "nonesuch"),
        (["measure", "BAD", "--analysis", "sem", "--out", "OUT"], 5, "bad.tif"),
        (["synth", "nucleatoin", "--out", "OUT"], 2, "did you mean 'nucleation'"),
        (["report", "OUT"], 5, "no result folder"),
        (["model", "show", "nonesuch"], 6, "nonesuch"),
        (["measure", "IMAGE", "BAD", "--analysis", "sem", "--image", "IMAGE", "--out", "OUT"], 2, "--image"),
    ],
)
def test_what_goes_wrong_is_said_in_a_sentence_with_its_exit_code(arguments, code, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite(tmp_path / "image.tif", np.zeros((32, 40), np.uint8))
    (tmp_path / "bad.tif").write_text("no picture")
    names = {"IMAGE": str(tmp_path / "image.tif"), "BAD": str(tmp_path / "bad.tif"), "OUT": str(tmp_path / "out")}
    assert main([names.get(a, a) for a in arguments]) == code
    said = capsys.readouterr()
    assert says in said.err
    assert "Traceback" not in said.err


def bad_files(folder: Path) -> dict[str, Path]:
    """Files no run can use, by what is wrong with them."""
    files = {name: folder / f"{name}.tif" for name in ("text", "empty", "nan", "rgba", "truncated", "ambiguous")}
    files["text"].write_text("renamed text")
    files["empty"].write_bytes(b"")
    values = np.ones((40, 50), np.float32)
    values[3, 4] = np.nan
    tifffile.imwrite(files["nan"], values)
    tifffile.imwrite(files["rgba"], np.zeros((40, 50, 4), np.uint8), photometric="rgb", extrasamples=["unassalpha"])
    tifffile.imwrite(files["truncated"], np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8))
    data = files["truncated"].read_bytes()
    files["truncated"].write_bytes(data[: len(data) // 2])
    tifffile.imwrite(files["ambiguous"], np.zeros((7, 40, 50), np.uint8), photometric="minisblack", metadata=None)
    return files


@pytest.mark.parametrize("kind", ["text", "empty", "nan", "rgba", "truncated", "ambiguous"])
def test_an_unusable_image_ends_with_5_and_one_sentence(kind, tmp_path, capsys):
    path = bad_files(tmp_path)[kind]
    assert main(["check", str(path)]) == 5
    assert main(["run", str(path), "--analysis", "optical-plan", "--out", str(tmp_path / "out"), "-q"]) in {5, 6}
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
    assert path.name in said.err + said.out


def test_a_batch_with_a_bad_file_ends_with_3_and_lists_it(tmp_path, capsys):
    labels = np.full((64, 80), 2, np.uint8)
    labels[20:40, 20:40] = 3
    tifffile.imwrite(tmp_path / "good.tif", labels)
    (tmp_path / "bad.tif").write_text("no picture")
    out = tmp_path / "out"
    code = main(["measure", str(tmp_path / "*.tif"), "--analysis", "sem", "--out", str(out), "--json", "-q"])
    assert code == 3
    records = json.loads(capsys.readouterr().out)
    assert [bool(r["error"]) for r in records] == [True, False]
    assert "bad.tif" in (out / "failures.csv").read_text()
    counts = [m["value"] for m in records[1]["metrics"] if m["metric"] == "object_count"]
    assert counts == [1]


def test_check_names_blank_and_repeated_frames(tmp_path, capsys):
    frames = np.random.default_rng(1).integers(0, 255, (3, 40, 50)).astype(np.uint8)
    frames[1] = 7
    frames[2] = frames[0]
    tifffile.imwrite(tmp_path / "video.tif", frames, imagej=True, metadata={"axes": "TYX"})
    assert main(["check", str(tmp_path / "video.tif")]) == 0
    said = capsys.readouterr().out
    assert "frame 1 is blank" in said
    assert "frame 2 repeats frame 0" in said
    assert "no pixel size" in said


def test_synth_measure_and_report_again(tmp_path, capsys):
    assert main(["synth", "sei", "--seed", "4", "--out", str(tmp_path / "twin"), "-q"]) == 0
    labels = tmp_path / "twin" / "labels.ome.tif"
    out = tmp_path / "out"
    assert main(["measure", str(labels), "--analysis", "cryoem-sei", "--out", str(out), "-q"]) == 0
    report = out / "labels" / "report.html"
    first = report.read_bytes()
    report.unlink()
    assert main(["report", str(out / "labels"), "-q"]) == 0
    assert report.read_bytes() == first
    assert main(["evaluate", str(labels), str(labels), "--out", str(tmp_path / "scores"), "-q"]) == 0
    assert "dice" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_stopped_run_says_so_and_continues(number, code, tmp_path):
    frames = np.full((400, 200, 200), 2, np.uint8)
    frames[:, 50:80, 50:80] = 3
    tifffile.imwrite(tmp_path / "labels.tif", frames, imagej=True, metadata={"axes": "TYX"})
    arguments = ["measure", tmp_path / "labels.tif", "--analysis", "optical-plan", "--out", tmp_path / "out"]
    # A job in the background of a shell inherits that Ctrl-C is ignored; this one must not.
    start = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from seg.cli import main; sys.exit(main())"
    )
    child = subprocess.Popen([sys.executable, "-c", start, *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    work = tmp_path / "out" / "labels" / "labels.ome.tif"
    deadline = time.monotonic() + 120
    while not work.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    assert child.returncode == code
    assert "Traceback" not in said
    assert "continues" in said
    assert not (tmp_path / "out" / "labels" / "run.json").exists()


def test_info_says_what_a_bug_report_needs():
    said = operandoseg("info").stdout
    assert "numpy" in said
    assert "cuda" in said


def test_label_hands_its_axes_to_napari(tmp_path, monkeypatch):
    """In napari's own process, where a name that begins with a dash is no option."""
    image = tmp_path / "-pages.tif"
    tifffile.imwrite(image, np.zeros((3, 8, 9), np.uint8), photometric="minisblack")
    called = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("seg.cli.subprocess.call", lambda command: called.append(command[1:]) or 0)
    assert main(["label", str(image), "--axes", "tyx"]) == 0
    monkeypatch.chdir(tmp_path)
    assert main(["label", "--", "-pages.tif"]) == 0
    assert called == [
        ["-m", "napari_plugin", "--axes=tyx", "--", str(image)], ["-m", "napari_plugin", "--", "-pages.tif"],
    ]  # fmt: skip
