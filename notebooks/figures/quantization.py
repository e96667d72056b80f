"""Figures of "Quantization, and gradients through a staircase"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sqlib.plots import OKABE_ITO

BLUE, RED = OKABE_ITO["blue"], OKABE_ITO["vermilion"]
GREEN, ORANGE = OKABE_ITO["green"], OKABE_ITO["orange"]


def staircase() -> Figure:
    """A quantizer of 3 bits on [-1, 1], and its error."""
    ramp = np.linspace(-1.6, 1.6, 1601)
    steps = np.rint(np.clip((ramp + 1) / (2 / 7), 0, 7)) * (2 / 7) - 1
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.1))
    left.plot(ramp, np.clip(ramp, -1, 1), color="0.6", lw=1.2, ls="--", label="clip only")
    left.plot(ramp, steps, color=BLUE, label="$Q(x)$, 3 bits")
    left.set(
        xlabel="value $x$",
        ylabel=r"quantized value $\hat{x}$",
        title="The staircase",
    )
    left.legend(loc="upper left")
    inside, error = np.abs(ramp) <= 1, steps - ramp
    right.plot(ramp, np.where(inside, error, np.nan), color=BLUE, label="rounding")
    right.plot(ramp, np.where(inside, np.nan, error), color=RED, label="clipping")
    right.set(xlabel="value $x$", ylabel=r"error $\hat{x} - x$", title="Its error")
    right.legend()
    for axis in (left, right):
        axis.axvline(-1, color="0.75", lw=1)
        axis.axvline(1, color="0.75", lw=1)
        axis.set_xticks([-1, 0, 1], ["$l$", "0", "$u$"])
    return figure


def noise_model(noise: pd.DataFrame) -> Figure:
    """SQNR, and error over s^2/12, against bits; a line per kind of data.

    `noise` has the columns data, bits, sqnr (dB) and ratio.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.5))
    for (name, group), marker in zip(noise.groupby("data", sort=False), "osD^"):
        left.plot(group["bits"], group["sqnr"], marker=marker, ms=4, label=name)
        right.plot(group["bits"], group["ratio"], marker=marker, ms=4, label=name)
    left.set(
        xlabel="bits $b$",
        ylabel="SQNR / dB",
        title="Signal over noise, Min-Max bounds",
    )
    right.axhline(1, color="0.5", lw=1, ls="--")
    right.set(xlabel="bits $b$", ylabel="measured error / $(s^2/12)$", ylim=(0, None))
    right.set_title("Uniform noise model: 1 is right")
    for axis in (left, right):
        axis.set_xticks(range(2, 13, 2))
        axis.invert_xaxis()
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def clipping(
    grid: np.ndarray,
    parts: np.ndarray,
    model: np.ndarray,
    choices: Mapping[str, tuple[float, float]],
) -> Figure:
    """Clipping, rounding and total error against the upper bound, at 4 bits.

    `parts` (n, 2) holds the two errors on the `grid` (n,), `model` (n,) the clipping error plus the noise
    model, and `choices` the bound and the error of each rule.
    """
    clip, rounding = parts.T
    figure, axis = plt.subplots(figsize=(7, 3.6))
    axis.semilogy(grid, np.where(clip > 0, clip, np.nan), color=RED, ls="--", label="clipping")
    axis.semilogy(grid, rounding, color=GREEN, ls="-.", label="rounding")
    axis.semilogy(grid, clip + rounding, color=BLUE, lw=2.4, label="total")
    axis.semilogy(grid, model, color="0.4", lw=1, ls=":", label="clipping + noise model")
    for (rule, place), marker in zip(choices.items(), "s^D*"):
        star: dict[str, Any] = {"ms": 17, "zorder": 3}
        other: dict[str, Any] = {"ms": 7, "zorder": 4, "mec": "white"}
        axis.plot(
            *place,
            marker,
            color="black",
            label=rule,
            **(star if marker == "*" else other),
        )
    axis.set(
        xlabel="upper bound $u$",
        ylabel="mean squared error",
        title="4 bits, activations after a ReLU",
    )
    axis.set_ylim(bottom=(clip + rounding).min() / 8)
    axis.legend(ncols=2)
    return figure


def levels(
    bits: int,
    share: int,
    values: np.ndarray,
    total: np.ndarray,
    parts: tuple[float, float, float],
) -> Figure:
    """The levels of one choice on the histogram of `values` (> 0), and where its SQNR stands.

    `share` is the upper bound in percent of the maximum; `total` (n, 2) the line of shares and SQNR (dB);
    `parts` the signal over the clipping error (infinite where nothing is clipped), over the rounding error
    and over both, in dB.
    """
    top = values.max()
    height, edges = np.histogram(values, np.linspace(0, top, 71))
    upper, ceiling = share / 100 * top, 3 * height.max()
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3), width_ratios=(3, 2), layout="none")
    figure.subplots_adjust(0.13, 0.17, 0.985, 0.9, 0.28)
    left.stairs(height, edges, fill=True, color="0.8")
    left.vlines(np.linspace(0, upper, 2**bits), 0.5, ceiling, color=BLUE, lw=0.8)
    left.axvspan(upper, max(upper, edges[-1]), color=RED, alpha=0.15, lw=0)
    left.set(yscale="log", ylim=(0.7, ceiling), xlabel="activation", ylabel="count")
    left.set_title(f"{2**bits} levels")
    # Plain numbers and no minor ticks: a third of the time that typeset powers of ten take.
    left.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    left.minorticks_off()
    clip, rounding, both = parts
    right.plot(*total.T, color="0.6", label="total")
    right.plot(share, both, "o", color="black")
    if np.isfinite(clip):
        right.plot(share, clip, "v", color=RED, label="clipping alone")
    right.plot(share, rounding, "^", color=GREEN, label="rounding alone")
    right.set(
        xlabel="u / % of maximum",
        ylabel="signal / error in dB",
        xlim=(0, 108),
        ylim=(-2, 45),
    )
    right.set_title(f"SQNR {both:.1f} dB")
    right.legend(loc="upper right")
    return figure


def per_channel(per: pd.DataFrame) -> Figure:
    """SQNR of the weights of each layer, one range per tensor and one per channel.

    `per` has the columns layer, tensor and channel (dB).
    """
    figure, axis = plt.subplots(figsize=(7, 3.9))
    place = np.arange(len(per))
    axis.hlines(place, per["tensor"], per["channel"], color="0.7", lw=2)
    axis.plot(per["tensor"], place, "s", color=RED, label="one range per tensor")
    axis.plot(per["channel"], place, "o", color=BLUE, label="one range per output channel")
    axis.set_yticks(place, per["layer"])
    axis.invert_yaxis()
    axis.set(
        xlabel="SQNR of the weights / dB",
        title="Weights of the residual blocks, Min-Max, 4 bits",
    )
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.08), ncols=2)
    return figure


def descent(
    lowers: np.ndarray,
    uppers: np.ndarray,
    surface: np.ndarray,
    path: np.ndarray,
    best: np.ndarray,
    errors: tuple[np.ndarray, float],
) -> Figure:
    """The path of two trained bounds on the surface of the error, and the error along it.

    `surface` (upper, lower) is in dB, `path` (steps + 1, 2) starts at Min-Max, `best` is the pair of least
    error; `errors` holds the mean squared error along the path and at the best pair.
    """
    along, least = errors
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.6))
    contours = left.contourf(lowers, uppers, surface, levels=14, cmap="cividis")
    figure.colorbar(contours, ax=left, label="mean squared error / dB")
    left.plot(*path.T, ".-", color="white", ms=3, lw=1, label="trained bounds")
    left.plot(*path[0], "s", color="white", mec="black", label="Min-Max")
    left.plot(*best, "*", color=ORANGE, mec="black", ms=14, label="least error")
    left.set(
        xlabel="lower bound $l$",
        ylabel="upper bound $u$",
        title="Path of the two bounds",
    )
    left.legend(loc="lower left", labelcolor="white")
    right.plot(along, color=BLUE, label="straight-through")
    right.axhline(least, color=ORANGE, ls="--", label="least error")
    right.axhline(along[0], color="0.5", ls=":", label="Min-Max")
    right.set(
        xlabel="step of gradient descent",
        ylabel="mean squared error",
        title="Error, 4 bits",
    )
    right.set_ylim(0, None)
    right.legend()
    return figure


def pictures(shown: Mapping[str, np.ndarray]) -> Figure:
    """Three pictures (H, W, 3) side by side, their titles above."""
    figure, axes = plt.subplots(1, 3, figsize=(7, 2.6), layout="none")
    figure.subplots_adjust(0, 0, 1, 0.9, 0.02)
    for axis, (title, picture) in zip(axes, shown.items()):
        axis.imshow(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
        axis.set_axis_off()
        axis.set_title(title, fontsize=9.5)
    return figure
