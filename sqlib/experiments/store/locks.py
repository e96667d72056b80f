"""One runner per cell: locks that the operating system releases when a runner is killed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def lock(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock file ``path`` while the block runs; yields whether we got it.

    The system drops the lock when its holder dies, by SIGKILL too, so one never has to be broken by hand.

    Parameters
    ----------
    path : Path
        Lock file; its folder exists. It stays there, empty: that it exists does not mean that it is held.
    wait : bool
        Block until the holder is done.
    """
    held = FileLock(path, timeout=-1 if wait else 0)
    try:
        held.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        held.release()
