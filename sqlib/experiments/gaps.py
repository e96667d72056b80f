"""Why a value of ours is not the printed one: one paragraph per gap, and the values it speaks for."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Gap:
    """An explained difference.

    Attributes
    ----------
    name
        Short name.
    values
        Patterns (`fnmatch`) of the ids of printed values, as in ``published_frame``.
    text
        The paragraph: what print says, what we count or measure, and where the two part.
    """

    name: str
    values: tuple[str, ...]
    text: str


GAPS = (
    Gap(
        "2dquant-edsr-4-bit-size",
        ("2dquant-table1/EDSR/x4/DBDC+Pac/4/-/params_mb",),
        "The printed size is an eighth of the printed full-precision size (172.36 / 8 = 21.545, rounded "
        "up): 4 bits for every value, biases and first and last convolution included. Ours gives each "
        "weight the bits that DBDC+Pac gives it, 8 in the first and last convolution, and leaves biases "
        "in full precision, as the paper itself does for SwinIR-light in the rows below.",
    ),
    Gap(
        "2dquant-edsr-4-bit-operations",
        ("2dquant-table1/EDSR/x4/DBDC+Pac/4/LR128x128/ops_g",),
        "The paper's authors counted by hand and do not say what. An eighth of full precision is 0.13 G "
        "below the printed value; ours, with the first and last convolution at 8 bits as DBDC+Pac has "
        "them, is 0.11 G above it. No choice of whole layers kept at 8, 16 or 32 bits gives the printed "
        "digits. An eighth, and an operation in full precision for each value of the 32 residual "
        "additions, would; but then the full-precision row lacks these.",
    ),
    Gap(
        "dfsq-edsr-trained-for-hours",
        ("dfsq-table1/EDSR/*", "dfsq-table2/EDSR/*"),
        "The paper trained its own EDSR and does not publish it; ours learned from a teacher for an hour and "
        "a half on some 600 images. It starts 0.2 to 0.6 dB lower in full precision, and every method takes "
        "less away from it than in print. Our reading, not an experiment: activations spread further the "
        "longer a network is trained, so there is more to lose.",
    ),
)


def explanation(value_id: str) -> str:
    """The paragraph that speaks for a printed value, or an empty text."""
    return next((gap.text for gap in GAPS if any(fnmatchcase(value_id, p) for p in gap.values)), "")


def partial_set(dataset: str) -> str:
    """Why a value on part of a set, such as ``urban100[30]``, is no match: it is a mean over other images."""
    return f"scored on {dataset}, the images at hand: a mean over other images than the printed one"


def gaps_frame() -> pd.DataFrame:
    """All recorded gaps: columns ``name``, ``values`` (patterns, comma-separated) and ``text``."""
    import pandas as pd

    return pd.DataFrame([{"name": g.name, "values": ", ".join(g.values), "text": g.text} for g in GAPS])
