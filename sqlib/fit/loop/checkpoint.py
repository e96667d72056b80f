"""Checkpoints of any training: written atomically, read without unpickling, named by what decides the result.

A checkpoint holds everything in the precision it is trained in; continuing from it gives the same result bit
for bit (same CPU, threads and versions).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sqlib._files import write_atomically
from sqlib._tensor_files import contents
from sqlib.errors import DataError, InputError, SqlibError
from sqlib.fit.loop.task import State

FILE = "checkpoint.pt"
"""Name of the checkpoint where a folder belongs to one training."""
FORMAT = 4
_REMEDY = "restore it or remove it to begin anew"


def save(state: State, path: Path) -> None:
    """Write a checkpoint atomically; its folder is made if absent.

    Raises
    ------
    DataError
        The folder cannot be written or the disk is full; an older checkpoint there stays valid.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save({**state, "format": FORMAT}, buffer)
        write_atomically(path, buffer.getvalue())
    except (OSError, SqlibError) as error:
        cause = error.__cause__ if isinstance(error, SqlibError) and error.__cause__ else error
        reason = getattr(cause, "strerror", None) or str(cause)
        raise DataError(
            f"the checkpoint {path} cannot be written ({reason}); make room or choose another folder. "
            + ("The one before it is kept" if path.is_file() else "Nothing is kept so far")
        ) from error


def read(path: Path, *, formats: tuple[int, ...] = (FORMAT,)) -> State:
    """Read a checkpoint file onto the CPU.

    Raises
    ------
    InputError
        The file is damaged, or no checkpoint of one of these `formats`.
    DataError
        The file cannot be opened.
    """
    try:
        state, _ = contents(path, "a checkpoint")
    except InputError as error:
        raise InputError(f"{error}; {_REMEDY}") from None
    except OSError as error:
        raise DataError(
            f"the checkpoint {path} cannot be read: {error.strerror or error}; {_REMEDY}"
        ) from error
    if not isinstance(state, dict) or state.get("format") not in formats:
        raise InputError(
            f"{path} is no training checkpoint of format {FORMAT}; restore it, or choose another folder"
        )
    return state


@contextlib.contextmanager
def using(path: Path | None) -> Iterator[None]:
    """While the state in the file `path` is used: an InputError where it lacks parts, or they do not fit."""
    try:
        yield
    except SqlibError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        what = f"has no {reason}" if isinstance(error, KeyError) else f"does not fit this training: {reason}"
        raise InputError(f"{path} is an incomplete or foreign checkpoint: it {what}; {_REMEDY}") from error


def place(
    folder: str | PathLike[str] | None, kind: str, decides: Callable[[], str], end: str = ".pt"
) -> Path | None:
    """Where in `folder` a training keeps its state, by what `decides` its result; None without a folder."""
    if folder is None:
        return None
    if not isinstance(folder, (str, PathLike)):
        raise InputError(f"resume={folder!r}: expected a folder for unfinished training, or None")
    return Path(folder) / f"{kind}-{decides()[:16]}{end}"


def fingerprint(*parts: Any) -> str:
    """SHA-256 of tensors, numbers, texts, and lists and dictionaries of them."""
    digest = hashlib.sha256()
    _digest(parts, digest)
    return digest.hexdigest()


def _digest(value: Any, digest: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}:".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, dict):
        digest.update(b"{}")
        _digest([v for kv in sorted(value.items()) for v in kv], digest)
    elif isinstance(value, (list, tuple)):
        digest.update(f"[{len(value)}]".encode())
        for v in value:
            _digest(v, digest)
    else:
        text = repr(value).encode()
        digest.update(f"{type(value).__name__} {len(text)}:".encode() + text)
