"""A list of image files with a true name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sqlib._checks import as_integer
from sqlib.errors import DataError, InputError
from sqlib.images import read_image
from sqlib.resize import crop_to_multiple, downscale

__all__ = ["Dataset", "Item", "Pair"]

# Least common multiple of the scales 2, 3 and 4: sets are distributed cropped to one of them, and a further
# crop to 12 makes the same image of all these versions.
FINGERPRINT_MULTIPLE = 12
# Mean difference between a distributed low-resolution image and ours, in gray levels: 0 for MATLAB's, 0.2 for
# Pillow's bicubic, 4 and more for one that looks at 4 x 4 pixels whatever the scale.
_ANOTHER_PICTURE = 3.0


@dataclass(frozen=True)
class Pair:
    """One test image: ``hr`` has exactly ``scale`` times the rows and columns of ``lr``; both uint8 RGB."""

    name: str
    lr: NDArray[np.uint8]
    hr: NDArray[np.uint8]


@dataclass(frozen=True)
class Item:
    """Files of one image: the original, and low-resolution versions by scale where they were distributed."""

    name: str
    hr: Path | None
    lr: Mapping[int, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """Images in file name order, decoded when asked for and not kept.

    Attributes
    ----------
    base : catalogue name (or ``folder:...``)
    items : the files
    count : size of the complete set; a smaller one shows its size in :attr:`name`
    crop_size : side of the centre crop, None for whole images
    known : fingerprints on record, by number of images
    """

    base: str
    items: tuple[Item, ...]
    count: int
    crop_size: int | None = None
    known: Mapping[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """True name: ``set5``, ``urban100[30]`` when 30 of 100 images are there, ``set5@96`` when cropped."""
        partial = f"[{len(self.items)}]" if len(self.items) != self.count else ""
        return f"{self.base}{partial}" + (f"@{self.crop_size}" if self.crop_size else "")

    @property
    def names(self) -> tuple[str, ...]:
        """Image names without extension, scale or ``_HR`` suffix."""
        return tuple(item.name for item in self.items)

    @property
    def has_hr(self) -> bool:
        """False for sets of which only low-resolution images were published."""
        return all(item.hr is not None for item in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def hr(self, index: int) -> NDArray[np.uint8]:
        """Original image ``index``, uint8 (H, W, 3).

        Raises
        ------
        DataError
            The set has no originals.
        InputError
            The file is damaged, or smaller than the centre crop.
        """
        item = self.items[index]
        if item.hr is None:
            raise DataError(f"{self.name} has no high-resolution images; it can only feed calibration")
        image = self._read(item.hr)
        return self._centre(image, item.name, self.crop_size) if self.crop_size else image

    def lr(self, index: int, scale: int) -> NDArray[np.uint8]:
        """Low-resolution image ``index``: the distributed file, else :func:`sqlib.resize.downscale`."""
        if not self.has_hr:
            return self._distributed_lr(self.items[index], scale)
        return self.pair(index, scale).lr

    def pair(self, index: int, scale: int) -> Pair:
        """Image ``index`` at ``scale``; the original is cropped to a multiple of the scale.

        Distributed low-resolution files are used where they exist; cropped sets make their own.

        Raises
        ------
        InputError
            Image smaller than one block, or a distributed file of the wrong size or with another picture than
            the original made small.
        """
        item = self.items[index]
        try:
            hr = np.ascontiguousarray(crop_to_multiple(self.hr(index), scale))
        except InputError as error:
            raise InputError(f"{self.name}, {item.name}: {error}") from error
        if self.crop_size or scale not in item.lr:
            return Pair(item.name, downscale(hr, scale), hr)
        lr = self._distributed_lr(item, scale)
        expected = (hr.shape[0] // scale, hr.shape[1] // scale)
        if lr.shape[:2] != expected:
            raise InputError(
                f"{item.lr[scale]} has {lr.shape[0]} x {lr.shape[1]} pixels, expected "
                f"{expected[0]} x {expected[1]} for {item.hr}: remove the folder to make x{scale} images anew"
            )
        off = float(np.abs(lr.astype(np.int16) - downscale(hr, scale)).mean())
        if off > _ANOTHER_PICTURE:
            raise InputError(
                f"{item.lr[scale]} differs by {off:.1f} gray levels on average from {item.hr} made small by "
                f"bicubic interpolation: remove the folder to make x{scale} images anew"
            )
        return Pair(item.name, lr, hr)

    def pairs(self, scale: int) -> Iterator[Pair]:
        """All pairs, one in memory at a time."""
        return (self.pair(index, scale) for index in range(len(self)))

    def subset(self, n: int) -> Dataset:
        """The first ``n`` images; the name says so (``set5[2]``)."""
        number = as_integer(n)
        if number is None or not 1 <= number <= len(self):
            raise InputError(f"subset of {n!r} images asked of {self.name}, which has {len(self)}")
        return replace(self, items=self.items[:number])

    def crop(self, size: int) -> Dataset:
        """Centre crops of ``size`` x ``size`` pixels; low resolution is made from the crop."""
        side = as_integer(size)
        if side is None or side < 1:
            raise InputError(f"crop size is {size!r}; expected an integer of at least 1")
        if not self.has_hr:
            raise DataError(f"{self.name} has no high-resolution images to crop")
        return replace(self, crop_size=side)

    def as_originals(self, factor: int) -> Dataset:
        """The low-resolution images at ``factor`` taken as originals; the name says so.

        For calibration at other scales: the images are sharp, but a ``factor`` smaller than photographs are.
        """
        if self.has_hr:
            raise InputError(f"{self.name} has originals of its own")
        items = []
        for item in self.items:
            if factor not in item.lr:
                raise DataError(
                    f"{self.name} has no low-resolution images at x{factor}, only at {sorted(item.lr)}"
                )
            items.append(Item(item.name, item.lr[factor]))
        return Dataset(f"{self.base}:originals", tuple(items), self.count, self.crop_size)

    def fingerprint(self, scale: int | None = None) -> str:
        """SHA-256 of the decoded pixels, independent of file names, order and file format.

        Parameters
        ----------
        scale : int, optional
            Hash exactly the pairs that an evaluation at this scale sees. Without it, the originals cropped
            to a multiple of 12, which is the same for sets distributed uncropped or cropped to 2, 3, 4 or 12
            (low-resolution sets: the images as they are).
        """
        if scale not in self._fingerprints:
            digests = []
            for index, item in enumerate(self.items):
                if scale is not None:
                    pair = self.pair(index, scale)
                    digests.append(_digest(pair.hr) + _digest(pair.lr))
                elif self.has_hr:
                    digests.append(_digest(crop_to_multiple(self.hr(index), FINGERPRINT_MULTIPLE)))
                else:
                    digests.append(b"".join(_digest(self._distributed_lr(item, s)) for s in sorted(item.lr)))
            self._fingerprints[scale] = hashlib.sha256(b"".join(sorted(digests))).hexdigest()
        return self._fingerprints[scale]

    @cached_property
    def _fingerprints(self) -> dict[int | None, str]:
        return {}

    @property
    def verified(self) -> bool:
        """Whether the pixels are those that this project has on record for a set of this size."""
        return (
            len(self) in self.known and self.crop_size is None and self.known[len(self)] == self.fingerprint()
        )

    @property
    def altered(self) -> bool:
        """Whether other pixels are on record for a set of this name and size: its scores are others.

        Never so for the installed photographs, whose JPEG files each decoder reads a little differently.
        """
        on_record = len(self) in self.known and self.crop_size is None and self.base != "builtin"
        return on_record and not self.verified

    def _distributed_lr(self, item: Item, scale: int) -> NDArray[np.uint8]:
        if scale not in item.lr:
            raise DataError(
                f"{self.name} has no low-resolution images at x{scale}, only at {sorted(item.lr)}"
            )
        return self._read(item.lr[scale])

    def _read(self, path: Path) -> NDArray[np.uint8]:
        # Everybody scores the sets of the catalogue on the plain numbers of their files.
        return read_image(path, warn=self.base.startswith("folder:"))

    def _centre(self, image: NDArray[np.uint8], name: str, size: int) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        if min(height, width) < size:
            raise InputError(
                f"{self.base}, {name}: {height} x {width} pixels, smaller than the crop of {size}"
            )
        top, left = (height - size) // 2, (width - size) // 2
        return image[top : top + size, left : left + size]


def _digest(image: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes()).digest()
