"""Mutated files of every kind through the command line: none may hang, come up as a bug or exhaust the memory.

``python tests/faults/fuzz.py --cases 5000 --seed 1`` prints one line per fault and a count. A case is a number and a
seed: the file of a fault is made again with ``--keep DIR --first N --cases 1``. Images go through ``check``,
``predict`` and, one in four, ``run`` with all its measuring; masks, models, manifests, cycler files, calibration
files, analyses and unfinished or finished work on the disk each through the commands that read them. Cases run in a
child process with a limit on memory and an alarm per case; a child that dies names its case and another goes on
behind it.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_cases import DOORS, Case, make_case, make_originals

SECONDS_PER_CASE = 60  # of the processor, as machines are shared; ten times as long on the clock
MEMORY_BYTES = 2 * 2**30  # beyond what the libraries take when they are loaded
PREDICTED_PX = 300_000
MEASURED_PX = 20_000
# Not 1, which is a bug of ours, nor any death. 3: some of several inputs failed; 4: nothing matched.
ALLOWED = {0, 2, 3, 4, 5, 6}


class TooSlowError(BaseException):
    """Not an Exception: nothing that catches those may swallow it."""


def ring(*_: object) -> None:
    raise TooSlowError


class Bench:
    """The commands each door leads to, on one folder of valid files."""

    def __init__(self, originals: Path) -> None:
        self.originals, self.calm = originals, b""

    def prepare(self) -> None:
        """Make what only runs make: work that was interrupted, work that is done, and what it must come to."""
        from seg.slabs import SlabFolder

        image = self.originals / "a.ome.tif"
        self._call("predict", image, "--model", self.originals / "model", "--out", self.originals / "whole")
        self.calm = (self.originals / "whole" / "a" / "labels.ome.tif").read_bytes()
        save, count = SlabFolder.save, []

        def interrupted(store: SlabFolder, slab: object) -> None:
            count.append(slab)
            if len(count) > 2:
                raise KeyboardInterrupt
            save(store, slab)

        SlabFolder.save = interrupted
        try:
            self._call("predict", image, "--model", self.originals / "model", "--out", self.originals / "half")
        finally:
            SlabFolder.save = save
        assert len(list((self.originals / "half").rglob("*.npz"))) == 2

    def codes(self, case: Case, out: Path, *, whole_run: bool) -> list[int]:
        """Exit codes of the commands that read the file of `case`."""
        return getattr(self, f"_{case.door}")(case.path, out, whole_run)

    @staticmethod
    def _call(command: str, *arguments: object) -> int:
        from seg.cli import main

        computing = ["--device", "cpu"] if command in ("predict", "run", "check") else []
        return main([command, *map(str, arguments), *computing, "-q"])

    def _masks(self, command: str, *arguments: object) -> int:
        return self._call(command, *arguments, "--model", self.originals / "model")

    def _image(self, path: Path, out: Path, whole_run: bool) -> list[int]:
        from seg.io import open_stack

        codes = [self._call("check", path)]
        size = np.prod(open_stack(path).shape, dtype=float) if codes == [0] else np.inf
        if size <= PREDICTED_PX:
            codes.append(self._masks("predict", path, "--out", out))
        if size <= MEASURED_PX and whole_run:
            codes.append(self._masks("run", path, "--out", out, "--analysis", "optical-plan"))
        return codes

    def _labels(self, path: Path, out: Path, whole_run: bool) -> list[int]:
        codes = [self._call("check", path, "--schema", "lithium")]
        if codes == [0] and whole_run:
            codes.append(self._call("measure", path, "--out", out, "--analysis", "optical-plan"))
        return codes

    def _model(self, path: Path, out: Path, whole_run: bool) -> list[int]:
        shown = self._call("model", "show", path)
        return [shown, self._call("predict", self.originals / "a.png", "--model", path, "--out", out)]

    def _manifest(self, path: Path, out: Path, whole_run: bool) -> list[int]:
        planned = self._masks("predict", "--manifest", path, "--out", out, "--dry-run")
        return [planned, *([self._masks("predict", "--manifest", path, "--out", out)] if planned in (0, 5) else [])]

    def _cycler(self, path: Path, out: Path, whole_run: bool) -> list[int]:
        from seg.electrochem import CyclerFile, place_on_frames
        from seg.errors import SegError

        if not whole_run:
            try:
                image = self.originals / "a.ome.tif"
                place_on_frames(CyclerFile(path, "offset", 0.0), (0.0, 2.0, 4.0), name=image.name, image=image)
            except SegError as error:
                return [error.exit_code]
            return [0]
        labels = self.originals / "labels.ome.tif"
        return [self._call("measure", labels, "--out", out, "--analysis", "sem", "--echem", path)]

    def _sidecar(self, path: Path, out: Path, whole_run: bool) -> list[int]:
        return [self._call("check", path)]

    def _analysis(self, path: Path, out: Path, whole_run: bool) -> list[int]:
        labels = self.originals / "labels.png"
        arguments = ("--analysis", path, "--out", out)
        if not whole_run:
            return [self._masks("run", self.originals / "a.png", *arguments, "--dry-run")]
        return [self._call("measure", labels, *arguments)]

    def _work(self, path: Path, out: Path, whole_run: bool) -> list[int]:
        """The same command again on a damaged folder: it ends with the undisturbed result."""
        code = self._masks("predict", self.originals / "a.ome.tif", "--out", path)
        if code == 0 and (path / "a" / "labels.ome.tif").read_bytes() != self.calm:
            raise AssertionError("damaged work became a result")
        return [code]


def outcome(bench: Bench, case: Case, out: Path, *, whole_run: bool) -> str:
    """``ok`` and the exit codes, or what went wrong."""
    said = io.StringIO()
    signal.setitimer(signal.ITIMER_PROF, SECONDS_PER_CASE)
    signal.alarm(10 * SECONDS_PER_CASE)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            codes = bench.codes(case, out, whole_run=whole_run)
    except TooSlowError:
        return f"hangs for {SECONDS_PER_CASE} s"
    except BaseException as error:
        return f"raises {type(error).__name__}: {str(error)[:150]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    if set(codes) - ALLOWED or "a bug" in said.getvalue() or "Traceback" in said.getvalue():
        return f"ends with {codes}: {said.getvalue().strip()[-250:]}"
    if case.door == "work" and codes != [0]:
        return f"damaged work is not made again, {codes}: {said.getvalue().strip()[-250:]}"
    return f"ok {codes}"


def clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def child(given: argparse.Namespace) -> None:
    """Cases one after the other; each outcome is a line, so that a death names its case."""
    import torch

    torch.set_num_threads(1)
    import seg.report  # noqa: F401  # loaded before the limit
    from seg.report import figures  # noqa: F401

    work = Path(given.work)
    bench = Bench(work / "originals")
    with contextlib.redirect_stdout(io.StringIO()):
        bench.prepare()
    with open("/proc/self/status", encoding="ascii") as status:
        held = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (held + MEMORY_BYTES, held + MEMORY_BYTES))
    for bell in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(bell, ring)
    for number in range(given.first, given.first + given.cases):
        folder = work / "case"
        clear(folder)
        sys.stdout.write(f"{number} ")
        sys.stdout.flush()
        case = make_case(number, given.seed, bench.originals, folder, given.door or None)
        if given.keep:
            shutil.copytree(folder, Path(given.keep) / f"{number:06d}", dirs_exist_ok=True)
        text = outcome(bench, case, folder / "out", whole_run=number % given.whole_every == 0)
        sys.stdout.write(json.dumps([f"{case.door} {case.path.name}", text]) + "\n")
        sys.stdout.flush()


def fuzz(
    cases: int, seed: int, model: Path, *, first: int = 0, keep: str = "", door: str = "", whole_every: int = 4
) -> tuple[Counter, list[str]]:
    """How often each outcome came, and the faults.

    Parameters
    ----------
    cases, seed, first : int
    model : Path
        Folder of a model.
    keep : str
        Where the files are kept.
    door : str
        One of `DOORS`; empty: all.
    whole_every : int
        Every how manieth case is also measured.
    """
    counts: Counter = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        make_originals(Path(folder) / "originals", model)
        end = first + cases
        while first < end:
            command = [
                sys.executable, __file__, "--child", "--work", folder, "--seed", str(seed), "--first", str(first),
                "--cases", str(end - first), "--keep", keep, "--door", door, "--whole-every", str(whole_every),
            ]  # fmt: skip
            result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            last = first - 1
            for line in result.stdout.splitlines():
                number, _, rest = line.partition(" ")
                last = int(number)
                name, what = json.loads(rest) if rest else ("?", f"kills the process ({result.returncode})")
                counts[f"{name}: {what if what.startswith('ok') else 'FAULT'}"] += 1
                if not what.startswith("ok"):
                    faults.append(f"case {last} {name}: {what}")
            if last < first:
                raise RuntimeError(f"the child does not start: {result.stderr[-1000:]}")
            first = last + 1
    return counts, faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", default="")
    parser.add_argument("--door", default="", choices=["", *DOORS])
    parser.add_argument("--whole-every", type=int, default=4)
    parser.add_argument("--model", type=Path, default=None)
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--work", default="")
    given = parser.parse_args()
    if given.child:
        child(given)
    else:
        from seg.models.bundle import model_path

        found, wrong = fuzz(
            given.cases, given.seed, given.model or model_path("generalist-2d"), first=given.first, keep=given.keep,
            door=given.door, whole_every=given.whole_every,
        )  # fmt: skip
        sys.stdout.write("\n".join([*wrong, *(f"{n:6d} {kind}" for kind, n in sorted(found.items()))]) + "\n")
        sys.exit(bool(wrong))
