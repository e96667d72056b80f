"""Figures of "Refining queries: where a patch finds itself"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from torch import Tensor

from sqlib.plots import OKABE_ITO

HIT, MISS = OKABE_ITO["sky"], OKABE_ITO["vermilion"]


def matches(
    query: Tensor,
    reference: Tensor,
    flows: Mapping[str, Tensor],
    points: Sequence[tuple[int, int]],
    true: tuple[int, int] | None = None,
) -> Figure:
    """Lines from points of a query to where a flow sends them in its reference, a row for each flow.

    `query` and `reference` are pictures (1, 3, h, w), `flows` displacements (1, 2, h, w) in pixels to the
    right and down by their titles, `points` pairs (x, y). With the `true` displacement, lines that miss it
    by 1.5 pixels have another colour.
    """
    figure, axes = plt.subplots(len(flows), 2, figsize=(7, 3.1 * len(flows) + 0.4), squeeze=False)
    for row, (title, flow) in zip(axes, flows.items()):
        row[0].set_title(title, fontsize=10)
        for axis, image in zip(row, (query, reference)):
            axis.imshow(image[0].permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
            axis.set_axis_off()
        for x, y in points:
            dx, dy = flow[0, :, y, x].tolist()
            hit = true is None or np.hypot(dx - true[0], dy - true[1]) < 1.5
            ends, colour = ((x, y), (x + dx, y + dy)), HIT if hit else MISS
            look = {"axesA": row[0], "axesB": row[1], "color": colour, "lw": 1.3, "alpha": 0.9}
            figure.add_artist(ConnectionPatch(*ends, "data", "data", **look))
            for axis, end in zip(row, ends):
                axis.plot(*end, "o", ms=4, color=colour, mec="white", mew=0.5)
    return figure


def choices(length: Tensor, printed: Tensor, renormalized: Tensor) -> Figure:
    """Maps (rows, columns) of a reference's positions: length of the vector, and how often each is chosen."""
    figure, axes = plt.subplots(1, 3, figsize=(7, 2.9))
    maps = {
        "length of the vector": (length, None, None, "neither"),
        "chosen, as printed": (printed, 0, 12, "max"),
        "chosen, renormalized": (renormalized, 0, 12, "max"),
    }
    for axis, (title, (values, least, most, extend)) in zip(axes, maps.items()):
        drawn = axis.imshow(values.cpu().numpy(), vmin=least, vmax=most)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
        figure.colorbar(drawn, ax=axis, shrink=0.8, location="bottom", extend=extend)
    return figure


def found(maps: Mapping[str, Tensor]) -> Figure:
    """Two maps (rows, columns) of pixels that are found or not, their titles above."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.8))
    for axis, (title, hit) in zip(axes, maps.items()):
        axis.imshow(hit.numpy(), cmap=ListedColormap([MISS, HIT]), vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    return figure


def soft_from_hard(alphas: np.ndarray, gap: Mapping[int, Iterable[float]]) -> Figure:
    """Distance (pixels) of the soft flow from the hard one against the factor; `gap` has a line per bits."""
    figure, axis = plt.subplots(figsize=(7, 3.3))
    for (bits, values), marker in zip(gap.items(), "os^"):
        name = "full precision" if bits == 32 else f"{bits} bits"
        axis.plot(alphas, np.maximum(values, 1e-3), marker + "-", ms=4, label=name)
    axis.axvline(1000, color="#777777", lw=1, ls=":")
    axis.text(1100, 12, "paper", fontsize=9, color="#555555")
    axis.set(xscale="log", yscale="log")
    axis.set(xlabel=r"factor $\alpha$ of the cost volume", ylabel="soft from hard flow, pixels")
    axis.legend(loc="lower left")
    return figure


def found_by_width(times: np.ndarray, found: Mapping[int, Iterable[float]]) -> Figure:
    """Shares of pixels found against how many times too wide bounds are; `found` has a line per bits."""
    figure, axis = plt.subplots(figsize=(7, 3.3))
    for (bits, values), marker in zip(found.items(), "os^"):
        axis.plot(times, 100 * np.asarray(list(values)), marker + "-", ms=4, label=f"{bits} bits")
    axis.axvline(1, color="#777777", lw=1, ls=":")
    ticks = [1, 2, 4, 8, 16, 32]
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, labels=map(str, ticks))
    axis.set(xlabel="width of the bounds, in widths of the features' range")
    axis.set(ylabel="pixels found, %", ylim=(0, None))
    axis.legend(loc="upper right")
    return figure
