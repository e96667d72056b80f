"""What a strong network makes of the training images: targets free of noise, computed once and kept."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from sqlib._files import write_atomically
from sqlib.datasets import cache_folder
from sqlib.errors import DataError, InputError
from sqlib.fit.loop.bar import Bar
from sqlib.models import SRNetwork
from sqlib.training.teacher import check_teacher, teacher_id

FORMAT = 1
"""Part of every key: raise it when the same teacher and image would give other targets."""


@dataclass(frozen=True)
class Target:
    """What a teacher made of one image: float16 (scale h, scale w, 3) in 0..255, sliced like an array.

    The file is open only while a part is read: there may be more images than a process may open files.

    Attributes
    ----------
    path : Path
    shape : tuple of int
    offset : int
        Where in the file the pixels begin.
    """

    path: Path
    shape: tuple[int, ...]
    offset: int
    dtype: ClassVar = np.dtype(np.float16)

    def __getitem__(self, index: Any) -> NDArray[np.float16]:
        try:
            return np.array(np.memmap(self.path, self.dtype, "r", self.offset, self.shape)[index])
        except (OSError, ValueError) as error:  # ValueError: the file is shorter now
            raise DataError(_unreadable(self.path, error)) from error

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)


def enlarge(teacher: SRNetwork, image: NDArray[np.uint8], device: torch.device) -> NDArray[np.float16]:
    """Mean of the teacher's outputs over the eight symmetries of the square.

    Flips and turns commute with this mean, so crops of it may be flipped and turned like a photograph.

    Parameters
    ----------
    teacher : in evaluation mode, on ``device``
    image : uint8 (h, w, 3)

    Returns
    -------
    float16 (scale h, scale w, 3) in 0..255.
    """
    x = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float() / 255
    total: Tensor | None = None
    with torch.inference_mode():
        for turns in range(4):
            for flip in (False, True):
                turned = torch.rot90(x, turns, (2, 3))
                turned = turned.flip(3) if flip else turned
                out = teacher(turned.contiguous(memory_format=torch.channels_last)).float()
                out = torch.rot90(out.flip(3) if flip else out, -turns, (2, 3))
                total = out if total is None else total.add_(out)
    assert total is not None
    return total[0].permute(1, 2, 0).mul(255 / 8).cpu().numpy().astype(np.float16)


def teacher_targets(
    teacher: SRNetwork,
    images: Sequence[tuple[str, NDArray[np.uint8]]],
    *,
    scale: int,
    folder: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> list[Target]:
    """Targets of every image, from the cache where they are there already.

    Each is one file below ``folder``, named by the SHA-256 of image, teacher and settings and written
    atomically, so several trainings may share a cache and an interrupted one loses one image at most.
    Before anything is computed the teacher has to enlarge photographs
    (:func:`sqlib.training.teacher.check_teacher`).

    Parameters
    ----------
    teacher : SRNetwork
        Told from others by what it is now, not by what it was loaded from
        (:func:`sqlib.training.teacher.teacher_id`).
    images : (name, uint8 (h, w, 3)) low-resolution images; the names serve messages alone
    scale : of the network to be trained
    folder : default ``teacher`` in the cache folder of sqlib (:func:`sqlib.datasets.cache_folder`)
    device : where the teacher runs

    Returns
    -------
    list of Target : float16 (scale h, scale w, 3) in 0..255, finite, read from disk where they are sliced.

    Raises
    ------
    InputError
        A teacher of another scale, or one that does not enlarge photographs well (it may expect another
        range than 0..1, or have no trained weights), or that makes NaN or infinite values of an image.
    DataError
        The cache cannot be read or written; what was computed so far stays in it.
    """
    if teacher.scale != scale:
        raise InputError(
            f"the teacher {teacher.name} enlarges x{teacher.scale}, the network to be trained x{scale}; "
            f"give a teacher for x{scale}"
        )
    folder = Path(folder) if folder is not None else cache_folder() / "teacher"
    who = f"{FORMAT} {teacher_id(teacher)} x{scale}"
    paths = [folder / f"{_key(who, image)}.npy" for _, image in images]
    shapes = [(image.shape[0] * scale, image.shape[1] * scale, 3) for _, image in images]
    targets = [_read(path, shape) for path, shape in zip(paths, shapes, strict=True)]
    missing = [i for i, target in enumerate(targets) if target is None]
    if missing:
        _check_room(folder, sum(images[i][1].size * scale**2 * 2 for i in missing))
        device = torch.device(device)
        runner = teacher.to(device).eval()
        runner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        check_teacher(runner, device)
        with Bar(len(missing), label=f"targets of {teacher.name} x{scale}", unit="image") as bar:
            for i in missing:
                name, image = images[i]
                target = enlarge(runner, image, device)
                if not np.isfinite(target).all():
                    raise InputError(
                        f"the teacher {teacher.name} x{scale} makes NaN or infinite values of {name}; leave "
                        "the image out or give another teacher"
                    )
                _write(paths[i], target)
                targets[i] = _read(paths[i], shapes[i])
                bar.update()
    if any(target is None for target in targets):
        raise DataError(f"targets in {folder} changed while they were read; run the same command again")
    return [target for target in targets if target is not None]


def _key(who: str, image: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(f"{who} {image.shape}".encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def _check_room(folder: Path, needed: int) -> None:
    """Raise DataError now, not after an hour, when the cache cannot hold what will be computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DataError(_unwritable(folder, error.strerror or error)) from error
    if free < needed:
        raise DataError(
            f"the targets need {needed / 1e6:,.0f} MB in {folder}, where {free / 1e6:,.0f} MB are free; "
            "make room, or set SQLIB_CACHE to a folder on another disk"
        )


def _unwritable(folder: Path, why: object) -> str:
    return (
        f"the cache of the teacher's targets in {folder} cannot be written ({why}); "
        "make room, or set SQLIB_CACHE to a folder that can be written. What is there already is kept"
    )


def _unreadable(path: Path, error: Exception) -> str:
    why = (error.strerror if isinstance(error, OSError) else None) or error
    return (
        f"the teacher's target {path} cannot be read ({why}); see to it, or delete the file, and run the "
        "same command again: what is missing is made anew"
    )


def _write(path: Path, target: NDArray[np.float16]) -> None:
    content = io.BytesIO()
    np.save(content, target)
    try:
        write_atomically(path, content.getbuffer())
    except DataError as error:
        raise DataError(_unwritable(path.parent, error)) from error


def _read(path: Path, shape: tuple[int, ...]) -> Target | None:
    """The target in ``path``; None when there is none, or none that is whole."""
    try:
        stored = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        return None
    except OSError as error:  # too many open files, a closed folder, a broken disk: no reason to compute
        raise DataError(_unreadable(path, error)) from error
    except Exception:  # cut off or overwritten; NumPy's reader raises many kinds for a damaged header
        return None
    alike = (stored.shape, stored.dtype, stored.flags.c_contiguous) == (shape, Target.dtype, True)
    return Target(path, shape, stored.offset) if alike and np.isfinite(stored).all() else None
