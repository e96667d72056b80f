"""DFSQ: normalized activations on freely placed points of a universal set, without any training."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

from sqlib._checks import FULL_PRECISION
from sqlib.engine.options import choice, flag, integer
from sqlib.engine.recipe import Observer, Recipe
from sqlib.engine.registry import register
from sqlib.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from sqlib.engine.model import QuantizedModel
    from sqlib.engine.site import Site

#: The inputs that DFSQ's release does not centre: EDSR's second convolution of every residual block.
RELEASE_POST_RELU = ("blocks.*.conv2",)

# How many values of a universal set lie within [-reach, reach], by reach and words: this file needs no numpy
_SIZES = {1.0: {2: 29, 3: 107, 4: 377, 5: 1295}, 0.5: {2: 19, 3: 83, 4: 293, 5: 1105}}


@register("dfsq")
@dataclass(frozen=True)
class DFSQ(Recipe):
    """Distribution-Flexible Subset Quantization (Zhong et al. 2023, arXiv 2305.05888).

    The defaults are the authors' released code. The paper as written (k-means judged before snapping, Eq. 1
    centres every layer) is ``DFSQ.variant("paper", bits)``, and ``DFSQ.variant("exact", bits)`` takes the
    points of the least error that the universal set allows; both are short for the options in `VARIANTS`.

    Parameters
    ----------
    bits : int or tuple of int
        One bit-width, or (weight bits, activation bits); see `Recipe`.
    words : int
        Word sets of the universal set: 2, 3, 4 or 5 for 29, 107, 377 or 1,295 points to choose from.
    selector : str
        How points are chosen: "release" (k-means with a centre pinned at 0, 5 restarts, judged after
        snapping), "kmeans" (the paper: 3 restarts, judged before snapping) or "exact".
    channelwise : bool
        Statistics per sample and channel; False: per sample, over all channels.
    normalize : str
        "dynamic": every plane by its own mean and largest magnitude, at calibration and at inference.
        "static": by the largest magnitude in the calibration data, without centring; larger values are
        clipped. "none": values as they are, clipped to [-1, 1].
    points_per : str
        "channel": a set of points for every input channel; "layer": one for all.
    post_relu : str
        Which layers are not centred. "release": EDSR's second convolution in every block (by name, and only
        if calibration shows no negative value); "auto": every one without a negative value; "never": none.
    statistics : str
        "image": over the whole plane, at whatever size it comes. "patch": over tiles of `patch` pixels, the
        size the points were calibrated for.
    patch : int
        Tile side in the layer's own pixels, for ``statistics="patch"``.
    seed : int
        Of the k-means restarts (the release does not seed them).

    Notes
    -----
    Weights: Min-Max per output channel, as in `MinMax`.

    DFSQ's Table 1 switches its parts off without saying what takes their place. Our reading:
    ``channelwise=False, points_per="layer"`` is its row "normalization only"; the two rows without
    normalization, which collapse, are ``normalize="none"`` (literally), or ``normalize="static"`` (mildly:
    a fixed scale brings the values into the range of the points).

    Layers that are no convolutions are beyond the paper. Linear layers: the last axis holds the channels, the
    first one the samples, and a plane runs over the axes between. Operands of matrix products: statistics per
    sample, one set of points; of a matrix, the rows are samples, or the columns where it stands on the right.

    A plane of one value, as in squeeze-and-excite (N, C, 1, 1) and in a linear layer (N, C), would be
    restored exactly at any number of bits, and so would two values with their mean. There a plane is the
    whole sample, over all channels, with one set of points. A sample of no more values than it has statistics
    stays in full precision, and the report says so.
    """

    VARIANTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "release": {"selector": "release", "post_relu": "release"},
        "paper": {"selector": "kmeans", "post_relu": "never"},
        "exact": {"selector": "exact"},
    }

    words: int = choice(4, 2, 3, 5)
    selector: str = choice("release", "kmeans", "exact")
    channelwise: bool = flag(True)
    normalize: str = choice("dynamic", "static", "none")
    points_per: str = choice("channel", "layer")
    post_relu: str = choice("release", "auto", "never")
    statistics: str = choice("image", "patch")
    patch: int = integer(48, 1)
    seed: int = integer(0, 0, 2**63 - 1)

    def check(self) -> Mapping[str, Any]:
        """The points must be enough for the bits, and tiles need statistics of their own."""
        levels, reach = 1 << self.activation_bits, self._reach()
        size = _SIZES[reach][self.words]
        if self.activation_bits != FULL_PRECISION and levels > size:
            within = "" if reach == 1 else f" up to {reach}"
            raise InputError(
                f"bits={self.activation_bits} for activations needs {levels} points, the universal set of "
                f"{self.words} word sets has {size}{within}; use fewer bits or more words"
            )
        if self.normalize != "dynamic" and self.statistics == "patch":
            raise InputError(
                f"statistics='patch' needs normalize='dynamic', it is {self.normalize!r}; "
                "give statistics='image'"
            )
        return {}

    @classmethod
    def variant(cls, name: str, bits: int | tuple[int, int] = 8, **options: Any) -> DFSQ:
        """The recipe by the name of its source: "release", "paper" or "exact"; `options` override.

        Raises
        ------
        InputError
            For another name.
        """
        if name not in cls.VARIANTS:
            raise InputError(f"variant {name!r}: expected one of {', '.join(map(repr, cls.VARIANTS))}")
        return cls(bits, **{**cls.VARIANTS[name], **options})

    def weight_quantizer(self, weight: NDArray[np.float64], site: Site) -> nn.Module | None:
        """Min-Max per output channel."""
        from sqlib.codebook import fit_bounds
        from sqlib.quantizers import UniformQuantizer

        return UniformQuantizer(fit_bounds(weight, self.weight_bits, axis=site.weight_axis, method="minmax"))

    def activation_observer(self, site: Site, operand: str) -> Observer | None:
        """Lattice histogram of the normalized activations."""
        from sqlib.quantizers.subset_observer import SubsetObserver

        axis = _channel_axis(site.op)
        return SubsetObserver(
            self.activation_bits,
            axis=axis,
            words=self.words,
            selector=self.selector,
            per_channel=self.points_per == "channel",
            channelwise=self.channelwise,
            centre=self._centre(site),
            normalize=self.normalize,
            patch=self.patch if self.statistics == "patch" and axis == -3 else None,
            reach=self._reach(),
            seed=self.seed,
            sample_axis=_sample_axis(site, operand),
        )

    def refine(
        self, model: QuantizedModel, calibration: Sequence[Any], resume: str | PathLike[str] | None = None
    ) -> None:
        """Say in the report where planes had too few values."""
        from torch import nn

        for site in model.sites.values():
            for role in site.activation_keys:
                found = model.activation_quantizer(site, role)
                if isinstance(found, nn.Identity):
                    site.rule += f"; {role} in full precision: too few values in a sample"
                elif self.channelwise and not getattr(found, "channelwise", True):
                    site.rule += f"; {role} normalized per sample: too few values in a plane"

    def _reach(self) -> float:
        """Where the largest magnitude of a plane goes in the universal set; in DFSQ always to 1."""
        return 1.0

    def _centre(self, site: Site) -> bool | None:
        """True, or None where the calibration data decides."""
        if self.post_relu == "auto":
            return None
        named = any(fnmatchcase(site.name, pattern) for pattern in RELEASE_POST_RELU)
        return None if self.post_relu == "release" and named else True


def _channel_axis(op: str) -> int | None:
    """conv2d (..., C, H, W): -3, and so on; linear: -1; products of activations: none."""
    if op.startswith("conv"):
        return -1 - int(op[-2])
    return -1 if op == "linear" else None


def _sample_axis(site: Site, operand: str) -> int:
    """Attention projects sequences (L, N, C); a matrix on the right has its samples in columns."""
    if site.op == "linear":
        return 1 if site.module_type == "MultiheadAttention" else 0
    return -1 if operand == "right" else 0
