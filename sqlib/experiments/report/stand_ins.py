"""Our scores that answer no printed value: on a stand-in network, or of a method that no paper prints."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from sqlib.experiments.papers import tables
from sqlib.experiments.papers.published import published_frame
from sqlib.experiments.report.intervals import difference, interval
from sqlib.experiments.report.scoreboard import same_inputs
from sqlib.experiments.report.sources import shown_cells
from sqlib.experiments.store.cells import Cell
from sqlib.experiments.store.layers import Layer
from sqlib.experiments.store.metrics import METRICS
from sqlib.experiments.store.records import mean

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = (
    "table",
    "network",
    "scale",
    "method",
    "bits",
    "dataset",
    "metric",
    "own",
    "own_drop",
    "own_margin",
    "answers",
)


def stand_ins_frame(store: Layer | str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """Every score of ours that is not on the scoreboard itself: one row per row, dataset and metric.

    Two kinds: on a network that stands for no printed one (a stand-in), and of a method that the paper does
    not print. They earn no verdict.

    Returns
    -------
    pandas.DataFrame
        Columns ``table``, ``network``, ``scale``, ``method``, ``bits``, ``dataset`` (its true name, such as
        ``"urban100[30]"``), ``metric`` (as in `scoreboard_frame`), ``own``, ``own_drop`` (from full
        precision; NaN where there is none), ``own_margin`` (as in `scoreboard_frame`) and ``answers``: ids
        of the printed values at the same place of the table, of another network. Networks stand in the
        order of the table's plan.
    """
    import pandas as pd

    cells = shown_cells([*tables()], store=store)
    full = {_network(cell): record for cell, record in cells if cell.recipe is None}
    answered = _printed()
    standing = {
        (name, network.name, network.scale): network.published
        for name, table in tables().items()
        for network in table.networks
    }
    # Printed networks that a stand-in is for: those that the table could be run with.
    replaced = {(table, name.lower()) for (table, *_), name in standing.items() if name}
    rows: list[tuple[Any, ...]] = []
    for cell, record in cells:
        assert cell.place is not None
        place = cell.place
        published = standing.get((place.table, cell.model, cell.scale))
        for metric in (METRICS[name] for name in record["images"][0]["metrics"] if name in METRICS):
            slot = _slot(place.table, cell.scale, place.method, place.bits, cell.dataset, metric.printed)
            printed = answered.get(slot, {})
            if published is not None and published.lower() in printed:
                continue
            drop, margin = math.nan, interval(record, metric.printed).margin
            reference = full.get(_network(cell)) if metric.drops and cell.recipe is not None else None
            if reference is not None and same_inputs(reference, record):
                drop = mean(reference, metric.name) - mean(record, metric.name)
                margin = difference(reference, record, metric.printed).margin
            answers = (
                tuple(id for model, id in printed.items() if (place.table, model) in replaced)
                if published is None
                else ()
            )
            row = (place.table, cell.model, cell.scale, place.method, place.bits, record["dataset"])
            rows.append((*row, metric.printed, mean(record, metric.name), drop, margin, answers))
    return pd.DataFrame(rows, columns=[*_COLUMNS])


def _network(cell: Cell) -> tuple[Any, ...]:
    """What a full-precision score belongs to, within one table."""
    assert cell.place is not None
    return (cell.place.table, cell.model, cell.scale, cell.dataset, cell.protocol)


def _slot(*parts: Any) -> tuple[str, ...]:
    """Where a score stands in print, whatever its network."""
    return tuple(str(part).lower() for part in parts)


def _printed() -> dict[tuple[str, ...], dict[str, str]]:
    """Printed place -> id of its value, by printed network."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    names = ("table", "scale", "method", "bits", "dataset", "metric")
    for row in published_frame(blanks=False).to_dict("records"):
        slot = _slot(*(row[name] for name in names))
        found.setdefault(slot, {})[str(row["model"]).lower()] = row["id"]
    return found
