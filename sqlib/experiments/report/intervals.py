"""How sure a mean over a set of images is: bootstrap intervals, of scores and of paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sqlib.errors import InputError
from sqlib.experiments.store.metrics import PRINTED
from sqlib.experiments.store.records import Record

LEVEL, DRAWS = 0.95, 2000


@dataclass(frozen=True)
class Interval:
    """A mean over images, and where it lies in 95 % of the sets drawn anew from these images.

    Attributes
    ----------
    mean, low, high : float
        In the unit of the values.
    """

    mean: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Whether 0 lies outside: of a difference, whether there is one."""
        return self.low > 0 or self.high < 0

    @property
    def margin(self) -> float:
        """Half the width: what stands behind a ±."""
        return (self.high - self.low) / 2


def bootstrap(values: Sequence[float] | NDArray[np.float64]) -> Interval:
    """The percentile bootstrap interval of a mean: 2,000 draws with replacement, always the same ones.

    Parameters
    ----------
    values : sequence of float or ndarray of float64
        One per image, at least one. With few images, such as the five of Set5, the interval is too narrow;
        with one that is not finite, as a collapsed network may score, its ends are NaN.

    Raises
    ------
    InputError
        No values.
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or not len(x):
        raise InputError(f"bootstrap: expected one value per image, got {values!r}")
    if not np.isfinite(x).all():
        return Interval(float(x.mean()), math.nan, math.nan)
    means = x[_draws(len(x))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(x.mean()), float(low), float(high))


@cache
def _draws(n: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(n, size=(DRAWS, n))


def interval(record: Record, metric: str = "psnr_y") -> Interval:
    """A record's mean over its images.

    Raises
    ------
    InputError
        The record lacks the metric.
    """
    return bootstrap(list(_scores(record, metric).values()))


def difference(one: Record, other: Record, metric: str = "psnr_y") -> Interval:
    """By how much `one` is above `other`, image by image.

    Raises
    ------
    InputError
        The records are of other images, or lack the metric.
    """
    return weighted_sum(((1.0, one), (-1.0, other)), metric)


def weighted_sum(parts: Sequence[tuple[float, Record]], metric: str = "psnr_y") -> Interval:
    """Weight times record, added up image by image.

    Raises
    ------
    InputError
        The records are of other images, or lack the metric.
    """
    scores = [_scores(record, metric) for _, record in parts]
    if any(other.keys() != scores[0].keys() for other in scores):
        raise InputError("the records are of other images, so that no image is compared with itself")
    weights = [weight for weight, _ in parts]
    return bootstrap([sum(w * s[name] for w, s in zip(weights, scores)) for name in scores[0]])


def _scores(record: Record, metric: str) -> Mapping[str, float]:
    field = PRINTED[metric].name
    images = record["images"]
    if not images or field not in images[0]["metrics"]:
        raise InputError(f"the record has no {metric}")
    return {str(image["name"]): float(image["metrics"][field]) for image in images}
