"""The uniform fake-quantizer as a torch module, with straight-through gradients.

Forward: quantize and restore, as in `sqlib.codebook.bounds`. Backward: `sqlib.quantizers._straight_through`.

Two forward paths give the same bits: the fused Numba kernel for CPU tensors, and plain torch operations for
everything else; the gradients of both agree up to the order of sums. float16 and bfloat16 are computed in
float32 and cast back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sqlib import codebook
from sqlib._checks import check_bits
from sqlib.codebook.bounds import Bounds
from sqlib.errors import InputError
from sqlib.kernels import fake_quantize
from sqlib.quantizers._readable import recorded
from sqlib.quantizers._saved import saved_as
from sqlib.quantizers._state import QuantizerState
from sqlib.quantizers._straight_through import StraightThrough, kernel_takes, wide_dtype
from sqlib.quantizers._workspace import empty_like


@saved_as("uniform")
class UniformQuantizer(QuantizerState):
    """Fake-quantizer with fixed bounds: input of any shape and float dtype, output of the same.

    Parameters
    ----------
    bounds : Bounds
        The fitted range: `sqlib.codebook.fit_bounds`, or a `Bounds` made by hand.

    Attributes
    ----------
    lower, upper : Tensor
        float64 buffers (parameters after `learnable`), shape () or (channels,). They stay float64 under
        ``.half()`` and friends, because a rounded bound would move every level.
    bits, axis, integer_zero, method
        As in `Bounds`.

    Notes
    -----
    NaN in gives NaN out at the same place; infinities are clipped. A range without extent maps everything to
    its lower bound. Double backward is not defined.
    """

    checked: ClassVar[tuple[str, ...]] = ("bits", "axis", "integer_zero")
    labels: ClassVar[tuple[str, ...]] = ("method", "trainable")

    variables: ClassVar[tuple[str, ...]] = ("lower", "upper")
    """Names of the tensors that `learnable` turns into parameters."""

    lower: Tensor
    upper: Tensor

    def __init__(self, bounds: Bounds) -> None:
        super().__init__()
        self.bits = check_bits(bounds.bits)
        self.axis = bounds.axis
        self.integer_zero = bounds.integer_zero
        self.method = bounds.method
        self.register_buffer("lower", torch.tensor(bounds.lower, dtype=torch.float64))
        self.register_buffer("upper", torch.tensor(bounds.upper, dtype=torch.float64))

    @classmethod
    def rebuild(cls, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> UniformQuantizer:
        """From `options` and the tensors of the state dict."""
        quantizer = cls(_saved_bounds(options, tensors))
        return quantizer.learnable() if options["trainable"] else quantizer

    @property
    def trainable(self) -> bool:
        """Whether the bounds are parameters."""
        return isinstance(getattr(self, self.variables[0]), nn.Parameter)

    @property
    def top(self) -> int:
        """The largest code; codes begin at 0."""
        return (1 << self.bits) - 1

    @property
    def scale(self) -> Tensor:
        """Distance between levels, float64, of the bounds' shape; 0 for a range without extent."""
        return (self.upper.detach().double() - self.lower.detach().double()) / self.top

    @property
    def zero_point(self) -> Tensor:
        """The code of zero, int64, of the bounds' shape: level c is ``(c - zero_point) * scale``.

        Outside of 0 to `top` where the range leaves zero out; 0 for a range without extent.

        Raises
        ------
        InputError
            Without `integer_zero`: levels lie where the bounds are, and zero need not be one.
        """
        if not self.integer_zero:
            raise InputError(
                "zero_point: these bounds are real numbers and zero need not be a level; give the recipe "
                "integer_zero=True, or work with lower and scale"
            )
        scale = self.scale
        steps = torch.round(self.lower.detach().double() / torch.where(scale == 0, 1.0, scale))
        return torch.where(scale == 0, 0, -steps).to(torch.int64)

    def learnable(self) -> Self:
        """Turn the bounds into parameters, in place, for training them; returns self."""
        for name in self.variables:
            value = getattr(self, name)
            if not isinstance(value, nn.Parameter):
                del self._buffers[name]
                self.register_parameter(name, nn.Parameter(value.detach().clone()))
        return self

    def fixed(self) -> Self:
        """Turn trained bounds back into buffers, in place; returns self."""
        for name in self.variables:
            value = getattr(self, name)
            if isinstance(value, nn.Parameter):
                delattr(self, name)
                self.register_buffer(name, value.detach().clone())
        return self

    @torch.no_grad()
    def set_bounds(self, lower: Tensor, upper: Tensor) -> None:
        """Give other bounds of the same shape; what are parameters stay parameters."""
        for name, value in (("lower", lower), ("upper", upper)):
            old = getattr(self, name)
            # new tensors, because the old ones may be inference tensors, which must not be written to
            new = value.detach().to(old).clone()
            setattr(
                self, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
            )

    def bounds(self) -> Bounds:
        """The present bounds as NumPy data (error NaN: they may have been loaded or trained)."""
        return self._bounds(self.lower.tolist(), self.upper.tolist())

    def _bounds(self, lower: Any, upper: Any) -> Bounds:
        error: Any = np.full(np.shape(lower), np.nan)
        return Bounds(lower, upper, self.bits, error, self.method, self.axis, self.integer_zero)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        trained = x.requires_grad or self.lower.requires_grad or self.upper.requires_grad
        if trained and torch.is_grad_enabled() and not recorded():
            out: Tensor = StraightThrough.apply(x, self.lower, self.upper, self)  # type: ignore[no-untyped-call]
            return out
        return self.fake(x)

    def fake(self, x: Tensor) -> Tensor:
        """The forward pass without gradient: fused kernel where possible, torch otherwise."""
        fused = kernel_takes(x) and (self.axis is None or x.is_contiguous())
        return self._fused(x) if fused else self.fake_torch(x)

    def fake_torch(self, x: Tensor) -> Tensor:
        """The same in plain torch operations, on any device; four temporaries of x's size."""
        lower, scale, top = self.grid(x)
        codes = self._codes(x.to(lower.dtype), lower, scale, top)
        return (codes * scale + lower).to(x.dtype)

    def codes(self, x: Tensor) -> Tensor:
        """Integer codes of `x` as an int32 tensor; raises `InputError` for NaN."""
        self._check(x)
        if bool(torch.isnan(x).any()):
            raise InputError("quantize: the tensor contains NaN, which has no code")
        lower, scale, top = self.grid(x)
        return self._codes(x.detach().to(lower.dtype), lower, scale, top).to(torch.int32)

    def grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(lower, scale, top) in the computing dtype on x's device, shaped to broadcast against `x`.

        The arithmetic is that of `sqlib.codebook.bounds.grid_constants`, operation by operation.
        """
        kind = wide_dtype(x.dtype)
        lower, upper = (v.detach().to(x.device, exact_dtype(x)) for v in (self.lower, self.upper))
        last = self.top
        exact = (upper - lower) / last
        scale = exact.to(kind)
        flat = scale == 0
        scale = torch.where(flat, torch.ones_like(scale), scale)
        low = lower.to(kind)
        if self.integer_zero:
            zero = torch.round(lower / torch.where(flat, torch.ones_like(exact), exact)).to(kind)
            low = torch.where(flat, low, zero * scale)
        top = torch.where(flat, torch.zeros_like(scale), torch.full_like(scale, last))
        grid = (low + torch.zeros_like(low), scale, top)
        if self.axis is None:
            return grid
        shape = [1] * x.ndim
        shape[self.axis] = -1
        return tuple(g.reshape(shape) for g in grid)  # type: ignore[return-value]

    @staticmethod
    def _codes(x: Tensor, lower: Tensor, scale: Tensor, top: Tensor) -> Tensor:
        return torch.round(torch.clamp((x - lower) / scale, torch.zeros_like(top), top))

    def _check(self, x: Tensor) -> None:
        if self.axis is None:
            return
        if not -x.ndim <= self.axis < x.ndim or x.shape[self.axis] != self.lower.numel():
            raise InputError(
                f"quantizer: bounds for {self.lower.numel()} channels on axis {self.axis}, "
                f"but the tensor has shape {tuple(x.shape)}"
            )

    def _fused(self, x: Tensor) -> Tensor:
        grid = self._numpy_grid(torch.float64 if x.dtype == torch.float64 else torch.float32)
        wide = x.detach().to(wide_dtype(x.dtype))
        out = empty_like(wide)
        if self.axis is None and not wide.is_contiguous():
            # Any dense layout (channels_last, transposed) is one flat run of memory, and empty_like keeps it.
            source, target = (v.as_strided((v.numel(),), (1,)).numpy() for v in (wide, out))
            fake_quantize(source, *grid, out=target, threads=torch.get_num_threads())
        else:
            threads = torch.get_num_threads()
            fake_quantize(wide.numpy(), *grid, axis=self.axis, out=out.numpy(), threads=threads)
        return out.to(x.dtype)

    def _numpy_grid(self, kind: torch.dtype) -> Any:
        """`Bounds.grid`; that of the last call where the numbers it comes from are still the same."""
        state = self.lower.tolist(), self.upper.tolist(), self.bits, self.integer_zero, kind
        known = self._known
        if known is not None and known[0] == state:
            return known[1]
        grid = self._bounds(*state[:2]).grid(np.float64 if kind == torch.float64 else np.float32)
        self._known = state, grid
        return grid

    def extra_repr(self) -> str:
        channels = "per tensor" if self.axis is None else f"per channel of axis {self.axis}"
        return f"bits={self.bits}, {channels}, method={self.method!r}"


def exact_dtype(x: Tensor) -> torch.dtype:
    """The widest dtype on x's device: float64, which MPS does not have."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def _saved_bounds(options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Bounds:
    lower, upper = (tensors[name].double().numpy() for name in ("lower", "upper"))
    kept = {name: options[name] for name in ("bits", "method", "axis", "integer_zero")}
    return Bounds(lower, upper, error=np.full(lower.shape, np.nan), **kept)


def quantize(x: NDArray[Any] | Tensor, q: Bounds | UniformQuantizer) -> Any:
    """Integer codes: a NumPy array for an array (uint8 or uint16), an int32 tensor for a tensor.

    Raises `InputError` for NaN; see `sqlib.codebook.quantize`.
    """
    if isinstance(x, Tensor):
        quantizer = UniformQuantizer(q) if isinstance(q, Bounds) else q
        return quantizer.codes(x)
    return codebook.quantize(x, q.bounds() if isinstance(q, UniformQuantizer) else q)


def dequantize(codes: NDArray[Any] | Tensor, q: Bounds | UniformQuantizer, dtype: Any = None) -> Any:
    """Values of integer codes as `dtype` (of NumPy or torch, matching `codes`; float32 if None)."""
    if isinstance(codes, Tensor):
        quantizer = UniformQuantizer(q) if isinstance(q, Bounds) else q
        kind = dtype or torch.float32
        lower, scale, _ = quantizer.grid(torch.empty(codes.shape, dtype=kind, device=codes.device))
        return (codes.to(lower.dtype) * scale + lower).to(kind)
    bounds = q.bounds() if isinstance(q, UniformQuantizer) else q
    return codebook.dequantize(codes, bounds, np.float32 if dtype is None else dtype)
