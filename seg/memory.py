"""How much memory is left to this process, as far as the system says; and what becomes of freed memory."""

from __future__ import annotations

import ctypes
import platform
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# With less than this the libraries behind every command do not load: OpenBLAS, which SciPy brings, asks for its buffers
# again and again without end where it gets none.
STARTING_BYTES = 2**27
# As little for torch, whose libraries end the process (std::bad_alloc) where they find no room.
TORCH_BYTES = 2**28
# Torch with CUDA takes 662 and 2928 MiB of the limits of the shell as it loads, most of it never touched.
CUDA_BYTES = {"VmData": 704 * 2**20, "VmSize": 3000 * 2**20}
# Freed pieces from this size on go back to the system at once where the shell limits memory.
RETURNED_BYTES = 2**18
# How the allocators of the host, the driver and the libraries under torch say it, as plain RuntimeErrors.
OUT_OF_MEMORY = (
    "DefaultCPUAllocator", "out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED",
    "could not create a primitive", "could not create a memory object",  # oneDNN
)  # fmt: skip


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
    left += _left_of_limits().values()
    return max(min(left), 0) if left else None


def _left_of_limits() -> dict[str, int]:
    """Bytes that the limits of the shell leave, by the line of /proc/self/status that counts what is taken of them."""
    held = _status(Path("/proc/self/status"))
    try:
        import resource
    except ImportError:  # not on Windows
        return {}
    limits = {
        "VmData": resource.getrlimit(resource.RLIMIT_DATA)[0],
        "VmSize": resource.getrlimit(resource.RLIMIT_AS)[0],
    }
    return {key: most - held[key] for key, most in limits.items() if most != resource.RLIM_INFINITY and key in held}


def require_memory(least_bytes: int) -> None:
    """MemoryError where less is left, as far as the system says."""
    _require(memory_left_bytes(), least_bytes)


def require_memory_for_torch() -> None:
    """MemoryError where torch, which is not loaded yet, would find no room."""
    require_memory(TORCH_BYTES)
    for key, left in _left_of_limits().items() if _has_cuda() else ():
        _require(left, CUDA_BYTES[key])


def _require(left: int | None, least_bytes: int) -> None:
    if left is not None and left < least_bytes:
        raise MemoryError(f"{left / 1e6:.0f} MB are left, {least_bytes / 1e6:.0f} are needed")


def _has_cuda() -> bool:
    """Whether the torch that is installed was built with CUDA; it is not loaded for that."""
    torch = find_spec("torch")
    origin = torch.origin if torch is not None else None
    return origin is not None and Path(origin).with_name("lib").joinpath("libtorch_cuda.so").exists()


def is_short(error: BaseException) -> bool:
    """Whether an error says that memory was short; libraries and mapped files that find no room have other classes."""
    words = {ImportError: ("failed to map",), RuntimeError: ("Cannot allocate memory", *OUT_OF_MEMORY)}
    said = next((texts for kind, texts in words.items() if isinstance(error, kind)), ())
    return isinstance(error, MemoryError) or any(text in str(error) for text in said)


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

    Under a limit of the shell it gives freed memory back instead. What is kept counts there, in pieces that smaller
    tiles and strips do not fit into, and leaves no room to the code that oneDNN writes for their sizes: on a wide
    micrograph 235 of 403 MiB were free after the first refusal, and every smaller attempt was refused as well.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    m_trim_threshold, m_mmap_threshold, m_mmap_max, m_arena_max = -1, -3, -4, -8  # malloc.h
    libc.mallopt(m_arena_max, 1)
    if _left_of_limits():
        libc.mallopt(m_mmap_threshold, RETURNED_BYTES)  # once said, it does not grow with what is freed
        libc.mallopt(m_trim_threshold, RETURNED_BYTES)
        return
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, -1)
