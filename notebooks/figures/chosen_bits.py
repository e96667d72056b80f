"""Figures of "Bits that depend on the image: CADyQ and CABM"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

from sqlib.plots import OKABE_ITO, image_grid

COLOURS = {4: OKABE_ITO["blue"], 6: OKABE_ITO["orange"], 8: OKABE_ITO["vermilion"]}
WHERE = ((0.005, 0.02, 0.55, 0.86), (0.565, 0.02, 0.43, 0.86))


def errors(edges: ArrayLike, error: Mapping[int, ArrayLike], lost: Mapping[int, ArrayLike]) -> Figure:
    """Squared error and lost PSNR (dB) of patches over their edge scores, at 4, 6 and 8 bits."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.6))
    for (bits, colour), marker in zip(COLOURS.items(), "os^", strict=True):
        style: dict[str, Any] = {"color": colour, "ms": 3, "alpha": 0.6, "mew": 0}
        axes[0].plot(edges, error[bits], marker, label=f"{bits} bits", **style)
        axes[1].plot(edges, lost[bits], marker, **style)
    axes[0].set(xscale="log", yscale="log", ylabel="squared error, gray levels²")
    axes[1].set(xscale="log", ylabel="loss of the patch's own PSNR, dB")
    for axis in axes:
        axis.set_xlabel("edge score, gray levels")
    axes[0].legend(markerscale=2)
    return figure


def photographs(pictures: Sequence[np.ndarray], sizes: Sequence[Sequence[int]]) -> Figure:
    """Two gray photographs (H, W) of `sizes` (rows and columns of patches), for maps to lie over."""
    figure, axes = _panels(sizes)
    for axis, picture in zip(axes, pictures, strict=True):
        extent = (*axis.get_xlim(), *axis.get_ylim())
        axis.imshow(picture, "gray", extent=extent, interpolation="auto")
    return figure


def bits_needed(maps: Sequence[np.ndarray], title: str) -> Figure:
    """The bits (4, 6, 8, or 0 for more) of each patch of two photographs; `maps` are (rows, columns)."""
    return _paint(maps, {**COLOURS, 0: "#777777"}.__getitem__, lambda bits: str(bits or "+"), title)


def mean_bits(maps: Sequence[np.ndarray], title: str) -> Figure:
    """The mean bits of each patch of two photographs, from 4 to 7; `maps` are (rows, columns)."""
    between = plt.get_cmap("plasma")
    return _paint(maps, lambda bits: between((bits - 4) / 3), "{:.1f}".format, title)


def table(scores: ArrayLike, found: ArrayLike, rows: ArrayLike, means: ArrayLike) -> Figure:
    """The mean bits that CABM's table has at `scores`, and the `means` of its `rows` (scores, too)."""
    figure, axis = plt.subplots(figsize=(7, 3.4))
    axis.plot(scores, found, color=OKABE_ITO["sky"], lw=0.8, label="looked up")
    axis.plot(rows, means, ".", ms=4, color=OKABE_ITO["vermilion"], label="what CADyQ chose")
    axis.set(xlabel="edge score, gray levels", ylabel="mean bits of the configuration", xscale="log")
    axis.set_xlim(left=round(float(np.asarray(rows).min()), 2) / 1.1)  # scores are whole hundredths
    axis.legend()
    return figure


def outlined(pictures: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """Gray pictures (H, W) side by side, each in a thin frame: one may be all white."""
    figure: Figure = image_grid(pictures, titles)
    for axis in figure.axes:
        frame = Rectangle((0, 0), 1, 1, transform=axis.transAxes, fill=False, ec="gray", lw=1)
        axis.add_patch(frame)
    return figure


def _panels(sizes: Sequence[Sequence[int]]) -> tuple[Figure, list[Axes]]:
    """A figure with places for the two photographs, in units of patches."""
    figure = plt.figure(figsize=(7, 3.1))
    figure.set_layout_engine("none")
    axes = []
    for (high, wide), place in zip(sizes, WHERE, strict=True):
        axis = figure.add_axes(place, xlim=(0, wide), ylim=(high, 0))
        axis.set_aspect("equal")  # as of a photograph
        axis.set_axis_off()
        axes.append(axis)
    return figure, axes


def _paint(
    maps: Sequence[np.ndarray], colour: Callable[[Any], Any], text: Callable[[Any], str], title: str
) -> Figure:
    """A figure that lies over the photographs: patches in colour, with numbers."""
    figure, axes = _panels([values.shape for values in maps])
    edge = [withStroke(linewidth=1.6, foreground="white")]
    look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7.5, "path_effects": edge}
    for axis, values in zip(axes, maps, strict=True):
        for (y, x), value in np.ndenumerate(values):
            axis.add_patch(Rectangle((x, y), 1, 1, color=colour(value), alpha=0.55, lw=0))
            axis.text(x + 0.5, y + 0.5, text(value), **look)
    figure.text(0.01, 0.93, title, fontsize=10)
    return figure
