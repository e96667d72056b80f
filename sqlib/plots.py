"""The look of every figure in the book: colours that colour-blind readers tell apart, readable text.

A figure 7 inches wide is 700 pixels wide on the page; 1 pt is then 1.39 px, so the smallest text here (9
pt) is 12.5 px.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sqlib.errors import InputError

OKABE_ITO: dict[str, str] = {
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "black": "#000000",
    "yellow": "#F0E442",
}
"""Okabe and Ito's palette, in the order in which lines use it (yellow last: it is faint on white)."""

WIDTH = 7.0
"""Width of a full figure in inches."""


def use_style() -> None:
    """Set matplotlib's defaults for the book: palette, sizes, constrained layout, light grid."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.labelsize": 10,
            "axes.prop_cycle": cycler(color=list(OKABE_ITO.values())),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "figure.constrained_layout.use": True,
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "figure.figsize": (WIDTH, 3.6),
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.6,
            "image.cmap": "cividis",
            "image.interpolation": "nearest",
            "legend.fontsize": 9,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "savefig.dpi": 200,
            "svg.fonttype": "path",
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
        }
    )


def image_grid(
    images: Sequence[np.ndarray], titles: Sequence[str], *, columns: int | None = None, width: float = WIDTH
) -> Any:
    """Images side by side without axes, pixels shown as squares (no smoothing).

    Parameters
    ----------
    images : sequence of uint8 arrays, (H, W, 3) or (H, W)
    titles : sequence of str
        One per image, shown above it.
    columns : int, optional
        Images per row; all in one row by default.
    width : float
        Width of the figure in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        For no images, or another number of titles than of images.
    """
    import matplotlib.pyplot as plt

    if len(images) == 0 or len(images) != len(titles):
        raise InputError(
            f"image_grid got {len(images)} images and {len(titles)} titles; expected one title each"
        )
    columns = min(columns or len(images), len(images))
    rows = -(-len(images) // columns)
    tallest = max(image.shape[0] / image.shape[1] for image in images)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, rows * (width / columns * tallest + 0.3)), squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, title in zip(axes.flat, images, titles):
        # imshow stretches gray images to their own range unless told otherwise
        axis.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(title, fontsize=10)
    return figure
