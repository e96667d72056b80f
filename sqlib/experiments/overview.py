"""What is measured, what is missing and what it needs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from sqlib.experiments import definitions
from sqlib.experiments.compute import weights_folder
from sqlib.experiments.planner import plan
from sqlib.experiments.scoreboard import scoreboard_counts, scoreboard_frame, shown_records
from sqlib.experiments.store import Store, default_store


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


def table_status(
    profile: str, *, table: str | None = None, store: str | os.PathLike[str] | None = None
) -> list[TableStatus]:
    """How much of each table (or one) the reader's store and the packaged records hold."""
    records = shown_records(store)
    result = []
    for name in definitions.TABLES if table is None else (definitions.table(table).name,):
        status = TableStatus(name, profile)
        for cell in plan(name, profile):
            record = records.get(cell.id)
            if record is None:
                absent = (
                    cell.weights not in ("pretrained", "none")
                    and not (weights_folder() / cell.weights).is_file()
                )
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
    """Everything ``python -m sqlib status`` shows, as one JSON object."""
    counts = scoreboard_counts(scoreboard_frame(store))
    if table is not None:
        counts = counts.loc[[name for name in counts.index if name in (table, "total")]]
    return {
        "store": str(Store(store if store is not None else default_store()).path),
        "profile": profile,
        "tables": [
            {
                "table": item.table,
                "cells": item.cells,
                "own": item.own,
                "packaged": item.packaged,
                "missing": item.missing,
            }
            for item in table_status(profile, table=table, store=store)
        ],
        "scoreboard": {
            str(name): {str(key): int(value) for key, value in row.items()} for name, row in counts.iterrows()
        },
    }
