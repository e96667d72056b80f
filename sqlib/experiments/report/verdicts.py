"""One verdict per printed value: match, close, shape, gap, or not run.

Our full-precision weights are not the papers', so scores are compared by their *drop from full precision*;
full-precision rows themselves, and values that need no weights (sizes, operation counts), are compared as
printed. An improvement is judged like a loss: being better than the paper is a difference to explain, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Name = Literal["match", "close", "shape", "gap", "not run"]
NAMES: tuple[Name, ...] = ("match", "close", "shape", "gap", "not run")
UNEXPLAINED = "no explanation is recorded yet"


@dataclass(frozen=True)
class Verdict:
    """A verdict, the difference it rests on (ours minus theirs in the metric's unit, or NaN), and why."""

    name: Name
    difference: float = math.nan
    reason: str = ""


@dataclass(frozen=True)
class Evidence:
    """What a verdict is made from.

    ``published_fp`` and ``own_fp`` are the full-precision scores of the same network and dataset; None for
    values that have none (full-precision rows, counts). ``close`` is the largest difference of drops that
    is still close, 0 for exact counts. ``rivals`` holds (published, ours) of the other methods at the same
    bits on the same dataset, for the ordering. ``counted`` marks a value that was counted, not measured.
    """

    published: float
    own: float
    decimals: int
    published_fp: float | None = None
    own_fp: float | None = None
    close: float = 0.0
    partial: bool = False
    counted: bool = False
    rivals: tuple[tuple[float, float], ...] = ()
    reason: str = ""


def difference(evidence: Evidence) -> float:
    """Ours minus theirs: of the drops from full precision where both are known, else of the values."""
    if evidence.published_fp is None or evidence.own_fp is None:
        return evidence.own - evidence.published
    return (evidence.own_fp - evidence.own) - (evidence.published_fp - evidence.published)


def judge(evidence: Evidence) -> Verdict:
    """The verdict on one printed value that was run.

    *match*: the difference is what rounding in print allows, half a unit of the last printed digit for a
    value, a whole unit for a drop (two rounded values); a count may also be cut off in print, as papers do
    (1442.416 appears as 1442.41). *close*: at most ``close``. *shape*: the method
    stands to every rival as printed (needs a rival; printed ties hold either way). *gap*: none of these,
    with the reason. A result on part of a dataset is at most *shape*.
    """
    delta = difference(evidence)
    if not math.isfinite(delta):
        return Verdict("gap", delta, evidence.reason or UNEXPLAINED)
    unit = 10.0**-evidence.decimals
    rounding = unit if evidence.published_fp is not None and evidence.own_fp is not None else unit / 2
    slack = 1e-9  # decimal prints are not binary fractions
    if not evidence.partial:
        cut = evidence.counted and 0 <= delta < unit
        if abs(delta) <= rounding + slack or cut:
            return Verdict("match", delta, evidence.reason if evidence.counted else "")
        if abs(delta) <= evidence.close + slack:
            return Verdict("close", delta, evidence.reason)
    if evidence.rivals and same_order((evidence.published, evidence.own), evidence.rivals):
        return Verdict("shape", delta, evidence.reason)
    return Verdict("gap", delta, evidence.reason or UNEXPLAINED)


def same_order(value: tuple[float, float], rivals: Iterable[tuple[float, float]]) -> bool:
    """Whether a method stands to each rival alike in print and in ours; pairs are (published, ours)."""
    published, own = value
    return all(
        math.isclose(published, other, abs_tol=1e-9) or (published > other) == (own > other_own)
        for other, other_own in rivals
    )


def not_run(needs: str) -> Verdict:
    """The verdict on a value that was not run; ``needs`` says what it takes."""
    return Verdict("not run", math.nan, needs)
