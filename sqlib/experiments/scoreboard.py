"""Every printed value with its verdict."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlib.experiments import definitions, derived, gaps, verdicts
from sqlib.experiments.definitions import RECIPES, SCORES
from sqlib.experiments.frame import published_frame
from sqlib.experiments.planner import plan
from sqlib.experiments.store import Record, Store, default_store, latest_records, packaged_store

if TYPE_CHECKING:
    import pandas as pd


def shown_records(store: Store | str | os.PathLike[str] | None = None) -> dict[str, Record]:
    """Records to show: the reader's own (default: ``$SQLIB_STORE`` or the user's) over the packaged ones.

    Keys are planned cell ids; each record carries ``origin``, ``"own"`` or ``"packaged"``.
    """
    own = store if isinstance(store, Store) else Store(store if store is not None else default_store())
    return latest_records(("own", own), ("packaged", packaged_store()))


def scoreboard_frame(store: Store | str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """All 1,966 printed values, one row each, with our value and the verdict.

    Returns
    -------
    pandas.DataFrame
        The columns of :func:`~sqlib.experiments.frame.published_frame` and ``own`` (our value or NaN),
        ``published_drop``, ``own_drop`` (drops from full precision, NaN where there is none),
        ``difference``, ``verdict``, ``reason`` (what a value that was not run needs, why it differs, or how
        it was counted) and ``origin`` (``"own"``, ``"packaged"``, ``"computed"`` for a value that needs no
        weights, or empty).
    """
    return judged(published_frame(blanks=False), shown_records(store))


def scoreboard_counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Verdicts per table: one row per table and a total, one column per verdict, and ``values``."""
    import pandas as pd

    counts = pd.crosstab(frame["table"], frame["verdict"]).reindex(columns=list(verdicts.NAMES), fill_value=0)
    counts.loc["total"] = counts.sum()
    counts["values"] = counts.sum(axis=1)
    counts.columns.name = None
    return counts.astype("int64")


def judged(published: pd.DataFrame, records: dict[str, Record]) -> pd.DataFrame:
    """``published`` (rows of ``published_frame``) with our values and verdicts from ``records``."""
    import pandas as pd

    ours = _counterparts(records)
    printed = {_slot(row): row["value"] for row in published.to_dict("records")}
    full = _full_precision()
    counts = derived.derived_values() if derived.TABLES & set(published["table"]) else {}
    rows = [_judge_row(row, ours, printed, full, counts) for row in published.to_dict("records")]
    return pd.concat([published.reset_index(drop=True), pd.DataFrame(rows)], axis=1)


def _slot(row: Mapping[Any, Any], **changed: object) -> tuple[str, ...]:
    """Where a value stands in print, in one spelling for printed and own values."""
    merged = {**row, **changed}
    names = ("table", "model", "scale", "method", "bits", "dataset", "metric")
    return tuple(str(merged[name]).lower() for name in names)


def _place(row: Mapping[Any, Any]) -> tuple[str, ...]:
    """What a full-precision score belongs to: not to a table, so one table's serves the others."""
    return tuple(str(row[name]).lower() for name in ("paper", "model", "scale", "dataset", "metric"))


@cache
def _full_precision() -> Mapping[tuple[str, ...], float]:
    """Printed full-precision score by paper, network, scale, dataset and metric.

    DFSQ's Table 1 prints none, but its network is that of Table 2, which does.
    """
    rows = published_frame(blanks=False)
    rows = rows[rows["method"].str.lower().eq("fp") & rows["metric"].isin(SCORES)]
    return {_place(row): row["value"] for row in rows.to_dict("records")}


def _counterparts(records: dict[str, Record]) -> dict[tuple[str, ...], Record]:
    """Printed slot -> the record that answers it: only networks that stand for a printed one are counted."""
    found = {}
    scored = {record["cell"]["model"] for record in records.values()}
    for name, table in definitions.TABLES.items():
        stand_ins = {n.name: n.published for n in table.networks if n.published and n.name in scored}
        if not stand_ins:
            continue
        for cell in plan(name, "full"):
            if cell.model in stand_ins and cell.id in records:
                for metric in SCORES:
                    place = {**cell.to_dict(), "model": stand_ins[cell.model], "metric": metric}
                    found[_slot(place)] = records[cell.id]
    return found


def _judge_row(
    row: Mapping[Any, Any],
    ours: dict[tuple[str, ...], Record],
    printed: dict[tuple[str, ...], float],
    full_precision: Mapping[tuple[str, ...], float],
    counts: Mapping[str, derived.Derived],
) -> dict[str, Any]:
    record = ours.get(_slot(row))
    full = _slot(row, method="FP", bits="32")
    result: dict[str, Any] = {
        "own": float("nan"),
        "published_drop": float("nan"),
        "own_drop": float("nan"),
        "origin": "",
    }
    published_fp = None if _slot(row) == full else printed.get(full, full_precision.get(_place(row)))
    if published_fp is not None:
        result["published_drop"] = published_fp - row["value"]
    counted = counts.get(row["id"])
    if counted is not None:
        verdict = verdicts.judge(
            verdicts.Evidence(
                published=row["value"],
                own=counted.value,
                decimals=row["decimals"],
                counted=True,
                reason=gaps.explanation(row["id"]) or counted.note,
            )
        )
        result.update(own=counted.value, origin="computed")
    elif record is None:
        verdict = verdicts.not_run(needs(row))
    else:
        field, close = SCORES[row["metric"]]
        own = float(record[field])
        reference = ours.get(full)
        own_fp = None
        if published_fp is not None and reference is not None and same_inputs(reference, record):
            own_fp = float(reference[field])
            result["own_drop"] = own_fp - own
        rivals = [
            (value, float(ours[slot][field]))
            for slot, value in printed.items()
            if slot in ours and slot != _slot(row) and _slot(row, method=slot[3]) == slot
        ]
        partial = "[" in record["cell"]["dataset"]
        verdict = verdicts.judge(
            verdicts.Evidence(
                published=row["value"],
                own=own,
                decimals=row["decimals"],
                published_fp=published_fp if own_fp is not None else None,
                own_fp=own_fp,
                close=close,
                partial=partial,
                rivals=tuple(rivals),
                reason=" ".join(
                    filter(
                        None,
                        (
                            gaps.explanation(row["id"]),
                            gaps.partial_set(record["cell"]["dataset"]) if partial else "",
                        ),
                    )
                ),
            )
        )
        result.update(own=own, origin=record["origin"])
    return {**result, "difference": verdict.difference, "verdict": verdict.name, "reason": verdict.reason}


def same_inputs(first: Record, second: Record) -> bool:
    """Whether two records scored the same weights on the same pixels, so that their difference is a drop."""
    return (first["weights_id"], first["data"]) == (second["weights_id"], second["data"])


def needs(row: Mapping[Any, Any]) -> str:
    """What it takes to run a printed value that has no record."""
    parts = []
    if row["metric"] in SCORES:
        network = f"{row['model']} x{row['scale']}"
        if (row["table"], row["model"]) in _stand_ins():
            parts.append(f"{network} weights: sqlib plan {row['table']} --profile full --cost")
        else:
            parts.append(f"{network} weights trained by this project")
    else:
        parts.append(f"the counting of {row['metric']}")
    base = row["method"].split("+")[0].split(" ")[0]
    recipe = RECIPES.get(row["method"]) or RECIPES.get(base)
    if "RefQSR" in row["method"]:
        parts.append("the RefQSR parts (clustering, refinement)")
    if recipe is not None and recipe not in _known_recipes():
        parts.append(f"the {recipe} recipe")
    if row["dataset"] in ("Test2K", "Test4K", "Manga109"):
        parts.append(f"the {row['dataset']} images")
    return "; ".join(parts)


@cache
def _known_recipes() -> frozenset[str]:
    if importlib.util.find_spec("sqlib.recipes") is None:
        return frozenset()
    from sqlib import recipes

    return frozenset(recipes.names())


@cache
def _stand_ins() -> frozenset[tuple[str, str]]:
    """(table, printed network) for which a network of ours is planned that we would have to train."""
    return frozenset(
        (table.name, network.published)
        for table in definitions.TABLES.values()
        for network in table.networks
        if network.published and network.weights == "pretrained"
    )
