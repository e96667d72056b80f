"""What is measured, what is missing and what it needs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from sqlib.experiments import papers
from sqlib.experiments.papers.published import published_frame
from sqlib.experiments.report.scoreboard import judged, scoreboard_counts
from sqlib.experiments.run.compute import checkpoint
from sqlib.experiments.run.plan import plan
from sqlib.experiments.store import layers
from sqlib.experiments.store.records import Record
from sqlib.experiments.store.working import Store


@dataclass
class TableStatus:
    """Cells of one table in one profile, by where their record is."""

    table: str
    profile: str
    own: int = 0
    packaged: int = 0
    missing: list[str] = field(default_factory=list)

    @property
    def cells(self) -> int:
        return self.own + self.packaged + len(self.missing)


def table_status(profile: str, records: dict[str, Record], *, table: str | None = None) -> list[TableStatus]:
    """How much of each table (or one) these `records` hold, as `shown_records` gives them."""
    result = []
    for name in papers.tables() if table is None else (papers.table(table).name,):
        status = TableStatus(name, profile)
        for cell in plan(name, profile):
            record = records.get(cell.id)
            if record is None:
                absent = cell.weights not in ("pretrained", "none") and checkpoint(cell.weights) is None
                status.missing.append(cell.label + (f" (needs weights {cell.weights})" if absent else ""))
            elif record["origin"] == "own":
                status.own += 1
            else:
                status.packaged += 1
        result.append(status)
    return result


def status(
    profile: str = "laptop", *, table: str | None = None, store: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Everything ``python -m sqlib status`` shows, as one JSON object.

    ``unreadable`` lists the records, own and packaged, that cannot be read; all else is as if they were not.
    """
    records = layers.shown_records(store)
    counts = scoreboard_counts(judged(published_frame(blanks=False), records))
    if table is not None:
        counts = counts.loc[[name for name in counts.index if name in (table, "total")]]
    own = Store(store if store is not None else layers.default_store())
    unreadable = [item for layer in (own, layers.packaged_store()) for item in layer.survey()[1]]
    return {
        "store": str(own.path),
        "exists": own.path.is_dir(),
        "profile": profile,
        "unreadable": [{"path": str(item.path), "reason": item.reason} for item in unreadable],
        "tables": [
            {
                "table": item.table,
                "cells": item.cells,
                "own": item.own,
                "packaged": item.packaged,
                "missing": item.missing,
            }
            for item in table_status(profile, records, table=table)
        ],
        "scoreboard": {
            str(name): {str(key): int(value) for key, value in row.items()} for name, row in counts.iterrows()
        },
    }
