"""Figures of "Quantizing a Swin transformer"."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from sqlib.plots import OKABE_ITO

BLUE, RED = OKABE_ITO["blue"], OKABE_ITO["vermilion"]
GREEN, ORANGE, SKY = OKABE_ITO["green"], OKABE_ITO["orange"], OKABE_ITO["sky"]


def _windows(axes: Axes, picture: np.ndarray, title: str, lw: float = 1.2, **style: Any) -> None:
    """A picture with the borders of its windows of 8 x 8."""
    height, width = picture.shape[:2]
    axes.imshow(picture, **style)
    axes.set_xticks(np.arange(0, width + 1, 8) - 0.5, [])
    axes.set_yticks(np.arange(0, height + 1, 8) - 0.5, [])
    axes.grid(color="white", lw=lw)
    axes.tick_params(length=0)
    axes.set_title(title, fontsize=10)


def attention_maps(photo: np.ndarray, token: tuple[int, int], maps: np.ndarray) -> Figure:
    """A token (row, column) in its window of `photo`, and its six attention `maps` (6, 8, 8)."""
    row, column = token
    figure = plt.figure(figsize=(7, 3.2), layout="none")
    large = figure.add_axes((0.01, 0.08, 0.47, 0.8))
    _windows(large, photo, "photograph, windows, one token")
    corner = (column // 8 * 8 - 0.5, row // 8 * 8 - 0.5)
    large.add_patch(Rectangle(corner, 8, 8, fill=False, ec=RED, lw=2.5))
    for colour, thick in (("black", 4.5), ("white", 2)):  # seen on any colour
        large.plot(column, row, "s", ms=8, mfc="none", mec=colour, mew=thick)
    for head, weights in enumerate(maps):
        left, low = 0.51 + head % 3 * 0.165, 0.5 if head < 3 else 0.04
        small = figure.add_axes((left, low, 0.15, 0.37))
        small.imshow(weights, vmin=0)
        small.plot(column % 8, row % 8, "s", ms=8, mfc="none", mec=ORANGE, mew=2)
        small.set_axis_off()
        small.set_title(f"head {head + 1}: {weights.max():.0%}", fontsize=9)
    return figure


def shifted_windows(
    photo: np.ndarray, shifted: np.ndarray, region: np.ndarray, allowed: np.ndarray
) -> Figure:
    """A photograph in windows, the same shifted, its regions, and the mask of the last window.

    `region` (H, W) numbers the regions from 0, `allowed` (64, 64) is true where two tokens may mix.
    """
    figure, axes = plt.subplots(2, 2, figsize=(7, 5.6))
    _windows(axes[0, 0], photo, "1. windows")
    _windows(axes[0, 1], shifted, "2. shifted by 4, then cut")
    cmap = plt.get_cmap("tab20", 9)
    _windows(axes[1, 0], region, "3. only equal numbers may mix", cmap=cmap)
    plate = dict(boxstyle="round,pad=0.15", fc="white", ec="none")
    for number in range(9):
        rows, columns = np.nonzero(region == number)
        place = columns.mean(), rows.mean()
        axes[1, 0].text(*place, number, ha="center", va="center", bbox=plate)
    axes[1, 1].imshow(allowed, cmap="gray", vmin=-0.4)
    axes[1, 1].grid(False)
    axes[1, 1].set(xlabel="token that is heard", ylabel="token that listens")
    axes[1, 1].set_title("4. mask of the last window", fontsize=10)
    return figure


# Where the boxes of a Swin layer stand, and half their width where it is not 0.39.
PLACES = {
    "x": (-0.6, 1.0),
    "norm1": (0.2, 1.0),
    "attn.q": (1.3, 2),
    "attn.k": (1.3, 1),
    "attn.v": (1.3, 0),
    "scale": (2.3, 2),
    "attn.matmul": (3.3, 1.5),
    "+ bias": (4.3, 1.5),
    "softmax": (5.3, 1.5),
    "attn.matmul#1": (6.35, 0.75),
    "attn.proj": (7.4, 0.75),
    "+": (8.25, 0.75),
    "norm2": (8.25, -0.9),
    "mlp.fc1": (6.8, -0.9),
    "GELU": (5.3, -0.9),
    "mlp.fc2": (3.8, -0.9),
    "+#1": (2.3, -0.9),
}
HALF = {"x": 0.12, "+": 0.17, "+#1": 0.17, "+ bias": 0.33, "scale": 0.33}
# Arrows that go around the boxes.
DETOURS = {
    ("x", "+"): [(-0.6, 1.28), (-0.6, 2.65), (8.25, 2.65), (8.25, 1.03)],
    ("+", "+#1"): [(8.42, 0.75), (8.7, 0.75), (8.7, -1.6), (2.3, -1.6), (2.3, -1.18)],
}


def _ends(source: str, name: str, position: int, count: int) -> tuple[tuple[float, float], ...]:
    """Where an arrow leaves its box and where it enters the next one."""
    (x0, y0), (x1, y1) = PLACES[source], PLACES[name]
    if abs(x1 - x0) < 0.1:
        return (x0, y0 - 0.28), (x1, y1 + 0.28)
    side = np.sign(x1 - x0)
    y1 += (0.13 - 0.26 * position) if count == 2 and "matmul" in name else 0
    return (x0 + side * HALF.get(source, 0.39), y0), (x1 - side * HALF.get(name, 0.39), y1)


def _detour(axes: Axes, corners: Sequence[tuple[float, float]]) -> None:
    """A line around the boxes, with an arrow head at its end."""
    axes.plot(*zip(*corners), color="0.35", lw=1, zorder=1)
    arrow = {"arrowstyle": "-|>", "color": "0.35", "lw": 1}
    axes.annotate("", corners[-1], corners[-2], arrowprops=arrow)


def _box(axes: Axes, name: str, quantized: bool) -> None:
    """The box of an operation with its name, blue where it is a quantized product."""
    (x, y), w = PLACES[name], HALF.get(name, 0.39)
    style = dict(fc="#d7e8f4", ec=BLUE) if quantized else dict(fc="white", ec="0.6")
    patch = FancyBboxPatch((x - w, y - 0.28), 2 * w, 0.56, **style, zorder=2)
    patch.set_boxstyle("round,pad=0,rounding_size=0.08")
    axes.add_patch(patch)
    label = "+" if name == "+#1" else name.rpartition(".")[2].replace("#", "\n#")
    axes.text(x, y, label, ha="center", va="center", fontsize=9, zorder=3)


def swin_layer(
    edges: Mapping[str, Sequence[str]],
    products: Collection[str],
    activations: Collection[tuple[str, int]],
    weights: Collection[str],
) -> Figure:
    """Flow chart of one Swin layer with its quantizers.

    `edges` names what each operation reads ("x" is the input), `products` the operations that are
    quantized, `activations` the reads with a quantizer (operation, place among its reads) and `weights`
    the operations whose weights have one.
    """
    if set(PLACES) != {"x", *edges}:
        raise ValueError("the layer has changed: its operations are not those that have a place here")
    figure, axes = plt.subplots(figsize=(7, 3.7), layout="none")
    figure.subplots_adjust(0, 0, 1, 1)
    axes.set(xlim=(-0.85, 8.75), ylim=(-2.3, 3.0))
    axes.set_axis_off()
    for name, reads in edges.items():
        for position, source in enumerate(reads):
            if (source, name) in DETOURS:
                _detour(axes, DETOURS[source, name])
                continue
            start, end = _ends(source, name, position, len(reads))
            arrow = dict(arrowstyle="-|>", mutation_scale=9, color="0.35", shrinkA=0)
            axes.add_patch(FancyArrowPatch(start, end, **arrow, shrinkB=0, zorder=1))
            if (name, position) in activations:
                back = -0.07 if end[0] > start[0] else 0.07
                axes.plot(end[0] + back, end[1], "o", ms=7, color=RED, zorder=4)
        if name in weights:
            x, y = PLACES[name]
            axes.plot(x, y + 0.28, "s", ms=7, color=GREEN, zorder=4)
    for name in PLACES:
        _box(axes, name, name in products)
    _detour(axes, [(2.13, -0.9), (1.4, -0.9)])
    axes.plot([], [], "o", ms=7, color=RED, label="quantizer of an activation")
    axes.plot([], [], "s", ms=7, color=GREEN, label="quantizer of a weight")
    axes.plot([], [], "s", ms=9, mfc="#d7e8f4", mec=BLUE, label="quantized product")
    axes.plot([], [], "s", ms=9, mfc="white", mec="0.6", label="full precision")
    axes.legend(loc="lower center", ncols=4, fontsize=8.5, columnspacing=1, handletextpad=0.3)
    return figure


def histograms(tensors: Mapping[str, np.ndarray], one_sided: Collection[str]) -> Figure:
    """Histograms of fourteen tensors (1-D) by name, each over its largest magnitude."""
    # Logarithms are taken here, not by the axes: sixteen logarithmic axes are slow.
    figure, axes = plt.subplots(4, 4, figsize=(7, 6.4), sharex=True, sharey=True, layout="none")
    figure.subplots_adjust(0.1, 0.08, 0.985, 0.93, wspace=0.12, hspace=0.5)
    for axis, (name, x) in zip(axes.flat, tensors.items()):
        height, edges = np.histogram(x / np.abs(x).max(), 61, (-1, 1))
        share = np.log10(np.maximum(height / x.size, 1e-6))
        colour = GREEN if "weight" in name else RED if name in one_sided else BLUE
        axis.stairs(share, edges, baseline=-6, fill=True, color=colour)
        axis.set_title(f"{name}\n{x.min():.2f} to {x.max():.2f}", fontsize=9)
    axes[0, 0].set(ylim=(-6, 0.3), yticks=[-6, -4, -2, 0], xticks=[-1, 0, 1])
    axes[0, 0].set_yticklabels(["$10^{-6}$", "$10^{-4}$", "0.01", "1"])
    for axis in axes.flat[14:]:
        axis.set_axis_off()
    for axis in axes[2, 2:]:
        axis.tick_params(labelbottom=True)
    figure.supxlabel("value / largest magnitude", fontsize=10, y=0.005)
    figure.supylabel("share of the values in a bin (log)", fontsize=10, x=0.0)
    return figure


def losses(parts: Mapping[str, float], groups: Mapping[str, float], operands: Collection[str]) -> Figure:
    """Bars of the squared error (squared gray levels) when one kind of tensor is rounded.

    `parts` are single kinds, of which `operands` are those of products; `groups` are several at once.
    """
    errors = pd.concat([pd.Series(groups)[::-1], pd.Series(parts).sort_values()])
    colours = ["0.5"] * len(groups)
    for name in errors.index[len(groups) :]:
        colours.append(GREEN if name == "weights" else RED if name in operands else BLUE)
    figure, axes = plt.subplots(figsize=(7, 4.2))
    axes.barh(errors.index, errors, color=colours)
    axes.set(
        xscale="log",
        xlabel="mean squared difference from full precision, squared gray levels (log)",
    )
    axes.grid(axis="y", visible=False)
    for place, error in enumerate(errors):
        axes.text(error * 1.06, place, f"{error:.2g}", va="center", fontsize=9)
    axes.set_xlim(errors.min() / 2, errors.max() * 2)
    return figure


def paddings(pads: Mapping[str, tuple[tuple[int, int], np.ndarray]]) -> Figure:
    """Extended pictures by rule, the original framed; each rule has the size before and the picture after."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.1))
    for axis, (rule, ((height, width), extended)) in zip(axes, pads.items()):
        now = " x ".join(map(str, extended.shape[:2]))
        _windows(axis, extended, f"{rule}: {height} x {width} to {now}", lw=1)
        axis.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, ec=SKY, lw=3))
    return figure
