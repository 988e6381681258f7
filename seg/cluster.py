"""The same work on several processes or machines through Dask: one task per stack and slab.

Each task opens the input and the model on its worker (both are kept there), computes one part and writes its planes
into the OME-Zarr of the result, whose chunks are one plane deep: no two tasks touch the same chunk. Once all are there
the masks are cleaned the same way. Input, model and output must have the same path on all machines.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from seg.attempts import Attempts, EndsWorkersError
from seg.blocks import Slab
from seg.census import Census, Survey, survey
from seg.cleanup import Rules
from seg.errors import SegError, UsageError
from seg.inference import InferenceSettings, Part, segment
from seg.io import open_stack
from seg.postprocess import Changed, clean_frame_of, cuts_of, repainted
from seg.precision import Precision, choose_precision
from seg.preprocess import SeriesNormalisation
from seg.progress import Progress, silent
from seg.resources import config_file
from seg.slabs import DISK_FULL, SlabStore
from seg.turning import from_disk

logger = logging.getLogger(__name__)

ATTEMPTS = 3
# How many threads a worker computes with: Dask sets those of its children to one.
THREADS = "OPERANDOSEG_THREADS"
# How often a cluster that returns nothing is asked for its workers, and how long it may have none.
ASK_EVERY_S = 5.0
WORKERLESS_S = 60.0
KINDS = "local:N, tcp://HOST:PORT or slurm:FILE"


@dataclass(frozen=True)
class Task:
    """What every part of one stack needs.

    Parameters
    ----------
    path : Path
        Of the input, absolute.
    reading : mapping
        Options of `seg.io.open_stack`.
    model : Path
        Folder of the model.
    settings : InferenceSettings
    normalisation : SeriesNormalisation
        Of the whole series, fitted once.
    store : SlabStore
    turned : Path or None
        The copy to read, where the stack is turned (`seg.turning.turned_on_disk`).
    """

    path: Path
    reading: Mapping[str, Any]
    model: Path
    settings: InferenceSettings
    normalisation: SeriesNormalisation
    store: SlabStore
    turned: Path | None = None


def precision_of(task: Task, where: str) -> Precision:
    """The arithmetic for all parts of a stack, decided on one of the machines that will compute them."""
    calls = [(_choose_one, task)]
    named = f"{task.path.name!r}, comparing precisions"
    ((_, found),) = _results(connect(where), calls, lambda _: named, where, task.store.path)
    if isinstance(found, SegError):
        raise found
    return found


def compute(task: Task, parts: Sequence[Part], where: str, *, progress: Progress = silent) -> None:
    """Compute parts of a stack on a cluster and save them.

    Parameters
    ----------
    task : Task
    parts : sequence of Part
    where : str
        ``local:N`` (N processes on this machine), ``tcp://HOST:PORT`` (a Dask scheduler that runs) or ``slurm:FILE``.
    progress : Progress

    Raises
    ------
    SegError
        What is wrong with the input, as in one process; and where a part ended its worker, or failed, three times. A
        worker that dies otherwise is replaced and its part done elsewhere.
    """
    client = connect(where)
    logger.info("%s: %d part(s) on %s", task.path.name, len(parts), where)

    def named(number: int) -> str:
        frame, z_start = parts[number].places[0]
        return f"{task.path.name!r}, frame {frame}, plane {z_start}"

    calls = [(_compute_one, task, part) for part in parts]
    for _, refused in progress(
        _results(client, calls, named, where, task.store.path), total=len(calls), desc=f"segment {task.path.name}"
    ):
        if refused is not None:
            raise refused


def clean(
    store: SlabStore, name: str, shape: Sequence[int], rules: Rules, changed: Changed, where: str, *,
    progress: Progress = silent,
) -> None:  # fmt: skip
    """Clean the finished parts of a store on a cluster, into the OME-Zarr made by its `begin_clean`.

    Slabs of a volume are surveyed where a worker is free, joined here, and rewritten where a worker is free; planes,
    whose slabs share chunks, and small volumes are cleaned whole.

    Parameters
    ----------
    store : SlabStore
        Under a path that all machines know.
    name : str
        Of the stack.
    shape : sequence of int
        Of the labels: frames first, as in `seg.postprocess.clean_frame_of`.
    rules : Rules
    changed : Changed
        Is added to.
    where : str
        As for `compute`.
    progress : Progress

    Raises
    ------
    SegError
        As `compute`.
    """
    client, cuts, said = connect(where), cuts_of(shape[1:]), {"desc": f"clean {name}"}
    if len(shape) == 3 or len(cuts) == 1:
        calls = [(_clean_one, store, frame, tuple(shape), rules) for frame in range(shape[0])]
        done = _results(client, calls, lambda frame: f"{name!r}, cleaning frame {frame}", where, store.path)
        for _, other in progress(done, total=shape[0], **said):
            changed.join(other)
        return
    for frame in progress(range(shape[0]), total=shape[0], **said):
        beside = rules.beside(frame, shape[0])

        def named(number: int, frame: int = frame) -> str:
            return f"{name!r}, cleaning frame {frame}, plane {cuts[number].owned.start}"

        calls = [(_survey_one, store, frame, beside, slab, tuple(shape[1:]), rules) for slab in cuts]
        found = dict(_results(client, calls, named, where, store.path))
        census = Census(rules, compares=bool(beside))
        for number in range(len(cuts)):
            census.take(found.pop(number))
        target, gone = census.decide()
        changed.regions += gone
        calls = [(_repaint_one, store, frame, slab, census.becomes(n, target)) for n, slab in enumerate(cuts)]
        for _, other in _results(client, calls, named, where, store.path):
            changed.join(other)


def _results(
    client: Any, calls: Sequence[tuple[Any, ...]], named: Callable[[int], str], where: str, notes: Path
) -> Iterator[tuple[int, Any]]:  # fmt: skip
    """(number, result) of calls in the order in which they end; `named` says what the one is that cannot be done.

    What Dask gives up, but did not begin so often (the folder `notes` tells), is sent again; not for ever, as workers
    may end before anything begins.
    """
    from distributed import KilledWorker

    attempts, left, futures, rounds = Attempts(notes, ATTEMPTS), dict(enumerate(calls)), {}, 0
    try:
        while left:
            rounds += 1
            futures = {
                client.submit(attempts.run, n, *call, retries=ATTEMPTS - 1, pure=False): n for n, call in left.items()
            }
            for future in _as_they_end(client, list(futures), where):
                number = futures.pop(future)
                try:
                    result = future.result()
                except (KilledWorker, EndsWorkersError) as error:
                    ended = f"this part ended {ATTEMPTS} workers"
                    if attempts.unfinished(number) < ATTEMPTS:
                        if rounds < ATTEMPTS:
                            continue
                        ended = "the workers ended again and again, mostly before this part began"
                    raise SegError(
                        f"{named(number)}: {ended}, perhaps for want of memory; the rest is kept."
                    ) from error
                except (OSError, RuntimeError, ValueError) as error:
                    if isinstance(error, OSError) and error.errno in DISK_FULL:
                        raise  # as in one process
                    raise SegError(
                        f"{named(number)}: this part failed {ATTEMPTS} times ({error}); the rest is kept."
                    ) from error
                future.release()
                del left[number]
                yield number, result
    finally:
        client.cancel(list(futures))
        attempts.forget()


def _as_they_end(client: Any, futures: Iterable[Any], where: str) -> Iterator[Any]:
    """The futures in the order in which they end; a cluster without workers is named, not waited for in silence.

    A queue may be long, and a scheduler may get its workers later, so these are waited for; what this process
    started itself and lost does not come back.
    """
    from distributed import as_completed

    ending = as_completed(futures)
    last_seen = last_asked = time.monotonic()
    while ending.count():
        ready = ending.next_batch(block=False)
        yield from ready
        now = time.monotonic()
        if ready:  # somebody made it
            last_seen = now
            continue
        if now - last_asked < ASK_EVERY_S:
            time.sleep(0.05)
            continue
        last_asked = now
        if client.scheduler_info()["workers"]:
            last_seen = now
        elif where.startswith("local:") and now - last_seen > WORKERLESS_S:
            raise SegError(
                f"All processes of --cluster {where} have ended and none came back within {WORKERLESS_S:.0f} s, "
                "perhaps for want of memory; what is finished is kept, the same command continues."
            )
        elif now - last_seen > WORKERLESS_S:
            logger.warning("%s has no worker since %.0f s; waiting.", where, now - last_seen)


@cache
def connect(where: str) -> Any:
    """A Dask client for ``local:N``, ``tcp://HOST:PORT`` or ``slurm:FILE``, kept until this process ends."""
    kind, _, what = where.partition(":")
    if kind not in ("local", "tcp", "tls", "slurm") or not what:
        raise UsageError(f"--cluster has {where!r}; expected {KINDS}.")
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise UsageError("--cluster needs Dask: pip install 'operandoseg[cluster]'") from error
    logging.getLogger("distributed").setLevel(logging.ERROR)  # it tells of every connection
    # A task whose worker died goes to another one; the third death is blamed on the task (see `_results`).
    # Scheduler, nannies and workers look at themselves fifty times a second each, and workers at their own stacks a
    # hundred times: an eighth of a core, which the workers want.
    dask.config.set({
        "distributed.scheduler.allowed-failures": ATTEMPTS - 1, "distributed.worker.profile.enabled": False,
        "distributed.admin.tick.interval": "1s", "distributed.admin.tick.limit": "1m",
        "distributed.admin.system-monitor.interval": "5s",
    })  # fmt: skip
    if kind in ("tcp", "tls"):
        try:
            client = Client(where, timeout="30s")
        except (OSError, TimeoutError) as error:
            raise UsageError(f"No Dask scheduler answers at {where}; start one with `dask scheduler`.") from error
        return client
    if kind == "local":
        if not what.isdecimal() or int(what) < 1:
            raise UsageError(f"--cluster has {where!r}; expected local:N with N from 1, such as local:2.")
        threads = max((os.cpu_count() or 1) // int(what), 1)
        dask.config.set({"distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": threads})
        cluster = LocalCluster(
            n_workers=int(what), threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.ERROR,
        )  # fmt: skip
    else:
        cluster, jobs = slurm_cluster(what)
        cluster.scale(jobs=jobs)
    client = Client(cluster)
    # Workers would outlive this process for a while, and complain.
    atexit.register(cluster.close)
    atexit.register(client.close)
    return client


def slurm_cluster(file: str | Path) -> tuple[Any, int]:
    """A `dask_jobqueue.SLURMCluster` from a YAML file (or the name of a shipped one), and how many jobs to ask for."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise UsageError("--cluster slurm needs dask-jobqueue: pip install 'operandoseg[cluster]'") from error
    path = config_file("cluster", file)
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(options, dict):
        raise UsageError(f"{path} must hold keys and values such as `queue: gpu`.")
    jobs = options.pop("jobs", 1)
    if not isinstance(jobs, int) or jobs < 1:
        raise UsageError(f"{path}: jobs is {jobs!r}; expected how many workers to ask for, from 1.")
    try:
        return SLURMCluster(**_one_part_at_a_time(options)), jobs
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path} is refused by dask_jobqueue.SLURMCluster: {error}") from error


def _one_part_at_a_time(options: Mapping[str, Any]) -> dict[str, Any]:
    """One part per process with all of its cores: what a process was planned to need, and no GPU shared by parts."""
    threads = max(int(options.get("cores", 1)) // int(options.get("processes", 1)), 1)
    return {
        **options,
        "worker_extra_args": [*options.get("worker_extra_args", []), "--nthreads", "1"],
        "job_script_prologue": [*options.get("job_script_prologue", []), f"export {THREADS}={threads}"],
    }


# --- on a worker ----------------------------------------------------------------------------------------------------


def _compute_one(task: Task, part: Part) -> SegError | None:
    """Compute and save one part; what is wrong with the data is given back, as trying again would not help."""
    if all(task.store.has(*place) for place in part.places):
        return None  # saved by a worker that died before it could say so
    try:
        stack, bundle, settings = _opened(task)
        for slab in segment(stack, bundle, settings=settings, normalisation=task.normalisation, only=[part]):
            task.store.save(slab)
    except SegError as error:
        return error
    return None


def _choose_one(task: Task) -> Precision | SegError:
    try:
        return choose_precision(*_opened(task), task.normalisation)
    except SegError as error:
        return error


def _opened(task: Task) -> tuple[Any, Any, InferenceSettings]:
    """The stack, the model and the settings on this worker."""
    stack = _stack(task.path, json.dumps(task.reading, sort_keys=True))
    if task.turned is not None:
        stack = from_disk(stack, task.turned)
    return stack, _bundle(task.model), replace(task.settings, device=_device(task.settings.device))


def _clean_one(store: SlabStore, frame: int, shape: tuple[int, ...], rules: Rules) -> Changed:
    """Clean one frame, and say what changed."""
    changed = Changed()
    for where, labels in clean_frame_of(store.read, frame, shape, rules, changed):
        store.write_clean(frame, where, labels)
    return changed


def _survey_one(
    store: SlabStore, frame: int, beside: Sequence[int], slab: Slab, shape: tuple[int, ...], rules: Rules
) -> Survey:  # fmt: skip
    """Look at the regions of one slab."""
    seen = [store.read(other, slab.read)[0] for other in beside]
    return survey(slab, shape, rules, *store.read(frame, slab.read), seen)[0]


def _repaint_one(store: SlabStore, frame: int, slab: Slab, becomes: np.ndarray | None) -> Changed:
    """Write one slab as its regions are to be, and say what changed."""
    labels = store.read(frame, slab.read)[0]
    clean, changed = repainted(labels, becomes)[slab.inner], Changed()
    store.write_clean(frame, slab.owned, clean)
    changed.add(labels[slab.inner], clean)
    return changed


@lru_cache(maxsize=2)
def _stack(path: Path, reading: str) -> Any:
    return open_stack(path, **json.loads(reading))


@lru_cache(maxsize=2)
def _bundle(model: Path) -> Any:
    import torch

    from seg.models.bundle import load_bundle

    if os.environ.get(THREADS, "").isdecimal():
        torch.set_num_threads(max(int(os.environ[THREADS]), 1))
    return load_bundle(model)


def _device(name: str) -> str:
    """One GPU per worker where a machine has several."""
    import torch
    from distributed import get_worker

    count = torch.cuda.device_count()
    if name not in ("auto", "cuda") or count < 2:
        return name
    number = str(get_worker().name).rpartition("-")[2]
    return f"cuda:{int(number) % count}" if number.isdecimal() else name
