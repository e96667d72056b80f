"""Calibration samples: seeded crops of low-resolution images, recorded so that they can be named exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sqlib.datasets._dataset import Dataset
from sqlib.datasets._load import load
from sqlib.errors import DataError, InputError
from sqlib.resize import downscale

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Calibration", "calibration"]

# Bicubic shrinking reaches 2 low-resolution pixels to each side; with this margin a crop can be made from its
# surroundings alone and is still the same, bit for bit, as a crop of the whole shrunken image.
_MARGIN = 4


@dataclass(frozen=True)
class Calibration:
    """Crops as network inputs; iterate as often as needed, the batches are the same every time.

    Attributes
    ----------
    patches : uint8 (n, patch, patch, 3)
    crops : (image name, top, left) in low-resolution pixels, one per patch
    source, scale, seed, batch : as given; ``source`` is the true name of the set
    """

    patches: NDArray[np.uint8]
    crops: tuple[tuple[str, int, int], ...]
    source: str
    scale: int
    seed: int
    batch: int

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.patches) // self.batch)

    def __iter__(self) -> Iterator[Tensor]:
        """Batches (batch, 3, patch, patch), float32 in [0, 1]; the last one may be smaller."""
        import torch

        for start in range(0, len(self.patches), self.batch):
            part = self.patches[start : start + self.batch].transpose(0, 3, 1, 2)
            yield torch.from_numpy(part.astype(np.float32) / np.float32(255))

    def record(self) -> dict[str, Any]:
        """All that decides the samples, for JSON; ``sha256`` is of the pixels."""
        return {
            "source": self.source,
            "n": len(self.patches),
            "patch": int(self.patches.shape[1]),
            "scale": self.scale,
            "seed": self.seed,
            "batch": self.batch,
            "crops": [list(crop) for crop in self.crops],
            "sha256": hashlib.sha256(np.ascontiguousarray(self.patches).tobytes()).hexdigest(),
        }


def calibration(
    source: str | Dataset,
    *,
    n: int = 32,
    patch: int = 48,
    scale: int = 4,
    seed: int = 0,
    batch: int = 16,
    data_dir: str | PathLike[str] | None = None,
) -> Calibration:
    """Draw ``n`` random crops of low-resolution images.

    Images are taken in random order and reused only when all had their turn; positions are uniform over the
    low-resolution image. Images too small for one crop are passed over.

    Parameters
    ----------
    source : a Dataset or its name. Originals are shrunk with :func:`sqlib.resize.downscale`; sets of
        low-resolution images are used as they are, at their own scale only. The name ``"div2k"`` falls back
        on the published test inputs ``div2k-lrx4`` when the training images are absent: as they are at x4,
        as originals to be shrunk at other scales (``div2k-lrx4:originals``). The record shows which was used.
    n, patch, batch : number of crops, their side in low-resolution pixels, crops per batch
    scale : upscaling factor of the network to be calibrated
    seed : of ``numpy.random.default_rng``
    data_dir : as in :func:`load`, for a source given by name

    Raises
    ------
    InputError
        n, patch, scale or batch below 1; no image is large enough.
    DataError
        The set is missing, or has no low-resolution images at ``scale``.
    """
    for label, value in {"n": n, "patch": patch, "scale": scale, "batch": batch}.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
            raise InputError(f"calibration got {label}={value!r}; expected an integer of at least 1")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"calibration got seed={seed!r}; expected an integer of at least 0")
    dataset = source if isinstance(source, Dataset) else _load(source, scale, data_dir)
    rng = np.random.default_rng(seed)
    patches: list[NDArray[np.uint8]] = []
    crops: list[tuple[str, int, int]] = []
    while len(patches) < n:
        before = len(patches)
        for index in rng.permutation(len(dataset)):
            drawn = _draw(dataset, int(index), patch, scale, rng)
            if drawn is not None:
                patches.append(drawn[0])
                crops.append((dataset.names[index], *drawn[1]))
            if len(patches) == n:
                break
        if len(patches) == before:
            raise InputError(
                f"no image of {dataset.name} holds a crop of {patch} x {patch} low-resolution pixels "
                f"at x{scale}: use a smaller patch"
            )
    return Calibration(np.stack(patches), tuple(crops), dataset.name, int(scale), int(seed), int(batch))


def _load(name: str, scale: int, data_dir: str | PathLike[str] | None) -> Dataset:
    try:
        return load(name, data_dir=data_dir)
    except DataError as error:
        if name != "div2k":
            raise
        missing = error
    try:
        inputs = load("div2k-lrx4", data_dir=data_dir)
        return inputs if scale == 4 else inputs.as_originals(4)
    except DataError:
        # The message about the set that was asked for is the useful one.
        raise missing from None


def _draw(
    dataset: Dataset, index: int, patch: int, scale: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], tuple[int, int]] | None:
    """One crop and its position, or None when the image is too small."""
    image = dataset.hr(index) if dataset.has_hr else dataset.lr(index, scale)
    factor = scale if dataset.has_hr else 1
    height, width = image.shape[0] // factor, image.shape[1] // factor
    if min(height, width) < patch:
        return None
    top, left = int(rng.integers(height - patch + 1)), int(rng.integers(width - patch + 1))
    if factor == 1:
        return image[top : top + patch, left : left + patch], (top, left)
    upper, lefter = max(top - _MARGIN, 0), max(left - _MARGIN, 0)
    lower, righter = min(top + patch + _MARGIN, height), min(left + patch + _MARGIN, width)
    small = downscale(image[upper * scale : lower * scale, lefter * scale : righter * scale], scale)
    cut = small[top - upper : top - upper + patch, left - lefter : left - lefter + patch]
    return cut, (top, left)
