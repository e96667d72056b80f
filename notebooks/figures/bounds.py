"""Figures of "DOBI: finding the bounds"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sqlib.plots import OKABE_ITO

BLUE, RED, ORANGE = OKABE_ITO["blue"], OKABE_ITO["vermilion"], OKABE_ITO["orange"]
PURPLE = OKABE_ITO["purple"]
STYLES = {
    "Min-Max": (RED, "s"),
    "Percentile 99.9": (OKABE_ITO["green"], "^"),
    "DBDC": (PURPLE, "D"),
    "DOBI": (ORANGE, "o"),
    "DOBI, one-sided": (OKABE_ITO["sky"], "v"),
    "mse": ("black", "*"),
}
STEPS = [1, 1.1, 1.3, 1.6, 2, 3, 5, 10, 30, 100]


def _contours(axes: Axes, ends: np.ndarray, error: np.ndarray, candidates: np.ndarray) -> QuadContourSet:
    """The error surface, and the candidates of DOBI on it."""
    norm = BoundaryNorm(STEPS, plt.get_cmap("cividis_r").N, extend="max")
    shown = axes.contourf(ends, ends, error, STEPS, cmap="cividis_r", norm=norm, extend="max")
    axes.plot(*candidates, ".", color="white", ms=6, mec="black", mew=0.4)
    axes.set(xlabel="lower bound", ylabel="upper bound")
    return shown


def surface(
    ends: np.ndarray,
    error: np.ndarray,
    candidates: np.ndarray,
    rules: Mapping[str, tuple[float, float, float]],
) -> Figure:
    """Squared error over all pairs of bounds, DOBI's candidates, and where each rule ends up.

    `error` (upper, lower) is a multiple of mse's between the `ends` (n,), NaN where lower > upper;
    `candidates` (2, T) holds lower and upper bounds, `rules` lower bound, upper bound and error of each rule.
    """
    figure, axes = plt.subplots(figsize=(7, 4.9))
    shown = _contours(axes, ends, error, candidates)
    bar = figure.colorbar(shown, ax=axes, ticks=STEPS, format="%g")
    bar.set_label("squared error, multiple of mse's")
    axes.text(0.97, 0.05, "lower > upper", ha="right", fontsize=9, transform=axes.transAxes)
    axes.plot([], [], "o", color="white", mec="black", ms=4, label="DOBI's candidates")
    for name, (lower, upper, multiple) in rules.items():
        colour, marker = STYLES[name]
        axes.plot(
            lower,
            upper,
            marker,
            color=colour,
            mec="white",
            ms=16 if name == "mse" else 9,
            ls="none",
            label=f"{name}: {multiple:.2f}",
            clip_on=False,
            zorder=3,
        )
    figure.legend(loc="outside lower center", ncols=3, columnspacing=1.2)
    return figure


def search_times(times: pd.DataFrame, passes: int) -> Figure:
    """Seconds of each way to search (columns; 100 passes first) against the number of values (index).

    A dotted line extrapolates the first column to as many `passes`.
    """
    figure, axes = plt.subplots(figsize=(7, 3.6))
    looks = zip(times.items(), (RED, ORANGE, "black"), "so*", strict=True)
    for (name, column), colour, marker in looks:
        axes.plot(times.index, column, marker=marker, ms=8, color=colour, label=name)
    label = f"{passes:,} passes (from the time of 100)"
    axes.plot(times.index, times.iloc[:, 0] * passes / 100, ls=":", color="0.4", label=label)
    axes.set(xscale="log", yscale="log", xlabel="values in the tensor", ylabel="seconds, 4 bits")
    axes.set_xticks(times.index, [f"{n:,}" for n in times.index])
    axes.minorticks_off()
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _panels(
    values: np.ndarray, lowers: Sequence[float], uppers: Sequence[float]
) -> tuple[Figure, Axes, Axes]:
    """An empty figure with two axes, in the same places for background and frames."""
    first, last = float(values.min()), float(values.max())
    margin = 0.03 * (last - first)
    figure = plt.figure(figsize=(7, 3.7), layout="none")
    left = figure.add_axes((0.085, 0.24, 0.36, 0.64))
    right = figure.add_axes((0.55, 0.24, 0.34, 0.64))
    left.set(xlim=(first - margin, last + margin))
    right.set(xlim=(first - margin, lowers[-1] + 3 * margin))
    right.set(ylim=(uppers[0] - 3 * margin, last + margin))
    return figure, left, right


def dragging(
    values: np.ndarray,
    lowers: Sequence[float],
    uppers: Sequence[float],
    ends: np.ndarray,
    error: np.ndarray,
    candidates: np.ndarray,
    rules: Mapping[str, tuple[float, float, float]],
) -> Figure:
    """What stays while bounds are dragged: the histogram of `values`, and the surface with DOBI and mse.

    `lowers` and `uppers` are the bounds to choose from, rising; the others are as for `surface`.
    """
    figure, left, right = _panels(values, lowers, uppers)
    height, edges = np.histogram(values, 120)
    left.stairs(np.maximum(height, 0.5), edges, fill=True, color="0.78")
    left.set(yscale="log", xlabel="value", ylabel="values per bin")
    limits = right.axis()
    shown = _contours(right, ends, error, candidates)
    right.axis(limits)
    for name, size in (("DOBI", 9), ("mse", 14)):
        colour, marker = STYLES[name]
        right.plot(*rules[name][:2], marker, color=colour, mec="white", ms=size, ls="none")
    place = figure.add_axes((0.91, 0.24, 0.015, 0.64))
    figure.colorbar(shown, cax=place, ticks=STEPS, format="%g")
    place.tick_params(labelsize=9)
    figure.text(0.55, 0.93, "squared error (mse: 1)", fontsize=10)
    marks = [Line2D([], [], color=BLUE, label="levels")]
    for text, colour, marker, edge in (
        ("your bounds", BLUE, "X", "white"),
        ("DOBI's candidates", "white", "o", "black"),
        ("DOBI", *STYLES["DOBI"], "white"),
        ("mse", *STYLES["mse"], "white"),
    ):
        marks.append(Line2D([], [], marker=marker, color=colour, label=text, ms=9, mec=edge, ls="none"))
    figure.legend(handles=marks, loc="lower center", ncols=5, columnspacing=1.2)
    return figure


def dragged(
    values: np.ndarray,
    lowers: Sequence[float],
    uppers: Sequence[float],
    pair: tuple[float, float],
    bits: int,
    multiple: float,
) -> Figure:
    """Only what moves over `dragging`: levels, a cross on the surface, the error (a multiple of mse's)."""
    figure, left, right = _panels(values, lowers, uppers)
    for axes in (left, right):
        axes.set_axis_off()
    left.set_ylim(0, 1)
    left.vlines(np.linspace(*pair, 2**bits), 0, 1, color=BLUE, lw=1.3)
    right.plot(*pair, "X", color=BLUE, mec="white", ms=13)
    figure.text(0.085, 0.93, f"error: {multiple:.2f}", color=BLUE)
    return figure


def by_role(ratios: pd.DataFrame, roles: Sequence[str], bits: int, most: float) -> Figure:
    """Squared error of each rule for each tensor as a multiple of mse's, a row per role.

    `ratios` has a row per tensor, the column role and one per rule; the axis ends beyond `most`.
    """
    figure, axes = plt.subplots(figsize=(7, 4.6))
    for k, name in enumerate(ratios.columns.drop("role")):
        colour, marker = STYLES[name]
        place = ratios["role"].map(roles.index) + 0.14 * (k - 2)
        axes.plot(ratios[name], place, marker, color=colour, ms=5, label=name)
    for edge in range(1, len(roles)):
        axes.axhline(edge - 0.5, color="0.85", lw=0.8)
    axes.axvline(1, color="black", lw=1)
    axes.set_yticks(range(len(roles)), roles)
    axes.set(xscale="log", xlabel=f"squared error at {bits} bits, multiple of mse's")
    axes.set_xlim(0.93, 1.1 * most)
    ticks = [t for t in (1, 1.5, 2, 5, 10, 30, 100, 300, 1000) if t < axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=5, columnspacing=1)
    return figure


def asymmetry(ratios: pd.DataFrame) -> Figure:
    """DOBI's error (a multiple of mse's) against the difference of the best pair's two cuts.

    `ratios` has a row per tensor and bit-width, and columns bits, asymmetry (share of the range) and DOBI.
    """
    figure, axes = plt.subplots(figsize=(7, 3.5))
    looks = zip(ratios.groupby("bits", sort=False), (BLUE, ORANGE, PURPLE), "os^", strict=True)
    for (bits, here), colour, marker in looks:
        axes.plot(here["asymmetry"], here["DOBI"], marker, color=colour, ms=5, label=f"{bits} bits")
    axes.set(
        xlabel="difference of the two cuts of the best pair, share of the range",
        ylabel="DOBI's error,\nmultiple of mse's",
        yscale="log",
    )
    ticks = [t for t in (1, 1.2, 1.5, 2, 3, 5, 7, 10, 15, 20, 50) if t < axes.get_ylim()[1]]
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.legend()
    return figure
