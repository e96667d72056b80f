"""Figures of "Beyond DFSQ: compensating the error"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sqlib.plots import OKABE_ITO

BLUE, RED = OKABE_ITO["blue"], OKABE_ITO["vermilion"]


def loss_per_side(losses: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> Figure:
    """Bars of what is lost by weights, by activations and by both, before and after; a panel per network.

    `losses` holds per panel title and part two triples, DFSQ's and ours: the drop in dB and the ends of its
    interval; NaN where nobody has run it.
    """
    figure, panels = plt.subplots(1, len(losses), figsize=(7, 3.7), layout="none")
    figure.subplots_adjust(0.09, 0.16, 0.99, 0.8, wspace=0.18)
    for axes, (title, parts) in zip(panels, losses.items(), strict=True):
        for i, pair in enumerate(parts.values()):
            for side, (value, low, high), colour in zip((-1, 1), pair, (RED, BLUE)):
                x, run = i + 0.2 * side, np.isfinite(value)
                axes.bar(x, value if run else 0.0, 0.38, color=colour)
                axes.vlines(x, low, high, "0.25", lw=1.2)
                label = f"{value:.2f}" if run else "not\nrun"
                place = x, high if np.isfinite(high) else 0
                axes.annotate(label, place, (0, 2), textcoords="offset points", ha="center")
        axes.set_xticks(range(len(parts)), parts)
        axes.margins(y=0.14)
        axes.set_ylim(bottom=0)
        axes.grid(axis="x")
        axes.set_title(title)
    panels[0].set_ylabel("drop from full precision (dB)")
    marks = [plt.Rectangle((0, 0), 1, 1, color=c) for c in (RED, BLUE)]
    names = ["as DFSQ does it", "compensated weights, exact points per tile"]
    figure.legend(marks, names, loc="upper center", ncols=2)
    return figure


def one_layer_at_a_time(single: pd.DataFrame) -> Figure:
    """Distance to full precision with one layer quantized, two ways for its weights, two for its activations.

    `single` has a row per layer and the columns (side, way), squared gray levels.
    """
    layers = list(single.index)
    figure, panels = plt.subplots(1, 2, figsize=(7, 3.5), sharex=True, sharey=True)
    for axes, side in zip(panels, ("weights", "activations"), strict=True):
        ways = single[side]
        for way, colour, marker in zip(ways, (RED, BLUE), "os", strict=True):
            axes.plot(ways[way], layers, marker, color=colour, label=way, clip_on=False)
        axes.hlines(layers, ways.min(axis=1), ways.max(axis=1), "0.75")
        axes.set(xscale="log", title=f"{side} at 4 bits")
        axes.set_xlabel("distance (gray levels squared)")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24))
    panels[0].invert_yaxis()
    return figure


def two_weights(
    true: np.ndarray,
    gram: np.ndarray,
    levels: np.ndarray,
    nearest: tuple[np.ndarray, float],
    compensated: tuple[np.ndarray, float],
) -> Figure:
    """The grid of two weights, and the ellipses of equal output error through two of its points.

    `true` (2,) are the weights in steps, `gram` (2, 2) the metric, `levels` (n, 2) all grid points shown;
    `nearest` and `compensated` are a point and its output error each.
    """
    ticks = [np.unique(along) for along in levels.T]
    ranges = [np.linspace(along[0] - 0.3, along[-1] + 0.3, 200) for along in ticks]
    mesh = np.stack(np.meshgrid(*ranges), -1)
    height = np.einsum("xyk,kl,xyl->xy", mesh - true, gram, mesh - true)
    rings = sorted({nearest[1], compensated[1]})
    figure, axes = plt.subplots(figsize=(7, 5.2))
    axes.contour(*ranges, height, rings, colors=[BLUE, RED], linewidths=1.5)
    axes.plot(*levels.T, "o", color="0.6", ms=5)
    axes.plot(*true, "*", color="black", ms=15, label="true weights")
    for (point, error), name, colour, marker in (
        (nearest, "nearest levels", RED, "s"),
        (compensated, "compensated", BLUE, "o"),
    ):
        axes.plot(*point, marker, color=colour, ms=10, label=f"{name},\nerror {error:.3f}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    axes.set(
        xlabel="first weight (in steps)",
        ylabel="second weight (in steps)",
        xticks=ticks[0],
        yticks=ticks[1],
        aspect="equal",
    )
    return figure


def magnitudes(plane: np.ndarray, tiles: np.ndarray, side: int) -> Figure:
    """The magnitude of every pixel of a plane, and the largest of every tile.

    `plane` (H, W) and `tiles` (a value per `side` x `side` pixels) are shares of the plane's maximum.
    """
    figure, panels = plt.subplots(1, 2, figsize=(7, 3.5))
    height, width = plane.shape
    titles = "every pixel", f"largest of each {side} x {side} tile"
    for axes, picture, title in zip(panels, (plane, tiles), titles):
        drawn = axes.imshow(picture, vmin=0, vmax=1, extent=(0, width, height, 0))
        axes.set(title=title, xlabel="column (pixels)", ylabel="row (pixels)")
        axes.grid(False)
    for (i, j), size in np.ndenumerate(tiles):
        place, ink = (side * (j + 0.5), side * (i + 0.5)), "black" if size > 0.6 else "white"
        panels[1].text(*place, f"{size:.0%}", color=ink, ha="center", va="center", fontsize=9)
    figure.colorbar(drawn, ax=panels, label="magnitude, plane's maximum = 1", shrink=0.8)
    return figure


def tile_sides(relative: pd.DataFrame, tiles: Sequence[int | None], side_bits: Sequence[float]) -> Figure:
    """Squared distance against the side of a tile, a line per recipe.

    `relative` has a row per entry of `tiles` (pixels; None is the image) and the columns DFSQ and
    compensated, DFSQ's distance without tiles = 1; `side_bits` are the bits per value that a tile costs.
    """
    figure, axes = plt.subplots(figsize=(7, 3.6))
    for name, colour, marker in (("DFSQ", RED, "o"), ("compensated", BLUE, "s")):
        axes.plot(relative[name], marker=marker, color=colour, label=name)
    names = ["image" if p is None else f"{p} x {p}" for p in tiles]
    axes.set_xticks(range(len(names)), [f"{n}\n+{b:.3f}" for n, b in zip(names, side_bits, strict=True)])
    axes.set(
        xlabel="pixels that share statistics; bits per value that they cost",
        ylabel="squared distance,\nDFSQ's = 1",
        ylim=(0, None),
    )
    axes.legend(title="EDSR-small x4, 4 bits")
    return figure


def values_per_tenth(edges: np.ndarray, counts: np.ndarray) -> Figure:
    """How many values to choose from lie in each bin; `edges` (n + 1,) from 0 to 1, `counts` (n,)."""
    figure, axes = plt.subplots(figsize=(7, 2.8))
    middles = edges[:-1] + 0.05
    axes.bar(middles, counts, 0.09, color=np.where(edges[:-1] < 0.5, BLUE, RED))
    for x, count in zip(middles, counts, strict=True):
        axes.annotate(f"{count}", (x, count), (0, 2), textcoords="offset points", ha="center")
    axes.set(
        xlabel="value, the largest magnitude of a plane = 1",
        ylabel="values to choose from",
        xticks=edges,
    )
    axes.grid(axis="x")
    axes.margins(y=0.12)
    return figure
