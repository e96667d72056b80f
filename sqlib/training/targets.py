"""What a strong network makes of the training images: targets free of noise, computed once and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqlib.datasets import cache_folder
from sqlib.errors import DataError, InputError
from sqlib.fit.loop.bar import Bar
from sqlib.models import SRNetwork
from sqlib.resize import downscale

FORMAT = 1
"""Part of every key: raise it when the same teacher and image would give other targets."""
LARGEST_DISTANCE = 4.0
"""Mean distance (0..255) between an image and its enlargement, reduced again, that a teacher may have."""


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
) -> list[NDArray[np.float16]]:
    """Targets of every image, from the cache where they are there already.

    Each is one file below ``folder``, named by the SHA-256 of image, teacher and settings and written
    atomically, so several trainings may share a cache and an interrupted one loses one image at most.

    Parameters
    ----------
    teacher : SRNetwork
    images : (name, uint8 (h, w, 3)) low-resolution images; the names serve messages alone
    scale : of the network to be trained
    folder : default ``teacher`` in the cache folder of sqlib (:func:`sqlib.datasets.cache_folder`)
    device : where the teacher runs

    Returns
    -------
    list of float16 (scale h, scale w, 3) in 0..255, mapped from disk.

    Raises
    ------
    InputError
        A teacher of another scale, or one whose outputs are no enlargements of its inputs (it may expect
        another range than 0..1, or have no trained weights).
    DataError
        The cache cannot be written; what was computed so far stays in it.
    """
    if teacher.scale != scale:
        raise InputError(
            f"the teacher {teacher.name} enlarges x{teacher.scale}, the network to be trained x{scale}; "
            f"give a teacher for x{scale}"
        )
    folder = Path(folder) if folder is not None else cache_folder() / "teacher"
    paths = [folder / f"{_key(teacher, image)}.npy" for _, image in images]
    shapes = [(image.shape[0] * scale, image.shape[1] * scale, 3) for _, image in images]
    targets = [_read(path, shape) for path, shape in zip(paths, shapes, strict=True)]
    missing = [i for i, target in enumerate(targets) if target is None]
    if missing:
        _check_room(folder, sum(images[i][1].size * scale**2 * 2 for i in missing))
        device = torch.device(device)
        runner = teacher.to(device).eval()
        runner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with Bar(len(missing), label=f"targets of {teacher.name} x{scale}", unit="image") as bar:
            for i in missing:
                name, image = images[i]
                target = enlarge(runner, image, device)
                _check_enlargement(teacher, name, image, target)
                _write(paths[i], target)
                targets[i] = _read(paths[i], shapes[i])
                bar.update()
    if any(target is None for target in targets):
        raise DataError(f"targets in {folder} changed while they were read; run the same command again")
    return [target for target in targets if target is not None]


def _key(teacher: SRNetwork, image: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(f"{FORMAT} {teacher.weights_id} x{teacher.scale} {image.shape}".encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def _check_room(folder: Path, needed: int) -> None:
    """Raise DataError now, not after an hour, when the cache cannot hold what will be computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DataError(_unwritable(folder, error)) from error
    if free < needed:
        raise DataError(
            f"the targets need {needed / 1e6:,.0f} MB in {folder}, where {free / 1e6:,.0f} MB are free; "
            "make room, or set SQLIB_CACHE to a folder on another disk"
        )


def _unwritable(folder: Path, error: OSError) -> str:
    return (
        f"the cache of the teacher's targets in {folder} cannot be written ({error.strerror or error}); "
        "make room, or set SQLIB_CACHE to a folder that can be written. What is there already is kept"
    )


def _check_enlargement(
    teacher: SRNetwork, name: str, image: NDArray[np.uint8], target: NDArray[np.float16]
) -> None:
    reduced = downscale(np.clip(np.rint(target.astype(np.float32)), 0, 255).astype(np.uint8), teacher.scale)
    distance = float(np.abs(reduced.astype(np.float32) - image.astype(np.float32)).mean())
    if not distance <= LARGEST_DISTANCE:  # NaN counts as too far
        raise InputError(
            f"the teacher {teacher.name} x{teacher.scale} does not enlarge {name}: reduced again, its output "
            f"is {distance:.1f} of 255 away from the image (expected below {LARGEST_DISTANCE:.0f}). It must "
            "take and give RGB in 0..1 and have trained weights"
        )


def _write(path: Path, target: NDArray[np.float16]) -> None:
    # The process in the name: two trainings may compute the same target at once, and either may win.
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.save(file, target)
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(_unwritable(path.parent, error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path, shape: tuple[int, ...]) -> NDArray[np.float16] | None:
    """The target in ``path``, mapped from disk; None when there is none, or none that is whole."""
    try:
        target: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return target if target.shape == shape and target.dtype == np.float16 else None
