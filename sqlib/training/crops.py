"""Training images in memory, what the network should make of them, and seeded batches of aligned crops."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqlib._checks import check_integer
from sqlib._device import usable_device
from sqlib.errors import DataError, InputError
from sqlib.fit.samples import Drawn
from sqlib.images import read_image
from sqlib.resize import downscale

if TYPE_CHECKING:
    from sqlib.training.targets import Target

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


def load_images(
    folders: str | Path | Sequence[str | Path], *, smallest: int
) -> tuple[list[tuple[str, NDArray[np.uint8]]], list[tuple[str, str]]]:
    """Read every image below one or several folders, in path order.

    An image whose pixels were read before is skipped: held-out images must not come back under another name.

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
        More than a tenth of the files are unreadable or too small.
    """
    several = not isinstance(folders, (str, Path))
    given: Any = folders if several else [folders]
    roots = [Path(folder).expanduser() for folder in given]
    images, skipped, found = [], [], 0
    seen: dict[str, str] = {}
    repeated = 0
    for root in roots:
        if not root.is_dir():
            raise DataError(f"training folder {root} does not exist; give a folder of images")
        paths = sorted(
            Path(folder, file)
            for folder, _, files in os.walk(root, onerror=_unlisted)
            for file in files
            if Path(file).suffix.lower() in IMAGE_SUFFIXES
        )
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
            first = seen.setdefault(_pixels_id(image), name)
            if first is not name:
                skipped.append((name, f"the same pixels as {first}"))
                repeated += 1
                continue
            images.append((name, image))
    if not images:
        where = ", ".join(map(str, roots))
        raise DataError(
            f"no usable image in {where} ({len(skipped)} of {found} skipped); expected photographs"
        )
    if len(skipped) - repeated > 0.1 * found:
        faults = [f"{name}: {why}" for name, why in skipped if not why.startswith("the same pixels")]
        shown = "; ".join(faults[:3])
        raise InputError(f"{len(faults)} of {found} training files are unusable ({shown}); clean the folder")
    return images, skipped


def _unlisted(error: OSError) -> NoReturn:
    raise DataError(
        f"training folder {error.filename} cannot be listed ({error.strerror}): let its owner allow it"
    ) from error


def _pixels_id(image: NDArray[np.uint8]) -> str:
    return hashlib.sha256(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


class Draw(NamedTuple):
    """Where the crops of one batch lie, in low-resolution pixels; int64 arrays of shape (batch,)."""

    image: NDArray[np.int64]
    top: NDArray[np.int64]
    left: NDArray[np.int64]
    turns: NDArray[np.int64]
    flip: NDArray[np.int64]


@dataclass
class CropPool:
    """Low-resolution images with their targets; serves batches that depend on (seed, step) alone.

    Because a batch is a pure function of the step, an interrupted training continues the same order on any
    machine with no sampler state to store.

    Attributes
    ----------
    names : list of str
    lr : list of uint8 (h, w, 3)
        What the network gets.
    hr : list of uint8 (scale h, scale w, 3) or None
        The originals; None for an image that has none. Images without one come last.
    scale, seed : int
    taught : list of float16 (scale h, scale w, 3) in 0..255
        What a teacher made of ``lr``, in memory or on disk; empty when there is no teacher.
    teacher_share : float
        Part of the teacher in the target of an image that has an original too.
    """

    names: list[str]
    lr: list[NDArray[np.uint8]]
    hr: list[NDArray[np.uint8] | None]
    scale: int
    seed: int
    taught: list[NDArray[np.float16] | Target] = field(default_factory=list)
    teacher_share: float = 0.0

    @classmethod
    def from_images(
        cls,
        images: Sequence[tuple[str, NDArray[np.uint8]]],
        scale: int,
        seed: int,
        inputs: Sequence[tuple[str, NDArray[np.uint8]]] = (),
    ) -> CropPool:
        """Make a pool of originals and, optionally, of low-resolution images without original.

        Parameters
        ----------
        images : (name, uint8 (H, W, 3)) originals; each is cut to a multiple of ``scale`` and reduced
        scale, seed : int
        inputs : (name, uint8 (h, w, 3)) low-resolution images; they need a teacher (:meth:`with_teacher`)

        Raises
        ------
        InputError
            A scale or a seed that is none.
        """
        scale = check_integer("scale", scale, 1, 2**31 - 1)
        seed = check_integer("seed", seed, 0, 2**63 - 1)
        hr = [
            image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale] for _, image in images
        ]
        names = [name for name, _ in (*images, *inputs)]
        lr = [*(downscale(image, scale) for image in hr), *(image for _, image in inputs)]
        return cls(names, lr, [*hr, *(None for _ in inputs)], scale, seed)

    def with_teacher(self, taught: Sequence[NDArray[np.float16] | Target], share: float) -> CropPool:
        """The same images with a teacher's outputs as targets (:func:`sqlib.training.teacher_targets`)."""
        if len(taught) != len(self.lr) or not 0 <= share <= 1:
            raise InputError(
                f"got {len(taught)} targets and a share of {share!r} for {len(self.lr)} images; expected a "
                "target for each, and a share in 0..1"
            )
        return replace(self, taught=list(taught), teacher_share=share)

    def split(self, held_out: int) -> tuple[CropPool, CropPool]:
        """Split into (training pool, held-out pool), seeded; only images with an original are held out.

        A low-resolution input that equals a held-out image in every pixel, its original or what the network
        gets of it, leaves the training pool too.
        """
        count = sum(image is not None for image in self.hr)
        order = np.random.default_rng([self.seed, 0xE7A1]).permutation(count)
        kept_out = sorted(order[:held_out].tolist())
        hidden = (image for i in kept_out for image in (self.hr[i], self.lr[i]))
        forbidden = {_pixels_id(image) for image in hidden if image is not None}
        rest = [i for i in range(count, len(self.lr)) if _pixels_id(self.lr[i]) not in forbidden]
        return self._take([*sorted(order[held_out:].tolist()), *rest]), self._take(kept_out)

    def _take(self, index: Sequence[int]) -> CropPool:
        names, lr, hr = (
            [self.names[i] for i in index],
            [self.lr[i] for i in index],
            [self.hr[i] for i in index],
        )
        taught = [self.taught[i] for i in index] if self.taught else []
        return replace(self, names=names, lr=lr, hr=hr, taught=taught)

    def fingerprint(self) -> str:
        """SHA-256 of names, shapes and pixels, and of the teacher's targets where there are any."""
        digest = hashlib.sha256()
        for name, lr, hr in zip(self.names, self.lr, self.hr, strict=True):
            image = lr if hr is None else hr
            digest.update(f"{name}{image.shape}".encode())
            digest.update(np.ascontiguousarray(image).tobytes())
        for target in self.taught:
            digest.update(np.ascontiguousarray(target[:: target.shape[0] // 8 + 1]).tobytes())
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
        """Batch ``step``: inputs, uint8 (batch, 3, patch, patch), and targets of ``scale`` times the side.

        Targets are uint8 without a teacher, float32 in 0..255 with one.
        """
        side = patch * self.scale
        lr = np.empty((batch, patch, patch, 3), np.uint8)
        target = np.empty((batch, side, side, 3), np.float32 if self.taught else np.uint8)
        for k, (i, top, left, turns, flip) in enumerate(zip(*self.draw(step, batch, patch), strict=True)):
            y, x = top * self.scale, left * self.scale
            crops = (
                (self.lr[i][top : top + patch, left : left + patch], lr),
                (self._target(i, slice(y, y + side), slice(x, x + side)), target),
            )
            for source, out in crops:
                crop = np.rot90(source, turns)
                out[k] = crop[:, ::-1] if flip else crop
        return torch.from_numpy(lr).permute(0, 3, 1, 2), torch.from_numpy(target).permute(0, 3, 1, 2)

    def _target(self, i: int, rows: slice, columns: slice) -> NDArray[np.uint8] | NDArray[np.float32]:
        """What the network should make of a part of image ``i``."""
        original = self.hr[i]
        if not self.taught:
            assert original is not None  # train() refuses inputs without a teacher
            return original[rows, columns]
        taught = self.taught[i][rows, columns].astype(np.float32)
        if original is None:
            return taught
        return self.teacher_share * taught + (1 - self.teacher_share) * original[rows, columns]


@dataclass
class Crops:
    """The crops of a pool as :func:`sqlib.fit.train_quantized` draws them, inputs and targets in 0..1.

    Parameters
    ----------
    pool : CropPool
    patch : side of a crop in low-resolution pixels
    device : where they go
    """

    pool: CropPool
    patch: int
    device: str = "cpu"
    paired: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.patch = check_integer("patch", self.patch, 1, 2**31 - 1)
        usable_device(self.device)

    def draw(self, batch: int, augment: bool, generator: torch.Generator) -> Drawn:
        """Crops of somewhere in the pool; always flipped and turned, whatever ``augment`` says."""
        step = int(torch.randint(2**62, (1,), generator=generator))
        lr, target = (x.to(self.device).float() / 255 for x in self.pool.batch(step, batch, self.patch))
        return Drawn((lr,), {}, target)

    def content(self) -> object:
        """The pixels' hash and the sizes."""
        return [self.pool.fingerprint(), self.pool.scale, self.pool.seed, self.pool.teacher_share, self.patch]
