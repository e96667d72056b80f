"""Training images in memory as uint8, and seeded batches of aligned crops."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqlib.errors import DataError, InputError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


def load_images(
    folders: str | Path | Sequence[str | Path], *, smallest: int
) -> tuple[list[tuple[str, NDArray[np.uint8]]], list[tuple[str, str]]]:
    """Read every image below one or several folders, in path order.

    Parameters
    ----------
    folders : searched recursively for PNG, JPEG, BMP and WebP files
    smallest : images with a side below this many pixels are skipped

    Returns
    -------
    images : list of (name, uint8 (H, W, 3)); the name is the path relative to the folder, which precedes it
        when there are several
    skipped : list of (name, reason)

    Raises
    ------
    DataError
        A folder is missing, or no image is usable.
    InputError
        More than a tenth of the files had to be skipped.
    """
    from sqlib.images import read_image

    several = not isinstance(folders, (str, Path))
    roots = [Path(f) for f in folders] if several else [Path(folders)]  # type: ignore[union-attr,arg-type]
    images, skipped, found = [], [], 0
    for root in roots:
        if not root.is_dir():
            raise DataError(f"training folder {root} does not exist; give a folder of images")
        paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        found += len(paths)
        for path in paths:
            name = path.relative_to(root.parent if len(roots) > 1 else root).as_posix()
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
        where = ", ".join(map(str, roots))
        raise DataError(
            f"no usable image in {where} ({len(skipped)} of {found} skipped); expected photographs"
        )
    if len(skipped) > 0.1 * found:
        shown = "; ".join(f"{name}: {why}" for name, why in skipped[:3])
        raise InputError(f"{len(skipped)} of {found} training files are unusable ({shown}); clean the folder")
    return images, skipped


class Draw(NamedTuple):
    """Where the crops of one batch lie, in low-resolution pixels; int64 arrays of shape (batch,)."""

    image: NDArray[np.int64]
    top: NDArray[np.int64]
    left: NDArray[np.int64]
    turns: NDArray[np.int64]
    flip: NDArray[np.int64]


@dataclass
class CropPool:
    """Images with their low-resolution versions; serves batches that depend on (seed, step) alone.

    Because a batch is a pure function of the step, an interrupted training continues the same order on any
    machine with no sampler state to store.

    ``reserved`` says how many of the last images a pack has set aside as held-out; 0 lets :meth:`split` draw
    them.
    """

    names: list[str]
    hr: list[NDArray[np.uint8]]
    lr: list[NDArray[np.uint8]]
    scale: int
    seed: int
    reserved: int = 0

    @classmethod
    def from_images(cls, images: Sequence[tuple[str, NDArray[np.uint8]]], scale: int, seed: int) -> CropPool:
        """Cut every image to a multiple of ``scale`` and make its low-resolution version."""
        from sqlib.resize import downscale  # needs SciPy; packs hold both resolutions and do not

        hr = [
            image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale] for _, image in images
        ]
        return cls([name for name, _ in images], hr, [downscale(image, scale) for image in hr], scale, seed)

    def split(self, held_out: int) -> tuple[CropPool, CropPool]:
        """Split into (training pool, held-out pool): seeded, or as the pack says."""
        count = len(self.hr)
        if self.reserved:
            parts = (list(range(count - self.reserved)), list(range(count - self.reserved, count)))
        else:
            order = np.random.default_rng([self.seed, 0xE7A1]).permutation(count)
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

    def draw(self, step: int, batch: int, patch: int) -> Draw:
        """Crops of batch number ``step``: a pure function of (seed, step).

        Images are drawn in proportion to their area, so every pixel is about equally likely; each crop is
        flipped and rotated by one of the eight symmetries of the square.
        """
        rng = np.random.default_rng([self.seed, step])
        area = np.array([image.shape[0] * image.shape[1] for image in self.lr], dtype=np.float64)
        rows = []
        for i in rng.choice(len(area), size=batch, p=area / area.sum()):
            top = int(rng.integers(self.lr[i].shape[0] - patch + 1))
            left = int(rng.integers(self.lr[i].shape[1] - patch + 1))
            rows.append((int(i), top, left, int(rng.integers(4)), int(rng.integers(2))))
        return Draw(*np.array(rows, dtype=np.int64).T)

    def batch(self, step: int, batch: int, patch: int) -> tuple[Tensor, Tensor]:
        """Batch ``step``: uint8 (batch, 3, patch, patch) and (batch, 3, scale patch, scale patch)."""
        lr = np.empty((batch, patch, patch, 3), np.uint8)
        hr = np.empty((batch, patch * self.scale, patch * self.scale, 3), np.uint8)
        for k, (i, top, left, turns, flip) in enumerate(zip(*self.draw(step, batch, patch), strict=True)):
            for source, out, factor in ((self.lr[i], lr, 1), (self.hr[i], hr, self.scale)):
                y, x, side = top * factor, left * factor, patch * factor
                crop = np.rot90(source[y : y + side, x : x + side], turns)
                out[k] = crop[:, ::-1] if flip else crop
        return torch.from_numpy(lr).permute(0, 3, 1, 2), torch.from_numpy(hr).permute(0, 3, 1, 2)


class DeviceCrops:
    """The same batches as :meth:`CropPool.batch`, gathered on a GPU that keeps every image as uint8.

    Only the positions of the crops travel in each step.
    """

    def __init__(self, pool: CropPool, device: torch.device) -> None:
        self.pool, self.device = pool, device
        self.pixels, self.offsets, self.widths = [], [], []
        for images in (pool.lr, pool.hr):
            flat = np.concatenate([np.ascontiguousarray(image).reshape(-1) for image in images])
            sizes = np.array([image.size for image in images])
            self.pixels.append(torch.from_numpy(flat).to(device))
            self.offsets.append(torch.from_numpy(np.cumsum(sizes) - sizes).to(device))
            self.widths.append(torch.tensor([image.shape[1] for image in images], device=device))
        self.grids: dict[int, Tensor] = {}

    def _grid(self, side: int) -> Tensor:
        """int64 (8, 2, side, side): row and column that each of the eight symmetries reads for each pixel."""
        if side not in self.grids:
            rows, columns = np.mgrid[:side, :side]
            maps = []
            for turns in range(4):
                turned = [np.rot90(t, turns) for t in (rows, columns)]
                maps += [np.stack(turned), np.stack([t[:, ::-1] for t in turned])]
            self.grids[side] = torch.from_numpy(np.stack(maps)).to(self.device)
        return self.grids[side]

    def batch(self, step: int, batch: int, patch: int) -> tuple[Tensor, Tensor]:
        """As :meth:`CropPool.batch`, on the device."""
        draw = torch.from_numpy(np.stack(self.pool.draw(step, batch, patch))).to(self.device)
        image, top, left, symmetry = draw[0], draw[1], draw[2], 2 * draw[3] + draw[4]
        out = []
        for level, factor in ((0, 1), (1, self.pool.scale)):
            grid = self._grid(patch * factor)[symmetry]
            row = grid[:, 0] + (top * factor)[:, None, None]
            column = grid[:, 1] + (left * factor)[:, None, None]
            first = (row * self.widths[level][image][:, None, None] + column) * 3
            first = first + self.offsets[level][image][:, None, None]
            index = first[..., None] + torch.arange(3, device=self.device)
            out.append(self.pixels[level][index].permute(0, 3, 1, 2))
        return out[0], out[1]
