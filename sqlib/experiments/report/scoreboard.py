"""Every printed value with its verdict."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from sqlib.experiments.papers import Derived, papers, tables
from sqlib.experiments.papers.published import published_frame
from sqlib.experiments.report import gaps, verdicts
from sqlib.experiments.report.intervals import difference, interval
from sqlib.experiments.run.plan import plan
from sqlib.experiments.store.layers import Layer, shown_records
from sqlib.experiments.store.metrics import PRINTED
from sqlib.experiments.store.records import Record, mean

if TYPE_CHECKING:
    import pandas as pd


def scoreboard_frame(store: Layer | str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """All 1,966 printed values, one row each, with our value and the verdict.

    Returns
    -------
    pandas.DataFrame
        The columns of :func:`~sqlib.experiments.papers.published.published_frame` and ``own`` (our value or
        NaN), ``published_drop``, ``own_drop`` (drops from full precision, NaN where there is none),
        ``own_margin`` (half the 95 % bootstrap interval over the images, of the drop, or of our value
        where there is no drop; NaN of values that were counted),
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

    board = _Board(published, records)
    rows = [board.row(row) for row in published.to_dict("records")]
    return pd.concat([published.reset_index(drop=True), pd.DataFrame(rows)], axis=1)


def derived_values(shown: frozenset[str] | set[str]) -> dict[str, Derived]:
    """Id of a printed value to ours, for the values of the tables ``shown`` that need no weights."""
    found: dict[str, Derived] = {}
    for paper in papers().values():
        if paper.derived is not None and paper.derived_tables & shown:
            found.update(paper.derived())
    known = set(published_frame(blanks=False)["id"]) if found else set()
    assert found.keys() <= known, f"no printed value is called {sorted(found.keys() - known)}"
    return found


def _slot(row: Mapping[Any, Any], **changed: object) -> tuple[str, ...]:
    """Where a value stands in print, in one spelling for printed and own values."""
    merged = {**row, **changed}
    names = ("table", "model", "scale", "method", "bits", "dataset", "metric")
    return tuple(str(merged[name]).lower() for name in names)


def _place(row: Mapping[Any, Any]) -> tuple[str, ...]:
    """What a full-precision score belongs to: not to a table, so one table's serves the others."""
    return tuple(str(row[name]).lower() for name in ("paper", "model", "scale", "dataset", "metric"))


def _full_precision() -> Mapping[tuple[str, ...], float]:
    """Printed full-precision score by paper, network, scale, dataset and metric.

    DFSQ's Table 1 prints none, but its network is that of Table 2, which does.
    """
    rows = published_frame(blanks=False)
    falling = [name for name, metric in PRINTED.items() if metric.drops]
    rows = rows[rows["method"].str.lower().eq("fp") & rows["metric"].isin(falling)]
    return {_place(row): row["value"] for row in rows.to_dict("records")}


def _counterparts(records: dict[str, Record]) -> dict[tuple[str, ...], Record]:
    """Printed slot -> the record that answers it: only networks that stand for a printed one are counted."""
    found = {}
    scored = {record["cell"]["model"] for record in records.values()}
    for name, table in tables().items():
        stand_ins = {n.name: n.published for n in table.networks if n.published and n.name in scored}
        if not stand_ins:
            continue
        for cell in plan(name, "full"):
            if cell.model in stand_ins and cell.id in records:
                assert cell.place is not None
                held = records[cell.id]["images"][0]["metrics"]
                for metric in (name for name, known in PRINTED.items() if known.name in held):
                    row = {
                        **cell.to_dict(),
                        **vars(cell.place),
                        "model": stand_ins[cell.model],
                        "metric": metric,
                    }
                    found[_slot(row)] = records[cell.id]
    return found


class _Board:
    """What the rows of one scoreboard are judged by."""

    def __init__(self, published: pd.DataFrame, records: dict[str, Record]) -> None:
        self.ours = _counterparts(records)
        self.printed = {_slot(row): row["value"] for row in published.to_dict("records")}
        self.full_precision = _full_precision()
        self.counts = derived_values(set(published["table"]))
        self.needs = _Needs(self.ours)

    def row(self, row: Mapping[Any, Any]) -> dict[str, Any]:
        """Our value of a printed one, the drops of both, and the verdict."""
        full = _slot(row, method="FP", bits="32")
        is_full = _slot(row) == full
        falls = row["metric"] not in PRINTED or PRINTED[row["metric"]].drops
        published_fp = None
        if falls and not is_full:
            published_fp = self.printed.get(full, self.full_precision.get(_place(row)))
        result: dict[str, Any] = {
            "own": float("nan"),
            "published_drop": float("nan") if published_fp is None else published_fp - row["value"],
            "own_drop": float("nan"),
            "own_margin": float("nan"),
            "origin": "",
        }
        if row["id"] in self.counts:
            verdict = self._counted(row, result)
        elif _slot(row) in self.ours:
            verdict = self._measured(row, published_fp, result)
        else:
            verdict = verdicts.not_run(self.needs.of(row))
        return {
            **result,
            "difference": verdict.difference,
            "verdict": verdict.name,
            "reason": verdict.reason,
        }

    def _counted(self, row: Mapping[Any, Any], result: dict[str, Any]) -> verdicts.Verdict:
        counted = self.counts[row["id"]]
        result.update(own=counted.value, origin="computed")
        return verdicts.judge(
            verdicts.Evidence(
                published=row["value"],
                own=counted.value,
                decimals=row["decimals"],
                close=counted.close,
                counted=True,
                reason=gaps.explanation(row["id"]) or counted.note,
            )
        )

    def _measured(
        self, row: Mapping[Any, Any], published_fp: float | None, result: dict[str, Any]
    ) -> verdicts.Verdict:
        record, metric = self.ours[_slot(row)], PRINTED[row["metric"]]
        own = mean(record, metric.name)
        result.update(own=own, own_margin=interval(record, metric.printed).margin, origin=record["origin"])
        reference = self.ours.get(_slot(row, method="FP", bits="32"))
        own_fp = None
        if published_fp is not None and reference is not None and same_inputs(reference, record):
            own_fp = mean(reference, metric.name)
            lost = difference(reference, record, metric.printed)
            result.update(own_drop=own_fp - own, own_margin=lost.margin)
        if published_fp is not None and own_fp is None:  # the score alone says nothing of a drop
            what = "its full precision on the same weights and images"
            return verdicts.not_run(f"{what}: sqlib reproduce {row['table']}")
        partial = "[" in record["dataset"]
        words = [gaps.explanation(row["id"]), gaps.partial_set(record["dataset"]) if partial else ""]
        return verdicts.judge(
            verdicts.Evidence(
                published=row["value"],
                own=own,
                decimals=row["decimals"],
                published_fp=published_fp,
                own_fp=own_fp,
                close=metric.close,
                partial=partial,
                rivals=self._rivals(row, metric.name),
                reason=" ".join(filter(None, words)),
            )
        )

    def _rivals(self, row: Mapping[Any, Any], metric: str) -> tuple[tuple[float, float], ...]:
        """(printed, ours) of the other methods at the same bits on the same dataset."""
        mine = _slot(row)
        return tuple(
            (value, mean(self.ours[slot], metric))
            for slot, value in self.printed.items()
            if slot in self.ours and slot != mine and _slot(row, method=slot[3]) == slot
        )


def same_inputs(first: Record, second: Record) -> bool:
    """Whether two records scored the same weights on the same pixels, so that their difference is a drop.

    The images have the same names, too: their scores are paired by them.
    """
    names = [{image["name"] for image in record["images"]} for record in (first, second)]
    same = (first["weights_id"], first["data"]) == (second["weights_id"], second["data"])
    return same and names[0] == names[1]


class _Needs:
    """What it takes to run a printed value that has no record: weights, images, a run."""

    def __init__(self, scored: Collection[tuple[str, ...]] = ()) -> None:
        """``scored``: slots of printed values that ours answer."""
        from sqlib import models

        papers_of = {table.name: table.paper for table in tables().values()}
        self.scored = {(papers_of[slot[0]], *slot[1:3]) for slot in scored}
        # (paper, printed network, scale) -> the configuration that trains ours; a name is not a network
        self.networks = {
            (table.paper, network.published.lower(), str(network.scale)): f"{network.name}-x{network.scale}"
            for table in tables().values()
            for network in table.networks
            if network.published and network.weights == "pretrained"
        }
        self.shipped = {f"{name}-x{scale}" for name, scales in models.available().items() for scale in scales}
        self.planned = {profile: _planned(profile) for profile in ("laptop", "full")}

    def of(self, row: Mapping[Any, Any]) -> str:
        if row["metric"] not in PRINTED:
            return f"a GPU with kernels of few bits, for {row['metric']}"
        slot, table = _slot(row, metric=""), row["table"]
        network = (row["paper"], slot[1], slot[2])
        parts, weights = [], f"weights of {row['model']} x{row['scale']}"
        if network in self.networks and not (
            network in self.scored or self.networks[network] in self.shipped
        ):
            parts.append(f"{weights}: sqlib train {self.networks[network]}")
        elif network not in self.networks and row["model"] != "none":
            parts.append(f"{weights}, a network that is not planned here")
        if row["dataset"] in ("Test2K", "Test4K", "Manga109"):
            parts.append(f"the {row['dataset']} images")
        if slot in self.planned["laptop"]:
            parts.append(f"a run: sqlib reproduce {table}")
        elif slot in self.planned["full"]:
            what = "a run" if slot[3].startswith("fp") else "the published schedule"
            parts.append(f"{what}: sqlib plan {table} --profile full --cost")
        else:
            parts.append("a recipe or row that is not planned here")
        return "; ".join(parts)


def _planned(profile: str) -> set[tuple[str, ...]]:
    """Slots, but for the metric, of the printed values that a profile answers."""
    found = set()
    for name, table in tables().items():
        stand_ins = {n.name: n.published for n in table.networks if n.published}
        for cell in plan(name, profile) if stand_ins else ():
            if cell.model in stand_ins and cell.place is not None:
                row = {**cell.to_dict(), **vars(cell.place), "model": stand_ins[cell.model], "metric": ""}
                found.add(_slot(row))
    return found
