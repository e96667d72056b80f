"""Figures of "Deploying"."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from sqlib.plots import OKABE_ITO

BELOW = ("entropy", "bfloat16", "torch float32")  # the ends of names that stand below their mark


def speed_and_loss(table: pd.DataFrame, ours: str) -> Figure:
    """PSNR lost (dB) against speed, a named mark per row; the row `ours` stands out.

    `table` has the columns times (multiple of torch float32) and lost (dB).
    """
    figure, axis = plt.subplots(figsize=(7, 3.8))
    for name, row in table.iterrows():
        place = row["times"], row["lost"]
        marker, colour = ("D", OKABE_ITO["blue"]) if name == ours else ("o", "0.5")
        axis.plot(*place, marker, ms=9, color=colour)
        shift = (0, -17 if name.endswith(BELOW) else 9)
        axis.annotate(name, place, xytext=shift, textcoords="offset points", ha="center", fontsize=9)
    axis.margins(0.25, 0.3)
    axis.invert_yaxis()
    axis.set(xlabel="speed, multiple of torch float32", ylabel="PSNR lost on Set5 (dB)")
    return figure
