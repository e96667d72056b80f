"""Planned, resumable, recorded experiments: every table of the book comes out of here.

>>> from sqlib import experiments
>>> run = experiments.reproduce("dfsq-table2", profile="smoke")
>>> experiments.table_frame("dfsq-table2", scale=4)  # doctest: +SKIP

Names load on first use, so that ``import sqlib.experiments`` stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlib.experiments.cells import CalibrationSpec, Cell, spelled
    from sqlib.experiments.frame import context_frame, published_frame
    from sqlib.experiments.gaps import gaps_frame
    from sqlib.experiments.notebook import run_notebook
    from sqlib.experiments.overview import status
    from sqlib.experiments.planner import plan
    from sqlib.experiments.records import drops_frame, provenance_frame, seconds_frame
    from sqlib.experiments.reproduction import Reproduction, reproduce
    from sqlib.experiments.scoreboard import scoreboard_counts, scoreboard_frame
    from sqlib.experiments.store import Store, default_store, packaged_store
    from sqlib.experiments.tables import format_table, table_frame
    from sqlib.experiments.verdicts import judge
    from sqlib.experiments.verification import verify

_HOME = {
    "CalibrationSpec": "cells",
    "Cell": "cells",
    "Reproduction": "reproduction",
    "Store": "store",
    "context_frame": "frame",
    "default_store": "store",
    "drops_frame": "records",
    "format_table": "tables",
    "gaps_frame": "gaps",
    "judge": "verdicts",
    "packaged_store": "store",
    "plan": "planner",
    "provenance_frame": "records",
    "published_frame": "frame",
    "reproduce": "reproduction",
    "run_notebook": "notebook",
    "scoreboard_counts": "scoreboard",
    "scoreboard_frame": "scoreboard",
    "seconds_frame": "records",
    "spelled": "cells",
    "status": "overview",
    "table_frame": "tables",
    "verify": "verification",
}

__all__ = [
    "CalibrationSpec",
    "Cell",
    "Reproduction",
    "Store",
    "context_frame",
    "default_store",
    "drops_frame",
    "format_table",
    "gaps_frame",
    "judge",
    "packaged_store",
    "plan",
    "provenance_frame",
    "published_frame",
    "reproduce",
    "run_notebook",
    "scoreboard_counts",
    "scoreboard_frame",
    "seconds_frame",
    "spelled",
    "status",
    "table_frame",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"sqlib.experiments.{_HOME[name]}"), name)
    raise AttributeError(f"module 'sqlib.experiments' has no attribute {name!r}")
