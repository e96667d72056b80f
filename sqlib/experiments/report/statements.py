"""Claims of the papers as checks: by how much a row of a table beats another, in print and on ours."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, cast

from sqlib.errors import InputError
from sqlib.experiments.papers import Statement, table
from sqlib.experiments.papers import statements as all_statements
from sqlib.experiments.report.intervals import Interval, difference, weighted_sum
from sqlib.experiments.report.sources import shown_cells
from sqlib.experiments.report.tables import setting, table_frame
from sqlib.experiments.store.layers import Layer
from sqlib.experiments.store.records import Record

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = (
    *("network", "scale", "bits", "dataset", "better", "worse"),
    *("gain", "gain low", "gain high", "share", "held", "undecided"),
)

_NOISE = 1e-9
"""Of a difference between two decimals, in dB: what is printed exactly at a bound holds."""


def statement_frame(
    statement: Statement, *, store: Layer | str | os.PathLike[str] | None = None
) -> pd.DataFrame:
    """Every instance of a statement: printed and ours, one row per network, scale, bits and dataset.

    Parameters
    ----------
    statement : Statement
        One of :func:`sqlib.experiments.papers.statements`.
    store : Layer, str, path-like or None
        The reader's own store over the packaged records; as in :func:`~sqlib.experiments.table_frame`.

    Returns
    -------
    pandas.DataFrame
        Columns ``network`` (printed rows say so), ``scale``, ``bits``, ``dataset``, ``better`` and ``worse``
        (drops of the two rows in dB; NaN where full precision is not printed), ``gain`` (worse minus better,
        dB), of ours also ``gain low`` and ``gain high``, its bootstrap interval over the images, ``share``
        (better over worse; NaN where that lost nothing), ``held``, and ``undecided``, of ours: whether the
        interval holds a bound that was claimed, of the gain or of the share. Rows of which the gain is not
        known are left out.
    """
    return statement_frames((statement,), store=store)[statement.name]


def statement_frames(
    statements: tuple[Statement, ...] | None = None,
    *,
    store: Layer | str | os.PathLike[str] | None = None,
) -> dict[str, pd.DataFrame]:
    """Name of a statement to its :func:`statement_frame`, each table being read once."""
    statements = all_statements() if statements is None else statements
    names = sorted({s.table for s in statements})
    tables = {name: (table_frame(name, store=store), _records(name, store)) for name in names}
    return {s.name: _instances(s, *tables[s.table]) for s in statements}


_Place = tuple[str, int, str, "int | str", str]


def _records(table: str, store: Layer | str | os.PathLike[str] | None) -> dict[_Place, Record]:
    """Network, scale, method, bits and dataset to our record."""
    return {
        (c.model, c.scale, c.place.method, setting(c.place.bits), c.dataset.lower()): record
        for c, record in shown_cells([table], store=store)
        if c.place is not None
    }


def _instances(statement: Statement, frame: pd.DataFrame, records: dict[_Place, Record]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    claimed = _networks(statement)
    datasets = list(dict.fromkeys(frame.columns.get_level_values(0)))
    pairs = [(bits, key, row) for key, row in frame.iterrows() for bits in statement.bits]
    for bits, key, worse in pairs:
        scale, other, method, network = cast("tuple[int, int | str, str, str]", key)
        if claimed is not None and network not in claimed:
            continue
        named = network.endswith("(printed)")
        worse_labels, better_labels = (
            (label,) if named else statement.variants(label) for label in (statement.worse, statement.better)
        )
        if method not in worse_labels or other != statement.against.get(bits, bits):
            continue
        place = next(
            (p for label in better_labels if (p := (scale, bits, label, network)) in frame.index), None
        )
        if place is None:
            continue
        better = frame.loc[[place]].iloc[0]
        for dataset in datasets:
            more, less = float(worse[dataset, "drop"]), float(better[dataset, "drop"])
            gain = more - less
            if not math.isfinite(gain):
                # A table without a row of full precision, which cancels from the gain.
                gain = float(better[dataset, "value"]) - float(worse[dataset, "value"])
            if not math.isfinite(gain):
                continue
            pair = [
                records.get((network, scale, label, of, dataset.lower()))
                for label, of in ((place[2], bits), (method, other))
            ]
            low, high, undecided = math.nan, math.nan, False
            if pair[0] is not None and pair[1] is not None:
                spread = difference(pair[0], pair[1])
                low, high = spread.low, spread.high
                undecided = any(low <= bound <= high for bound in (statement.low, statement.high))
                full = records.get((network, scale, "FP", 32, dataset.lower()))
                if math.isfinite(statement.share) and full is not None:
                    undecided |= not _short_of(statement.share, full, pair[1], pair[0]).decided
            rows.append(
                {
                    "network": network,
                    "scale": scale,
                    "bits": bits,
                    "dataset": dataset,
                    "better": less,
                    "worse": more,
                    "gain": gain,
                    "gain low": low,
                    "gain high": high,
                    "share": less / more if more > 0 else math.nan,
                    "held": statement.low - _NOISE <= gain <= statement.high + _NOISE
                    and (math.isinf(statement.share) or less <= statement.share * more + _NOISE),
                    "undecided": undecided,
                }
            )
    return pd.DataFrame(rows, columns=[*_COLUMNS])


def _networks(statement: Statement) -> set[str] | None:
    """Names, printed and ours, of the networks that it is claimed for; None: all."""
    if not statement.networks:
        return None
    ours = {n.name for n in table(statement.table).networks if n.published in statement.networks}
    return ours | {f"{name} (printed)" for name in statement.networks}


def _short_of(share: float, full: Record, worse: Record, better: Record) -> Interval:
    """By how much the drop of `better` stays below this share of that of `worse`, in dB."""
    return weighted_sum(((share - 1, full), (-share, worse), (1.0, better)))


def statement_summary(
    statements: tuple[Statement, ...] | None = None,
    *,
    store: Layer | str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """One row per statement: how often it held in print and on our networks.

    Returns
    -------
    pandas.DataFrame
        Columns ``claim``, ``source``, ``in print`` and ``on our networks``, the last two as
        ``"7 of 8 (+0.12 to +3.40 dB)"``, for claims about a share as ``"7 of 8 (0.12 to 0.52 of it)"``; with
        ``", 2 undecided"`` where the bootstrap interval holds the bound that was claimed;
        without an instance ``"no rows in print"`` and ``"not run"``.
    """
    import pandas as pd

    statements = all_statements() if statements is None else statements
    if not statements:
        raise InputError("statement_summary: no statements given; pass some of papers.statements()")
    frames = statement_frames(statements, store=store)
    rows = []
    for statement in statements:
        found = frames[statement.name]
        printed = found["network"].str.endswith("(printed)") if len(found) else pd.Series(dtype=bool)
        rows.append(
            {
                "claim": statement.text + _variants(statement),
                "source": statement.source,
                "in print": _words(statement, found[printed], "no rows in print"),
                "on our networks": _words(statement, found[~printed], "not run"),
            }
        )
    return pd.DataFrame(rows)


def _variants(statement: Statement) -> str:
    labels = [label for label in (statement.better, statement.worse) if label in statement.ours]
    used = [" or ".join(statement.variants(label)) for label in labels]
    return f" (on ours: {', '.join(used)})" if used else ""


def _words(statement: Statement, found: pd.DataFrame, none: str) -> str:
    if found.empty:
        return none
    of_all = not math.isinf(statement.share)
    # Adding zero turns -0.0 into 0.0: what rounds to nothing has no sign.
    values = [round(end, 2) + 0.0 for end in _ends(found["share" if of_all else "gain"])]
    ends = [f"{end:{'.2f' if of_all else '+.2f'}}" for end in values]
    span = " to ".join(dict.fromkeys(ends)) + (" of it" if of_all else " dB")
    text = f"{int(found['held'].sum())} of {len(found)} ({span})"
    undecided = int(found["undecided"].sum())
    return f"{text}, {undecided} undecided" if undecided else text


def _ends(values: pd.Series) -> tuple[float, float]:
    """The least and the largest."""
    return float(values.min()), float(values.max())
