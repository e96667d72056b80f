"""Pairs of crops to train on: both from one picture, and similar enough to be reference and query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sqlib.errors import InputError
from sqlib.fit.samples import Drawn, pairs_of
from sqlib.reference.extractor import extractor as load_extractor
from sqlib.reference.extractor import features

ROUNDS = 20
"""Draws of a batch that may be rejected one after the other."""


@dataclass(frozen=True)
class Twins:
    """What `sqlib.fit.train_quantized` draws from: batches of 2 B crops, B references and then their queries.

    Parameters
    ----------
    low, high : sequence of Tensor
        Pictures of low resolution (3, h, w) and theirs of high resolution (3, scale h, scale w), in 0..1,
        all of one scale. Tensors of bytes are divided by 255.
    crop : int
        Side of a crop in pixels of low resolution.
    extract : nn.Module
        From crops (N, C, h, w) to features (N, classes).
    tau : float
        The least cosine similarity of a pair; others are drawn again.
    device, dtype : str, dtype
        Of the batches.

    Raises
    ------
    InputError
        No pictures; some of other shapes, scales or dtypes, or with values that are NaN or infinite.
    """

    low: Sequence[Tensor]
    high: Sequence[Tensor]
    crop: int
    extract: nn.Module
    tau: float
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    paired: ClassVar[bool] = True

    @classmethod
    def of(
        cls,
        pairs: Any,
        extractor: str,
        tau: float,
        *,
        crop: int = 48,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Twins:
        """From what `sqlib.quantize_model` is given as pairs: `sqlib.training.Crops`, or tensors.

        Parameters
        ----------
        pairs
            Crops are cut as they say. Of tensors (N, 3, h, w) and (N, 3, scale h, scale w) every sample is a
            picture; they are copied, as a loader may fill one buffer again and again.
        extractor : str
            As for `sqlib.reference.clustering.ClustBlock`.
        tau : float
            Least similarity.
        crop : int
            Side of the crops of tensors, at most that of the smallest picture.
        device : str
            Where batches of tensors go; those of `Crops` go where they say.
        dtype : dtype
            What batches are cast to: that in which the network is trained.

        Raises
        ------
        InputError
            A source of another kind, whose pictures are not known; or pictures that cannot be used.
        """
        check_pairs(pairs)
        pool = getattr(pairs, "pool", None)
        if pool is not None:
            low = [_planes(image) for image in pool.lr]
            high = [_planes(image) for image in pool.hr if image is not None]
            own = pairs.patch, load_extractor(extractor), tau, pairs.device, dtype
            return cls(low[: len(high)], high, *own)
        low, high = [], []
        for one, other in pairs_of(pairs):
            low += list(one.detach().to("cpu", copy=True))
            high += list(other.detach().to("cpu", copy=True))
        crop = min([crop, *(side for picture in low for side in picture.shape[-2:])])
        return cls(low, high, crop, load_extractor(extractor), tau, device, dtype)

    def __post_init__(self) -> None:
        if not self.low:
            raise InputError("the pairs to train on hold no samples; give at least one picture")
        scale = self.high[0].shape[-1] // max(self.low[0].shape[-1], 1)
        for number, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if (
                low.ndim != 3
                or low.shape[0] != 3
                or min(low.shape[1:]) < max(self.crop, 1)
                or tuple(high.shape) != (3, *(scale * side for side in low.shape[1:]))
            ):
                raise InputError(
                    f"picture {number} has {tuple(low.shape)} and {tuple(high.shape)}; expected RGB (3, h, w)"
                    f" of {self.crop} x {self.crop} pixels or more, and a whole number of times as high and "
                    "wide, the same one for all pictures"
                )
            for picture in (low, high):
                if picture.dtype == torch.uint8:
                    continue
                bad = int((~torch.isfinite(picture)).sum())
                if bad:
                    raise InputError(f"picture {number} has {bad} NaN or infinite values: leave it out")

    def draw(self, batch: int, augment: bool, generator: torch.Generator) -> Drawn:
        """B pairs; both crops of one have the same of the eight flips and rotations.

        Raises
        ------
        InputError
            No similar crops found in `ROUNDS` draws.
        """
        found: list[tuple[Tensor, ...]] = []
        for _ in range(ROUNDS):
            drawn = [self._pair(augment, generator) for _ in range(batch)]
            similar = self.similarity(*(torch.stack(part) for part in list(zip(*drawn))[:2])) >= self.tau
            found += [pair for pair, close in zip(drawn, similar.tolist(), strict=True) if close]
            if len(found) >= batch:
                first, second, high, other = (torch.stack(part) for part in zip(*found[:batch]))
                low, target = torch.cat([first, second]), torch.cat([high, other])
                return Drawn((low.to(self.device, self.dtype),), {}, target.to(self.device, self.dtype))
        raise InputError(
            f"{len(found)} of {ROUNDS * batch} pairs of crops of {self.crop} x {self.crop} pixels have a "
            f"similarity of at least tau={self.tau:g}: lower tau, or give pictures with more repetition"
        )

    def similarity(self, one: Tensor, other: Tensor) -> Tensor:
        """Cosine similarity of the features of crops (N, C, h, w), (N,)."""
        own, others = (features(self.extract, list(crops)) for crops in (one, other))
        return torch.cosine_similarity(own, others, dim=1)

    def _pair(self, augment: bool, generator: torch.Generator) -> tuple[Tensor, ...]:
        from sqlib.fit.samples import turn

        area = torch.tensor([p.shape[-1] * p.shape[-2] for p in self.low], dtype=torch.float32)
        which = int(torch.multinomial(area, 1, generator=generator))
        low, high = self.low[which], self.high[which]
        scale = high.shape[-1] // low.shape[-1]
        crops = []
        for _ in range(2):
            top, left = (
                int(torch.randint(side - self.crop + 1, (1,), generator=generator)) for side in low.shape[-2:]
            )
            where = top, left, self.crop
            crops.append((_cut(low, *where), _cut(high, *(scale * v for v in where))))
        k = int(torch.randint(8, (1,), generator=generator)) if augment else 0
        (first, above), (second, beside) = crops
        return tuple(turn(x, k) for x in (first, second, above, beside))

    def content(self) -> Any:
        """Pictures, size and threshold; the extractor by its weights."""
        return [self.low, self.high, self.crop, self.tau, list(self.extract.state_dict().values())]


def check_pairs(pairs: Any) -> None:
    """Raise `InputError` for what draws batches and does not tell its pictures."""
    if hasattr(pairs, "draw") and getattr(pairs, "pool", None) is None:
        raise InputError(
            f"RefQSR trains on two crops of one picture, and {type(pairs).__name__} does not tell its "
            "pictures: give sqlib.training.pairs(...), or tensors (low, high)"
        )


def _planes(image: np.ndarray) -> Tensor:
    """(h, w, C) bytes as (C, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _cut(picture: Tensor, top: int, left: int, side: int) -> Tensor:
    found = picture[:, top : top + side, left : left + side]
    return found.float() / 255 if found.dtype == torch.uint8 else found
