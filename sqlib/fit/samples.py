"""Crops in memory to draw from, with flips and rotations: low resolution alone, or with targets."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from sqlib.engine.batches import arguments, described
from sqlib.errors import InputError

# Targets of an SR network are as bright as its inputs, but for what a dark crop leaves out.
_OTHER_UNITS = 50


class Drawn(NamedTuple):
    """A batch: positional and keyword arguments of the network, and the target if the data have one."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    target: Tensor | None = None


class Source(Protocol):
    """What a training draws from: `Samples`, or pictures of which crops are cut (`sqlib.training.Crops`)."""

    paired: bool
    """Whether batches come with a target."""

    def draw(self, batch: int, augment: bool, generator: torch.Generator) -> Drawn:
        """A batch of up to `batch` samples; all chance comes from `generator`."""

    def content(self) -> Any:
        """What tells these data from others: tensors, texts, lists of them."""


class Samples:
    """All samples in memory.

    Batches of images (tensors of four dimensions) are taken apart and drawn sample by sample, those of one
    size together; batches of anything else (tuples, dictionaries, sequences) are drawn as they are, and never
    augmented.

    Parameters
    ----------
    data : iterable
        Calibration batches; with `paired`, tuples (low resolution, high resolution) of tensors (N, C, H, W)
        and (N, C, scale H, scale W).
    network : nn.Module
        Decides device and dtype.
    paired : bool
        Whether the samples have targets.
    """

    def __init__(self, data: Iterable[Any], network: nn.Module, *, paired: bool = False) -> None:
        self.network, self.paired = network, paired
        sizes: dict[Any, list[tuple[Tensor, ...]]] = {}
        self.others: list[Any] = []
        if paired:
            data = pairs_of(data)
        for batch in data:
            images = batch if paired else (batch,)
            if not paired:
                arguments(batch, network)
            if all(isinstance(x, Tensor) and x.ndim == 4 for x in images):
                # Pairs come as a loader gives them, who may fill one buffer again and again.
                kept = tuple(x.detach().cpu().clone() if paired else x.detach().cpu() for x in images)
                sizes.setdefault(tuple(x.shape[1:] for x in kept), []).append(kept)
            else:
                self.others.append(batch)
        joined = (tuple(torch.cat(part) for part in zip(*v, strict=True)) for v in sizes.values())
        self.pools = [pool for pool in joined if pool[0].numel()]
        if not self.pools and not self.others:
            raise InputError("the data to train on hold no samples; give at least one image")
        self.sizes = torch.tensor(
            [len(p[0]) for p in self.pools] + [1] * len(self.others), dtype=torch.float32
        )

    def draw(self, batch: int, augment: bool, generator: torch.Generator) -> Drawn:
        """A batch of up to `batch` different samples, as arguments of the network."""
        which = int(torch.multinomial(self.sizes, 1, generator=generator)) if len(self.sizes) > 1 else 0
        if which >= len(self.pools):
            return Drawn(*arguments(self.others[which - len(self.pools)], self.network))
        pool = self.pools[which]
        index = torch.randperm(len(pool[0]), generator=generator)[:batch]
        chosen = [images[index] for images in pool]
        if augment:
            square = chosen[0].shape[-1] == chosen[0].shape[-2]
            turns = torch.randint(8 if square else 4, (len(index),), generator=generator)
            chosen = [torch.stack([turn(x, int(k)) for x, k in zip(images, turns)]) for images in chosen]
        return self._placed(chosen)

    def _placed(self, images: list[Tensor]) -> Drawn:
        """On the network's device, in its dtype."""
        args, kwargs = arguments(images[0], self.network)
        return Drawn(args, kwargs, arguments(images[1], self.network)[0][0] if self.paired else None)

    def all(self, batch: int, limit: int) -> Iterable[Drawn]:
        """Batches of the first `limit` samples of every pool, unaugmented, and of everything else."""
        for pool in self.pools:
            for start in range(0, min(len(pool[0]), limit), batch):
                yield self._placed([images[start : min(start + batch, limit)] for images in pool])
        for other in self.others[:limit]:
            yield Drawn(*arguments(other, self.network))

    def content(self) -> Any:
        """All samples."""
        return [self.pools, self.others]


def turn(x: Tensor, k: int) -> Tensor:
    """Flip or rotation number `k` of an image (C, H, W): bits 1 and 2 flip rows and columns, 4 transposes."""
    axes = [axis for bit, axis in ((1, -2), (2, -1)) if k & bit]
    x = x.flip(axes) if axes else x
    return x.transpose(-2, -1) if k & 4 else x


def pairs_of(data: Iterable[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of pairs, one by one, each checked.

    Warns
    -----
    UserWarning
        At the end, if the targets are in other units than the inputs, as 0..255 and 0..1 are.
    """
    largest = [0.0, 0.0]
    for batch in data:
        pair = _pair(batch)
        if all(x.numel() for x in pair):
            largest = [max(a, float(x.detach().abs().max())) for a, x in zip(largest, pair, strict=True)]
        yield pair
    low, high = largest
    if 0 < _OTHER_UNITS * min(low, high) < max(low, high) < float("inf"):
        warnings.warn(
            f"inputs of the pairs reach {low:g} and targets {high:g}: give both in the same units (8-bit "
            "images divided by 255, or neither), unless the network changes them",
            stacklevel=2,
        )


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        lr, hr = batch
        if isinstance(lr, Tensor) and isinstance(hr, Tensor) and lr.ndim == hr.ndim == 4:
            scale = hr.shape[-1] // max(lr.shape[-1], 1)
            enlarged = tuple(scale * side for side in lr.shape[-2:])
            if not (lr.is_floating_point() and hr.is_floating_point()):
                raise InputError(
                    f"a pair has {described(lr)} and {described(hr)}; expected floating-point tensors: "
                    "divide 8-bit images by 255"
                )
            if scale and len(lr) == len(hr) and tuple(hr.shape[-2:]) == enlarged:
                return lr, hr
            raise InputError(
                f"a pair has the shapes {tuple(lr.shape)} and {tuple(hr.shape)}; expected as many images, "
                "the second ones a whole number of times as high and as wide"
            )
    raise InputError(
        f"the data have a batch that is {type(batch).__name__}; expected pairs (low, high) of tensors "
        "(N, C, H, W), or a teacher and low-resolution images alone"
    )
