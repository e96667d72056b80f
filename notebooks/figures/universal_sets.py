"""Figures of "Universal sets and the subset quantizer"."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sqlib.codebook.universal import UniversalSet
from sqlib.plots import OKABE_ITO

BLUE, RED, ORANGE = OKABE_ITO["blue"], OKABE_ITO["vermilion"], OKABE_ITO["orange"]


def _density(axis: Axes, x: np.ndarray, bins: int = 161, color: str = "0.8") -> float:
    """Draw the histogram of values in [-1, 1]; its greatest density."""
    height, edges = np.histogram(x, bins, range=(-1, 1), density=True)
    axis.stairs(height, edges, fill=True, color=color)
    return height.max()


def even_and_chosen(x: np.ndarray, levels: Mapping[str, np.ndarray], label: str) -> Figure:
    """The histogram of `x` twice, under even and under chosen levels; `levels` maps a title to the points."""
    figure, panels = plt.subplots(2, 1, figsize=(7, 4.2), sharex=True)
    for axis, colour, (title, points) in zip(panels, (RED, BLUE), levels.items()):
        _density(axis, x)
        axis.vlines(points, 0, 0.92 * axis.get_ylim()[1], colour, lw=1.8)
        axis.set(ylabel="density", title=title, xlim=(-1.03, 1.03))
    panels[1].set_xlabel(label)
    return figure


def channels(shown: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Histograms of six channels with their chosen levels below; a title maps to values and points."""
    figure, panels = plt.subplots(2, 3, figsize=(7, 4.3), sharex=True, gridspec_kw={"hspace": 0.08})
    for axis, (title, (x, points)) in zip(panels.flat, shown.items(), strict=True):
        _density(axis, x, 81, "0.75")
        top = axis.get_ylim()[1]
        axis.vlines(points, -0.16 * top, -0.03 * top, BLUE, lw=1)
        axis.set(ylim=(-0.2 * top, top), xticks=[-1, 0, 1])
        axis.set_title(title, fontsize=10)
    for axis in panels[:, 0]:
        axis.set_ylabel("density")
    panels[1, 1].set_xlabel("normalized activation; ticks below: 16 chosen levels")
    return figure


def word_sets(candidates: UniversalSet, example: Fraction, x: np.ndarray, points: np.ndarray) -> Figure:
    """Word sets and the elements that form `example`, all candidates, and the `points` chosen for `x`."""
    elements = candidates.decomposition(example).elements
    figure, (words, line, picked) = plt.subplots(
        3, 1, figsize=(7, 5.6), height_ratios=(1.75, 0.75, 1.9), layout="none"
    )
    figure.subplots_adjust(0.1, 0.09, 0.985, 0.995, hspace=0.22)
    words.set(xlim=(0, 10), ylim=(-0.1, 4.1))
    words.axis("off")
    for k, word_set in enumerate(candidates.word_sets):
        words.text(0.1, 3.5 - k, f"word set {k + 1}", va="center")
        for j, element in enumerate(word_set):
            face, ink = (RED, "white") if element == elements[k] else ("#eeeeee", "black")
            box = {"boxstyle": "round,pad=0.3", "facecolor": face, "edgecolor": "none"}
            place = 2.4 + 1.15 * j, 3.5 - k
            words.text(*place, str(element), ha="center", va="center", color=ink, bbox=box)
    words.text(6.6, 2.4, f"({' + '.join(map(str, elements))}) / 4", va="center", color=RED)
    words.text(6.6, 1.6, f"= {example} = {float(example)}", va="center", color=RED)
    line.vlines(candidates.values, 0, 1, "0.35", lw=0.6)
    line.plot(float(example), 1.25, "v", color=RED, ms=8)
    line.set(yticks=[], ylim=(0, 1.5), ylabel=f"{len(candidates)} values")
    _density(picked, x)
    picked.vlines(points, 0, 0.95 * picked.get_ylim()[1], BLUE, lw=1.5)
    picked.set(xlabel="normalized activation", ylabel="density")
    for axis in (line, picked):
        axis.set_xlim(-1.03, 1.03)
        axis.grid(False)
    line.spines["left"].set_visible(False)
    return figure


def adders(share: pd.DataFrame, mean: pd.Series) -> Figure:
    """Bars of the share (%) of products that need 0 to 3 adders; a column per group, `mean` in the legend."""
    figure, axis = plt.subplots(figsize=(7, 2.9))
    styles = zip(share.columns, ("#888888", BLUE, ORANGE), ("", "//", ".."), strict=True)
    for i, (name, colour, hatch) in enumerate(styles):
        look = {"color": colour, "hatch": hatch, "edgecolor": "white"}
        label = f"{name} (mean {mean[name]:.2f})"
        axis.bar(share.index + 0.27 * (i - 1), share[name], 0.25, label=label, **look)
    axis.set(xticks=range(4), xlabel="two-input adders in a product", ylabel="share (%)")
    axis.legend(loc="upper left")
    return figure


def subset(x: np.ndarray, candidates: np.ndarray, points: np.ndarray, sqnr: float) -> Figure:
    """The points chosen for `x` on its histogram, all candidates below; SQNR (dB) in the title."""
    figure, axis = plt.subplots(figsize=(7, 3.2), layout="none")
    figure.subplots_adjust(0.08, 0.15, 0.985, 0.91)
    top = 1.1 * _density(axis, x)
    axis.vlines(candidates, -0.24 * top, -0.06 * top, "0.35", lw=0.5)
    axis.vlines(points, 0, top, BLUE, lw=1.1)
    axis.set(xlim=(-1.03, 1.03), ylim=(-0.28 * top, 1.03 * top))
    axis.set(xticks=np.linspace(-1, 1, 5), yticks=range(0, round(top), 2))
    axis.set(xlabel="normalized activation", ylabel="density")
    axis.set_title(f"{candidates.size:,} values, {points.size} levels: {sqnr:.1f} dB")
    return figure
