"""Figures of "Scoreboard: every printed value, and what became of it"."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from figures.common import stacked_bars
from sqlib.plots import OKABE_ITO

VERDICTS = {
    "match": OKABE_ITO["green"],
    "close": OKABE_ITO["sky"],
    "shape": OKABE_ITO["orange"],
    "gap": OKABE_ITO["vermilion"],
    "not run": "#BBBBBB",
}


def verdicts(tables: pd.DataFrame) -> Figure:
    """The printed values of each table by verdict; the text at a bar is run of printed.

    `tables` has a row per table, and the columns values and one per verdict.
    """
    figure, axis = plt.subplots(figsize=(7, 4.2))
    stacked_bars(axis, tables[list(VERDICTS)], VERDICTS.values(), edgecolor="white")
    for place, (count, waiting) in enumerate(zip(tables["values"], tables["not run"], strict=True)):
        axis.text(count + 5, place, f"{count - waiting} of {count}", va="center")
    axis.set_xlim(0, tables["values"].max() * 1.22)
    axis.invert_yaxis()
    axis.set(xlabel="printed values", ylabel="table")
    figure.legend(loc="outside lower center", ncols=5, title="verdict")
    return figure
