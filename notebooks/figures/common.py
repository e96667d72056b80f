"""Drawings and tables that several chapters share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from sqlib import experiments
from sqlib.plots import image_grid


def stacked_bars(axis: Axes, parts: pd.DataFrame, colours: Iterable[str], **look: Any) -> None:
    """A horizontal bar per row of `parts`, with a piece per column; the columns' names label the pieces."""
    left = np.zeros(len(parts))
    for name, colour in zip(parts, colours, strict=True):
        axis.barh(parts.index, parts[name], left=left, color=colour, label=name, **look)
        left = left + parts[name]


def drop_lines(
    axes: Axes,
    rows: pd.DataFrame,
    look: Mapping[str, tuple[str, str, str]],
    bits: Sequence[int],
    edge: float,
    minor_ticks: bool,
) -> None:
    """Drops (dB, logarithmic) against bits, a line per method; a drop of zero or less is left out.

    `rows` has the columns method, bits and drop; `look` holds colour, marker and line of a method; `bits` are
    the ticks, the widest first, and `edge` is the room beside them.
    """
    for name, (colour, marker, line) in look.items():
        one = rows[(rows["method"] == name) & (rows["drop"] > 0)].sort_values("bits")
        if len(one):
            axes.plot(one["bits"], one["drop"], label=name, color=colour, marker=marker, ls=line, ms=5)
    axes.set_yscale("log")
    if not minor_ticks:
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xticks(bits)
    axes.set_xlim(bits[0] + edge, bits[-1] - edge)


def drops(
    rows: pd.DataFrame, *, title: str, ylabel: str = "drop from full precision (dB)", **how: Any
) -> Figure:
    """Drops against bits; `rows` and `how` as in `drop_lines`."""
    figure, axes = plt.subplots(figsize=(7, 3.6))
    drop_lines(axes, rows, **how)
    axes.set(xlabel="bits b of weights and activations", ylabel=ylabel, title=title)
    axes.legend(handlelength=4)
    return figure


def drop_panels(
    networks: Mapping[str, pd.DataFrame],
    *,
    height: float,
    room: tuple[float, float],
    ylim: tuple[float, float],
    legend: dict[str, Any],
    **how: Any,
) -> Figure:
    """Drops against bits, a panel per network and one legend above; rows and `how` as in `drop_lines`.

    `height` is in inches, `room` where the panels begin and end, as parts of it.
    """
    figure, panels = plt.subplots(1, len(networks), figsize=(7, height), sharey=True, layout="none")
    figure.subplots_adjust(0.095, room[0], 0.99, room[1], wspace=0.06)
    seen: dict[str, Any] = {}
    for axes, (network, rows) in zip(panels, networks.items(), strict=True):
        drop_lines(axes, rows, **how)
        axes.set(ylim=ylim)
        axes.set_title(network, y=1.02)
        if rows.empty:
            axes.text(0.5, 0.5, "not run", ha="center", transform=axes.transAxes)
        handles, names = axes.get_legend_handles_labels()
        seen |= dict(zip(names, handles, strict=True))
    panels[0].set_ylabel("drop from full precision (dB)")
    figure.supxlabel("bits b of weights and activations", fontsize=10, y=0.005)
    order = [name for name in how["look"] if name in seen]
    figure.legend([seen[name] for name in order], order, loc="upper center", **legend)
    return figure


def scored_pictures(
    original: np.ndarray, pictures: Mapping[str, np.ndarray], psnr: Mapping[str, float], columns: int
) -> Figure:
    """The original and `pictures` (uint8, H x W x 3), each under its name and PSNR (dB)."""
    titles = ["original", *(f"{name}\n{value:.2f} dB" for name, value in psnr.items())]
    return image_grid([original, *pictures.values()], titles, columns=columns)


MARGIN = "± is half the 95% bootstrap interval over the images"  # of captions


def signed(value: float, digits: int = 3) -> str:
    """With its sign, and without a minus in front of zero."""
    return f"{value:+z.{digits}f}"


def span(values: Iterable[float], digits: int = 2) -> str:
    """Least to largest as text; one number where the two look the same."""
    values = list(values)
    return " to ".join(dict.fromkeys(signed(end, digits) for end in (min(values), max(values))))


def long_rows(table: str, store: Any = None) -> pd.DataFrame:
    """A table of a paper, a row per value; `margin` is half the 95% bootstrap interval of a drop of ours."""
    rows = experiments.table_frame(table, store=store).stack("dataset", future_stack=True)
    rows = rows[rows["value"].notna()].reset_index().rename_axis(columns=None)
    return rows.assign(margin=(rows["high"] - rows["low"]) / 2)


def with_margin(rows: pd.DataFrame, digits: int = 2) -> list[str]:
    """The drops of `long_rows` as text, "0.09 ± 0.02"; those of print, which have no margin, without."""
    return [
        f"{drop:z.{digits}f}" + (f" ± {margin:.{digits}f}" if np.isfinite(margin) else "")
        for drop, margin in zip(rows["drop"], rows["margin"])
    ]


def score_rows(
    frame: pd.DataFrame, metric: str, methods: Mapping[str, str], networks: Mapping[str, str]
) -> pd.DataFrame:
    """A `table_frame` of one scale as text, without rows of which nothing was run."""
    rows = experiments.format_table(frame, metric=metric).droplevel("scale")
    rows = rows[(rows.drop(columns="verdict") != "not run").any(axis=1)].reset_index()
    return rows.assign(
        method=rows["method"].replace(dict(methods)), network=rows["network"].replace(dict(networks))
    )


def held(claim: pd.DataFrame, on_paper: bool) -> str:
    """How often a claim held in print, or on our networks: "15 of 16"; `claim` is a `statement_frame`."""
    found = claim[claim["network"].astype(str).str.endswith("(printed)") == on_paper]
    return f"{int(found['held'].astype(bool).sum())} of {len(found)}"


def claim_table(
    summary: pd.DataFrame,
    claims: Mapping[str, pd.DataFrame],
    titles: Sequence[str],
    readings: Mapping[str, str],
) -> pd.DataFrame:
    """A `statement_summary` under our titles, with our reading of each claim that did not always hold.

    `claims` holds a `statement_frame` per claim, by its name, as do `readings` texts.
    """
    reading = [
        "" if claim["held"].astype(bool).all() else readings.get(name, "") for name, claim in claims.items()
    ]
    return summary.drop(columns="source").assign(claim=titles, **{"our reading": reading})
