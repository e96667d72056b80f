"""Calibration of the subset quantizer: normalized activations stream into a lattice histogram."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sqlib.codebook import LatticeHistogram, fit_codebook, universal
from sqlib.errors import InputError
from sqlib.kernels.normalized import EPSILON, plane_statistics
from sqlib.quantizers.planes import is_edge, own_statistics, tile_slices, to_planes, to_tiles
from sqlib.quantizers.subset import SubsetQuantizer

NORMALIZE = ("dynamic", "static", "none")
REACHES = (1.0, 0.5)


class SubsetObserver:
    """Chooses points of a universal set for what one call site sees.

    Memory does not grow with the number of images: 64 KB per channel (four word sets), twice that while it
    is open whether the site is centred.

    Parameters
    ----------
    bits : int
        2**bits points.
    axis, channelwise, patch, sample_axis
        As in `SubsetQuantizer`.
    words : int
        Word sets of the universal set, 2 to 5.
    selector : str
        Method of `sqlib.codebook.fit_codebook`: "release", "kmeans" or "exact".
    per_channel : bool
        One set of points per channel; else one for all.
    centre : bool or None
        True, False, or None: centred unless no value is below 0 during calibration.
    normalize : str
        "dynamic": statistics of each plane. "static": the largest magnitude in the calibration data, per
        channel (or for all, if not `channelwise`), without centring; costs a second pass. "none": values
        as they are, clipped to [-1, 1].
    reach : float
        Where the largest magnitude of a plane goes: 1, or 1/2, beyond which a universal set is sparse. Points
        are then chosen within [-reach, reach] and divided by `reach`.
    seed : int
        Of the restarts of "release" and "kmeans".
    """

    def __init__(
        self,
        bits: int,
        *,
        axis: int | None = -3,
        words: int = 4,
        selector: str = "release",
        per_channel: bool = True,
        channelwise: bool = True,
        centre: bool | None = True,
        normalize: str = "dynamic",
        patch: int | None = None,
        reach: float = 1.0,
        seed: int = 0,
        sample_axis: int = 0,
    ) -> None:
        if normalize not in NORMALIZE:
            raise InputError(f"normalize={normalize!r}, expected one of {', '.join(NORMALIZE)}")
        if reach not in REACHES:
            raise InputError(f"reach={reach!r}, expected one of {', '.join(map(str, REACHES))}")
        if reach != 1 and normalize != "dynamic":
            raise InputError(f"reach={reach} needs normalize='dynamic', it is {normalize!r}; give reach=1")
        self.bits, self.axis, self.selector, self.seed = bits, axis, selector, seed
        self.reach, self.sample_axis = reach, sample_axis
        self.universe = universal(words)
        self.per_channel = per_channel and axis is not None
        self.channelwise = channelwise
        self.normalize = normalize
        self.patch = patch if normalize == "dynamic" and axis == -3 else None
        self.passes = 2 if normalize == "static" else 1
        # A histogram per way of centring that is still possible
        ways = (False,) if normalize != "dynamic" else (True, False) if centre is None else (centre,)
        self._histograms: dict[bool, LatticeHistogram | None] = dict.fromkeys(ways)
        self._maximum: NDArray[np.float64] | None = None
        self._largest_plane = self._largest_sample = 0

    def update(self, x: Tensor, number: int = 0) -> None:
        """See a batch; NaN or infinity raise `InputError`."""
        if x.numel() == 0:
            return
        wide = x.detach().cpu().to(torch.float64 if x.dtype == torch.float64 else torch.float32)
        if self.normalize == "static" and number == 0:
            self._see_range(_array(to_planes(wide, self.axis, self.sample_axis)))
        elif self.patch is None:
            self._see(_array(to_planes(wide, self.axis, self.sample_axis)))
        else:
            for rows, columns, height, width in tile_slices(wide.shape[-2], wide.shape[-1], self.patch):
                tiles = to_tiles(wide[..., rows, columns], height, width)
                edge = is_edge(height, width, wide, self.patch)
                self._see(_array(to_planes(tiles, -3)), edge=edge)

    def finish(self) -> nn.Module:
        """The quantizer with the chosen points; ``nn.Identity`` if no sample has more values than statistics.

        If no plane had statistics of its own, the quantizer is for whole samples, and all channels have one
        set of points: one value of each sample is too little to choose a channel's points from.
        """
        centre = False not in self._histograms
        histogram = self._histograms[centre]
        if histogram is None:
            raise InputError("no values reached this call site during calibration")
        channelwise = self.channelwise
        if self.normalize == "dynamic":
            if not own_statistics(self._largest_sample, centre):
                return nn.Identity()
            channelwise = channelwise and own_statistics(self._largest_plane, centre)
            if not channelwise and self.channelwise:
                histogram = histogram.joined()
        within = self.universe.values[np.abs(self.universe.values) <= self.reach]
        codebook = fit_codebook(
            histogram, within, 1 << self.bits, method=self.selector, random_state=self.seed
        )
        return SubsetQuantizer(
            codebook.stretched(self.reach),
            axis=self.axis,
            centre=centre,
            channelwise=channelwise,
            patch=self.patch,
            scale=self._scale(),
            sample_axis=self.sample_axis,
        )

    def _scale(self) -> NDArray[np.float64] | None:
        if self.normalize == "dynamic":
            return None
        if self.normalize == "none" or self._maximum is None:
            return np.ones(())
        return np.where(self._maximum > 0, self._maximum, 1.0)  # a channel that is always 0 stays 0

    def _see_range(self, planes: NDArray[Any]) -> None:
        seen = plane_statistics(planes, centre=False).maximum.max(axis=0).astype(np.float64)
        if not self.channelwise:
            seen = seen.max()
        self._maximum = seen if self._maximum is None else np.maximum(self._maximum, seen)

    def _see(self, planes: NDArray[Any], *, edge: bool = False) -> None:
        _, channels, values = planes.shape
        self._largest_plane = max(self._largest_plane, values)
        self._largest_sample = max(self._largest_sample, channels * values)
        if len(self._histograms) == 2 and planes.min() < 0:
            del self._histograms[False]
        kind = planes.dtype.type
        for centre in self._histograms:
            if self.normalize == "dynamic":
                own = self.channelwise and own_statistics(values, centre, edge=edge)
                mean, maximum = plane_statistics(planes, centre=centre, channelwise=own)
                scaled = (planes - mean[:, :, None]) * (kind(self.reach) / (maximum + kind(EPSILON)))[
                    :, :, None
                ]
            else:
                plane_statistics(planes, centre=False)  # refuses NaN
                scaled = planes / np.asarray(self._scale(), dtype=kind).reshape(1, -1, 1)
            np.clip(scaled, -self.reach, self.reach, out=scaled)  # the division may round to just above it
            if self._histograms[centre] is None:
                rows = channels if self.per_channel else None
                self._histograms[centre] = LatticeHistogram(self.universe.denominator, rows)
            self._histograms[centre].add(scaled, axis=1)  # type: ignore[union-attr]


def _array(x: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(x.numpy())
