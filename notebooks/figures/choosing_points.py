"""Figures of "Choosing points: exhaustive, k-means, exact"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sqlib.plots import OKABE_ITO

BLUE, RED = OKABE_ITO["blue"], OKABE_ITO["vermilion"]
GREEN, ORANGE = OKABE_ITO["green"], OKABE_ITO["orange"]
LOOK = {  # line and colour of a way to choose
    "exact": ("o-", BLUE),
    "kmeans": ("s--", RED),
    "random start": ("D-.", ORANGE),
    "release": ("^:", GREEN),
    "scikit-learn": ("D-", ORANGE),
}


def _arc(axis: Axes, a: float, b: float, height: float, line: str = "-", **look: Any) -> None:
    """Half an ellipse over a step from a to b."""
    angle = np.linspace(0, np.pi, 60)
    axis.plot((a + b) / 2 - (b - a) / 2 * np.cos(angle), height * np.sin(angle), line, **look)


def steps(values: np.ndarray, points: np.ndarray, candidates: np.ndarray, part: np.ndarray) -> Figure:
    """Eight points on the histogram of `values`, their steps as arcs above.

    `part` (9,) is the share of the squared error below the first point, in each step, and above the last.
    """
    figure, (top, below) = plt.subplots(
        2, 1, figsize=(7, 3.8), sharex=True, height_ratios=(2, 3), layout="none"
    )
    figure.subplots_adjust(0.09, 0.13, 0.97, 0.94, hspace=0.05)
    for i, (a, b) in enumerate(pairwise(points)):
        _arc(top, a, b, 1, color=BLUE, lw=1.5)
        place = 1.08 if b - a > 0.12 or i % 2 else 1.3  # narrow steps: two rows
        top.text((a + b) / 2, place, f"{part[i + 1]:.0%}", ha="center", fontsize=9)
    top.text(-0.99, 0.2, f"below the\nfirst point\n{part[0]:.0%}", fontsize=9)
    top.text(0.99, 0.2, f"above the\nlast point\n{part[-1]:.0%}", ha="right", fontsize=9)
    top.plot(points, np.zeros(8), "o", color=BLUE, ms=7, clip_on=False)
    top.set(ylim=(0, 1.55), title="Seven steps and their shares of the squared error")
    top.set_axis_off()
    below.hist(values, 160, range=(-1, 1), color="0.75")
    below.vlines(points, 0, below.get_ylim()[1], color=BLUE, lw=1.5, label="8 points")
    low = -0.09 * below.get_ylim()[1]
    below.vlines(candidates, low, 0.2 * low, color="0.35", lw=0.5, label="candidates")
    below.set(xlabel="normalized activation", ylabel="values", xlim=(-1, 1), ylim=(low, None))
    below.legend(loc="upper left")
    return figure


def saving(a: float, b: float, curve: tuple[np.ndarray, np.ndarray], tangent: tuple[float, float]) -> Figure:
    """What one value saves with b next to a, and the integrated distribution function of all values.

    `curve` holds t and G(t), `tangent` G and its slope at the midpoint of a and b.
    """
    middle = (a + b) / 2
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.3))
    x = np.linspace(a - 0.6 * (b - a), b + 0.6 * (b - a), 300)
    at_a, at_b = (x - a) ** 2, (x - b) ** 2
    left.plot(x, at_a, color=BLUE, label="$(x-a)^2$")
    left.plot(x, at_b, color=RED, ls="--", label="$(x-b)^2$")
    left.fill_between(x, at_a, at_b, where=x <= middle, color="0.85", label="saved")
    left.set(xlabel="value $x$", ylabel="squared error", title="One value")
    left.set_xticks([a, middle, b], ["$a$", "$m$", "$b$"])
    left.legend()
    (t, G), (height, slope) = curve, tangent
    right.plot(t, G, color=GREEN, label="$G(t)$")
    for edge in (a, b):
        right.axvline(edge, color=BLUE, lw=1)
    right.axvline(middle, color=BLUE, lw=1, ls=":")
    line = height + slope * (t - middle)
    right.plot(t[line > 0], line[line > 0], color=ORANGE, lw=1, label="slope at $m$")
    right.plot(middle, height, "o", color="black", zorder=5)
    right.set(xlabel="$t$", ylabel="$G(t)$", title="All values of channel 0", xlim=(t[0], t[-1]))
    right.set_xticks([t[0], a, middle, b, t[-1]], [f"{t[0]:.2f}", "$a$", "$m$", "$b$", f"{t[-1]:.2f}"])
    right.legend(loc="upper left", handlelength=1.2)
    return figure


def gaps(
    bits: np.ndarray, mean: Mapping[str, np.ndarray], gap: Mapping[str, np.ndarray], names: Mapping[str, str]
) -> Figure:
    """Mean squared error and error over the least error against bits: medians, and the range of the gaps.

    `mean` and `gap` map a way to choose to an array (bits, channels), `names` to its label.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.8))
    for way, name in names.items():
        line, colour = LOOK[way]
        left.plot(bits, np.median(mean[way], 1), line, ms=5, color=colour, label=name)
        right.plot(bits, np.median(gap[way], 1), line, ms=5, color=colour)
        right.fill_between(bits, gap[way].min(1), gap[way].max(1), color=colour, alpha=0.18, lw=0)
    left.set(yscale="log", xlabel="bits", ylabel="mean squared error", title="Error")
    right.set(yscale="log", xlabel="bits", ylabel="error / least error", title="Gap")
    ticks = [t for t in (1, 1.5, 2, 3, 5, 8) if t < 1.15 * gap["release"].max()]
    right.set_yticks(ticks, [f"{t:g}" for t in ticks])
    right.minorticks_off()
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def quadrangle() -> Figure:
    """Four points on a line, joined by two arcs that cross and by two that nest."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.1), layout="none")
    figure.subplots_adjust(0.02, 0.16, 0.98, 0.86, wspace=0.08)
    points = {"a": 0.0, "b": 1.0, "c": 2.2, "d": 3.4}
    arcs = {"crossing: saves at least as much": ("ac", "bd"), "nested": ("ad", "bc")}
    for axis, (title, pairs) in zip(axes, arcs.items()):
        for (p, q), line, colour in zip(pairs, ("-", "--"), (BLUE, RED)):
            a, b = points[p], points[q]
            _arc(axis, a, b, (b - a) / 2, line, color=colour)
        axis.plot(list(points.values()), np.zeros(4), "ko", ms=6, clip_on=False)
        for name, place in points.items():
            axis.text(place, -0.25, f"${name}$", ha="center", va="top", fontsize=12)
        axis.set(xlim=(-0.3, 3.7), ylim=(0, 1.9), title=title)
        axis.set_axis_off()
    return figure


def times(
    measured: Sequence[Mapping[str, Mapping[int, float]]],
    tried: Sequence[tuple[int, float]],
    counted: Sequence[Mapping[int, float]],
    sorting: float,
) -> Figure:
    """Seconds for one channel, on the left against bits, on the right against candidates.

    Each sequence has one entry for the left and one for the right: `measured` the times of each method,
    `tried` one measured exhaustive search, `counted` exhaustive times by the number of subsets. `sorting`
    is the time of a sort.
    """
    names = {
        "scikit-learn": "scikit-learn, snapped",
        "kmeans": "k-means (library)",
        "release": "release (library)",
        "exact": "exact",
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 4.4), sharey=True)
    for axis, lines, star, dotted in zip((left, right), measured, tried, counted, strict=True):
        for method, name in names.items():
            line, colour = LOOK[method]
            axis.plot(*zip(*lines[method].items()), line, ms=5, color=colour, label=name)
        axis.axhline(sorting, color="0.6", lw=1, label="sort the values")
        axis.plot(*star, "*", color="black", ms=11, label="exhaustive, measured")
        axis.plot(*zip(*dotted.items()), ":", color="black", lw=1.2, label="exhaustive, by its count")
        for level in (1, 3600, 86400):
            axis.axhline(level, color="0.85", lw=0.8, zorder=0)
        axis.set(yscale="log", ylim=(sorting / 4, 3e5))
    left.set(xlabel="bits (four word sets)", ylabel="seconds for one channel", title="Bits")
    right.set(xlabel="candidates (3 bits)", xscale="log", title="Size of the set")
    right.set_xticks(list(counted[1]), list(map(str, counted[1])))
    right.minorticks_off()
    for level, name in ((1, "1 s"), (3600, "1 hour"), (86400, "1 day")):
        right.text(1320, 1.25 * level, name, ha="right", fontsize=9, color="0.35")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def three_choices(
    values: np.ndarray, candidates: np.ndarray, points: Mapping[str, np.ndarray], title: str
) -> Figure:
    """The exact points on the histogram of `values`; below, the points of three methods and all candidates.

    A ring marks a point that was chosen twice.
    """
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(7, 3.9), sharex=True, height_ratios=(3, 2.6), layout="none"
    )
    figure.subplots_adjust(0.13, 0.12, 0.97, 0.92, hspace=0.06)
    height, edges = np.histogram(values, np.linspace(-1, 1, 161))
    above.stairs(height, edges, fill=True, color="0.78")
    above.vlines(points["exact"], 0, height.max(), color=BLUE, lw=0.7)
    above.set_ylabel("values")
    above.set_title(title, fontsize=10)
    methods = ("release", "kmeans", "exact")
    for row, method in enumerate(methods):
        _, colour = LOOK[method]
        again, number = np.unique(points[method], return_counts=True)
        below.vlines(again, row + 0.15, row + 0.85, color=colour, lw=1.3)
        twice = again[number > 1]
        ring: dict[str, Any] = {"mec": colour, "mfc": "white", "ms": 7, "clip_on": False}
        below.plot(twice, np.full(twice.size, row + 0.5), "o", **ring)
    below.vlines(candidates, 3.15, 3.85, color="0.4", lw=0.6)
    below.set_yticks([0.5, 1.5, 2.5, 3.5], [*methods, "candidates"])
    below.set(xlabel="normalized activation", xlim=(-1, 1), ylim=(0, 4))
    below.grid(False)
    below.tick_params(axis="y", length=0)
    return figure
