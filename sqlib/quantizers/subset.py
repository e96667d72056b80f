r"""DFSQ's fake-quantizer as a torch module: normalized nearest point, straight-through gradient.

Forward: `sqlib.kernels.normalized`. Source: DFSQ (Zhong et al. 2023), section 3.1 and 3.2, and its released
code. Backward: the gradient passes unchanged (the release detaches Q(x) - x), statistics and points get none.

Two paths: the fused Numba kernel for CPU tensors, and plain torch operations for everything else (other
devices, tracing). Given equal statistics they give the same bits where the device rounds as IEEE 754 says.
Their means are sums in different orders, both in float64 and then rounded (float32 on devices without
float64), so they agree but for rare last bits; then a code can differ for a value within 2 ulp of a midpoint.
float16 and bfloat16 are computed in float32 and cast back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqlib._checks import check_flag, check_integer
from sqlib.codebook import Codebook
from sqlib.codebook import quantize as nearest
from sqlib.codebook.nearest import nearest_table
from sqlib.errors import InputError
from sqlib.kernels.nearest import NearestTable
from sqlib.kernels.normalized import EPSILON, Statistics, fake_quantize_normalized, plane_statistics
from sqlib.patches.image_statistics import Gathered
from sqlib.quantizers import _normalized
from sqlib.quantizers._readable import readable, recorded
from sqlib.quantizers._saved import saved_as
from sqlib.quantizers._state import QuantizerState
from sqlib.quantizers._workspace import empty_like
from sqlib.quantizers.planes import (
    from_planes,
    from_tiles,
    is_edge,
    own_statistics,
    tile_slices,
    to_planes,
    to_tiles,
)


class Encoded(NamedTuple):
    """What a quantized tensor consists of: uint8 codes of its shape, and the statistics of its planes."""

    codes: NDArray[np.uint8]
    statistics: Statistics


@saved_as("subset")
class SubsetQuantizer(QuantizerState):
    """Fake-quantizer to the nearest of freely placed points, after normalization.

    Parameters
    ----------
    codebook : Codebook
        Points within [-1, 1]: one set, or one per channel (its own `axis` is not used). At most 256 points.
    axis : int or None
        Channel axis of the tensors, negative, None for none; see `sqlib.quantizers.planes.to_planes`.
    centre : bool
        Whether the mean is removed (DFSQ: yes, but not after a ReLU).
    channelwise : bool
        Statistics per sample and channel; else per sample.
    patch : int or None
        Statistics per tile of this many pixels a side (images only); None for the whole plane.
    scale : Tensor or None
        Fixed scale instead of statistics: x / scale is quantized and clipped to [-1, 1]; positive, () or
        (channels,). Excludes `centre` and `patch`.
    sample_axis : int
        0, 1 or -1: where the samples are if `axis` is -1 or None; see `sqlib.quantizers.planes.to_planes`.

    Attributes
    ----------
    points, scale : Tensor, (Tensor or None)
        float64 buffers. They stay float64 under ``.half()`` and friends: a rounded point is another point.
    bits
        Smallest bit-width that holds all codes.
    image : Gathered or None
        Statistics of an image that comes in patches (`sqlib.patches.image_statistics`); None (the start)
        where everything given is measured by itself. Never saved.

    Notes
    -----
    NaN or infinity raise `InputError` on the CPU. Elsewhere, and in graphs, nobody looks at values: they make
    their plane NaN, and with a fixed scale themselves.
    A constant plane has M = 0 and is restored from its mean, at most 1e-8 off. Memory layout is kept.

    A plane of one value (squeeze-and-excite, rows of a linear layer), or of two if their mean is removed, has
    no statistics of its own: it would come back as it went in. It takes those of its sample, over all
    channels. Statistics never reach across samples, so a result does not depend on the rest of the batch.
    """

    checked = ("bits", "axis", "patch", "sample_axis", "fixed_scale")
    carried = ("centre", "channelwise", "denominator")

    points: Tensor
    scale: Tensor | None
    image: Gathered | None = None

    def __init__(
        self,
        codebook: Codebook,
        *,
        axis: int | None = -3,
        centre: bool = True,
        channelwise: bool = True,
        patch: int | None = None,
        scale: Any = None,
        sample_axis: int = 0,
    ) -> None:
        super().__init__()
        if axis is not None and not -4 <= axis <= -1:
            raise InputError(f"axis={axis}, expected -4 to -1, or None for tensors without channels")
        if axis is None and codebook.points.ndim == 2 and len(codebook.points) > 1:
            raise InputError(f"points for {len(codebook.points)} channels need a channel axis, axis is None")
        if patch is not None and (axis != -3 or patch < 1):
            raise InputError(
                f"patch={patch} with axis={axis}: tiles are of images (axis -3), 1 pixel or more"
            )
        if scale is not None and (centre or patch is not None):
            raise InputError("a fixed scale leaves no statistics: give centre=False and patch=None with it")
        if sample_axis not in (0, 1, -1) or (sample_axis and axis not in (None, -1)):
            raise InputError(
                f"sample_axis={sample_axis} with axis={axis}: expected 0, or 1 or -1 for features"
            )
        self.axis, self.centre, self.channelwise, self.patch = axis, centre, channelwise, patch
        self.sample_axis = sample_axis
        self.bits = max(1, (codebook.levels - 1).bit_length())
        self.denominator, self.method = codebook.denominator, codebook.method
        self.register_buffer("points", torch.tensor(codebook.points, dtype=torch.float64))
        fixed = None if scale is None else torch.as_tensor(np.array(scale, dtype=np.float64))
        if fixed is not None and not bool(((fixed > 0) & torch.isfinite(fixed)).all()):
            raise InputError("scale: expected positive, finite numbers")
        self.register_buffer("scale", fixed)
        self._table(torch.float32)  # refuses unusable points now rather than in the first forward pass

    @classmethod
    def rebuild(cls, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SubsetQuantizer:
        """From `options` and the tensors of the state dict."""
        for name in ("centre", "channelwise"):
            check_flag(name, options[name])
        denominator, scale, nan = options["denominator"], tensors.get("scale"), np.array(np.nan)
        if denominator is not None:
            denominator = check_integer("denominator", denominator, 1, 2**53)
        quantizer = cls(
            Codebook(tensors["points"].double().numpy(), nan, nan, options["method"]),
            scale=None if scale is None else scale.double().numpy(),
            **{name: options[name] for name in ("axis", "centre", "channelwise", "patch", "sample_axis")},
        )
        quantizer.denominator = denominator
        return quantizer

    def codebook(self) -> Codebook:
        """The present points as NumPy data (error NaN: they may have been loaded)."""
        return self._codebook(self.points.detach().cpu().double().numpy())

    @property
    def fixed_scale(self) -> bool:
        """Whether a fixed scale takes the place of statistics."""
        return self.scale is not None

    @property
    def measures_planes(self) -> bool:
        """Whether statistics are of whole planes, so that `image` may give them."""
        return not self.fixed_scale and self.patch is None

    def _codebook(self, points: NDArray[np.float64]) -> Codebook:
        numerators = None
        if self.denominator is not None:
            numerators = np.rint(points * self.denominator).astype(np.int64)
            if not np.array_equal(numerators / self.denominator, points):
                numerators = None  # loaded from a quantizer of another universal set
        denominator = None if numerators is None else self.denominator
        return Codebook(points, np.array(np.nan), np.array(np.nan), self.method, numerators, denominator)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad and not recorded():
            out: Tensor = _StraightThrough.apply(x, self)  # type: ignore[no-untyped-call]
            return out
        return self.fake(x)

    def fake(self, x: Tensor) -> Tensor:
        """The forward pass without gradient: fused kernel where possible, torch otherwise."""
        if readable(x) and x.layout == torch.strided:
            return self._run(x, self._fused, self._fused_tiles)
        return self.fake_torch(x)

    def fake_torch(self, x: Tensor) -> Tensor:
        """The same in plain torch operations, on any device; several temporaries of x's size."""
        return self._run(x, self._plain, self._plain_tiles)

    def encode(self, x: Tensor) -> Encoded:
        """Codes and statistics of a tensor; ``decode(encode(x))`` equals ``fake(x)`` bit for bit on the CPU.

        The NumPy reference: `sqlib.codebook.quantize` on the normalized values. Not with `patch`, whose
        statistics have no place here: encode the tiles.
        """
        if self.patch is not None:
            raise InputError("encode: statistics are per tile here; encode the tiles one by one")
        planes = _array(self._checked(x).detach().cpu().to(_wide(x)))
        table = self._table(_wide(x))
        stats = self._fixed(planes.dtype)
        if stats is None:
            stats = plane_statistics(
                planes, centre=self.centre, channelwise=self._channelwise(planes.shape[2])
            )
        elif not np.isfinite(planes).all():
            raise InputError(f"{int((~np.isfinite(planes)).sum())} values are NaN or infinite")
        kind = planes.dtype.type
        mean, spread = stats.mean[:, :, None], stats.maximum[:, :, None] + kind(self._epsilon)
        t = np.clip((planes - mean) * (kind(table.half) / spread), -table.half, table.half)
        # On a lattice in its own integers, where nothing is rounded; else in the unit of the points.
        points, cells = (
            (table.values, 2) if table.exact else (np.atleast_2d(self.codebook().points), table.half)
        )
        points = points.astype(np.float64)
        nan = np.array(np.nan)
        grid = Codebook(
            points if len(points) > 1 else points[0], nan, nan, "", axis=1 if len(points) > 1 else None
        )
        codes = nearest(t.astype(np.float64) / cells, grid)
        return Encoded(from_planes(torch.from_numpy(codes), x, self.axis, self.sample_axis).numpy(), stats)

    def decode(self, encoded: Encoded, dtype: torch.dtype = torch.float32) -> Tensor:
        """The tensor of `encode`'s codes and statistics, computed in the statistics' dtype."""
        codes = torch.from_numpy(encoded.codes)
        mean, maximum = (v[:, :, None] for v in encoded.statistics)
        table = self._table(torch.float64 if mean.dtype == np.float64 else torch.float32)
        planes = to_planes(codes, self.axis, self.sample_axis).numpy()
        step = (maximum + mean.dtype.type(self._epsilon)) / mean.dtype.type(table.unit)
        values = np.broadcast_to(table.values, (planes.shape[1], table.levels))
        found = values[np.arange(planes.shape[1])[None, :, None], planes]
        return from_planes(torch.from_numpy(found * step + mean), codes, self.axis, self.sample_axis).to(
            dtype
        )

    @property
    def _epsilon(self) -> float:
        return EPSILON if self.scale is None else 0.0

    def _checked(self, x: Tensor) -> Tensor:
        planes = to_planes(x, self.axis, self.sample_axis)
        channels = 1 if self.points.ndim == 1 else len(self.points)
        if channels not in (1, planes.shape[1]):
            raise InputError(
                f"quantizer: points for {channels} channels on axis {self.axis}, but the tensor has shape "
                f"{tuple(x.shape)}"
            )
        return planes

    def _channelwise(self, values: int, *, edge: bool = False) -> bool:
        """Whether planes of so many values have statistics of their own."""
        return self.channelwise and own_statistics(values, self.centre, edge=edge)

    def _run(
        self, x: Tensor, planes: Callable[[Tensor, bool], Tensor], tiles: Callable[[Tensor], Tensor]
    ) -> Tensor:
        wide = x.detach().to(_wide(x))
        seen = self._checked(wide)
        if x.numel() == 0:
            return x.detach().clone()
        if self.patch is None:
            channelwise = self._channelwise(seen.shape[2])
            if self.image is not None and not self.image.complete:
                self.image.add(seen, channelwise=channelwise)
            done = planes(seen, channelwise)
            out = from_planes(done, wide, self.axis, self.sample_axis).to(x.dtype)
        else:
            out = tiles(wide).to(x.dtype)
        return (
            out.contiguous() if x.is_contiguous() else torch.empty_like(x).copy_(out)
        )  # empty_like keeps the layout

    def _fused(self, planes: Tensor, channelwise: bool) -> Tensor:
        planes = planes.contiguous()
        out = empty_like(planes)
        fake_quantize_normalized(
            planes.numpy(),
            self._table(planes.dtype),
            centre=self.centre,
            channelwise=channelwise,
            statistics=self._fixed(planes.numpy().dtype),
            epsilon=self._epsilon,
            out=out.numpy(),
            threads=torch.get_num_threads(),
        )
        return out

    def _fused_tiles(self, images: Tensor) -> Tensor:
        out = torch.empty_like(images, memory_format=torch.contiguous_format)
        for rows, columns, height, width in tile_slices(images.shape[-2], images.shape[-1], self.patch or 1):
            region = images[..., rows, columns]
            tiles = to_tiles(region, height, width)
            own = self._channelwise(height * width, edge=is_edge(height, width, images, self.patch or 1))
            done = self._fused(to_planes(tiles, -3), own).reshape(tiles.shape)
            out[..., rows, columns] = from_tiles(done, region)
        return out

    def _plain(self, x: Tensor, channelwise: bool) -> Tensor:
        if self.scale is not None:
            return self._at(x, torch.zeros_like(x[:, :1, :1]), self.scale.to(x).reshape(1, -1, 1))
        if self.image is not None and self.image.complete:
            return self._at(x, *(v.to(x) for v in self.image.statistics(centre=self.centre)))
        return self._at(x, *_normalized.plane_statistics(x, centre=self.centre, channelwise=channelwise))

    def _plain_tiles(self, images: Tensor) -> Tensor:
        x = images.reshape(-1, *images.shape[-3:])
        statistics = _normalized.tile_statistics(
            x, self.patch or 1, centre=self.centre, channelwise=self.channelwise
        )
        return self._at(x.flatten(2), *(s.flatten(2) for s in statistics)).reshape(images.shape)

    def _at(self, x: Tensor, mean: Tensor, maximum: Tensor) -> Tensor:
        """`sqlib.quantizers._normalized.fake_quantize`, and what is not finite."""
        finite = torch.isfinite(maximum if self.scale is None else x)
        if readable(x) and not bool(finite.all()):
            raise InputError(f"{int((~torch.isfinite(x)).sum())} of {x.numel()} values are NaN or infinite")
        table = _normalized.Table.of(self.points, self.denominator, x)
        out = _normalized.fake_quantize(x, mean, maximum, table, self._epsilon)
        return out if readable(x) else out.masked_fill(~finite, torch.nan)

    def _fixed(self, kind: np.dtype[Any]) -> Statistics | None:
        if self.scale is None:
            if self.image is None or not self.image.complete:
                return None
            given = self.image.statistics(centre=self.centre)
            return Statistics(*(v.cpu().numpy().astype(kind).reshape(1, -1) for v in given))
        maximum = self.scale.detach().cpu().double().numpy().astype(kind).reshape(1, -1)
        return Statistics(np.zeros_like(maximum), maximum)

    def _table(self, kind: torch.dtype) -> NearestTable:
        """`nearest_table`; that of the last call where the points it comes from are still the same."""
        points = self.points.detach().cpu().double().numpy()
        known = self._known
        if known is not None and known[:2] == (self.denominator, kind) and np.array_equal(known[2], points):
            return known[3]  # type: ignore[no-any-return]
        points = points.copy()
        table = nearest_table(self._codebook(points), np.float64 if kind == torch.float64 else np.float32)
        self._known = self.denominator, kind, points, table
        return table

    def extra_repr(self) -> str:
        sets = "one set" if self.points.ndim == 1 else f"{len(self.points)} sets"
        return (
            f"{sets} of {self.points.shape[-1]} points, axis={self.axis}, centre={self.centre}, "
            f"channelwise={self.channelwise}, patch={self.patch}, fixed_scale={self.scale is not None}, "
            f"method={self.method!r}"
        )


def _wide(x: Tensor) -> torch.dtype:
    if not x.dtype.is_floating_point:
        raise InputError(f"quantizer: a tensor of dtype {x.dtype}, expected floating-point values")
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _array(x: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(x.numpy())


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, quantizer: SubsetQuantizer) -> Tensor:
        return quantizer.fake(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
