"""Operations as 2DQuant prints them: linear in the bits, with two slips on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlib._checks import FULL_PRECISION
from sqlib.cost._results import Cost, LayerCost
from sqlib.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

MB = 10**6
"""Bytes of a megabyte."""
MIB = 2**20
"""Bytes of a mebibyte."""
COUNTINGS = ("exact", "swinir-release")
_ROWS = {"linear": "Linear&BMM", "matmul": "Linear&BMM", "conv": "Conv", "norm": "Other"}


def operations(found: Cost, *, counting: str = "exact") -> pd.DataFrame:
    r"""Operations by kind, as in 2DQuant's Table 2.

    Parameters
    ----------
    found : Cost
        What `sqlib.cost.cost` counted, at any bits.
    counting : str
        ``"exact"``: every convolution, linear layer and matrix product as it runs, and an operation per
        normalized element ("Other").

        ``"swinir-release"``: for SwinIR, with the slips of the FLOPs function in its official code, which
        2DQuant's Table 2 inherits. The convolution after the body, 3 x 3 and C to C channels, is charged
        3 C^2 multiplications a pixel instead of 9 C^2; the upsampler's convolution, C to 3 s^2 channels,
        lacks the factor s^2 and stands under "Other"; the normalizations before and after the body are left
        out. At x4 the convolutions so come to 142,020 MACs a pixel instead of 189,540: 2.33 G at 128 x 128
        instead of 3.11 G.

    Returns
    -------
    pandas.DataFrame
        Rows ``Linear&BMM``, ``Conv``, ``Other``, ``Total``; columns ``ops`` (32-bit multiply-accumulates; of
        a product at b bits b/32, b the wider of its factors) and ``percent`` of the total.

    Raises
    ------
    InputError
        An unknown counting, or ``"swinir-release"`` for another network than SwinIR.

    Notes
    -----
    2DQuant's Tables 1 and 2 count multiply-accumulates of SwinIR-light at 128 x 128 low-resolution pixels,
    one each (not two), and a product at b bits as b/32 of one:
    :math:`\mathrm{Ops} = \sum_i \mathrm{MACs}_i\,b_i/32`. RefQSR and CADyQ multiply the widths of both
    factors instead, so their G are another unit. That the upsampler stands under "Other", and which
    normalizations count, is inferred from the printed percentages.

    *Units of size.* G is :math:`10^9` throughout, but the sizes of Table 1 are mixed: the 3.42 "MB" of
    SwinIR-light in full precision are MiB (897,228 values of 4 bytes, over 2^20), while its 1.17 MB at 4
    bits, and EDSR's 172.36, are :math:`10^6` bytes. In one unit the ratio is 3.07, and 3.60 at 2 bits as in
    the paper's abstract; the two printed sizes would give 2.92.
    """
    import pandas as pd

    if counting not in COUNTINGS:
        raise InputError(f"counting={counting!r}: expected one of {', '.join(COUNTINGS)}")
    if counting == "swinir-release":
        rows = _as_released(found)
    else:
        rows = [(_ROWS[layer.kind], layer, layer.macs) for layer in found.layers]
    ops = dict.fromkeys(dict.fromkeys(_ROWS.values()), 0.0)
    for row, layer, macs in rows:
        ops[row] += macs * max(layer.left_bits, layer.right_bits) / FULL_PRECISION
    ops["Total"] = sum(ops.values())
    percent = {row: 100 * value / ops["Total"] for row, value in ops.items()}
    return pd.DataFrame({"ops": ops, "percent": percent})


def _as_released(found: Cost) -> list[tuple[str, LayerCost, int]]:
    if found.network != "SwinIR":
        raise InputError(f"counting='swinir-release' is for SwinIR, the network is {found.network}")
    rows = []
    for layer in found.layers:
        if layer.site == "body_end":
            rows.append(("Conv", layer, layer.macs // 3))
        elif layer.site.startswith("upsampler"):
            rows.append(("Other", layer, layer.macs // found.scale**2))
        elif layer.site not in ("embed_norm", "norm"):
            rows.append((_ROWS[layer.kind], layer, layer.macs))
    return rows
