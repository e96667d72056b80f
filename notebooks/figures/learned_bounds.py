"""Figures of "Learned bounds: PAMS and DDTB"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from sqlib.patches import Box
from sqlib.plots import OKABE_ITO

BLUE, RED = OKABE_ITO["blue"], OKABE_ITO["vermilion"]
GREEN, ORANGE, BLACK = OKABE_ITO["green"], OKABE_ITO["orange"], OKABE_ITO["black"]

MARKS = {
    "one bound, signed": (BLUE, "o"),
    "one bound, unsigned": (GREEN, "^"),
    "start at percentiles 1 and 99": (ORANGE, "D"),
    "start at -10 and 10": (RED, "s"),
}


def similar_patches(
    gray: np.ndarray, boxes: Sequence[Box], is_query: Sequence[bool], reference: Sequence[int]
) -> Figure:
    """The patches of a `gray` picture (H, W): queries shaded and joined to their references, those outlined.

    `is_query` and `reference` hold, for each of the `boxes`, whether it borrows, and from which box.
    """
    figure, axes = plt.subplots(figsize=(7, 4.7))
    axes.imshow(gray, "gray", interpolation="auto")
    axes.set_axis_off()
    light = [withStroke(linewidth=2.2, foreground="white")]
    centres = [((box.left + box.right) / 2, (box.top + box.bottom) / 2) for box in boxes]
    for box, centre, query, other in zip(boxes, centres, is_query, reference, strict=True):
        place = Rectangle((box.left - 0.5, box.top - 0.5), box.width, box.height)
        if query:
            place.set(fc=BLUE, alpha=0.35, ec="white", lw=0.5)
            ends = zip(centre, centres[other])
            axes.plot(*ends, "o-", color=BLACK, lw=0.9, ms=3, markevery=[0], path_effects=light, zorder=3)
        else:
            place.set(fc="none", alpha=1, ec=ORANGE, lw=2)
        axes.add_patch(place)
    return figure


def pull(
    title: str,
    edges: np.ndarray,
    counts: np.ndarray,
    shares: Sequence[np.ndarray],
    curve: np.ndarray,
    path: np.ndarray,
    best: float,
) -> Figure:
    """The values, how much each pulls on a bound, and the bound's way down the curve of the error.

    `counts` are of the values in the bins between `edges`, `shares` (%) the parts of the pull inwards
    (>= 0) and outwards (<= 0) that come from each bin; `curve` (n, 2) and `path` (steps + 1, 2), which
    ends at the present bound, hold bounds and squared errors as multiples of the least, at `best`.
    """
    figure, (top, mid, low) = plt.subplots(3, 1, figsize=(7, 6), layout="none")
    figure.subplots_adjust(0.1, 0.08, 0.985, 0.95, hspace=0.5)
    top.stairs(counts, edges, color="0.75", fill=True)
    inwards, outwards = shares
    mid.stairs(inwards, edges, color=BLUE, fill=True)
    mid.stairs(outwards, edges, color=RED, fill=True)
    mid.set_title(f"pull inwards {inwards.sum():.0f}%, outwards {-outwards.sum():.0f}%")
    alpha, span = path[-1, 0], edges[-1]
    for axes in (top, mid):
        for side in (-alpha, alpha):
            axes.axvline(side, color=BLACK, lw=1.4)
        axes.set(xlim=(-span, span))
    top.set(ylabel="values", yscale="log", ylim=(0.5, None), title=title)
    mid.set(ylabel="share of the pull (%)", xlabel="value $x$")
    mid.axhline(0, color="0.5", lw=0.8)
    low.plot(*curve.T, color="0.5")
    low.plot(*path.T, ".", ms=4, color=BLACK, zorder=3)
    low.plot(*path[-1], "o", ms=9, color=BLACK, zorder=3)
    low.plot(best, 1, "*", ms=13, color=ORANGE, zorder=4)
    low.set(xlabel=r"bound $\alpha$", ylabel="squared error /\nthe least", yscale="log")
    low.set(xlim=(0, 1.05 * span), ylim=(0.85, 20))
    low.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    low.minorticks_off()
    return figure


def two_slopes(
    place: str, bounds: np.ndarray, slopes: np.ndarray, zeros: tuple[float, float], found: pd.DataFrame
) -> Figure:
    """Both slopes over the bound in one layer at 2 bits, and the error above the least in every layer.

    `slopes` (n, 2) are the straight-through and the true one at the `bounds` (n,) of the layer `place`,
    and `zeros` is where they vanish; `found` has the columns bits and excess (a share), a row per layer.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.5))
    straight, true = slopes.T
    left.plot(bounds, straight, color=BLUE, label="straight-through")
    left.plot(bounds, true, color=RED, ls="--", label="true")
    left.plot(zeros[0], 0, "o", color=BLUE, ms=7)
    left.plot(zeros[1], 0, "*", color=RED, ms=11, zorder=3)
    left.axhline(0, color="0.5", lw=0.8)
    high = straight.max()
    left.set(ylim=(-1.3 * high, 1.25 * high), title=f"2 bits, {place}")
    left.set(xlabel=r"bound $\alpha$", ylabel="slope of the mean squared error")
    left.legend(loc="lower right")
    groups = dict(list(found.groupby("bits", sort=False)["excess"]))
    for i, excess in enumerate(groups.values()):
        right.plot(i + np.linspace(-0.3, 0.3, len(excess)), 100 * excess, "o", color=BLUE, ms=4)
    right.set_xticks(range(len(groups)), [str(bits) for bits in groups])
    right.set(xlabel="bits", ylabel="error above the least (%)", ylim=(0, None))
    right.set_title(f"at rest, {len(excess)} layers")
    return figure


def against_two_bounds(errors: pd.DataFrame, names: Iterable[str], ticks: Sequence[float]) -> Figure:
    """Squared errors as multiples of those of the best two bounds, a column per layer, a mark per name.

    `errors` has the columns site (blocks.N.conv1 or conv2), name (of `MARKS`) and ratio; `ticks` are of
    the vertical axis.
    """
    order = sorted(errors["site"].unique(), key=lambda site: (site[-1], site))
    figure, axes = plt.subplots(figsize=(7, 3.6))
    for name in names:
        one = errors[errors["name"] == name]
        colour, marker = MARKS[name]
        axes.plot(one["site"].map(order.index), one["ratio"], marker, color=colour, ms=7, label=name)
    axes.axhline(1, color="0.4", lw=1)
    axes.set_xticks(range(len(order)), [site.split(".")[1] for site in order])
    half = len(order) / 2 - 0.5
    axes.axvline(half, color="0.6", lw=0.8, ls=":")
    for place, text in ((half / 2, "conv1: a sum"), (1.5 * half, "conv2: behind a ReLU")):
        axes.text(place, 1.02, text, ha="center", transform=axes.get_xaxis_transform())
    axes.set(xlabel="block", ylabel="squared error, multiple\nof the best two bounds'")
    axes.set(yscale="log", ylim=(ticks[0] * 0.93, ticks[-1] * 1.08))
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def gate(
    crops: Iterable[tuple[np.ndarray, float]], best: np.ndarray, upper: np.ndarray, static: float
) -> Figure:
    """Six crops (H, W, 3) and their factors, and upper bounds with the gate against the best ones.

    `best` and `upper` hold one bound per crop; `static` is the bound without the gate's factor.
    """
    figure = plt.figure(figsize=(7, 4.6))
    above, below = figure.subfigures(2, 1, height_ratios=(1, 2.1))
    for axes, (crop, factor) in zip(above.subplots(1, 6), crops, strict=True):
        axes.imshow(crop)
        axes.set_axis_off()
        axes.set_title(f"$\\beta_u$ = {factor:.2f}", loc="center", fontsize=10)
    axes = below.subplots()
    axes.plot(best, upper, "o", color=BLUE, ms=7)
    ends = [0, 1.05 * max(best.max(), upper.max())]
    axes.plot(ends, ends, color="0.6", lw=1, label="equal")
    axes.axhline(static, color=RED, ls="--", label="without the gate's factor")
    axes.set(xlabel="best upper bound of the crop alone", xlim=ends)
    axes.set(ylabel="upper bound with the gate", ylim=ends)
    axes.legend(loc="lower right")
    return figure


def training(curve: np.ndarray, blocks: np.ndarray, moved: Sequence[tuple[float, float]]) -> Figure:
    """The loss of each step and its means over 8, and each layer's bound before and after."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.2))
    left.plot(curve, ".", color="0.6", label="each step")
    left.plot(np.arange(8, len(curve) + 1, 8) - 4, blocks, color=BLUE, label="mean of 8")
    left.set(xlabel="step", ylabel="loss (gray levels)", ylim=(0, None))
    left.legend()
    for i, (first, last) in enumerate(moved):
        right.plot((i, i), (first, last), color="0.6", lw=1.5)
        right.plot(i, first, "o", color="0.6", ms=5, label="start" if i == 0 else None)
        right.plot(i, last, "o", color=BLUE, ms=5, label="end" if i == 0 else None)
    right.set(xlabel="quantized layer", ylabel=r"bound $\alpha$", ylim=(0, None))
    right.set_xticks(range(0, len(moved), 3))
    right.legend(loc="upper center", ncols=2)
    return figure
