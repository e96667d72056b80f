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
    from sqlib.experiments import papers
    from sqlib.experiments.papers.published import context_frame, published_frame
    from sqlib.experiments.report.board import show_scoreboard
    from sqlib.experiments.report.gaps import gaps_frame
    from sqlib.experiments.report.scoreboard import scoreboard_counts, scoreboard_frame
    from sqlib.experiments.report.sources import drops_frame, provenance_frame, seconds_frame, shown_cells
    from sqlib.experiments.report.stand_ins import stand_ins_frame
    from sqlib.experiments.report.status import status
    from sqlib.experiments.report.tables import format_table, table_frame
    from sqlib.experiments.report.verdicts import judge
    from sqlib.experiments.run.notebook import run_notebook
    from sqlib.experiments.run.plan import plan
    from sqlib.experiments.run.reproduce import Reproduction, reproduce
    from sqlib.experiments.run.verify import verify
    from sqlib.experiments.store.cells import CalibrationSpec, Cell, Place, spelled
    from sqlib.experiments.store.layers import default_store, packaged_store, shown_records
    from sqlib.experiments.store.records import mean
    from sqlib.experiments.store.working import Store

_HOME = {
    "CalibrationSpec": "store.cells",
    "Cell": "store.cells",
    "Place": "store.cells",
    "Reproduction": "run.reproduce",
    "Store": "store.working",
    "context_frame": "papers.published",
    "default_store": "store.layers",
    "drops_frame": "report.sources",
    "format_table": "report.tables",
    "gaps_frame": "report.gaps",
    "judge": "report.verdicts",
    "mean": "store.records",
    "packaged_store": "store.layers",
    "plan": "run.plan",
    "provenance_frame": "report.sources",
    "published_frame": "papers.published",
    "reproduce": "run.reproduce",
    "run_notebook": "run.notebook",
    "scoreboard_counts": "report.scoreboard",
    "scoreboard_frame": "report.scoreboard",
    "seconds_frame": "report.sources",
    "show_scoreboard": "report.board",
    "shown_cells": "report.sources",
    "shown_records": "store.layers",
    "spelled": "store.cells",
    "stand_ins_frame": "report.stand_ins",
    "status": "report.status",
    "table_frame": "report.tables",
    "verify": "run.verify",
}

__all__ = [
    "CalibrationSpec",
    "Cell",
    "Place",
    "Reproduction",
    "Store",
    "context_frame",
    "default_store",
    "drops_frame",
    "format_table",
    "gaps_frame",
    "judge",
    "mean",
    "packaged_store",
    "papers",
    "plan",
    "provenance_frame",
    "published_frame",
    "reproduce",
    "run_notebook",
    "scoreboard_counts",
    "scoreboard_frame",
    "seconds_frame",
    "show_scoreboard",
    "shown_cells",
    "shown_records",
    "spelled",
    "stand_ins_frame",
    "status",
    "table_frame",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"sqlib.experiments.{_HOME[name]}"), name)
    if name == "papers":
        return importlib.import_module("sqlib.experiments.papers")
    raise AttributeError(f"module 'sqlib.experiments' has no attribute {name!r}")
