"""Recognizing image sets by their folders and file names.

Understood, with ``ROOT`` the folder that is searched::

    ROOT[/benchmark|benchmarks|testsets|train|DIV2K]/Set5/HR/baby.png      EDSR, SwinIR
                                                     .../LR_bicubic/X2/babyx2.png
    .../Set5/GTmod12/baby.png, .../Set5/LRbicx2/baby.png                   BasicSR
    .../Set5/image_SRF_4/img_001_SRF_4_HR.png, ..._LR.png                  SelfExSR
    .../Set5/original/baby.png, .../Set5/baby_GT.bmp, .../Set5/baby.png    others
    .../DIV2K_train_HR/0001.png, .../DIV2K_train_LR_bicubic/X4/0001x4.png  DIV2K
    .../Test2K/HR/1201.png, .../Test2K/LR_bicubic/X4/1201x4.png            CADyQ, RefQSR
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from sqlib.datasets._catalogue import Entry
from sqlib.datasets._dataset import Item
from sqlib.errors import DataError
from sqlib.images import READABLE

__all__ = ["find", "list_images"]

_PARENTS = ("", "benchmark", "benchmarks", "testsets", "train", "DIV2K")
_HR_FOLDERS = ("HR", "GTmod12", "GT", "original", "image_SRF_4", "image_SRF_2", "image_SRF_3", "")
_SCALES = (2, 3, 4, 8)
_SRF = re.compile(r"(?P<name>.+)_SRF_\d_(?P<kind>.+)")


def find(root: Path, entry: Entry) -> tuple[Item, ...]:
    """Items of ``entry`` below ``root``, in name order; empty when there are none.

    Raises
    ------
    DataError
        Two files for one image, or more images than the set has: which ones are meant cannot be known.
    """
    for folder in _set_folders(root, entry):
        items = _items(folder, entry)
        if len(items) > entry.count:
            raise DataError(
                f"{folder} holds {len(items)} images, but {entry.name} has {entry.count}: "
                "move the others elsewhere, or load the folder with datasets.from_folder"
            )
        if items:
            return items
    return ()


def _set_folders(root: Path, entry: Entry) -> Iterator[Path]:
    aliases = [name.lower() for name in entry.folders]
    if root.name.lower() in aliases:
        yield root
    for parent in _PARENTS:
        folder = _child(root, parent)
        if folder is not None:
            for alias in aliases:
                found = _child(folder, alias)
                if found is not None:
                    yield found


def _child(folder: Path, name: str) -> Path | None:
    """Sub-folder of that name, ignoring case; the folder itself for an empty name."""
    if not name:
        return folder if os.path.isdir(folder) else None
    exact = folder / name
    if os.path.isdir(exact):  # unlike Path.is_dir, never raises where a folder is closed to us
        return exact
    if not os.path.isdir(folder):
        return None
    return next((p for p in sorted(folder.iterdir()) if p.name.lower() == name.lower() and p.is_dir()), None)


def _items(folder: Path, entry: Entry) -> tuple[Item, ...]:
    if entry.low_resolution is not None:
        low = list_images(folder, entry.stem, scale=entry.low_resolution)
        return tuple(Item(name, None, {entry.low_resolution: path}) for name, path in sorted(low.items()))
    for name in _HR_FOLDERS:
        hr_folder = _child(folder, name)
        high = list_images(hr_folder, entry.stem) if hr_folder is not None else {}
        if hr_folder is not None and high:
            low_by_scale = {s: _low_resolution(folder, hr_folder, entry, s) for s in _SCALES}
            return tuple(
                Item(stem, path, {s: low[stem] for s, low in low_by_scale.items() if stem in low})
                for stem, path in sorted(high.items())
            )
    return ()


def _low_resolution(folder: Path, hr_folder: Path, entry: Entry, scale: int) -> dict[str, Path]:
    """Distributed low-resolution files at ``scale`` by image name."""
    if hr_folder.name.lower().startswith("image_srf_"):
        # Each of these folders crops its originals differently, so only its own scale fits.
        same = hr_folder.name.endswith(str(scale))
        return list_images(hr_folder, entry.stem, scale=scale) if same else {}
    siblings = folder.parent, folder.name.replace("_HR", "_LR_bicubic")
    places = [
        (folder, "LR_bicubic", f"X{scale}"),
        (folder, "LR", f"X{scale}"),
        (folder, f"LRbicx{scale}", ""),
        (folder, f"LR_bicubic_X{scale}", ""),
    ]
    if siblings[1] != folder.name:
        places.append((*siblings, f"X{scale}"))
    for base, first, second in places:
        outer = _child(base, first)
        inner = _child(outer, second) if outer is not None else None
        if inner is not None:
            found = list_images(inner, entry.stem, scale=scale)
            if found:
                return found
    return {}


def list_images(folder: Path, stem: str = r".+", *, scale: int | None = None) -> dict[str, Path]:
    """Image files of one folder by image name, in name order.

    ``scale`` asks for low-resolution files: ``babyx2.png`` and ``img_001_SRF_2_LR.png`` become ``baby`` and
    ``img_001``. Otherwise ``baby_GT.bmp``, ``baby_HR.png`` and ``img_001_SRF_4_HR.png`` lose their suffix,
    and other files of an SRF folder (low resolution, results of methods) are left out.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in READABLE or path.name.startswith(".") or not path.is_file():
            continue
        name = _image_name(path.stem, scale)
        if name is None or re.fullmatch(stem, name, re.DOTALL) is None:
            continue
        if name in found:
            raise DataError(f"{found[name]} and {path.name} are both image {name!r}: keep one of them")
        found[name] = path
    return found


def _image_name(stem: str, scale: int | None) -> str | None:
    kind = "HR" if scale is None else "LR"
    srf = _SRF.fullmatch(stem)
    if srf:
        return srf["name"] if srf["kind"] == kind else None
    if scale is None:
        return re.sub(r"_(HR|GT)$", "", stem)
    return re.sub(rf"(_LR)?([_]?x{scale})?$", "", stem, flags=re.IGNORECASE)
