r"""Two learned bounds, multiplied for every sample by what a gate sees in it (DDTB, Zhong et al., ECCV 2022).

With K = 2^b levels, static bounds l, u and the factors :math:`\beta` of sample n,

.. math::
    l_n = \beta_{nl}\, l, \quad u_n = \beta_{nu}\, u, \quad s_n = \frac{K - 1}{u_n - l_n}, \qquad
    \hat x_n = \operatorname{rint}\bigl(s_n \operatorname{clip}(x_n, l_n, u_n)\bigr) / s_n

As published, the codes are shifted by the integer :math:`z = \operatorname{rint}(s l) + 2^{b-1}`, which
cancels: it is the uniform quantizer with ``integer_zero``, and zero is a level wherever it is within the
bounds. Its gradients are those of `sqlib.quantizers._straight_through`, summed over each sample. With the
bounds snapped to levels, :math:`l'_n = \operatorname{rint}(s_n l_n)/s_n` and
:math:`u'_n = l'_n + u_n - l_n`, and :math:`c = \operatorname{clip}(x, l'_n, u'_n)`,

.. math::
    \frac{\partial \hat x}{\partial u_n} = [x > u'_n] + \frac{\hat x - c}{u_n - l_n}, \qquad
    \frac{\partial \hat x}{\partial l_n} = [x < l'_n] - \frac{\hat x - c}{u_n - l_n}, \qquad
    \frac{\partial \hat x}{\partial x} = [l'_n \le x \le u'_n]

Then :math:`\partial/\partial u = \sum_n \beta_{nu}\, \partial/\partial u_n` and
:math:`\partial/\partial \beta_{nu} = u\, \partial/\partial u_n`, and likewise for l. No gradient flows
through the gate to x. Automatic differentiation of the published expression gives the same where the bounds
are levels; where they are not, the bounds in it are the unsnapped ones, and a clipped value adds
:math:`(\hat x - c)/(u_n - l_n)`, at most half of 1/(K - 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sqlib.codebook.bounds import Bounds
from sqlib.errors import InputError
from sqlib.quantizers._computed import ComputedBounds
from sqlib.quantizers._saved import saved_as
from sqlib.quantizers.uniform import UniformQuantizer, _saved_bounds

NARROWEST = 0.01
"""A sample keeps at least this share of the static width between its bounds."""


@saved_as("gated")
class GatedQuantizer(UniformQuantizer):
    """`UniformQuantizer` whose bounds a gate scales sample by sample.

    Parameters
    ----------
    bounds : Bounds
        The static range: for the whole tensor, with ``integer_zero``.
    gate
        From samples (N, ...) to factors (N, 2) for lower and upper bound; see `sqlib.quantizers.Gate`.
    spread : Tensor
        How much the range differed between batches at calibration, by which layers are chosen to have a
        gate; for information.

    Attributes
    ----------
    on
        Whether the gate acts; False (the start) uses the static bounds. Saved with the quantizer.
    gate, spread
        As given; the latter a buffer of shape ().

    Notes
    -----
    Every entry of the first axis is a sample. Bounds that the factors would bring closer together than
    `NARROWEST` of the static width, or across, have the upper one moved to that distance. A sample in which
    something is NaN has the static bounds.
    """

    carried: ClassVar[tuple[str, ...]] = ("on",)

    gate: Any
    spread: Tensor

    def __init__(self, bounds: Bounds, gate: nn.Module, spread: float = 0.0) -> None:
        super().__init__(bounds)
        if bounds.axis is not None or not bounds.integer_zero:
            raise InputError(
                f"a gated quantizer with axis={bounds.axis} and integer_zero={bounds.integer_zero}; expected "
                "bounds for the whole tensor with integer_zero=True"
            )
        self.gate = gate
        self.on = False
        self.register_buffer("spread", torch.tensor(float(spread), dtype=torch.float64))

    def parts(self) -> dict[str, nn.Module]:
        """The gate."""
        return {"gate": self.gate}

    @classmethod
    def rebuild(  # type: ignore[override]
        cls, options: Mapping[str, Any], tensors: Mapping[str, Tensor], parts: Mapping[str, nn.Module]
    ) -> GatedQuantizer:
        """From `options`, the tensors of the state dict and the gate."""
        quantizer = cls(_saved_bounds(options, tensors), parts["gate"], float(tensors["spread"]))
        quantizer.on = options["on"]
        return quantizer.learnable() if options["trainable"] else quantizer

    def static(self) -> UniformQuantizer:
        """The same without its gate."""
        return UniformQuantizer(self.bounds())

    def sample_bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper bound of every sample of `x`, (N,) each, whether the gate is on or not."""
        factors = self.gate(x.detach()).to(self.lower)
        factors = torch.nan_to_num(factors, nan=1.0)
        lower, upper = self.lower * factors[:, 0], self.upper * factors[:, 1]
        least = NARROWEST * (self.upper - self.lower).detach()
        return lower, torch.where(upper - lower < least, lower + least, upper)

    def forward(self, x: Tensor) -> Tensor:
        if not self.on:
            return super().forward(x)
        if x.ndim == -self.gate.axis:  # a single sample
            return self(x[None])[0]  # type: ignore[no-any-return]
        return ComputedBounds(*self.sample_bounds(x), self.bits, axis=0)(x)  # type: ignore[no-any-return]

    def codes(self, x: Tensor) -> Tensor:
        """Integer codes as an int32 tensor, each sample between its own bounds."""
        if not self.on:
            return super().codes(x)
        return ComputedBounds(*self.sample_bounds(x), self.bits, axis=0).codes(x)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, on={self.on}"
