"""Figures of "2DQuant's tables and figures"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from figures import common
from sqlib.plots import OKABE_ITO

LOOK = {  # one look per method on the whole page: colour, marker, line
    "Min-Max": (OKABE_ITO["black"], "o", "-"),
    "Min-Max, zero point": (OKABE_ITO["black"], "x", ":"),
    "Percentile": (OKABE_ITO["sky"], "s", "--"),
    "DBDC+Pac": (OKABE_ITO["purple"], "D", "--"),
    "DOBI": (OKABE_ITO["orange"], "^", "-"),
    "DOBI, one-sided": (OKABE_ITO["orange"], "x", ":"),
    "2DQuant": (OKABE_ITO["vermilion"], "v", "-"),
    "2DQuant, 300 it.": (OKABE_ITO["blue"], "v", ":"),
    "mse (ours)": (OKABE_ITO["green"], "P", "-"),
    "mse + 300 it. (ours)": (OKABE_ITO["green"], "*", ":"),
}
HOW: dict[str, Any] = {"look": LOOK, "bits": (4, 3, 2), "edge": 0.15, "minor_ticks": True}


def printed_drops(rows: pd.DataFrame) -> Figure:
    """Drops (dB) against bits, as printed; `rows` has the columns method, bits and drop."""
    return common.drops(rows, title="SwinIR-light x4 on Set5, as printed", **HOW)


def drop_panels(networks: Mapping[str, pd.DataFrame]) -> Figure:
    """Drops (dB) against bits, a panel per network; rows with the columns method, bits and drop."""
    legend = {"ncols": 3, "handlelength": 3}
    return common.drop_panels(networks, height=4.4, room=(0.11, 0.74), ylim=(0.08, 30), legend=legend, **HOW)


def operations(counts: Mapping[str, Mapping[str, float]]) -> Figure:
    """Operations (G) at four widths, quantized and not, a bar per way to count.

    A count has the parts Conv, Other and Linear&BMM at 32 bits; the last alone shrinks with the bits.
    """
    figure, axes = plt.subplots(figsize=(7, 3.2))
    places, bits = np.arange(4), (32, 4, 3, 2)
    for (title, count), shift, hatch in zip(counts.items(), (-0.19, 0.19), ("", "///"), strict=True):
        fixed = [count["Conv"] + count["Other"]] * 4
        moving = [b / 32 * count["Linear&BMM"] for b in bits]
        look: dict[str, Any] = {"width": 0.34, "edgecolor": "white", "hatch": hatch}
        for part, height, bottom, colour in (
            ("full precision", fixed, 0, OKABE_ITO["vermilion"]),
            ("quantized", moving, fixed, OKABE_ITO["blue"]),
        ):
            axes.bar(places + shift, height, bottom=bottom, color=colour, label=f"{part}, {title}", **look)
    axes.set_xticks(places, [f"{b} bits" for b in bits])
    axes.set(ylabel="operations (G)", title="SwinIR-light x4, 128 x 128 pixels")
    axes.legend(fontsize=9)
    return figure
