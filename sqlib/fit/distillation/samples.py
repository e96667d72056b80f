"""Calibration data as a pool of samples to draw from, with flips and rotations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sqlib.engine.batches import arguments
from sqlib.errors import InputError


class Samples:
    """All calibration samples in memory.

    Batches of images (tensors of four dimensions) are taken apart and drawn sample by sample, those of one
    size together; batches of anything else (tuples, dictionaries, sequences) are drawn as they are, and never
    augmented.

    Parameters
    ----------
    data
        Calibration batches.
    network
        Decides device and dtype.
    """

    def __init__(self, data: Iterable[Any], network: nn.Module) -> None:
        self.network = network
        sizes: dict[Any, list[Tensor]] = {}
        self.others: list[Any] = []
        for batch in data:
            arguments(batch, network)
            if isinstance(batch, Tensor) and batch.ndim == 4:
                sizes.setdefault(tuple(batch.shape[1:]), []).append(batch.detach().cpu())
            else:
                self.others.append(batch)
        self.pools = [pool for pool in (torch.cat(v) for v in sizes.values()) if pool.numel()]
        if not self.pools and not self.others:
            raise InputError("distillation: the calibration data holds no samples; give at least one image")
        self.sizes = torch.tensor([len(p) for p in self.pools] + [1] * len(self.others), dtype=torch.float32)

    def draw(self, batch: int, augment: bool, generator: torch.Generator) -> Any:
        """A batch of up to `batch` different samples, as arguments of the network."""
        which = int(torch.multinomial(self.sizes, 1, generator=generator)) if len(self.sizes) > 1 else 0
        if which >= len(self.pools):
            return arguments(self.others[which - len(self.pools)], self.network)
        pool = self.pools[which]
        chosen = pool[torch.randperm(len(pool), generator=generator)[:batch]]
        if augment:
            square = chosen.shape[-1] == chosen.shape[-2]
            turns = torch.randint(8 if square else 4, (len(chosen),), generator=generator)
            chosen = torch.stack([turn(x, int(k)) for x, k in zip(chosen, turns)])
        return arguments(chosen, self.network)

    def all(self, batch: int, limit: int) -> Iterable[Any]:
        """Batches of arguments: the first `limit` samples of every pool, unaugmented, and everything else."""
        for pool in self.pools:
            for start in range(0, min(len(pool), limit), batch):
                yield arguments(pool[start : min(start + batch, limit)], self.network)
        for other in self.others[:limit]:
            yield arguments(other, self.network)


def turn(x: Tensor, k: int) -> Tensor:
    """Flip or rotation number `k` of an image (C, H, W): bits 1 and 2 flip rows and columns, 4 transposes."""
    axes = [axis for bit, axis in ((1, -2), (2, -1)) if k & bit]
    x = x.flip(axes) if axes else x
    return x.transpose(-2, -1) if k & 4 else x
