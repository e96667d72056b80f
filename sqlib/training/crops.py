"""Training images in memory as uint8, and seeded batches of aligned crops."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqlib.errors import DataError, InputError
from sqlib.resize import downscale

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


def load_images(
    folder: str | Path, *, smallest: int
) -> tuple[list[tuple[str, NDArray[np.uint8]]], list[tuple[str, str]]]:
    """Read every image below ``folder``, in path order.

    Parameters
    ----------
    folder : searched recursively for PNG, JPEG, BMP and WebP files
    smallest : images with a side below this many pixels are skipped

    Returns
    -------
    images : list of (path relative to ``folder``, uint8 (H, W, 3))
    skipped : list of (path, reason)

    Raises
    ------
    DataError
        The folder is missing, or holds no usable image.
    InputError
        More than a tenth of the files had to be skipped.
    """
    from sqlib.images import read_image

    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"training folder {folder} does not exist; give a folder of images")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    images, skipped = [], []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            image = read_image(path)
        except InputError as error:
            skipped.append((name, str(error)))
            continue
        if min(image.shape[:2]) < smallest:
            size = f"{image.shape[1]} x {image.shape[0]}"
            skipped.append((name, f"{size} pixels, smaller than a patch of {smallest} x {smallest}"))
            continue
        images.append((name, image))
    if not images:
        raise DataError(
            f"no usable image in {folder} ({len(skipped)} of {len(paths)} skipped); expected photographs"
        )
    if len(skipped) > 0.1 * len(paths):
        shown = "; ".join(f"{name}: {why}" for name, why in skipped[:3])
        raise InputError(
            f"{len(skipped)} of {len(paths)} training files are unusable ({shown}); clean the folder"
        )
    return images, skipped


@dataclass
class CropPool:
    """Images with their low-resolution versions; serves batches that depend on (seed, step) alone.

    Because a batch is a pure function of the step, an interrupted training continues the same order on any
    machine with no sampler state to store.
    """

    names: list[str]
    hr: list[NDArray[np.uint8]]
    lr: list[NDArray[np.uint8]]
    scale: int
    seed: int

    @classmethod
    def from_images(cls, images: Sequence[tuple[str, NDArray[np.uint8]]], scale: int, seed: int) -> CropPool:
        hr = [
            image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale] for _, image in images
        ]
        return cls([name for name, _ in images], hr, [downscale(image, scale) for image in hr], scale, seed)

    def split(self, held_out: int) -> tuple[CropPool, CropPool]:
        """Seeded split into (training pool, held-out pool)."""
        order = np.random.default_rng([self.seed, 0xE7A1]).permutation(len(self.hr))
        parts = (sorted(order[held_out:].tolist()), sorted(order[:held_out].tolist()))

        def take(index: list[int]) -> CropPool:
            names, hr, lr = ([kind[i] for i in index] for kind in (self.names, self.hr, self.lr))
            return CropPool(names, hr, lr, self.scale, self.seed)  # type: ignore[arg-type]

        return take(parts[0]), take(parts[1])

    def fingerprint(self) -> str:
        """SHA-256 of names, shapes and pixels."""
        digest = hashlib.sha256()
        for name, image in zip(self.names, self.hr, strict=True):
            digest.update(f"{name}{image.shape}".encode())
            digest.update(np.ascontiguousarray(image).tobytes())
        return digest.hexdigest()

    def batch(self, step: int, batch: int, patch: int) -> tuple[Tensor, Tensor]:
        """Batch number ``step``: uint8 (batch, 3, patch, patch) and (batch, 3, scale patch, scale patch).

        Images are drawn in proportion to their area, so every pixel is about equally likely; each crop is
        flipped and rotated by one of the eight symmetries of the square.
        """
        rng = np.random.default_rng([self.seed, step])
        area = np.array([image.shape[0] * image.shape[1] for image in self.lr], dtype=np.float64)
        lr = np.empty((batch, patch, patch, 3), np.uint8)
        hr = np.empty((batch, patch * self.scale, patch * self.scale, 3), np.uint8)
        for k, i in enumerate(rng.choice(len(area), size=batch, p=area / area.sum())):
            top = int(rng.integers(self.lr[i].shape[0] - patch + 1))
            left = int(rng.integers(self.lr[i].shape[1] - patch + 1))
            turns, flip = int(rng.integers(4)), bool(rng.integers(2))
            for source, out, factor in ((self.lr[i], lr, 1), (self.hr[i], hr, self.scale)):
                y, x, side = top * factor, left * factor, patch * factor
                crop = np.rot90(source[y : y + side, x : x + side], turns)
                out[k] = crop[:, ::-1] if flip else crop
        return torch.from_numpy(lr).permute(0, 3, 1, 2), torch.from_numpy(hr).permute(0, 3, 1, 2)
