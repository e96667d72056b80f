"""Claims of the papers as checks: by how much a row of a table beats another, in print and on ours."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from sqlib.errors import InputError
from sqlib.experiments.store import Store
from sqlib.experiments.tables import table_frame

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Statement:
    """``low <= drop(worse) - drop(better) <= high`` in dB, for each bit-width and dataset.

    Attributes
    ----------
    name, text
        Short name; the claim in words.
    source
        Where the paper says it.
    table
        The planned table that holds both rows.
    better, worse
        Their labels.
    bits
        Bit-widths it is claimed for.
    low, high
        Bounds of the gain in dB.
    """

    name: str
    text: str
    source: str
    table: str
    better: str
    worse: str
    bits: tuple[int, ...]
    low: float = 0.0
    high: float = math.inf


STATEMENTS = (
    Statement(
        "dfsq-beats-minmax",
        "DFSQ loses no more than Min-Max at 4 and 3 bits, on every dataset",
        "DFSQ, section 4.2, Tables 2 and 3",
        "dfsq-table2",
        "DFSQ",
        "MinMax",
        (4, 3),
    ),
    Statement(
        "brecq-below-minmax",
        "BRECQ ends below plain Min-Max at 6 and 4 bits",
        "DFSQ, Table 2",
        "dfsq-table2",
        "MinMax",
        "BRECQ",
        (6, 4),
    ),
    Statement(
        "qdrop-below-minmax",
        "QDrop ends below plain Min-Max at 6 and 4 bits",
        "DFSQ, Table 2",
        "dfsq-table2",
        "MinMax",
        "QDROP",
        (6, 4),
    ),
)


def statement_frame(
    statement: Statement, *, store: Store | str | os.PathLike[str] | None = None
) -> pd.DataFrame:
    """Every instance of a statement: printed and ours, one row per network, scale, bits and dataset.

    Parameters
    ----------
    statement
        One of :data:`STATEMENTS`.
    store
        The reader's own store over the packaged records; as in :func:`~sqlib.experiments.table_frame`.

    Returns
    -------
    pandas.DataFrame
        Columns ``network`` (printed rows say so), ``scale``, ``bits``, ``dataset``, ``gain`` (drop of the
        worse minus drop of the better, dB) and ``held``. Rows of which a drop is not known are left out.
    """
    import pandas as pd

    frame = table_frame(statement.table, store=store)
    rows = []
    datasets = list(dict.fromkeys(frame.columns.get_level_values(0)))
    for key, worse in frame.iterrows():
        scale, bits, method, network = cast("tuple[int, int, str, str]", key)
        if method != statement.worse or bits not in statement.bits:
            continue
        place = (scale, bits, statement.better, network)
        if place not in frame.index:
            continue
        better = frame.loc[[place]].iloc[0]
        for dataset in datasets:
            gain = float(worse[dataset, "drop"]) - float(better[dataset, "drop"])
            if not math.isfinite(gain):
                continue
            rows.append(
                {
                    "network": network,
                    "scale": scale,
                    "bits": bits,
                    "dataset": dataset,
                    "gain": gain,
                    "held": statement.low <= gain <= statement.high,
                }
            )
    return pd.DataFrame(rows, columns=["network", "scale", "bits", "dataset", "gain", "held"])


def statement_summary(
    statements: tuple[Statement, ...] = STATEMENTS,
    *,
    store: Store | str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """One row per statement: how often it held in print and on our networks.

    Returns
    -------
    pandas.DataFrame
        Columns ``claim``, ``source``, ``in print`` and ``on our networks``, the last two as
        ``"7 of 8 (+0.12 to +3.40 dB)"`` or ``"not run"``.
    """
    import pandas as pd

    if not statements:
        raise InputError("statement_summary: no statements given; pass some of STATEMENTS")
    rows = []
    for statement in statements:
        found = statement_frame(statement, store=store)
        printed = found["network"].str.endswith("(printed)") if len(found) else pd.Series(dtype=bool)
        rows.append(
            {
                "claim": statement.text,
                "source": statement.source,
                "in print": _words(found[printed]),
                "on our networks": _words(found[~printed]),
            }
        )
    return pd.DataFrame(rows)


def _words(found: pd.DataFrame) -> str:
    if found.empty:
        return "not run"
    span = f"{found['gain'].min():+.2f} to {found['gain'].max():+.2f} dB"
    return f"{int(found['held'].sum())} of {len(found)} ({span})"
