"""Figures of "DFSQ's tables and figures"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from figures import common
from sqlib.plots import OKABE_ITO

HOW: dict[str, Any] = {  # one look per method on the whole page: colour, marker, line
    "look": {
        "Min-Max": (OKABE_ITO["black"], "o", "-"),
        "BRECQ": (OKABE_ITO["sky"], "s", "--"),
        "QDrop": (OKABE_ITO["purple"], "D", "--"),
        "BRECQ, 500 it.": (OKABE_ITO["blue"], "s", ":"),
        "QDrop, 500 it.": (OKABE_ITO["orange"], "D", ":"),
        "DFSQ": (OKABE_ITO["vermilion"], "^", "-"),
        "ours": (OKABE_ITO["green"], "v", "-"),
    },
    "bits": (8, 6, 4, 3),
    "edge": 0.4,
    "minor_ticks": False,
}


def printed_drops(rows: pd.DataFrame) -> Figure:
    """Drops (dB) against bits, as printed; `rows` has the columns method, bits and drop."""
    return common.drops(
        rows,
        title="EDSR x4 on Set5, as printed",
        ylabel="drop from full precision (dB),\nless is better",
        **HOW,
    )


def drop_panels(networks: Mapping[str, pd.DataFrame]) -> Figure:
    """Drops (dB) against bits, a panel per network; rows with the columns method, bits and drop."""
    legend = {"ncols": 4, "handlelength": 3.2}
    return common.drop_panels(networks, height=4.2, room=(0.115, 0.78), ylim=(8e-4, 15), legend=legend, **HOW)


def word_sets(networks: Mapping[str, Mapping[str, pd.Series]], printed: Mapping[int, float]) -> Figure:
    """PSNR less that of four word sets (dB) against the number of word sets, a panel per network.

    Of each network and of print: number of word sets to dB; of a network once per way to choose points,
    "release" and "exact".
    """
    figure, panels = plt.subplots(1, len(networks), figsize=(7, 3.6), sharey=True, layout="none")
    figure.subplots_adjust(0.11, 0.14, 0.99, 0.8, wspace=0.06)
    for axes, (network, lines) in zip(panels, networks.items(), strict=True):
        axes.axhline(0, color="0.6", lw=0.8)
        axes.plot(*zip(*printed.items()), "o--", color="black", label="printed")
        release, exact = lines["release"], lines["exact"]
        axes.plot(release, color=OKABE_ITO["vermilion"], marker="^", label="k-means (release)")
        axes.plot(exact, color=OKABE_ITO["blue"], marker="v", label="exact points")
        axes.set(title=network, xlabel="word sets W", xticks=[2, 3, 4, 5])
    panels[0].set_ylabel("PSNR less that of DFSQ with W = 4 (dB)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="upper center", ncols=3)
    return figure
