"""Figures of "Super-resolution, and how it is scored"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from sqlib.plots import OKABE_ITO

BLUE, RED = OKABE_ITO["blue"], OKABE_ITO["vermilion"]
GREEN, YELLOW = OKABE_ITO["green"], OKABE_ITO["yellow"]


def scores(values: Mapping[str, np.ndarray], luma: Sequence[bool], default: float) -> Figure:
    """The scores of one network on one photograph, a row per way of making the input.

    `values` holds the PSNR (dB) under each rule, `luma` whether a rule compares luma, and `default` is the
    PSNR under the default of the book.
    """
    every, on_luma = np.array(list(values.values())), np.array(luma)
    figure, axis = plt.subplots(figsize=(7, 2.9))
    for mine, marker, color, label in ((on_luma, "o", BLUE, "luma Y"), (~on_luma, "s", RED, "RGB")):
        y = np.repeat(np.arange(len(every)), mine.sum())
        axis.plot(every[:, mine].ravel(), y, marker, color=color, alpha=0.75, markersize=8, label=label)
    axis.axvline(default, color="black", linewidth=1, linestyle="--", label="default of this book")
    axis.set_yticks(range(len(every)), [f"{name} bicubic" for name in values])
    axis.set_ylim(2.5, -0.5)
    axis.set_xlabel("PSNR of the super-resolved image (dB)")
    axis.set_title(f"{every.size} scores of one network on one photograph")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3)
    return figure


def stretch(t: int, scores: Mapping[int, float], pictures: Mapping[str, np.ndarray]) -> Figure:
    """Two pictures (H, W, 3) at the stretch `t` of the kernel, and its place among the `scores` (dB)."""
    figure, axes = plt.subplots(1, 3, figsize=(7, 2.5), width_ratios=(1, 1, 0.95))
    for axis, (name, picture) in zip(axes, pictures.items()):
        axis.imshow(picture)
        axis.set_axis_off()
        axis.set_title(name)
    axes[2].plot(list(scores), list(scores.values()), "-", color="gray")
    axes[2].plot(t, scores[t], "o", color=RED, markersize=9)
    axes[2].set(xlabel="stretch t of the kernel", ylabel="PSNR (dB)", xticks=(1, 2, 4, 6))
    axes[2].set_title(f"{scores[t]:.2f} dB")
    return figure


def edsr(features: int, blocks: int) -> Figure:
    """The stages of EDSR at x4, each with its channels and the size of its picture."""
    stages = {
        "input\nLR": (3, 1),
        "head\nconv": (features, 1),
        f"{blocks} blocks\nconv\nReLU\nconv\n+ input": (features, 1),
        "body end\nconv\n+ head": (features, 1),
        "conv\nPixel-\nShuffle": (features, 2),
        "conv\nPixel-\nShuffle ": (features, 4),
        "tail\nconv": (3, 4),
    }
    figure, axis = plt.subplots(figsize=(7, 2.7))
    axis.set_axis_off()
    for x, (name, (channels, grow)) in enumerate(stages.items()):
        half = 0.6 + 0.25 * np.log2(grow)
        shade = "#cfe3f2" if "blocks" in name else "#eeeeee"
        axis.add_patch(plt.Rectangle((x - 0.4, -half), 0.8, 2 * half, facecolor=shade, edgecolor="black"))
        size = "h x w" if grow == 1 else f"{grow}h x {grow}w"
        axis.text(x, 0, name, ha="center", va="center", fontsize=9)
        axis.text(x, -1.45, f"{channels} ch.\n{size}", ha="center", va="center", fontsize=9)
        if x:
            axis.annotate("", (x - 0.4, 0), (x - 0.6, 0), arrowprops={"arrowstyle": "->"})
    arc = {"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.3"}
    axis.annotate("", (3, 0.6), (1, 0.6), arrowprops=arc)
    axis.text(2, 1.02, "long skip", ha="center", fontsize=9)
    axis.set(xlim=(-0.5, 6.5), ylim=(-1.75, 1.25))
    return figure


def error_map(square: np.ndarray, title: str) -> Figure:
    """Root mean square of 2 x 2 pixels, in steps of 1.5 gray levels.

    `square` (H, W) is the squared error of a pixel, NaN where it does not count.
    """
    height, width = square.shape
    blocks = np.sqrt(square.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)))
    figure, axis = plt.subplots(figsize=(5.2, 3.3))
    picture = axis.imshow(np.ceil(blocks / 1.5) * 1.5, cmap="cividis", vmin=0, vmax=24)
    axis.set_axis_off()
    axis.set_title(title)
    figure.colorbar(picture, ax=axis, label="error of a pixel (gray levels)", extend="max")
    return figure


def changes(large: Mapping[str, np.ndarray], small: Mapping[str, np.ndarray]) -> Figure:
    """Change of PSNR (dB) of every image by each choice, and the mean; the small ones in their own panel."""
    heights = len(large) + 0.6, len(small) + 0.6
    figure, panels = plt.subplots(2, 1, figsize=(7, 5.4), height_ratios=heights)
    for axis, change in zip(panels, (large, small)):
        for row, values in enumerate(change.values()):
            axis.plot(values, np.full(len(values), row), "o", color=BLUE, alpha=0.45, markersize=6)
            axis.plot(values.mean(), row, "|", color=RED, markersize=20, markeredgewidth=3)
        axis.axvline(0, color="black", linewidth=1)
        labels = [
            name.replace(" (", ",\n").rstrip(")").replace("clipped nor", "clipped\nnor") for name in change
        ]
        axis.set_yticks(range(len(change)), labels)
        axis.set_ylim(len(change) - 0.5, -0.5)
    panels[0].set_title("Large: tenths of a dB to several dB")
    panels[1].set_title("Small: hundredths of a dB")
    panels[1].axvspan(-0.05, 0.05, color=YELLOW, alpha=0.25, zorder=0)
    panels[0].set_xlabel("change of PSNR against the default (dB)")
    panels[1].set_xlabel("change of PSNR against the default (dB); the band is ±0.05 dB")
    return figure


def waterfall(stairs: Mapping[str, float]) -> Figure:
    """PSNR (dB) after each choice, all choices before it kept."""
    names, levels = list(stairs), list(stairs.values())
    first, last = levels[0], levels[-1]
    figure, axis = plt.subplots(figsize=(7, 3.3))
    axis.plot([-0.4, 0.4], [first] * 2, color="black", linewidth=3)
    axis.text(0, first + 0.1, f"{first:.2f} dB", ha="center", va="bottom", fontsize=9)
    for x, (before, step) in enumerate(zip(levels, np.diff(levels)), start=1):
        axis.bar(x, step, bottom=before, width=0.8, color=RED if step < 0 else GREEN)
        axis.plot([x - 1.4, x + 0.4], [before, before], color="gray", linewidth=0.8)
        top = max(before, before + step) + 0.1
        axis.text(x, top, f"{step:+.2f}", ha="center", va="bottom", fontsize=9)
    axis.text(len(levels) - 1, last - 0.1, f"{last:.2f} dB", ha="center", va="top", fontsize=9)
    axis.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names])
    axis.set_ylim(min(levels) - 0.7, max(levels) + 0.6)
    axis.set_ylabel("PSNR (dB)")
    axis.grid(axis="x", visible=False)
    return figure
