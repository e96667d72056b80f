"""Figures and margins of "RefQSR: tables and figures"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from figures.common import stacked_bars, with_margin
from sqlib import experiments
from sqlib.experiments import papers
from sqlib.experiments.report.intervals import difference, interval
from sqlib.experiments.report.scoreboard import same_inputs
from sqlib.experiments.report.tables import setting
from sqlib.plots import OKABE_ITO, image_grid

PARTS = [OKABE_ITO[c] for c in ("blue", "sky", "orange", "vermilion", "green")]
SETS = [OKABE_ITO[c] for c in ("blue", "orange", "vermilion")]
METHODS = {  # marker and colour
    "PAMS": ("o", OKABE_ITO["blue"]),
    "DDTB": ("s", OKABE_ITO["orange"]),
    "CADyQ": ("^", OKABE_ITO["green"]),
    "CABM": ("D", OKABE_ITO["vermilion"]),
}


def margins(store: Any = None) -> dict[tuple[str, str, str, str, int | str], float]:
    """Half the 95% bootstrap interval (dB) of each PSNR of ours, by table, dataset, network, method, bits.

    It is that of the drop below full precision, which any table of RefQSR may hold: in the same patches,
    else on whole pictures. For full precision itself, and where there is none, it is that of the mean.
    """
    tables = [name for name in papers.tables() if name.startswith("refqsr")]
    cells = experiments.shown_cells(tables, store=store)
    full = {(c.model, c.scale, c.dataset, c.protocol): r for c, r in cells if c.recipe is None}
    found = {}
    for cell, record in cells:
        protocols = cell.protocol, cell.protocol.split("/patch=")[0]
        bases = [full.get((cell.model, cell.scale, cell.dataset, p)) for p in protocols]
        base = next((b for b in bases if b is not None and same_inputs(b, record)), None)
        drops = cell.recipe is not None and base is not None
        sure = difference(base, record) if drops else interval(record)
        place = cell.place.table, cell.dataset, cell.model, cell.place.method, setting(cell.place.bits)
        found[place] = sure.margin
    return found


def psnr_text(rows: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """`rows` with the PSNR as text, "24.49 ± 0.05" where `margin` is known, and without that column.

    Scores without a margin are printed ones, which have two digits.
    """
    text = with_margin(rows.assign(drop=rows["PSNR, dB"]), digits)
    known = np.isfinite(rows["margin"])
    text = [t if k else f"{v:.2f}" for t, k, v in zip(text, known, rows["PSNR, dB"])]
    return rows.assign(**{"PSNR, dB": text}).drop(columns="margin")


def query_shares(shares: pd.DataFrame) -> Figure:
    """The share of queries that each printed row implies, a line per setting of the bits.

    `shares` has the columns network, dataset, setting and q.
    """
    settings = list(shares["setting"].unique())
    colours = dict(zip(shares["dataset"].unique(), SETS, strict=True))
    figure, axis = plt.subplots(figsize=(7, 3.4))
    networks = shares["network"].unique()
    for dataset, network in product(colours, networks):
        group = shares[(shares["dataset"] == dataset) & (shares["network"] == network)]
        marker, shift = ("s", 0.12) if network == "CARN" else ("o", -0.12)
        height = [settings.index(s) + shift for s in group["setting"]]
        look = {"color": colours[dataset], "marker": marker, "label": f"{dataset}, {network}"}
        axis.plot(group["q"], height, ls="", ms=7, **look)
    axis.set(xlabel="implied share of query patches", ylabel="$b_{high}$-$b_{low}$", xlim=(0.4, 0.75))
    axis.set_yticks(range(len(settings)), settings)
    axis.invert_yaxis()
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, frameon=False)
    return figure


def operations(parts: Mapping[str, float], full: float, bits: str) -> Figure:
    """The BitOPs (G) of one picture part by part, against `full`, those of all patches at so many bits."""
    total = sum(parts.values())
    named = {f"{name} {value:.2f}": [value] for name, value in parts.items()}
    figure, axis = plt.subplots(figsize=(7, 2.4))
    stacked_bars(axis, pd.DataFrame(named), PARTS, height=0.5)
    axis.axvline(full, color="gray", ls="--")
    axis.set(xlim=(0, 1.12 * full), ylim=(-0.4, 0.9), yticks=[], xlabel="BitOPs (G)")
    title = f"{total:.2f} G, {100 * (1 - total / full):.0f}% less than all patches at {bits} bits"
    axis.set_title(title, fontsize=10)
    axis.legend(ncols=2, fontsize=8, loc="upper left", frameon=False)
    return figure


def sweeps(panels: Mapping[str, Mapping[str, Any]], base: Mapping[str, str]) -> Figure:
    """What each setting changes against `base`, a panel for each option.

    `panels` holds the change (dB, an `Interval`) by the setting's text, by the option's name; `base` names
    the setting that the others are compared with, which changes nothing.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(7, 2.9), sharey=True)
    for axis, (option, changes) in zip(axes, panels.items(), strict=True):
        ticks = sorted([*changes, base[option]], key=float)
        for place, tick in enumerate(ticks):
            if tick in changes:
                gain = changes[tick]
                axis.vlines(place, gain.low, gain.high, OKABE_ITO["blue"], lw=2)
                axis.plot(place, gain.mean, "o", color=OKABE_ITO["blue"], ms=7)
            else:
                axis.plot(place, 0, "s", color=OKABE_ITO["vermilion"], ms=7)
        axis.axhline(0, color="gray", lw=1, zorder=0)
        axis.set_xticks(range(len(ticks)), ticks)
        axis.set(xlabel=option, xlim=(-0.5, len(ticks) - 0.5))
    axes[0].set_ylabel("change of PSNR (dB)")
    return figure


def lengths(lines: Mapping[str, Mapping[int, Any]]) -> Figure:
    """Change of PSNR (dB, an `Interval`) by iterations, a line for each name."""
    figure, axis = plt.subplots(figsize=(7, 3.4))
    looks = zip(("blue", "orange", "green"), "os^", strict=True)
    for (name, line), (colour, marker) in zip(lines.items(), looks, strict=True):
        x, gains = list(line), list(line.values())
        look = {"color": OKABE_ITO[colour], "marker": marker, "ms": 6, "lw": 1.5}
        axis.plot(x, [gain.mean for gain in gains], label=name, **look)
        axis.vlines(x, [g.low for g in gains], [g.high for g in gains], OKABE_ITO[colour], lw=2)
    axis.axhline(0, color="gray", lw=1, zorder=0)
    axis.set_xscale("log")
    ticks = sorted({x for line in lines.values() for x in line})
    axis.set_xticks(ticks, [f"{x:,}" for x in ticks])
    axis.minorticks_off()
    axis.set(xlabel="more iterations of training (log scale)", ylabel="change of PSNR (dB)")
    axis.legend(fontsize=8)
    return figure


def scores(planes: Mapping[str, pd.DataFrame]) -> Figure:
    """PSNR against BitOPs, a plane per table; filled marks are with RefQSR, and joined to their baselines.

    The tables have a row for each (method, bits), among them ("FP", 32), and the columns "BitOPs, G" and
    "PSNR, dB"; a line leads from `low` to `high` where a table has these columns (dB).
    """
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.6))
    for axis, (title, table) in zip(axes, planes.items(), strict=True):
        for (method, bits), row in table.iterrows():
            base, *refined = method.split("+")
            if base not in METHODS:
                continue
            marker, colour = METHODS[base]
            look = {"marker": marker, "color": colour, "mfc": colour if refined else "none"}
            axis.plot(row["BitOPs, G"], row["PSNR, dB"], ls="", ms=7, **look)
            first = str(bits).split("-")[0]
            before = base, int(first) if first.isdecimal() else first
            if refined and before in table.index:
                ends = table.loc[[before, (method, bits)]]
                axis.plot(ends["BitOPs, G"], ends["PSNR, dB"], color=colour, lw=0.6, alpha=0.6)
            if "low" in row:
                axis.vlines(row["BitOPs, G"], row["low"], row["high"], colour, lw=1)
        axis.axhline(table.loc[("FP", 32)]["PSNR, dB"], color="gray", ls="--", lw=1)
        axis.set(title=title, xlabel="BitOPs (G)")
    axes[0].set_ylabel("PSNR of Urban100 (dB)")
    for name, (marker, colour) in METHODS.items():
        axes[1].plot([], [], marker, color=colour, mfc="none", label=name)
        axes[1].plot([], [], marker, color=colour, label=f"{name}+RefQSR")
    axes[1].legend(fontsize=7, loc="lower right", ncols=2)
    return figure


def crops(images: Sequence[np.ndarray], psnr: Mapping[str, float], fqr: Mapping[str, float]) -> Figure:
    """Crops (H, W, 3): the original, and one per name in `psnr` (dB) and `fqr`, which stand above it."""
    titles = [f"{name}\n{value:.2f} dB, FQR {fqr[name]:.1f}" for name, value in psnr.items()]
    return image_grid(images, ["original\n", *titles], columns=3)
