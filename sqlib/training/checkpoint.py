"""Checkpoints: the exact one on disk, and the small one that travels to and from a borrowed machine.

``checkpoint.pt`` holds everything in float32; continuing from it gives the same weights bit for bit (same
CPU, threads and versions). It takes 16 bytes a parameter, too much to carry for most networks, so
:func:`carry` writes the richest form that fits a limit:

* *exact*, 16 bytes a parameter: nothing is lost.
* *light*, 8 bytes: Adam's first moment restarts at 0 (it forgets within ten steps anyway), its second
  moment is bfloat16, the averaged weights are float16.
* *pieces*, 2 bytes: only the averaged weights travel, as float16 in several files; training goes on from them
  with a fresh optimizer.

Step, schedule, sampler and curve are exact in every form. A form that loses something is named in the card.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sqlib.errors import DataError, InputError

State = dict[str, Any]

FILE = "checkpoint.pt"
FORMAT = 2
LIMIT = 15_000_000
"""Bytes of one carried file."""


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
    """Write a checkpoint atomically."""
    atomic_write(path, lambda target: torch.save({**state, "format": FORMAT}, target))


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


def find(folder: Path, name: str) -> State | None:
    """The state to continue from: ``folder/checkpoint.pt``, else what :func:`carry` wrote there for ``name``,
    else None.

    Raises
    ------
    InputError
        A damaged file.
    DataError
        Some pieces are missing.
    """
    exact = folder / FILE
    if exact.exists():
        return read(exact)
    if (folder / f"{name}.pt").exists():
        return read(folder / f"{name}.pt")
    found = sorted(folder.glob(f"{name}.piece-*-of-*.pt"))
    if not found:
        return None
    match = re.search(r"-of-(\d+)\.pt$", found[0].name)
    total = int(match.group(1)) if match else 0
    if len(found) != total:
        raise DataError(
            f"{folder} holds {len(found)} of {total} pieces of {name}; copy the others beside them"
        )
    pieces = [read(path) for path in found]
    if len({(piece["step"], piece["data_id"]) for piece in pieces}) != 1:
        raise InputError(f"the pieces of {name} in {folder} are of different checkpoints; copy one set")
    state = pieces[0]
    for piece in pieces[1:]:
        state["average"].update(piece["average"])
    return state


def carry(state: State, folder: Path, name: str, limit: int = LIMIT) -> list[Path]:
    """Write ``state`` so that no file exceeds ``limit`` bytes; see the module's table for the three forms.

    Returns the files, ``name.pt`` or ``name.piece-I-of-N.pt``; older ones of that name are removed
    afterwards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = {folder / f"{name}.pt", *folder.glob(f"{name}.piece-*-of-*.pt")}
    written: list[Path] = []
    for form in (state, _light(state)):
        path = folder / f"{name}.pt"
        save(form, path)
        if path.stat().st_size <= limit:
            written = [path]
            break
        path.unlink()
    else:
        parts = _pieces(state, limit)
        for i, part in enumerate(parts):
            path = folder / f"{name}.piece-{i + 1}-of-{len(parts)}.pt"
            save(part, path)
            written.append(path)
    for path in old - set(written):
        path.unlink(missing_ok=True)
    return written


def _losing(state: State, form: str) -> State:
    """``state`` with a note of the form it went through at this step."""
    return {**state, "carried": [*state.get("carried", []), {"step": state["step"], "form": form}]}


def _half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}


def _light(state: State) -> State:
    moments = {
        key: {
            "step": entry["step"],
            "exp_avg": torch.zeros(0),  # filled with zeros on reading
            "exp_avg_sq": entry["exp_avg_sq"].bfloat16(),
        }
        for key, entry in state["optimizer"]["state"].items()
    }
    optimizer = {**state["optimizer"], "state": moments}
    return {**_losing(state, "light"), "optimizer": optimizer, "average": _half(state["average"])}


def _pieces(state: State, limit: int) -> list[State]:
    head = {k: v for k, v in _losing(state, "pieces").items() if k not in ("model", "average", "optimizer")}
    head.update(model=None, optimizer=None)
    groups: list[dict[str, Tensor]] = [{}]
    room = 0.9 * limit  # the rest is for names, the curve and the container
    used = 0
    for key, value in _half(state["average"]).items():
        if used and used + value.nbytes > room:
            groups.append({})
            used = 0
        groups[-1][key] = value.clone()
        used += value.nbytes
    return [{**head, "average": group} for group in groups]


def restore_moments(optimizer: State, like: State) -> State:
    """Optimizer state of a light checkpoint, completed: float32 second moments, first moments 0."""
    whole = {}
    for key, entry in optimizer["state"].items():
        second = entry["exp_avg_sq"].float()
        first = entry["exp_avg"] if entry["exp_avg"].shape == second.shape else torch.zeros_like(second)
        whole[key] = {**entry, "exp_avg": first, "exp_avg_sq": second}
    return {"state": whole, "param_groups": like["param_groups"]}
