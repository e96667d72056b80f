"""Texture images in one folder per class, as the Describable Textures Dataset (DTD) comes."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqlib._checks import check_integer, check_number
from sqlib.errors import DataError, InputError
from sqlib.images import READABLE, read_image

_LARGEST = 2**31


@dataclass(frozen=True)
class Textures:
    """Image files by class.

    Attributes
    ----------
    classes : names, sorted; a class is its place here
    files : per class, in the order of their names
    """

    classes: tuple[str, ...]
    files: tuple[tuple[Path, ...], ...]

    def split(self, held_out: float = 0.2) -> tuple[list[tuple[Path, int]], list[tuple[Path, int]]]:
        """(file, class) to train on, and to judge by: of every class the last ones, a share of `held_out`.

        Each of the two has at least one file of every class.

        Raises
        ------
        InputError
            A share of 0 or less or above 0.9, or a class of one image.
        """
        held_out = check_number("held_out", held_out, 0, 0.9, above=True)
        parts: tuple[list[tuple[Path, int]], list[tuple[Path, int]]] = [], []
        for label, files in enumerate(self.files):
            if len(files) < 2:
                raise InputError(
                    f"the class {self.classes[label]!r} has {len(files)} image: two are needed, one to train "
                    "on and one to judge by"
                )
            kept = min(max(1, round(len(files) * (1 - held_out))), len(files) - 1)
            parts[0].extend((file, label) for file in files[:kept])
            parts[1].extend((file, label) for file in files[kept:])
        return parts


def load_textures(folder: str | PathLike[str]) -> Textures:
    """Classes and files of a folder whose sub-folders are the classes (for DTD: its folder ``images``).

    Hidden files and folders, and files that are no images by their names, are left out.

    Raises
    ------
    DataError
        No such folder.
    InputError
        A file, fewer than two classes, or a class without images.
    """
    if not isinstance(folder, (str, PathLike)):
        raise InputError(f"folder={folder!r}: expected the path of a folder that holds a folder per class")
    folder = Path(folder)
    if not folder.exists():
        raise DataError(f"no folder of textures at {folder}: give the one that holds a folder per class")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; expected a folder that holds a folder of images per class")
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(classes) < 2:
        raise InputError(f"{folder} holds {len(classes)} class folders; expected two or more")
    files = [
        tuple(sorted(p for p in each.iterdir() if p.suffix.lower() in READABLE and p.name[0] != "."))
        for each in classes
    ]
    empty = [each.name for each, found in zip(classes, files) if not found]
    if empty:
        raise InputError(f"{folder}: no image in the class {empty[0]!r}; expected {', '.join(READABLE)}")
    return Textures(tuple(p.name for p in classes), tuple(files))


class Crops:
    """Random crops of images that are kept in memory, as bytes.

    Parameters
    ----------
    items : (file, class) pairs, as from `Textures.split`
    side : images with a longer shorter side are shrunk to it, in pixels

    Notes
    -----
    An image smaller than a crop is continued as in a mirror. Gray images are read as three equal channels.
    """

    def __init__(self, items: list[tuple[Path, int]], side: int = 288) -> None:
        side = check_integer("side", side, 1, _LARGEST)
        if not items:
            raise InputError("no images are given; expected pairs (file, class), as from Textures.split")
        self.images = [_shrunk(read_image(path, warn=False), side) for path, _ in items]
        self.labels = torch.tensor([label for _, label in items])

    def draw(self, count: int, size: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(count, 3, size, size) in 0..1 and their classes: random places, mirrored and turned at random."""
        count, size = check_integer("count", count, 1, _LARGEST), check_integer("size", size, 1, _LARGEST)
        chosen = generator.integers(len(self.images), size=count)
        crops = [_turned(_cut(self.images[i], size, *generator.random(2)), generator) for i in chosen]
        return _tensor(crops), self.labels[torch.from_numpy(chosen)]

    def fixed(self, size: int) -> tuple[Tensor, Tensor]:
        """The four crops at a quarter and three quarters of every image, and their classes."""
        size = check_integer("size", size, 1, _LARGEST)
        places = [(y, x) for y in (0.25, 0.75) for x in (0.25, 0.75)]
        crops = [_cut(image, size, *place) for image in self.images for place in places]
        return _tensor(crops), self.labels.repeat_interleave(len(places))


def _shrunk(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    from PIL import Image

    shorter = min(image.shape[:2])
    if shorter <= side:
        return image
    height, width = (round(length * side / shorter) for length in image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def _cut(image: NDArray[np.uint8], size: int, down: float, right: float) -> NDArray[np.uint8]:
    """A square whose place is given in shares of what is free."""
    lacking = [(0, max(0, size - length)) for length in image.shape[:2]]
    if any(after for _, after in lacking):
        image = np.pad(image, [*lacking, (0, 0)], mode="symmetric")
    top, left = (round(at * (length - size)) for at, length in zip((down, right), image.shape))
    return image[top : top + size, left : left + size]


def _turned(crop: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    crop = np.rot90(crop, int(generator.integers(4)))
    return crop[:, ::-1] if generator.integers(2) else crop


def _tensor(crops: list[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float().div_(255)
