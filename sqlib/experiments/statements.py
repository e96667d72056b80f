"""Claims of the papers as checks: by how much a row of a table beats another, in print and on ours."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

from sqlib.errors import InputError
from sqlib.experiments._dfsq import OURS
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
    share
        Also, drop(better) is at most this share of drop(worse); by default any.
    ours
        Printed label to the label of the variant that stands for it on our networks, where the printed
        method itself was not run (a shorter schedule); the summary names it.
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
    share: float = math.inf
    ours: Mapping[str, str] = field(default_factory=dict)


_COLUMNS = ("network", "scale", "bits", "dataset", "gain", "share", "held")
_SHORT = {"BRECQ": "BRECQ, 500 iterations", "QDROP": "QDrop, 500 iterations"}
_FULL_ROW = "channel-wise + normalization (DFSQ)"

_HALF = Statement(
    "ours-halves-the-drop",
    "Exact points and compensated weights lose at most half of what DFSQ loses, at 6, 4 and 3 bits",
    "this project",
    "dfsq-table2",
    OURS,
    "DFSQ",
    (6, 4, 3),
    low=-math.inf,
    share=0.5,
)

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
        ours=_SHORT,
    ),
    Statement(
        "qdrop-below-minmax",
        "QDrop ends below plain Min-Max at 6 and 4 bits",
        "DFSQ, Table 2",
        "dfsq-table2",
        "MinMax",
        "QDROP",
        (6, 4),
        ours=_SHORT,
    ),
    Statement(
        "channel-wise-helps",
        "Statistics per channel lose less than statistics per layer",
        "DFSQ, section 4.3, Table 1",
        "dfsq-table1",
        _FULL_ROW,
        "normalization only",
        (4,),
    ),
    Statement(
        "collapse-without-normalization",
        "Without normalization the network collapses (we ask: it loses 5 dB more)",
        "DFSQ, section 4.3, Table 1 (no numbers printed)",
        "dfsq-table1",
        _FULL_ROW,
        "channel-wise only",
        (4,),
        low=5.0,
    ),
    Statement(
        "fixed-scale-instead",
        "The same with a fixed scale per channel, the other reading of 'without normalization'",
        "DFSQ, section 4.3, Table 1 (no numbers printed)",
        "dfsq-table1",
        _FULL_ROW,
        "channel-wise, fixed scale",
        (4,),
        low=5.0,
    ),
    Statement(
        "third-word-set",
        "From 2 to 3 word sets the score rises clearly (printed: 0.34 dB; we ask: 0.05 dB)",
        "DFSQ, appendix C",
        "dfsq-appendix-c",
        "3 word sets",
        "2 word sets",
        (4,),
        low=0.05,
    ),
    Statement(
        "fourth-word-set",
        "From 3 to 4 word sets it hardly moves (printed: +0.002 dB; we ask: within 0.05 dB)",
        "DFSQ, appendix C",
        "dfsq-appendix-c",
        "4 word sets",
        "3 word sets",
        (4,),
        low=-0.05,
        high=0.05,
    ),
    Statement(
        "fifth-word-set",
        "From 4 to 5 word sets it falls (printed: 0.051 dB)",
        "DFSQ, appendix C",
        "dfsq-appendix-c",
        "4 word sets",
        "5 word sets",
        (4,),
    ),
    _HALF,
    replace(_HALF, name="ours-quarters-the-drop", text="... at most a quarter", share=0.25),
    Statement(
        "ours-is-safe-at-8-bits",
        "... and never 0.01 dB more at 8 bits",
        "this project",
        "dfsq-table2",
        OURS,
        "DFSQ",
        (8,),
        low=-0.01,
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
        worse minus drop of the better, dB), ``share`` (drop of the better over that of the worse; NaN where
        that lost nothing) and ``held``. Rows of which a drop is not known are left out.
    """
    return _instances(statement, table_frame(statement.table, store=store))


def _instances(statement: Statement, frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    rows = []
    datasets = list(dict.fromkeys(frame.columns.get_level_values(0)))
    for key, worse in frame.iterrows():
        scale, bits, method, network = cast("tuple[int, int, str, str]", key)
        ours = {} if network.endswith("(printed)") else statement.ours
        if method != ours.get(statement.worse, statement.worse) or bits not in statement.bits:
            continue
        place = (scale, bits, ours.get(statement.better, statement.better), network)
        if place not in frame.index:
            continue
        better = frame.loc[[place]].iloc[0]
        for dataset in datasets:
            more, less = float(worse[dataset, "drop"]), float(better[dataset, "drop"])
            gain = more - less
            if not math.isfinite(gain) and network.endswith("(printed)"):
                # A table that prints no full precision: it cancels from the gain.
                gain = float(better[dataset, "value"]) - float(worse[dataset, "value"])
            if not math.isfinite(gain):
                continue
            rows.append(
                {
                    "network": network,
                    "scale": scale,
                    "bits": bits,
                    "dataset": dataset,
                    "gain": gain,
                    "share": less / more if more > 0 else math.nan,
                    "held": statement.low <= gain <= statement.high
                    and (math.isinf(statement.share) or less <= statement.share * more),
                }
            )
    return pd.DataFrame(rows, columns=[*_COLUMNS])


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
        ``"7 of 8 (+0.12 to +3.40 dB)"``, for claims about a share as ``"7 of 8 (0.12 to 0.52 of it)"``, or
        ``"not run"``.
    """
    import pandas as pd

    if not statements:
        raise InputError("statement_summary: no statements given; pass some of STATEMENTS")
    frames = {name: table_frame(name, store=store) for name in {s.table for s in statements}}
    rows = []
    for statement in statements:
        found = _instances(statement, frames[statement.table])
        printed = found["network"].str.endswith("(printed)") if len(found) else pd.Series(dtype=bool)
        rows.append(
            {
                "claim": statement.text + _variants(statement),
                "source": statement.source,
                "in print": _words(statement, found[printed]),
                "on our networks": _words(statement, found[~printed]),
            }
        )
    return pd.DataFrame(rows)


def _variants(statement: Statement) -> str:
    used = [statement.ours[label] for label in (statement.better, statement.worse) if label in statement.ours]
    return f" (on ours: {', '.join(used)})" if used else ""


def _words(statement: Statement, found: pd.DataFrame) -> str:
    if found.empty:
        return "not run"
    if math.isinf(statement.share):
        span = f"{found['gain'].min():+.2f} to {found['gain'].max():+.2f} dB"
    else:
        span = f"{found['share'].min():.2f} to {found['share'].max():.2f} of it"
    return f"{int(found['held'].sum())} of {len(found)} ({span})"
