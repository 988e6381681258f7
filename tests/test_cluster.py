"""Work shared between processes: the same masks, deaths survived, poison listed, the job script of SLURM."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seg import cluster
from seg.attempts import Attempts, EndsWorkersError
from seg.cluster import connect, slurm_cluster
from seg.errors import SegError, UsageError
from seg.inference import Part
from seg.io import read_labels
from seg.slabs import LABELS, SlabStore
from seg.stack import Calibration

pytest.importorskip("distributed")
# Dask closes its sockets and loops late, which Python reports when it collects them.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(200)]


@pytest.fixture
def tiny_volume(tiny_model_of, tmp_path):
    """An analysis with an untrained model, and a small volume."""
    from seg.analysis import AnalysisConfig
    from seg.io import write_image

    model = tiny_model_of("xct")
    data = np.random.default_rng(5).integers(0, 255, (5, 600, 540)).astype(np.uint8)
    size = {"z": 1.5, "y": 0.4, "x": 0.25}
    write_image(
        tmp_path / "volume.ome.tif", [data], shape=data.shape, dtype=data.dtype, axes="zyx",
        calibration=Calibration(size, None, "file"),
    )  # fmt: skip
    config = AnalysisConfig("predict", "masks only", "", "xct", "volume", {}, model=str(model))
    return config, tmp_path / "volume.ome.tif"


@pytest.mark.parametrize("where", ["local", "local:0", "local:x", "pbs:file", "tcp", ""])
def test_what_is_no_cluster_is_refused(where):
    with pytest.raises(UsageError, match="expected local:N"):
        connect(where)


def test_an_unreachable_scheduler_is_said(monkeypatch):
    import distributed

    def refuse(*arguments, **options):
        raise OSError("Timed out trying to connect")

    monkeypatch.setattr(distributed, "Client", refuse)
    with pytest.raises(UsageError, match="No Dask scheduler answers at tcp://nowhere:8786"):
        connect("tcp://nowhere:8786")


def test_the_shipped_slurm_file_gives_a_job_script():
    slurm, jobs = slurm_cluster("slurm")
    try:
        script = slurm.job_script()
    finally:
        slurm.close()
    lines = script.splitlines()
    assert jobs == 4
    for line in ("-p gpu", "-A my_project", "--cpus-per-task=8", "--mem=30G", "-t 04:00:00", "--gres=gpu:1"):
        assert f"#SBATCH {line}" in lines
    # One part at a time with all the cores: the last --nthreads counts.
    (worker,) = (line for line in lines if "distributed" in line)
    assert worker.rpartition("--nthreads")[2].split()[0] == "1"
    assert lines.index("export OPERANDOSEG_THREADS=8") < lines.index(worker)


SBATCH = """#!/bin/bash
# Runs the job here, as a node would, as a group of processes, and says its number.
set -m
cp "$1" "$FAKE_SLURM/job.$$.sh"
bash "$FAKE_SLURM/job.$$.sh" > "$FAKE_SLURM/job.$$.log" 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/bash
echo "$1" >> "$FAKE_SLURM/cancelled"
kill -TERM -- -"$1"
"""
ON_SLURM = """
import json, sys
from pathlib import Path
from seg.analysis import AnalysisConfig
from seg.pipeline import RunOptions, predict
if __name__ == "__main__":
    config = AnalysisConfig("predict", "masks only", "", "xct", "volume", {}, model=sys.argv[2])
    options = RunOptions(device="cpu", cluster="slurm:" + sys.argv[3])
    (result,) = predict([Path(sys.argv[1])], config, Path(sys.argv[4]), options)
    print(json.dumps([result.error, str(result.folder)]))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(os.name != "posix", reason="SLURM runs on Linux")
def test_a_volume_through_jobs_that_are_submitted(tiny_volume, tmp_path):
    """A stand-in for ``sbatch`` runs each job script as a process of this machine: two jobs share the parts."""
    config, path = tiny_volume
    from seg.pipeline import RunOptions, predict

    bin_dir, slurm = tmp_path / "bin", tmp_path / "slurm"
    for folder in (bin_dir, slurm):
        folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (bin_dir / name).write_text(text)
        (bin_dir / name).chmod(0o755)
    (tmp_path / "mine.yaml").write_text(
        "jobs: 2\nqueue: short\ncores: 1\nprocesses: 1\nmemory: 2GB\nscheduler_options: {dashboard_address: ':0'}\n"
    )
    environment = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}", "FAKE_SLURM": str(slurm)}
    result = subprocess.run(
        [sys.executable, "-c", ON_SLURM, str(path), config.model, str(tmp_path / "mine.yaml"), str(tmp_path / "jobs")],
        capture_output=True, text=True, timeout=500, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    error, folder = json.loads(result.stdout.splitlines()[-1])
    assert error == ""
    assert len(list(slurm.glob("job.*.sh"))) == 2
    assert all("#SBATCH -p short" in script.read_text() for script in slurm.glob("job.*.sh"))
    assert len((slurm / "cancelled").read_text().split()) == 2  # nobody's job is left in the queue
    (one,) = predict([path], config, tmp_path / "one", RunOptions(device="cpu"))
    expected, found = (read_labels(p).stack.frame(0) for p in (one.folder / "labels.ome.tif", Path(folder) / LABELS))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("queue: [", "not readable YAML"), ("- a", "must hold keys"), ("jobs: 0", "expected how many"),
        ("cores: 1\nmemory: 1GB\nqeue: gpu", "qeue"),
    ],
)  # fmt: skip
def test_a_bad_slurm_file_is_refused(text, says, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=says):
        slurm_cluster(file)


@pytest.mark.slow
def test_a_dead_worker_is_replaced_and_a_poisoned_part_is_named(tmp_path):
    from distributed import WorkerPlugin

    # Local classes travel by value: the workers cannot import this file.
    class Keeper:
        """Stands where the store stands: kills its worker, or fails, at chosen planes."""

        def __init__(self, path):
            self.path = self.folder = path

        def has(self, frame, z_start):
            return (self.folder / f"done-{z_start}").exists()

        def save(self, slab):
            count = len(list(self.folder.glob(f"{slab.z_start}-*")))
            (self.folder / f"{slab.z_start}-{count}").touch()
            if (self.folder / f"poison-{slab.z_start}").exists() or (slab.z_start == 1 and count == 0):
                os.kill(os.getpid(), signal.SIGKILL)
            if slab.z_start == 3 and count < 2:
                raise OSError("the network drive hiccups")
            (self.folder / f"done-{slab.z_start}").touch()

    class Prepared(WorkerPlugin):
        def setup(self, worker):
            from seg import cluster

            cluster.segment = lambda stack, bundle, *, settings, normalisation, only: [
                type("Slab", (), {"z_start": part.places[0][1]}) for part in only
            ]
            cluster._stack = cluster._bundle = lambda *arguments: None

    client = connect("local:1")
    client.register_plugin(Prepared())
    settings = cluster.InferenceSettings(device="cpu")
    task = cluster.Task(tmp_path / "volume.tif", {}, tmp_path, settings, None, Keeper(tmp_path))
    parts = [Part(0, range(z, z + 1), ((0, z),), 1) for z in range(4)]
    cluster.compute(task, parts, "local:1")
    tries = sorted(int(file.name.split("-")[0]) for file in tmp_path.glob("[0-9]-*"))
    assert tries == [0, 1, 1, 2, 3, 3, 3]  # one death, two hiccups
    (tmp_path / "done-2").rename(tmp_path / "poison-2")
    with pytest.raises(SegError, match="volume.tif', frame 0, plane 2: this part ended 3 workers"):
        cluster.compute(task, parts[2:3], "local:1")
    assert len(list(tmp_path.glob("2-*"))) == 1 + 3


def test_a_part_is_not_blamed_for_deaths_before_it_began(tmp_path, monkeypatch):
    from distributed import KilledWorker

    class Future:
        def __init__(self, outcome):
            self.outcome = outcome

        def result(self):
            return self.outcome()

        def release(self):
            pass

    class Client:
        """Gives up a call whenever it is sent, up to `deaths` times; with `begins` its workers die under it."""

        def __init__(self, deaths, begins):
            self.deaths, self.begins = deaths, begins

        def submit(self, run, number, *call, **options):
            def outcome():
                if number == 1 and self.deaths:
                    self.deaths -= 1
                    if self.begins:
                        (tmp_path / f".begun-{run.__self__.token}-1-{self.deaths}").touch()
                    raise KilledWorker("part", None, 2)
                return run(number, *call)

            return Future(outcome)

        def cancel(self, futures):
            pass

    def found(deaths, begins, call=str.upper):
        calls = [(call, "a"), (call, "b")]
        return dict(cluster._results(Client(deaths, begins), calls, "part {}".format, "local:1", tmp_path))

    monkeypatch.setattr(cluster, "_as_they_end", lambda client, futures, where: list(futures))
    assert found(2, begins=False) == found(2, begins=True) == {0: "A", 1: "B"}
    with pytest.raises(SegError, match="part 1: this part ended 3 workers"):
        found(3, begins=True)
    with pytest.raises(SegError, match="part 1: the workers ended again and again, mostly before this part began"):
        found(3, begins=False)
    with pytest.raises(SegError, match="part 0: this part failed 3 times"):  # no death: its note is taken away
        found(0, begins=False, call=int)
    assert not list(tmp_path.iterdir())


def test_a_call_that_ended_its_workers_thrice_is_not_begun_by_a_scheduler_that_would_send_it_again(tmp_path):
    attempts, called = Attempts(tmp_path, 3), []
    for n in range(3):
        assert attempts.run(7, len, "ab") == 2
        (tmp_path / f".begun-{attempts.token}-7-{n}").touch()  # left by a worker that was killed
    with pytest.raises(EndsWorkersError):
        attempts.run(7, called.append, "begun")
    assert not called
    assert attempts.run(77, len, "ab") == Attempts(tmp_path, 3).run(7, len, "ab") == 2
    attempts.forget()
    assert not list(tmp_path.iterdir())


def test_a_cluster_that_has_lost_all_its_workers_is_not_waited_for(tmp_path, monkeypatch):
    from distributed import Client, LocalCluster

    monkeypatch.setattr(cluster, "ASK_EVERY_S", 0.05)
    monkeypatch.setattr(cluster, "WORKERLESS_S", 0.3)
    store = SlabStore(tmp_path, "zyx")
    task = cluster.Task(tmp_path / "volume.tif", {}, tmp_path, cluster.InferenceSettings(device="cpu"), None, store)
    with LocalCluster(n_workers=0, processes=False, dashboard_address=None) as empty, Client(empty) as client:
        monkeypatch.setattr(cluster, "connect", lambda where: client)
        with pytest.raises(SegError, match="All processes of --cluster local:2 have ended"):
            cluster.compute(task, [Part(0, range(0, 1), ((0, 0),), 1)], "local:2")


def test_a_worker_that_is_being_replaced_after_a_long_run_is_waited_for(monkeypatch):
    import distributed

    class Ending:
        """A part every 40 s, then none and no worker for a moment, then the last one."""

        def __init__(self, futures):
            self.left, self.batches = len(futures), [["a"], ["b"], ["c"], [], ["d"]]

        def count(self):
            return self.left

        def next_batch(self, block):
            clock.append(clock[-1] + 40)
            batch = self.batches.pop(0)
            self.left -= len(batch)
            return batch

    class Empty:
        def scheduler_info(self):
            return {"workers": {}}

    clock = [0.0]
    monkeypatch.setattr(distributed, "as_completed", Ending)
    monkeypatch.setattr(cluster.time, "monotonic", lambda: clock[-1])
    assert list(cluster._as_they_end(Empty(), "abcd", "local:2")) == ["a", "b", "c", "d"]


def test_masks_of_two_processes_are_those_of_one(tiny_volume, tmp_path):
    config, path = tiny_volume
    from seg.pipeline import RunOptions, predict

    (one,) = predict([path], config, tmp_path / "one", RunOptions(device="cpu"))
    (two,) = predict([path], config, tmp_path / "two", RunOptions(device="cpu", cluster="local:2"))
    assert (one.error, two.error) == ("", "")
    found = [read_labels(r.folder / n) for r, n in ((one, "labels.ome.tif"), (two, "labels.ome.zarr"))]
    np.testing.assert_array_equal(found[0].stack.frame(0), found[1].stack.frame(0))
    assert found[1].stack.calibration.pixel_size_um == {"z": 1.5, "y": 0.4, "x": 0.25}
    assert not list((two.folder / ".work").glob("slabs-*"))


def test_two_processes_turn_a_volume_as_one(tiny_volume, tmp_path):
    from dataclasses import replace

    from seg.models.bundle import load_bundle, save_bundle
    from seg.pipeline import RunOptions, predict

    config, path = tiny_volume
    bundle = load_bundle(config.model)
    model = save_bundle(tmp_path / "across", bundle.network, replace(bundle.spec, slices="across"), "# Tiny", seed=1)
    config = replace(config, model=str(model))
    (one,) = predict([path], config, tmp_path / "one", RunOptions(device="cpu"))
    (two,) = predict([path], config, tmp_path / "two", RunOptions(device="cpu", cluster="local:2"))
    assert (one.error, two.error) == ("", "")
    found = [read_labels(r.folder / n) for r, n in ((one, "labels.ome.tif"), (two, "labels.ome.zarr"))]
    np.testing.assert_array_equal(found[0].stack.frame(0), found[1].stack.frame(0))


@pytest.mark.parametrize(("axes", "slab_voxels"), [("tzyx", 300), ("tzyx", 10**6), ("tyx", 300)])
def test_two_processes_clean_as_one(axes, slab_voxels, schema, tmp_path, monkeypatch):
    """Slabs of a plane or two, whole volumes, and planes whose slabs share chunks; objects in two frames in a row."""
    from seg import postprocess
    from seg.cleanup import CleanUp, make_rules
    from seg.inference import Slab
    from seg.io.labels import create_labels
    from seg.slabs import CLEAN

    monkeypatch.setattr(postprocess, "SLAB_VOXELS", slab_voxels)
    rng = np.random.default_rng(8)
    shape = (3, 9, 12, 14) if axes == "tzyx" else (3, 30, 40)
    labels = rng.choice(np.array([1, 2, 3, 4], np.uint8), shape, p=[0.3, 0.3, 0.2, 0.2])
    rules = make_rules(
        CleanUp(min_frames=2), schema, ("deposit", "dendrite"), ndim=len(shape) - 1, min_diameter_px=2, spacing_um=None
    )
    store = SlabStore(tmp_path / "slabs", axes, tuple(rules.peak.tolist()))
    store.path.mkdir()
    about = {"shape": shape, "axes": axes, "calibration": Calibration({"y": 0.4, "x": 0.25}), "schema": schema}
    store.create(lambda part: create_labels(part, **about))
    sure = rng.random(shape).astype(np.float16)
    for frame in range(3):
        store.save(Slab(frame, 0, labels[frame], sure[frame]))
    changed, expected = postprocess.Changed(), postprocess.Changed()
    store.begin_clean(lambda part: create_labels(part, **about))
    cluster.clean(store, "series", shape, rules, changed, "local:2")
    for frame in range(3):
        near = [labels[other] for other in ((0, 2) if frame == 1 else ())]
        clean = postprocess.clean_labels(
            labels[frame], rules, sure[frame], neighbours=near, changed=expected, max_voxels=10**6
        )
        assert (clean != labels[frame]).any()
        np.testing.assert_array_equal(read_labels(store.path / CLEAN).stack.frame(frame), clean)
    assert changed.by_class(schema) == expected.by_class(schema)
