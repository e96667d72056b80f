"""Exact points per tile and error-compensated weights: both halves of DFSQ improved, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

from sqlib._checks import FULL_PRECISION
from sqlib.engine.options import choice, flag, integer, number, option
from sqlib.engine.registry import register
from sqlib.errors import InputError
from sqlib.recipes.dfsq import _SIZES, DFSQ

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from sqlib.engine.model import QuantizedModel
    from sqlib.engine.site import Site

# From here on the universal set of four word sets is too coarse, and every one is towards its ends.
_MANY_BITS = 6


def _check_reach(name: str, value: Any) -> float:
    if isinstance(value, bool) or value not in _SIZES:
        raise InputError(f"{name}={value!r}: expected 1 or 0.5")
    return float(value)


@register("dfsq-compensated")
@dataclass(frozen=True)
class CompensatedDFSQ(DFSQ):
    """DFSQ's activations with exactly chosen points, and weights rounded with error compensation.

    DFSQ leaves its weights at Min-Max; on light networks that is where most of its loss sits. Its
    activations share one mean and one magnitude per plane, however large the image; here a tile of the plane
    has its own (block scaling, as in Dai et al. 2021), with the same points for all. Each
    layer's weights are fitted, one layer after the other, to give the layer's full-precision outputs from the
    quantized inputs it will see (`sqlib.fit.compensation.rows`): least squares, then compensated rounding on
    a grid of least-squares scale, then the bias. No labels and no gradients.

    Parameters
    ----------
    words : int
        As in `DFSQ`; None: 4, and 5 from 6 bits on. A plane without negative values has only 189 of the 377
        points of four word sets to choose from, too few for 64 levels to lie where they are needed.
    reach : float
        Where the largest magnitude goes in the universal set, 1 or 0.5; None: 1, and 0.5 from 6 bits on
        (with ``normalize="dynamic"``). Beyond 0.5 the set is sparse: of the 648 values of five word sets that
        are not negative, 553 lie up to there. A power of two, it costs nothing.
    statistics : str
        As in `DFSQ`; here tiles of 16 x 16 pixels. A mean and a magnitude of 16 bits each are 0.125 bit for
        every activation of a tile, and no tile waits for the rest of its plane.
    bits, selector, channelwise, normalize, points_per, post_relu, patch, seed
        As in `DFSQ`, with other defaults: exact points, and no centring wherever no value is negative.
    retarget : bool
        Move the weights to the least-squares solution for the quantized inputs before rounding.
    compensate : bool
        Round with error compensation; False: to the nearest level of the grid of least squared weight error.
    correct_bias : bool
        Set the bias so that the mean output is that of full precision (layers with a bias of their own).
    positions : int
        How many positions of the calibration feature maps each layer is fitted on, at most; drawn once,
        always the same.
    ridge : float
        Holds re-targeted weights near the original ones and damps the rounding, in units of the mean squared
        input.
    repeats : int
        Rounds of fitting where a weight is used at several call sites; other networks need one.

    Notes
    -----
    Compensated are convolutions (2D) and linear layers whose weight is their second argument; other weights
    are rounded to the nearest level, on a grid of least squared error. All three switches off leave exact
    points with least-squares weight clipping; with ``statistics="image", words=4, reach=1`` as well, that is
    the fair baseline beside DFSQ.

    Calibration tensors of one size are run as one batch; memory grows with their number, and `positions`
    outputs of every layer are kept (270 MB for EDSR-baseline). Sizes that differ, tuples and dictionaries
    stay batches of their own; then each layer takes a pass over the data that stops at it, so the time grows
    with the square of the depth.

    Options left out are filled in when the recipe is made: ``dataclasses.replace(recipe, bits=...)`` keeps
    the `words` and `reach` that suited the old bits.
    """

    spellings: ClassVar[tuple[str, ...]] = ("compensated",)
    version: ClassVar[int] = 2  # 1 took its statistics over whole planes by default

    words: int = option(None, choice(4, 2, 3, 5).metadata["check"])
    selector: str = choice("exact", "release", "kmeans")
    post_relu: str = choice("auto", "release", "never")
    reach: float = option(None, _check_reach)
    statistics: str = choice("patch", "image")
    patch: int = integer(16, 1)
    retarget: bool = flag(True)
    compensate: bool = flag(True)
    correct_bias: bool = flag(True)
    positions: int = integer(32768, 1)
    ridge: float = number(0.01, 0, above=True)
    repeats: int = integer(3, 1)

    def defaults(self) -> Mapping[str, Any]:
        """More words from 6 bits on, and only the dense half of what they can say."""
        bits = 0 if self.activation_bits == FULL_PRECISION else self.activation_bits
        many = bits >= _MANY_BITS
        found = {"words": 5 if many else 4, "reach": 0.5 if many and self.normalize == "dynamic" else 1.0}
        return {name: value for name, value in found.items() if getattr(self, name) is None}

    def check(self) -> Mapping[str, Any]:
        """As in `DFSQ`; and a reach below 1 needs normalized values."""
        if self.reach != 1 and self.normalize != "dynamic":
            raise InputError(
                f"reach={self.reach} needs normalize='dynamic', it is {self.normalize!r}; give reach=1"
            )
        return super().check()

    def _reach(self) -> float:
        return self.reach

    def weight_quantizer(self, weight: NDArray[np.float64], site: Site) -> nn.Module | None:
        """Nearest level of the grid of least squared weight error, per output channel."""
        from dataclasses import replace

        import numpy as np

        from sqlib.codebook import fit_bounds
        from sqlib.fit.compensation.rows import fit_nearest
        from sqlib.quantizers import UniformQuantizer

        axis = site.weight_axis
        if axis is None:
            return UniformQuantizer(fit_bounds(weight, self.weight_bits, method="mse"))
        rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
        return UniformQuantizer(replace(fit_nearest(rows, self.weight_bits)[0], axis=axis))

    def refine(
        self, model: QuantizedModel, calibration: Sequence[Any], resume: str | PathLike[str] | None = None
    ) -> None:
        """Fit the weights."""
        from sqlib.fit.compensation.passes import Options, compensate_weights

        super().refine(model, calibration)
        if self.weight_bits != FULL_PRECISION and (self.retarget or self.compensate or self.correct_bias):
            compensate_weights(model, calibration, Options(**{n: getattr(self, n) for n in Options._fields}))
