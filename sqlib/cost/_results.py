"""What a count gives: one row for each product, and the sums."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from sqlib.cost._storage import Stored

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LayerCost:
    r"""One product of the network, over all patches of the image.

    Attributes
    ----------
    site, op, kind : str
        As in `sqlib.cost.Product`; kind "norm" counts elements, not products. The op "fixed" is a fixed
        convolution of the release in front of that site (``counting="printed"``), at the site's bits.
    quantized : bool
        Whether the site is one of those that are quantized; the papers count these only.
    macs : int
        Multiply-accumulates.
    left_bits, right_bits : float
        Bits of the two factors: activation and weight, or two activations; 32 is full precision. Where they
        differ from patch to patch, their means.
    bitops : float
        RefQSR's BitOPs, :math:`2\,\mathrm{MACs}\,b_l b_r/32^2`, in 32-bit operations, patch by patch.
    """

    site: str
    op: str
    kind: str
    quantized: bool
    macs: int
    left_bits: float
    right_bits: float
    bitops: float


@dataclass(frozen=True)
class Cost:
    """The cost of one image; made by `sqlib.cost.cost`.

    Attributes
    ----------
    network : str
        Class name of the network.
    scale : int
        Its upscaling factor.
    image_size : tuple of int
        Width and height of the output, in pixels.
    patches : int
        Number of patches (1: the whole image at once).
    pixels : int
        Low-resolution pixels that the network sees, overlaps counted every time.
    params : int
        Learnable parameters, whatever their bits.
    packed_bytes : int
        Weights at their bits, everything else as the network holds it (4 bytes a float32). A weight that is
        used at several widths is stored at each, or in full precision where that is less.
    quantizer_bytes : int
        Bounds, scales and points of a quantized model's quantizers and parameters of its selectors, 4 bytes
        each, beside the codes, which are in `packed_bytes`; 0 where bits are planned.
    macs : int
        Multiply-accumulates of all convolutions, linear layers and matrix products, quantized or not, as
        ``counting`` says. One multiplication with its addition is one; papers that count operations count
        two.
    bitops : float
        Sum of `LayerCost.bitops` over the layers that were asked for; not in thousands of millions.
    fqr : float
        Feature quantization ratio: mean bits of the activations that are quantized, every operand of a call
        site and every patch alike, whatever its size (CADyQ); 32 where none is.
    peak_bytes : int
        Packed weights, and the most bytes of activations that are alive at once in the pass over the largest
        patch, held in the network's own type: what a fake-quantized network needs.
    uncounted : tuple of str
        Call sites whose products sqlib cannot count (recurrent layers and the like).
    layers : tuple of LayerCost
        The products, in the order of the calls.
    stored : tuple of Stored
        The tensors that make up `packed_bytes`.
    """

    network: str
    scale: int
    image_size: tuple[int, int]
    patches: int
    pixels: int
    params: int
    packed_bytes: int
    quantizer_bytes: int
    macs: int
    bitops: float
    fqr: float
    peak_bytes: int
    uncounted: tuple[str, ...]
    layers: tuple[LayerCost, ...]
    stored: tuple[Stored, ...]

    def frame(self) -> pd.DataFrame:
        """One row per product: the fields of `LayerCost`."""
        import pandas as pd

        return pd.DataFrame([asdict(layer) for layer in self.layers])

    def storage(self) -> pd.DataFrame:
        """One row per stored tensor: the fields of `Stored`."""
        import pandas as pd

        return pd.DataFrame([asdict(tensor) for tensor in self.stored])
