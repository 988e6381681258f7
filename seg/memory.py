"""How much memory is left to this process, as far as the system says; and what becomes of freed memory."""

from __future__ import annotations

import ctypes
import platform
from functools import cache
from pathlib import Path

# With less than this the libraries behind every command do not load: OpenBLAS, which SciPy brings, asks for its buffers
# again and again without end where it gets none.
STARTING_BYTES = 2**27
# As little for torch, whose CUDA libraries end the process where they find no room.
TORCH_BYTES = 2**28


def memory_left_bytes() -> int | None:
    """The least of what the machine, a control group and the limits of the shell leave; None: not known.

    Counts what may still be taken, not what is held already; pages of mapped files give way and are no memory taken.
    """
    left = []
    machine = _status(Path("/proc/meminfo"))
    if "MemAvailable" in machine:
        left.append(machine["MemAvailable"])
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        bounds = [_number(Path(file)) for file in (limit, used)]
        if bounds[0] is not None and bounds[1] is not None:
            # Pages of files count as used there, but give way.
            cached = _status(Path(used).with_name("memory.stat"), unit=1).get("inactive_file", 0)
            left.append(bounds[0] - max(bounds[1] - cached, 0))
    held = _status(Path("/proc/self/status"))
    try:
        import resource
    except ImportError:  # not on Windows
        return min(left, default=None)
    for kind, key in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY and key in held:
            left.append(soft - held[key])
    return max(min(left), 0) if left else None


def require_memory(least_bytes: int) -> None:
    """MemoryError where less is left, as far as the system says."""
    left = memory_left_bytes()
    if left is not None and left < least_bytes:
        raise MemoryError(f"{left / 1e6:.0f} MB are left, {least_bytes / 1e6:.0f} are needed")


def is_short(error: BaseException) -> bool:
    """Whether an error says that memory was short: a library that finds no room is an ImportError of the loader."""
    return isinstance(error, MemoryError) or (isinstance(error, ImportError) and "failed to map" in str(error))


def _status(file: Path, *, unit: int = 1024) -> dict[str, int]:
    """Lines such as ``VmData:  123 kB`` as bytes; empty where there is no such file."""
    try:
        lines = [line.replace(":", " ").split() for line in file.read_text(encoding="ascii").splitlines()]
    except (OSError, ValueError):
        return {}
    return {words[0]: int(words[1]) * unit for words in lines if len(words) > 1 and words[1].isdigit()}


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max": no limit
        return None


@cache
def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next tile: page faults cost more than arithmetic otherwise.

    A network frees and allocates the same hundreds of megabytes at every layer. By default glibc returns them to the
    kernel each time, which clears every page again. Measured: 0.7 to 0.8 of the time, up to 38 % more memory held.
    One store of freed memory for all threads, else each that reads or writes keeps its own: 85 MiB on 512^3 voxels.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8  # malloc.h
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, -1)
        libc.mallopt(m_arena_max, 1)
