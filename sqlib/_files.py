"""Where a result may be written, and writing it at once or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path

from sqlib.errors import DataError, InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def check_output(
    path: str | PathLike[str], *, inputs: Iterable[str | PathLike[str]] = (), overwrite: bool = False
) -> None:
    """Refuse, before anything is computed, a place where a result must not or cannot be written.

    Parameters
    ----------
    path : file to be written
    inputs : files that are read; none is ever overwritten, under whatever name (links, other spellings)
    overwrite : whether another file that is already there may be replaced

    Raises
    ------
    InputError
        The place is an input, exists without ``overwrite``, is a folder, is no regular file, is
        write-protected, is a link that leads round in a circle, or its folder does not exist or is
        write-protected.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise InputError(f"path={path!r}: expected the name of a file to write")
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"the folder of {str(path)!r} does not exist")
    for source in inputs:
        if _same(path, Path(source)):
            raise InputError(f"{str(path)!r} would overwrite the input {str(source)!r}: write elsewhere")
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder, expected a file to write")
    if not overwrite and os.path.lexists(path):
        raise InputError(f"{str(path)!r} exists; write elsewhere, or overwrite it on purpose with --force")
    _check_replaceable(path)
    try:
        folder = _followed(path).parent
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be written: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"the folder {str(folder)!r} cannot be written: its permissions forbid it")


def write_atomically(path: str | PathLike[str], data: bytes | memoryview | Iterator[bytes]) -> None:
    """Write a file beside its place, then rename it: complete or not there, whatever interrupts.

    The content comes at once, or in pieces.

    A link is followed, so that the file it points to gets the content; an existing file keeps its
    permissions. What a killed process left beside the place goes with the next write to it.

    Raises
    ------
    InputError
        The file exists and is write-protected, or is no regular file.
    DataError
        The folder does not exist, cannot be written or is full.
    """
    path = Path(path)
    _check_replaceable(path)
    try:
        place = _followed(path)
        with partial_file(place) as partial:
            with open(partial, "wb") as file:
                file.writelines(data if isinstance(data, Iterator) else [data])
            if place.exists():
                shutil.copymode(place, partial)
            partial.replace(place)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def partial_file(place: Path) -> Iterator[Path]:
    """An empty file beside ``place``, locked and gone in the end; those that nobody locks any more go too."""
    # Of the name a digest: the name itself may be as long as names can be.
    prefix = f".{hashlib.sha256(os.fsencode(place.name)).hexdigest()[:16]}-"
    for left in place.parent.glob(f"{prefix}*.partial") if fcntl else ():
        # Of a writer that lives, gone meanwhile, somebody else's, or on a disk without locks: it stays.
        with contextlib.suppress(OSError), open(left, "r+b") as abandoned:
            fcntl.flock(abandoned, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()
    with contextlib.ExitStack() as held:
        while True:
            # A name of its own: nobody's file is overwritten, and two writers do not meet.
            partial = place.with_name(f"{prefix}{secrets.token_hex(8)}.partial")
            file = held.enter_context(open(partial, "xb"))
            held.callback(_remove, partial)
            if not fcntl:  # Windows, where a file that is open cannot be renamed
                file.close()
                break
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            if partial.exists():
                break  # else another writer thought it abandoned before it was locked
        yield partial


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone in a folder (made if it is not there), among those that ask; no lock on Windows."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    if not fcntl:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # renamed: there is none
        path.unlink()


def _followed(path: Path) -> Path:
    """Where a path leads; an OSError if its links lead round in a circle."""
    try:
        place = path.resolve()
    except RuntimeError:  # a circle, before Python 3.13
        place = path
    if place.is_symlink():  # a circle, since Python 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return place


def _same(one: Path, other: Path) -> bool:
    """Whether two names lead to one file; compares the files, so case, links and ``..`` do not matter."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them is not there
        return False


def _check_replaceable(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:  # nothing there yet
        return
    if not stat.S_ISREG(mode):
        raise InputError(f"{str(path)!r} is not a regular file; give the name of a file to write")
    # The bits, not os.access: renaming over the file would succeed whatever they say, and root may all.
    if not mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(f"{str(path)!r} is write-protected; remove it first or write elsewhere")
