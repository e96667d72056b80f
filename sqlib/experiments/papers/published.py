"""The printed numbers of the papers as one tidy frame, one row per value.

The CSV files in ``published/`` were typed from the papers' tables. Nothing here knows about our own
results: the scoreboard puts those beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

from sqlib.errors import InputError
from sqlib.experiments.papers import papers
from sqlib.experiments.papers.schema import printed

if TYPE_CHECKING:
    import pandas as pd

#: Columns of a file: as printed, each value a text.
COLUMNS = ("paper", "table", "model", "scale", "method", "bits", "dataset", "metric", "value")
# Later or neighbouring work, printed as context and never counted.
_CONTEXT = ("ddtb", "later")


@cache
def _values(files: tuple[Traversable, ...]) -> pd.DataFrame:
    import pandas as pd

    parts = []
    for file in sorted(files, key=lambda f: f.name):
        with file.open("r", encoding="utf-8") as stream:
            # Everything as text first: "32.00" and "32.0" are different prints, and the number of printed
            # decimals decides how far rounding alone may move a value.
            part = pd.read_csv(stream, dtype=str, keep_default_na=False)
        if tuple(part.columns) != COLUMNS:
            raise InputError(
                f"published table {file.name} has columns {list(part.columns)}, expected {list(COLUMNS)}"
            )
        parts.append(part)
    frame = pd.concat(parts, ignore_index=True)
    frame["scale"] = frame["scale"].str.removeprefix("x").astype("int64")
    frame = frame.rename(columns={"value": "printed"})
    frame["value"] = pd.to_numeric(frame["printed"].where(frame["printed"] != "", None)).astype("float64")
    frame["decimals"] = frame["printed"].map(lambda text: len(text.partition(".")[2])).astype("int64")
    frame["table"] = frame["paper"] + "-" + frame["table"]
    frame["id"] = [_value_id(row) for row in frame.to_dict("records")]
    if not frame["id"].is_unique:
        raise InputError("published tables hold the same value twice; every printed value needs its own id")
    return frame[["id", *COLUMNS[:-1], "value", "printed", "decimals"]]


def _value_id(row: Mapping[Any, Any]) -> str:
    """Stable name of one printed value; it is quoted in records and chapters, so it never changes."""
    fields = (
        row["table"],
        row["model"],
        f"x{row['scale']}",
        row["method"],
        row["bits"],
        row["dataset"],
        row["metric"],
    )
    return "/".join(str(field) or "-" for field in fields)


def published_frame(*, blanks: bool = True) -> pd.DataFrame:
    """All values printed by the papers, one row each.

    Parameters
    ----------
    blanks : bool
        Keep the 17 cells that the papers left blank (``value`` is NaN there).

    Returns
    -------
    pandas.DataFrame
        Columns ``id`` (stable text), ``paper``, ``table`` (``"dfsq-table2"``), ``model``, ``scale`` (int),
        ``method``, ``bits`` (text as printed: ``"4"``, ``"8-4"``, ``"delta"``), ``dataset``, ``metric``
        (``psnr_y`` in dB, ``ssim_y``, ``bitops_g``, ...), ``value`` (float64), ``printed`` (the text itself)
        and ``decimals`` (how many were printed). 1,983 rows, or 1,966 without the blanks.
    """
    frame = _values(tuple(file for paper in papers().values() for file in paper.printed))
    if not blanks:
        frame = frame[frame["value"].notna()]
    return frame.reset_index(drop=True).copy()


def context_frame() -> pd.DataFrame:
    """Values of later and neighbouring work (DDTB, Granular-DQ, CompSRT), same columns; never counted."""
    return _values(tuple(file for prefix in _CONTEXT for file in printed(prefix))).copy()
