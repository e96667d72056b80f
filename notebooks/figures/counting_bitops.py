"""Figures of "Counting BitOPs"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from figures.common import stacked_bars
from sqlib.patches import Grid
from sqlib.plots import OKABE_ITO

BLUE, RED = OKABE_ITO["blue"], OKABE_ITO["vermilion"]
ORANGE, SKY = OKABE_ITO["orange"], OKABE_ITO["sky"]


def patches(grid: Grid) -> Figure:
    """The patches of an image with their sizes and pixels; strips that two of them share are orange."""
    figure, axis = plt.subplots(figsize=(7, 4.0))
    axis.grid(False)
    largest = max(box.width * box.height for box in grid.boxes)
    for box in grid.boxes:
        size, area = (box.width, box.height), box.width * box.height
        look = {"facecolor": SKY, "alpha": 0.15 + 0.45 * area / largest}
        axis.add_patch(Rectangle((box.left, box.top), *size, **look))
        left = box.left + grid.overlap * (box.left > 0)
        right = box.right - grid.overlap * (box.right < grid.width)
        bottom = box.bottom - grid.overlap * (box.bottom < grid.height)
        middle = (left + right) / 2, (box.top + bottom) / 2
        axis.annotate(f"{box.width} x {box.height}\n{area:,}", middle, ha="center", va="center")
    for (_, end), (start, _) in pairwise(grid.columns):
        axis.add_patch(Rectangle((start, 0), end - start, grid.height, color=RED, lw=0))
    for (_, end), (start, _) in pairwise(grid.rows):
        axis.add_patch(Rectangle((0, start), grid.width, end - start, color=RED, lw=0))
    axis.set(xlim=(0, grid.width), ylim=(grid.height, 0), aspect="equal")
    axis.set(xlabel="column (low-resolution pixels)", ylabel="row (low-resolution pixels)")
    axis.set_xticks([*(start for start, _ in grid.columns), grid.width])
    axis.set_yticks([*(start for start, _ in grid.rows), grid.height])
    return figure


def price_table(counted: Mapping[str, str], printed: Mapping[str, tuple[str, Sequence[str]]]) -> pd.DataFrame:
    """A row per quantity: its value, and for those that are `printed` the text in print and its places."""
    rows = []
    for quantity, value in counted.items():
        text, where = printed.get(quantity, ("", ()))
        rows.append((quantity, value, text, ", ".join(dict.fromkeys(where)), "match" if text else ""))
    return pd.DataFrame(rows, columns=["quantity", "counted", "printed", "where", "verdict"])


def shares(parts: pd.DataFrame) -> Figure:
    """Stacked bars, one per column of `parts`: what each of its four rows has of the BitOPs, in percent."""
    figure, axis = plt.subplots(figsize=(7, 2.9))
    stacked_bars(axis, parts.T, (RED, ORANGE, BLUE, "#777777"), edgecolor="white")
    for bars, hatch in zip(axis.containers, ("", "//", "", "xx"), strict=True):
        for bar in bars:
            bar.set_hatch(hatch)
    axis.invert_yaxis()
    axis.set(xlabel="share of the BitOPs (%)", xlim=(0, 100))
    axis.grid(False, axis="y")
    figure.legend(loc="outside lower center", ncols=4, columnspacing=1)
    return figure
