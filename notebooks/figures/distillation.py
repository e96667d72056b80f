"""Figures of "Distillation calibration"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from sqlib.plots import OKABE_ITO

BLUE, RED = OKABE_ITO["blue"], OKABE_ITO["vermilion"]
GREEN, ORANGE = OKABE_ITO["green"], OKABE_ITO["orange"]
Point = tuple[float, float]


def _box(
    axes: Axes,
    place: Point,
    size: Point,
    text: str,
    face: str = "0.94",
    edge: str = "0.45",
    color: str = "black",
) -> None:
    shape = "round,pad=0,rounding_size=0.12"
    axes.add_patch(FancyBboxPatch(place, *size, boxstyle=shape, fc=face, ec=edge))
    middle = (place[0] + size[0] / 2, place[1] + size[1] / 2)
    axes.text(*middle, text, ha="center", va="center", color=color, fontsize=9)


def _arrow(axes: Axes, start: Point, end: Point, color: str = "0.35", line: str = "-") -> None:
    look = {"arrowstyle": "-|>", "color": color, "lw": 1.4, "ls": line}
    axes.annotate("", end, start, arrowprops={**look, "shrinkA": 0, "shrinkB": 0})


def _network_row(axes: Axes, y: float, quantized: bool) -> None:
    """One row of the pipeline: two groups of blocks and the end."""
    for x, name in ((3.1, "blocks 1"), (6.2, "blocks 2")):
        if quantized:
            _box(axes, (x - 0.3, y), (0.6, 1), "Q", BLUE, BLUE, "white")
        _box(axes, (x + 0.4, y), (1.7, 1), name)
    _box(axes, (9.3, y), (1.3, 1), "end")
    for start, end in ((5.2, 5.9 if quantized else 6.6), (8.3, 9.3)):
        _arrow(axes, (start, y + 0.5), (end, y + 0.5))
    for x in (5.55, 8.75):  # the features, on their way to the loss
        axes.plot((x, x), (y + 0.5, 5.65), color="0.5", lw=1.4, ls="--")


def pipeline() -> Figure:
    """The two stages of 2DQuant: the search of the bounds, and teacher and student with their loss."""
    figure, axes = plt.subplots(figsize=(7, 4.3), layout="none")
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.995)
    axes.set(xlim=(0, 14), ylim=(0, 8.6))
    axes.set_axis_off()
    _network_row(axes, 6.6, False)
    _network_row(axes, 3.7, True)
    axes.text(3.5, 7.85, "teacher: full precision, frozen", fontsize=10)
    axes.text(6.6, 3.15, "student: the same weights, frozen", fontsize=10)
    _arrow(axes, (5.55, 5.65), (11.3, 5.65), "0.5", "--")
    for x, i in ((5.7, 1), (8.9, 2)):
        axes.text(x, 6.05, f"$F_{i}$", fontsize=10)
        axes.text(x, 4.95, f"$\\hat F_{i}$", fontsize=10)
    _box(axes, (0.1, 5.1), (1.6, 1.1), "crop")
    _arrow(axes, (1.7, 5.9), (3.5, 7.1))
    _arrow(axes, (1.7, 5.4), (2.8, 4.2))
    _box(axes, (11.3, 4.9), (2.6, 1.5), "loss\n$L_O + \\lambda L_F$", "#fdf1e3", ORANGE)
    for y, end, name in ((7.1, 6.4, "$O$"), (4.2, 4.9, "$\\hat O$")):
        _arrow(axes, (10.6, y), (12.3, end))
        axes.text(11.4, y + (0.12 if y > 6 else -0.4), name, fontsize=10)
    bounds = "bounds $l, u$ of every Q:\ntwo numbers each"
    _box(axes, (5.2, 0.5), (4.6, 1.3), bounds, BLUE, BLUE, "white")
    _arrow(axes, (5.9, 1.8), (3.1, 3.7), BLUE)
    _arrow(axes, (6.2, 1.8), (6.2, 3.7), BLUE)
    axes.plot((12.9, 12.9), (4.9, 1.15), color=BLUE, lw=1.4)
    _arrow(axes, (12.9, 1.15), (9.8, 1.15), BLUE)
    second = "stage 2, DQC:\nthe gradient moves\nthe bounds"
    axes.text(9.95, 1.35, second, color=BLUE, fontsize=9)
    _box(axes, (0.1, 0.2), (3.9, 2.0), "", "white")
    wave = np.linspace(-3, 3, 80)
    bell = 0.85 * np.exp(-0.9 * wave**2)
    axes.fill_between(1.1 + 0.28 * wave, 0.5, 0.5 + bell, color="0.75")
    for x in (0.65, 1.55):
        axes.plot((x, x), (0.4, 1.5), color=BLUE, lw=1.6)
    axes.text(0.3, 1.75, "stage 1, DOBI:", fontsize=9)
    axes.text(2.15, 0.55, "searched on\neach tensor's\nvalues", fontsize=9)
    _arrow(axes, (4.0, 1.15), (5.2, 1.15))
    return figure


def bound_gradients(
    x: np.ndarray, rounded: np.ndarray, bounds: Point, slopes: Sequence[np.ndarray], bits: int
) -> Figure:
    """A staircase, and the gradients of its values to both bounds.

    `rounded` holds the quantized values of `x`, `slopes` the gradients to the lower and to the upper bound.
    """
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 4.3), sharex=True)
    above.plot(x, np.clip(x, *bounds), color="0.6", lw=1.2, label="clipped")
    above.plot(x, rounded, color="black", label="$\\hat x$")
    above.set(ylabel="quantized value", title=f"{bits} bits")
    above.legend(loc="upper left")
    below.plot(x, slopes[1], color=BLUE, label="to the upper bound")
    below.plot(x, slopes[0], color=RED, ls="--", label="to the lower bound")
    below.set(xlabel="value $x$", ylabel="gradient of $\\hat x$", ylim=(-0.25, 1.15))
    for axes in (above, below):
        for bound, colour in zip(bounds, (RED, BLUE)):
            axes.axvline(bound, color=colour, lw=0.8, ls=":")
    for place, name in ((-0.95, "below"), (0.1, "inside"), (1.15, "above")):
        below.text(place, 0.5, name, ha="center", color="0.35")
    below.legend(loc="upper center", bbox_to_anchor=(0.5, 0.95))
    return figure


def one_step(steps: np.ndarray, walks: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Change of the loss after one step of several sizes, and the change that the gradient foretells.

    `steps` are shares of the widths of the ranges; `walks` holds both relative changes per bit-width.
    """
    figure, axes = plt.subplots(figsize=(7, 3.4))
    for (bits, (change, foretold)), colour in zip(walks.items(), (BLUE, RED)):
        axes.plot(steps, change, "o-", color=colour, label=f"{bits} bits")
        axes.plot(steps, foretold, ":", color=colour, lw=1.4)
    axes.plot([], [], ":", color="0.3", label="foretold")
    axes.axhline(0, color="0.3", lw=0.8)
    axes.set(xscale="log", xlabel="step, as a share of each width", ylabel="change of the loss")
    every = np.concatenate([change for change, _ in walks.values()])
    axes.set_ylim(every.min() - 0.05, min(every.max(), 0.5) + 0.05)
    axes.yaxis.set_major_formatter(lambda x, _: "0%" if abs(x) < 0.005 else f"{x:+.0%}")
    axes.legend(loc="upper left")
    return figure


def gradient_sizes(sizes: Mapping[str, np.ndarray], epsilon: float) -> Figure:
    """Absolute gradients of all bounds, sorted, for each of three losses, with Adam's `epsilon` as a line."""
    figure, axes = plt.subplots(figsize=(7, 3.5))
    for (label, size), colour, line in zip(sizes.items(), (BLUE, RED, ORANGE), ("-", "--", "-.")):
        axes.plot(np.arange(len(size)), np.maximum(size, 1e-13), color=colour, ls=line, label=label)
    axes.axhline(epsilon, color="black", lw=1)
    across = axes.get_yaxis_transform()
    axes.text(0.5, epsilon * 1.4, "Adam's ε", ha="center", fontsize=9, transform=across)
    axes.set(yscale="log", xlabel="bounds, sorted by their gradient", ylabel="|gradient|")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=3, fontsize=8.5)
    return figure


def step_shares(shares: Mapping[tuple[str, str], np.ndarray], ours: float) -> Figure:
    """One step of Adam as a share of the width of every range, sorted, and `ours` as a line.

    `shares` has a line per network (two of them) and side (weights or activations).
    """
    figure, axes = plt.subplots(figsize=(7, 3.4))
    colours = dict(zip(dict.fromkeys(net for net, _ in shares), (BLUE, RED), strict=True))
    for (net, side), part in shares.items():
        line = "-" if side == "weights" else "--"
        axes.plot(np.linspace(0, 1, len(part)), part, line, color=colours[net], label=f"{net}, {side}")
    axes.axhline(ours, color="black", lw=1)
    axes.text(1, ours * 1.1, "our laptop rate", ha="right", fontsize=9)
    axes.set(yscale="log", xlabel="ranges of a network, sorted (share)", ylabel="one step of 0.01, in widths")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def training(curves: Mapping[str, np.ndarray]) -> Figure:
    """Three losses over the iterations, each relative to its value before training."""
    figure, axes = plt.subplots(figsize=(7, 3))
    for (label, curve), colour, line in zip(curves.items(), (GREEN, BLUE, RED), ("-.", "-", "--")):
        axes.plot(curve, line, color=colour, label=label)
    axes.axhline(1, color="0.3", lw=0.8)
    axes.set(xlabel="iteration", ylabel="loss / loss before training")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


def bound_percentiles(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray], title: str
) -> Figure:
    """Percentiles of the data at which the lower and the upper bounds stand, before and after training."""
    index = np.arange(len(before[0]))
    figure, panels = plt.subplots(2, 1, figsize=(7, 4.6), sharex=True)
    for axes, side, name in zip(panels, (1, 0), ("upper", "lower")):
        axes.vlines(index, before[side], after[side], color="0.7", lw=1)
        axes.plot(index, before[side], "o", mfc="white", mec=ORANGE, ms=6, ls="", label="DOBI")
        axes.plot(index, after[side], ".", color=BLUE, ms=7, label="DOBI, then DQC")
        axes.set_ylabel(f"{name} bound (percentile)")
    panels[1].set_xlabel("activation quantizer, in the order of calls")
    panels[0].set_title(title)
    panels[0].legend(loc="lower left", bbox_to_anchor=(0.55, 1.0), ncols=2)
    return figure
