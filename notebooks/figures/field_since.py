"""Figures of "The field since: what later papers print"."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from sqlib.plots import OKABE_ITO

COLOURS = ("#888888", *(OKABE_ITO[c] for c in ("sky", "blue", "orange", "vermilion")))


def drops(table: pd.DataFrame) -> Figure:
    """Bars of the drop (dB) of each method, a column of `table`, at each number of bits, a row."""
    figure, axis = plt.subplots(figsize=(7, 3.4))
    width = 0.16
    for place, (method, colour) in enumerate(zip(table, COLOURS, strict=True)):
        x = [group + (place - 2) * width for group in range(len(table))]
        bars = axis.bar(x, table[method], width, label=method, color=colour)
        axis.bar_label(bars, fmt="%.2f", fontsize=7, padding=1)
    axis.set_xticks(range(len(table)), [f"{bits} bits" for bits in table.index])
    axis.set(ylabel="drop from full precision (dB)", ylim=(0, 14))
    axis.legend(ncols=3, frameon=False, loc="upper left")
    return figure
