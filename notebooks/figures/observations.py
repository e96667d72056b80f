"""Figures of "Observations: why SR activations resist quantization"."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sqlib.plots import OKABE_ITO

BLUE, RED, GREEN = OKABE_ITO["blue"], OKABE_ITO["vermilion"], OKABE_ITO["green"]
GRAY = "#666666"


def _frame() -> tuple[Figure, Axes]:
    """One panel with fixed margins, so that nothing jumps between frames."""
    margins = {"left": 0.1, "right": 0.985, "bottom": 0.16, "top": 0.9}
    return plt.subplots(figsize=(7, 3.2), layout="none", gridspec_kw=margins)


def _draw_boxes(axis: Axes, rows: np.ndarray, label: str, title: str) -> None:
    """Box: quartiles; whiskers: minimum and maximum. The widest and the narrowest are coloured."""
    low, q1, q2, q3, high = np.percentile(rows, [0, 25, 50, 75, 100], axis=1)
    places, width = np.arange(len(rows)), high - low
    colours = [GRAY] * len(rows)
    colours[width.argmax()], colours[width.argmin()] = RED, BLUE
    axis.vlines(places, low, high, colours, linewidth=[1.2 if c == GRAY else 2.6 for c in colours])
    axis.vlines(places, q1, q3, colours, linewidth=9)
    axis.plot(places, q2, "_", color="black", markersize=13, markeredgewidth=1.2)
    ticks = range(0, len(rows), 1 + len(rows) // 16)
    axis.set_xticks(ticks, [str(i) for i in ticks])
    axis.set(xlabel=label, ylabel="activation", xlim=(-0.8, len(rows) - 0.2))
    axis.set_title(title)


def boxes(rows: np.ndarray, label: str, title: str) -> Figure:
    """A box plot of each row of `rows` (n, values); `label` says what a row is."""
    figure, axis = _frame()
    _draw_boxes(axis, rows, label, title)
    return figure


def two_boxes(channels: np.ndarray, samples: np.ndarray, titles: tuple[str, str]) -> Figure:
    """Box plots of the channels of one sample, and of the samples of one channel, both (n, values)."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 6))
    _draw_boxes(above, channels, "channel", titles[0])
    _draw_boxes(below, samples, "sample", titles[1])
    return figure


def ranges(
    now: tuple[np.ndarray, np.ndarray], reference: tuple[np.ndarray, np.ndarray], title: str
) -> Figure:
    """The range of every channel, before that of the unchanged photograph; both as minima and maxima (n,)."""
    figure, axis = _frame()
    places = np.arange(len(now[0]))
    axis.vlines(places, *reference, "#cccccc", linewidth=12, label="photograph as it is")
    axis.vlines(places, *now, BLUE, linewidth=6, label="with this contrast and brightness")
    edge = 1.5 * max(abs(reference[0]).max(), reference[1].max())
    axis.set(xlabel="channel", ylabel="activation, min to max", ylim=(-edge, edge), title=title)
    axis.legend(loc="upper left", ncols=2)
    return figure


def against_width(width: np.ndarray, measures: Mapping[str, np.ndarray]) -> Figure:
    """Three measures of a channel of a sample against its width, relative to the layer's."""
    figure, panels = plt.subplots(1, 3, figsize=(7, 3), sharex=True)
    for axis, (label, values) in zip(panels, measures.items(), strict=True):
        axis.scatter(width.ravel(), values.ravel(), s=7, alpha=0.5, color=BLUE, linewidths=0)
        axis.set(ylabel=label, xlabel="width / layer's width")
        axis.set_ylim(bottom=min(0, np.nanmin(values)))
    return figure


def histogram(values: np.ndarray, grid: np.ndarray, title: str) -> Figure:
    """Histogram of one channel under the levels `grid` (n,) of its layer."""
    figure, axis = _frame()
    axis.stairs(*np.histogram(values, bins=160, range=(grid[0], grid[-1])), fill=True, color=BLUE)
    axis.vlines(grid, 0.7, 3e3, RED, linewidth=1.2)
    axis.set(
        xlabel="activation (lines: the 16 levels of the layer)",
        ylabel="number of values",
        yscale="log",
        ylim=(0.7, 3e3),
    )
    axis.set_title(title)
    return figure


def densities(
    values: Mapping[str, np.ndarray], kurtosis: Mapping[str, float], after_relu: Collection[str]
) -> Figure:
    """Densities of the normalized inputs of four layers, column by column, and a uniform distribution.

    `kurtosis` is written in each; the layers in `after_relu` have values in [0, 1], the others in [-1, 1].
    """
    figure, panels = plt.subplots(2, 2, figsize=(7, 4.6), sharex=True, sharey=True, layout="none")
    figure.subplots_adjust(left=0.1, right=0.985, bottom=0.11, top=0.93, hspace=0.2, wspace=0.06)
    for axis, (name, x) in zip(panels.T.flat, values.items(), strict=True):
        low, color = (0, GREEN) if name in after_relu else (-1, BLUE)
        heights, edges = np.histogram(x, bins=101, range=(-1, 1), density=True)
        axis.stairs(heights, edges, fill=True, color=color)
        axis.set(title=name, yscale="log", ylim=(1e-3, 200))
        axis.text(0.03, 0.95, f"kurtosis {kurtosis[name]:+.1f}", transform=axis.transAxes, va="top")
        even = 1 / (1 - low)
        axis.plot([low, low, 1, 1], [1e-3, even, even, 1e-3], color=RED, linestyle="--", linewidth=1.4)
    for axis in panels[1]:
        axis.set_xlabel("normalized activation")
    for axis in panels[:, 0]:
        axis.set_ylabel("density (log scale)")
    return figure


def drops(bits: Sequence[int], rows: Mapping[str, Sequence[float]]) -> Figure:
    """PSNR drop (dB) against the bits of the activations, a line for each of six ways."""
    colours = (OKABE_ITO[name] for name in ("black", "sky", "orange", "blue", "green", "vermilion"))
    lines = ("o:", "v:", "^:", "s-", "D--", "o-")
    figure, axis = plt.subplots(figsize=(7, 4))
    for (row, values), colour, line in zip(rows.items(), colours, lines, strict=True):
        axis.plot(bits, values, line, color=colour, label=row)
    axis.set(xlabel="bits b of the activations", ylabel="PSNR drop (dB)", yscale="log", xticks=bits)
    axis.invert_xaxis()
    axis.legend(loc="upper left")
    return figure
