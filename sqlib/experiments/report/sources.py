"""The records behind a page: every drop in long form, where it comes from, and what it took."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlib.errors import InputError
from sqlib.experiments import papers
from sqlib.experiments.report.tables import setting, table_frame
from sqlib.experiments.run.plan import planned
from sqlib.experiments.store.cells import Cell, spelled
from sqlib.experiments.store.layers import Layer, shown_records
from sqlib.experiments.store.records import Record

if TYPE_CHECKING:
    import pandas as pd

_DIGITS = 8
_PROVENANCE = (
    "table",
    "network",
    "method",
    "bits",
    "dataset",
    "images",
    "protocol",
    "device",
    "torch",
    "weights",
    "data",
    "code",
    "record",
    "from",
)


def drops_frame(
    table: str, *, metric: str = "psnr_y", store: Layer | str | os.PathLike[str] | None = None
) -> pd.DataFrame:
    """A :func:`~sqlib.experiments.table_frame` in long form: one row per value that exists.

    Returns
    -------
    pandas.DataFrame
        Columns ``scale``, ``bits``, ``method``, ``network``, ``dataset``, ``value``, ``drop`` (from the same
        network's full precision; NaN where that is not known), ``verdict`` and ``source``.

    Raises
    ------
    InputError
        As `table_frame`.
    """
    frame = table_frame(table, metric=metric, store=store)
    rows = frame.stack("dataset", future_stack=True).reset_index()
    rows.columns.name = None
    rows = rows[rows["value"].notna()].reset_index(drop=True)
    return rows[["scale", "bits", "method", "network", "dataset", "value", "drop", "verdict", "source"]]


def provenance_frame(
    tables: Sequence[str], *, store: Layer | str | os.PathLike[str] | None = None
) -> pd.DataFrame:
    """Where every number of ours in some tables comes from: one row per cell of a table that has a record.

    Parameters
    ----------
    tables : sequence of str
        Names of planned tables.
    store : Layer, str, path-like or None
        The reader's own store over the packaged records; as in `table_frame`.

    Returns
    -------
    pandas.DataFrame
        Columns ``table``, ``network``, ``method``, ``bits``, ``dataset``, ``images`` (how many),
        ``protocol``, ``device``, ``torch`` (version), ``weights``, ``data``, ``code``, ``record`` (the first
        eight digits of their hashes) and ``from`` ("packaged" or "own"), sorted.

    Raises
    ------
    InputError
        Unknown table.
    """
    import pandas as pd

    rows = []
    for cell, record in shown_cells(tables, store=store):
        assert cell.place is not None
        hashes = (record["weights_id"], record["data"], record["code"], record["key"])
        rows.append(
            (
                cell.place.table,
                f"{cell.model} x{cell.scale}",
                spelled(cell.place.method),
                cell.place.bits,
                record["dataset"],
                len(record["images"]),
                cell.protocol,
                record["device"],
                record["versions"]["torch"],
                *(text[:_DIGITS] for text in hashes),
                record["origin"],
            )
        )
    frame = pd.DataFrame(rows, columns=[*_PROVENANCE])
    return frame.sort_values([*_PROVENANCE[:5]], ignore_index=True)


def seconds_frame(
    tables: Sequence[str], *, store: Layer | str | os.PathLike[str] | None = None
) -> pd.DataFrame:
    """How long quantizing took: one row per network, scale, method and bits.

    A prepared network serves several datasets, and only the record for which it was prepared knows the time:
    the longest one counts.

    Returns
    -------
    pandas.DataFrame
        Columns ``network``, ``scale``, ``method``, ``bits`` and ``seconds`` (of calibration and
        training, on a machine that may have been busy); methods without any are left out.

    Raises
    ------
    InputError
        Unknown table.
    """
    import pandas as pd

    longest: dict[tuple[str, int, str, int | str], float] = {}
    for cell, record in shown_cells(tables, store=store):
        assert cell.place is not None
        seconds = float(record.get("seconds_preparing") or math.nan)
        if seconds > 0:
            key = (cell.model, cell.scale, cell.place.method, setting(cell.place.bits))
            longest[key] = max(longest.get(key, 0.0), seconds)
    rows = [(*key, seconds) for key, seconds in longest.items()]
    return pd.DataFrame(rows, columns=["network", "scale", "method", "bits", "seconds"])


def shown_cells(
    tables: Sequence[str], *, store: Layer | str | os.PathLike[str] | None = None
) -> list[tuple[Cell, Record]]:
    """The cells of some tables that have a record, with it: a record that two rows show is there twice.

    Cells are in the order of the tables and of their plans, and know their row (``cell.place``).

    Raises
    ------
    InputError
        Unknown table.
    """
    if isinstance(tables, str):
        raise InputError(f"tables={tables!r}: expected a list of names, e.g. [{tables!r}]")
    for table in tables:
        papers.table(table)
    records = shown_records(store)
    cells = [cell for table in tables for cell in planned(table)]
    return [(cell, records[cell.id]) for cell in cells if cell.id in records]
