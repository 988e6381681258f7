"""One run at a time in an output folder, and a folder that can be written, known before any work."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from seg.errors import UsageError

LOCK = ".operandoseg.lock"


@contextlib.contextmanager
def only_run_in(out: Path) -> Iterator[None]:
    """Hold the lock of the folder `out`, which is made where it is missing.

    The lock belongs to the process: a killed run holds it no longer. Raises `UsageError` where another run holds it,
    and where the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / LOCK).open("a+")
    except FileExistsError:
        raise UsageError(f"{out} is a file; --out needs a folder.") from None
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror or error}); choose another --out.") from error
    with file:
        try:
            _lock(file)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise UsageError(f"{out} cannot be locked ({error.strerror}); choose another --out.") from error
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UsageError(
                f"Another run is working in {out} ({holder}); wait for it, or choose another --out."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _lock(file: IO[str]) -> None:
    if os.name == "posix":
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        # Far behind the text, which others may read.
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
