"""Why a value of ours is not the printed one: the papers' paragraphs, and the values they speak for."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from sqlib.experiments.papers import Gap, papers

if TYPE_CHECKING:
    import pandas as pd


def gaps() -> tuple[Gap, ...]:
    """All recorded gaps, paper by paper."""
    return tuple(gap for paper in papers().values() for gap in paper.gaps)


def explanation(value_id: str) -> str:
    """The paragraph that speaks for a printed value, or an empty text."""
    return next((gap.text for gap in gaps() if any(fnmatchcase(value_id, p) for p in gap.values)), "")


def partial_set(dataset: str) -> str:
    """Why a value on part of a set, such as ``urban100[30]``, is no match: it is a mean over other images."""
    return f"scored on {dataset}, the images at hand: a mean over other images than the printed one"


def gaps_frame() -> pd.DataFrame:
    """All recorded gaps: columns ``name``, ``values`` (patterns, comma-separated) and ``text``."""
    import pandas as pd

    return pd.DataFrame([{"name": g.name, "values": ", ".join(g.values), "text": g.text} for g in gaps()])
