"""One runner per cell: locks that the operating system releases when a runner is killed."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has no flock; `claim` then falls back to exclusive files.
    fcntl = None


@contextlib.contextmanager
def claim(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock file ``path`` while the block runs; yields whether we got it.

    With ``fcntl`` the kernel drops the lock when its holder dies, by SIGKILL too, so a lock never has to
    be broken by hand. Without it (Windows) the file itself is the lock: a killed runner leaves it behind,
    and a warning says what to delete.

    Parameters
    ----------
    path
        Lock file; its folder exists. Removed again on release.
    wait
        Block until the holder is done. Not possible without ``fcntl``, where it yields False instead.
    """
    descriptor = _flock(path, wait) if fcntl is not None else _exclusive_file(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            # Removed before the lock is dropped: whoever waited on this file sees that it is gone
            # (`_flock` compares inodes) and starts over on a new one.
            # Where it cannot be removed (a disk that became read-only) it may stay: the lock is not the file.
            if fcntl is not None:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
            os.close(descriptor)
            if fcntl is None:
                path.unlink(missing_ok=True)


def _flock(path: Path, wait: bool) -> int | None:
    assert fcntl is not None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:  # also Ctrl-C while waiting: give the descriptor back first
            os.close(descriptor)
            raise
        try:
            current = os.stat(path).st_ino
        except FileNotFoundError:
            current = -1
        if current == os.fstat(descriptor).st_ino:
            return descriptor
        os.close(descriptor)  # the holder removed the file we had opened


def _exclusive_file(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        warnings.warn(
            f"this system has no fcntl, so the lock {path} cannot tell a busy runner from a killed one; "
            "its cell is left alone. Delete the file if no other runner is at work.",
            stacklevel=4,
        )
        return None
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
