"""How sure a mean over a set of images is: bootstrap intervals, of scores and of paired differences."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sqlib.errors import InputError
from sqlib.experiments.report.sources import shown_cells
from sqlib.experiments.report.tables import setting
from sqlib.experiments.store.cells import spelled
from sqlib.experiments.store.layers import Layer
from sqlib.experiments.store.metrics import PRINTED
from sqlib.experiments.store.records import Record

if TYPE_CHECKING:
    import pandas as pd

LEVEL, DRAWS = 0.95, 2000
_COLUMNS = (
    "table", "network", "scale", "method", "bits", "dataset", "images",
    "mean", "low", "high", "drop", "drop low", "drop high",
)  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """A mean over images, and where it lies in 95 % of the sets drawn anew from these images.

    Attributes
    ----------
    mean, low, high
        In the unit of the values.
    """

    mean: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Whether 0 lies outside: of a difference, whether there is one."""
        return self.low > 0 or self.high < 0


def bootstrap(values: Sequence[float] | NDArray[np.float64]) -> Interval:
    """The percentile bootstrap interval of a mean: 2,000 draws with replacement, always the same ones.

    Parameters
    ----------
    values
        One per image, at least one. With few images, such as the five of Set5, the interval is too narrow.

    Raises
    ------
    InputError
        No values, or one that is not finite.
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise InputError(f"bootstrap: expected finite values, one per image, got {values!r}")
    means = x[_draws(len(x))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(x.mean()), float(low), float(high))


@cache
def _draws(n: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(n, size=(DRAWS, n))


def difference(one: Record, other: Record, metric: str = "psnr_y") -> Interval:
    """By how much `one` is above `other`, image by image.

    Raises
    ------
    InputError
        The records are of other images, or lack the metric.
    """
    scores = [_scores(record, metric) for record in (one, other)]
    if list(scores[0]) != list(scores[1]):
        raise InputError("the two records are of other images, so that no image is compared with itself")
    return bootstrap([scores[0][name] - scores[1][name] for name in scores[0]])


def intervals_frame(
    tables: Sequence[str],
    *,
    metric: str = "psnr_y",
    store: Layer | str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """Every mean of ours in some tables with its interval, and its drop from full precision with that.

    Returns
    -------
    pandas.DataFrame
        Columns ``table``, ``network``, ``scale``, ``method``, ``bits``, ``dataset``, ``images`` (how many),
        ``mean``, ``low``, ``high``, and ``drop``, ``drop low``, ``drop high`` (NaN in full precision).

    Raises
    ------
    InputError
        Unknown table or metric.
    """
    import pandas as pd

    if metric not in PRINTED:
        raise InputError(f"unknown metric {metric!r}; expected one of {', '.join(PRINTED)}")
    cells = [
        (c, r)
        for c, r in shown_cells(tables, store=store)
        if PRINTED[metric].name in r["images"][0]["metrics"]
    ]
    full = {(c.place and c.place.table, c.model, c.scale, c.protocol, r["dataset"]): r
            for c, r in cells if c.recipe is None}  # fmt: skip
    rows = []
    for cell, record in cells:
        assert cell.place is not None
        own = bootstrap(list(_scores(record, metric).values()))
        reference = full.get((cell.place.table, cell.model, cell.scale, cell.protocol, record["dataset"]))
        drop = Interval(np.nan, np.nan, np.nan)
        if cell.recipe is not None and reference is not None:
            drop = difference(reference, record, metric)
        rows.append(
            (
                cell.place.table,
                cell.model,
                cell.scale,
                spelled(cell.place.method),
                setting(cell.place.bits),
                record["dataset"],
                len(record["images"]),
                *(own.mean, own.low, own.high),
                *(drop.mean, drop.low, drop.high),
            )
        )
    return pd.DataFrame(rows, columns=[*_COLUMNS])


def _scores(record: Record, metric: str) -> Mapping[str, float]:
    field = PRINTED[metric].name
    images = record["images"]
    if not images or field not in images[0]["metrics"]:
        raise InputError(f"the record has no {metric}")
    return {str(image["name"]): float(image["metrics"][field]) for image in images}
