"""Figures of "Clustering patches: who may look at whom"."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from sqlib.patches import Box
from sqlib.plots import OKABE_ITO

Points = tuple[Sequence[float], Sequence[float]]  # x and y
COLOURS = [OKABE_ITO[c] for c in ("blue", "orange", "green", "purple", "sky")]
XLIM, YLIM = (-3, 4.7), (-2.4, 4)  # of the toy


def _outline(axis: Axes, x: float, y: float, width: float, height: float, colour: str, lw: float) -> None:
    """Draw the border of a rectangle."""
    axis.add_patch(Rectangle((x, y), width, height, fill=False, ec=colour, lw=lw))


def clusters(
    photo: np.ndarray,
    boxes: Sequence[Box],
    patches: Sequence[Tensor],
    reference: np.ndarray,
    largest: np.ndarray,
) -> Figure:
    """A photograph (H, W, 3) tinted by cluster; below, the references of five clusters with some queries.

    `boxes` are the places of the patches, `patches` their pixels (3, h, w), `reference` (N,) the index of
    each one's reference and `largest` (5,) the references that get a colour.
    """
    colour = dict(zip(largest, COLOURS, strict=True))
    is_query = reference != np.arange(len(reference))
    figure = plt.figure(figsize=(7, 7.6))
    upper, lower = figure.subfigures(2, 1, height_ratios=[4.4, 3.6])
    axis = upper.subplots()
    axis.imshow(photo)
    axis.set_axis_off()
    for box, own, query in zip(boxes, reference, is_query, strict=True):
        size, tint = (box.width, box.height), colour.get(own, "#ffffff")
        axis.add_patch(Rectangle((box.left, box.top), *size, color=tint, lw=0, alpha=0.55))
        if not query:
            _outline(axis, box.left + 4, box.top + 4, box.width - 8, box.height - 8, "black", 2.2)
    axes = lower.subplots(len(largest), 8)
    for row, chosen in zip(axes, largest, strict=True):
        for axis in row:
            axis.set_axis_off()
        queries = np.flatnonzero((reference == chosen) & is_query)
        for axis, i in zip(row, [chosen, *queries[:7]], strict=False):
            axis.imshow(patches[i].permute(1, 2, 0)[:72, :72].numpy())
            _outline(axis, -0.5, -0.5, 72, 72, colour[chosen], 7 if i == chosen else 2)
    axes[0, 0].set_title("reference", fontsize=9)
    axes[0, 1].set_title("queries", fontsize=9)
    return figure


def _heat(axis: Axes, values: np.ndarray, title: str, rows: str, columns: str) -> None:
    """Draw a matrix with its entries, a letter of `rows` and `columns` beside each row and column."""
    axis.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    axis.grid(False)
    axis.set_title(title, fontsize=10)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), rows)
    axis.tick_params(length=0)
    for (y, x), value in np.ndenumerate(values):
        shade = "white" if value > 0.5 else "black"
        text = f"{value:.2f}".removeprefix("0")
        axis.text(x, y, text, ha="center", va="center", fontsize=9, color=shade)


def _plane(
    axis: Axes,
    v: np.ndarray,
    names: str,
    path: Points,
    reference: np.ndarray,
) -> None:
    """Draw patches as points, with arrows from queries to references."""
    for line in (axis.axhline, axis.axvline):
        line(0, color="#bbbbbb", lw=0.8, zorder=0)
    axis.plot(*path, ":", color="#777777", lw=1)
    ring = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "#999999", "lw": 0.6}
    look = {"ha": "center", "va": "center", "fontsize": 7, "color": "#555555", "bbox": ring, "zorder": 1.5}
    for number, place in enumerate(zip(*path, strict=True), 1):
        axis.text(*place, str(number), **look)
    order = list(np.unique(reference))
    for i, (name, point, r) in enumerate(zip(names, v, reference, strict=True)):
        tint = COLOURS[order.index(r) % len(COLOURS)]
        if r != i:
            look = {"arrowstyle": "-|>", "color": tint, "lw": 1.6, "shrinkA": 7, "shrinkB": 8}
            axis.annotate("", v[r], point, arrowprops=look)
        axis.plot(*point, "s" if r == i else "o", ms=12 if r == i else 9, color=tint)
        axis.annotate(name, point, (-15, -4), textcoords="offset points")
    axis.set(xlim=XLIM, ylim=YLIM, aspect="equal")
    axis.set(xlabel="score for class 1", ylabel="score for class 2")


def toy(
    v: np.ndarray,
    names: str,
    path: Points,
    reference: np.ndarray,
    matrices: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Figure:
    """Patches `v` (n, 2) in the plane of two classes, and the matrices A, A' and M of their affinity.

    `names` has a letter for each patch, `path` the places that the last one takes, `reference`
    (n,) the index of each one's reference.
    """
    A, A_prime, M = matrices
    figure = plt.figure(figsize=(7, 4.2))
    left, right = figure.subfigures(1, 2, width_ratios=[3, 4])
    _plane(left.subplots(), v, names, path, reference)
    ratios = {"width_ratios": [1, 3], "height_ratios": [3, 1]}
    axes = right.subplot_mosaic([["A", "M"], [".", "B"]], **ratios)
    _heat(axes["A"], A, "A", names, "12")
    _heat(axes["M"], M, "M", names, names)
    _heat(axes["B"], A_prime, "A'", "12", names)
    for i, j in enumerate(M.argmax(1)):
        _outline(axes["M"], j - 0.47, i - 0.47, 0.94, 0.94, OKABE_ITO["vermilion"], 1.8)
    return figure


def toy_html(v: np.ndarray, names: str, path: Points, tau: float, still: str) -> str:
    """The toy for a page without a kernel: every point can be dragged there, see book/_static/toy.js.

    `v`, `names` and `path` are those of `toy`, `tau` is the threshold at first, and `still` the HTML of a
    figure, whose picture is replaced where there is JavaScript.
    """
    data = {
        "names": list(names),
        "points": v.tolist(),
        "path": list(zip(*path, strict=True)),
        "tau": tau,
        "colours": COLOURS,
        "xlim": XLIM,
        "ylim": YLIM,
    }
    return (
        f'<div class="sq-toy">{still}<noscript><p class="sq-note">With JavaScript the patches can be dragged '
        f'here.</p></noscript><script type="application/json" class="sq-toy-data">{json.dumps(data)}</script>'
        "</div>"
    )


def query_shares(
    by_tau: pd.DataFrame,
    by_classes: pd.DataFrame,
    printed: Mapping[str, float],
    labels: Mapping[str, str],
) -> Figure:
    """The share of queries against the threshold and against the number of classes; stars: the paper's.

    Frames have a column, and `printed` a share, for each of the two sets in `labels`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.6), sharey=True)
    for (name, label), mark, colour in zip(labels.items(), "os", ("blue", "vermilion"), strict=True):
        tint = OKABE_ITO[colour]
        left.plot(by_tau[name], mark + "-", ms=4, color=tint, label=label)
        right.plot(by_classes[name], mark + "-", ms=4, color=tint)
        for axis, x in ((left, 0.5), (right, 47)):
            axis.plot(x, printed[name], "*", ms=13, color=tint, mec="black", mew=0.6)
    left.set(xlabel="threshold τ", ylabel="share of queries", ylim=(0, 0.9))
    right.set(xlabel="classes of texture", xscale="log")
    right.set_xticks([2, 3, 5, 10, 20, 47], ["2", "3", "5", "10", "20", "47"])
    right.minorticks_off()
    left.legend(loc="lower left")
    return figure
