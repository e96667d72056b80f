"""Checkpoints of a training: written atomically, read without unpickling.

A checkpoint holds everything in float32; continuing from it gives the same weights bit for bit (same CPU,
threads and versions).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sqlib.errors import DataError, InputError

State = dict[str, Any]

FILE = "checkpoint.pt"
FORMAT = 3


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a neighbour of ``path``, then rename: a kill or a full disk leaves the old file
    valid.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save(state: State, path: Path) -> None:
    """Write a checkpoint atomically.

    Raises
    ------
    DataError
        The folder cannot be written or the disk is full; an older checkpoint there stays valid.
    """
    try:
        atomic_write(path, lambda target: torch.save({**state, "format": FORMAT}, target))
    except (OSError, RuntimeError) as error:  # torch reports a full disk as either
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(
            f"the checkpoint {path} cannot be written ({reason}); make room or choose another folder. "
            + ("The one before it is kept" if path.is_file() else "Nothing is kept so far")
        ) from error


def read(path: Path) -> State:
    """Read a checkpoint file onto the CPU.

    Raises
    ------
    InputError
        The file is damaged, or no checkpoint of this version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler fail in any way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} cannot be read as a checkpoint ({reason}); restore it or remove it"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(
            f"{path} is no training checkpoint of format {FORMAT}; restore it, or choose another folder"
        )
    return state
