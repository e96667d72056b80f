"""A table of a paper with our rows under the printed ones."""

from __future__ import annotations

import math
import os
import re
from typing import TYPE_CHECKING, Any

from sqlib.errors import InputError
from sqlib.experiments import papers
from sqlib.experiments.papers.published import published_frame
from sqlib.experiments.report.intervals import Interval, difference, interval
from sqlib.experiments.report.scoreboard import judged, same_inputs
from sqlib.experiments.run.plan import planned
from sqlib.experiments.store.cells import spelled
from sqlib.experiments.store.layers import Layer, shown_records
from sqlib.experiments.store.metrics import PRINTED
from sqlib.experiments.store.records import Record, mean

if TYPE_CHECKING:
    import pandas as pd

_NUMBERS = ("value", "drop", "low", "high")
# Datasets as papers write them.
_TITLES = {"set5": "Set5", "set14": "Set14", "b100": "B100", "urban100": "Urban100"}


def table_frame(
    table: str,
    *,
    metric: str = "psnr_y",
    scale: int | None = None,
    store: Layer | str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """One table in the paper's layout: printed rows, and our networks' rows under each.

    Parameters
    ----------
    table : str
        A table that is planned, such as ``"dfsq-table2"``.
    metric : str
        ``"psnr_y"`` (dB) or ``"ssim_y"``.
    scale : int or None
        Only this scale; default all that are printed.
    store : Layer, str, path-like or None
        The reader's own store, layered over the packaged records; default as in
        :func:`~sqlib.experiments.store.layers.shown_records`.

    Returns
    -------
    pandas.DataFrame
        Index levels ``scale``, ``bits``, ``method``, ``network``; column levels ``dataset`` and one of
        ``value``, ``drop`` (from the same network's full precision), ``low`` and ``high`` (95 % bootstrap
        interval over the images, of the drop, and of the value where there is no drop; NaN in printed
        rows), ``verdict`` (of the printed value, empty in our own rows) and ``source``: ``"printed"``,
        ``"packaged"``, ``"own"`` or ``"not run"``; the dataset's true name follows in brackets when only a
        part was scored. A row of ours exists
        where the table plans that network, scale, method and bits; of a network that stands for a printed
        one, where it was run (else the printed row's verdict says what it needs).

    Raises
    ------
    InputError
        Unknown table or metric, or a scale that the table neither prints nor plans.
    """
    import pandas as pd

    definition = papers.table(table)
    if metric not in PRINTED:
        raise InputError(f"unknown metric {metric!r}; expected one of {', '.join(PRINTED)}")
    printed = published_frame(blanks=False)
    printed = printed[(printed["table"] == table) & (printed["metric"] == metric)]
    if scale is not None:
        printed = printed[printed["scale"] == scale]
        if scale not in {*printed["scale"], *(network.scale for network in definition.networks)}:
            raise InputError(f"{table} has no x{scale}")
    records = shown_records(store)
    frame = judged(printed, records)
    # Printed sets, then those that are only planned: a figure of the paper, a table of ours, a smaller set.
    names = {title.lower(): title for title in frame["dataset"]}
    names |= {d: _TITLES.get(d, d) for d in definition.datasets if d not in names}
    datasets = list(names.values())
    rows: dict[tuple[Any, ...], dict[tuple[str, str], Any]] = {}
    for row in frame.to_dict("records"):
        place = (row["scale"], setting(row["bits"]), row["method"], f"{row['model']} (printed)")
        rows.setdefault(place, {}).update(
            {
                (row["dataset"], "value"): row["value"],
                (row["dataset"], "drop"): row["published_drop"],
                (row["dataset"], "verdict"): row["verdict"],
                (row["dataset"], "source"): "printed",
            }
        )
    for place, entry in _own_rows(table, metric, records, names).items():
        if scale is None or place[0] == scale:
            rows.setdefault(place, {}).update(entry)
    methods = list(dict.fromkeys([*frame["method"], *(m.label for m in definition.methods)]))
    ours = [network.name for network in definition.networks]

    def order(place: tuple[Any, ...]) -> tuple[Any, ...]:
        own = ours.index(place[3]) + 1 if place[3] in ours else 0
        return (
            place[0],
            *_widest_first(place[1]),
            methods.index(place[2]) if place[2] in methods else len(methods),
            own,
        )

    places = sorted(rows, key=order)
    columns = pd.MultiIndex.from_product([datasets, [*_NUMBERS, "verdict", "source"]], names=["dataset", ""])
    index = pd.MultiIndex.from_tuples(places, names=["scale", "bits", "method", "network"])
    result = pd.DataFrame([[rows[p].get(c) for c in columns] for p in places], index=index, columns=columns)
    for column in columns:
        if column[1] in _NUMBERS:
            result[column] = pd.to_numeric(result[column]).astype("float64")
        else:
            result[column] = result[column].fillna("").astype(str)
    return result


def setting(bits: str) -> int | str:
    """A bit setting in an index: the number where it is one, else its text (``"8-4"``)."""
    return int(bits) if bits.isdecimal() else bits


def _widest_first(bits: int | str) -> tuple[int, bool, int, str]:
    """Order of settings: by the numbers in them, largest first; a plain number before ``"8-4"``."""
    text = str(bits)
    first = re.match(r"\d+", text)
    second = re.search(r"-(\d+)$", text)
    own = -int(first[0]) if first else 0
    return own, not isinstance(bits, int), -int(second[1]) if second else 0, text


def _own_rows(
    table: str, metric: str, records: dict[str, Record], names: dict[str, str]
) -> dict[tuple[Any, ...], dict[tuple[str, str], Any]]:
    field = PRINTED[metric].name
    cells = planned(table)
    full = {(c.model, c.scale, c.dataset): records.get(c.id) for c in cells if c.recipe is None}
    stand_ins = {n.name for n in papers.table(table).networks if n.published}
    rows: dict[tuple[Any, ...], dict[tuple[str, str], Any]] = {}
    for cell in cells:
        dataset = names.get(cell.dataset.lower())
        record = records.get(cell.id)
        if dataset is None or (record is None and cell.model in stand_ins):
            continue
        value, drop, source = math.nan, math.nan, "not run"
        sure = Interval(math.nan, math.nan, math.nan)
        if record is not None and field in record["images"][0]["metrics"]:
            value, source = mean(record, field), str(record["origin"])
            sure = interval(record, metric)
            if record["dataset"] != cell.dataset:
                source += f" ({record['dataset']})"
            reference = full.get((cell.model, cell.scale, cell.dataset))
            falls = PRINTED[metric].drops and cell.recipe is not None
            if falls and reference is not None and same_inputs(reference, record):
                sure = difference(reference, record, metric)
                drop = sure.mean
        assert cell.place is not None
        row = (cell.scale, setting(cell.place.bits), cell.place.method, cell.model)
        rows.setdefault(row, {}).update(
            {
                (dataset, "value"): value,
                (dataset, "drop"): drop,
                (dataset, "low"): sure.low,
                (dataset, "high"): sure.high,
                (dataset, "verdict"): "",
                (dataset, "source"): source,
            }
        )
    return rows


def format_table(frame: pd.DataFrame, *, metric: str = "psnr_y") -> pd.DataFrame:
    """A :func:`table_frame` as text: one column per dataset, then the verdict on the printed row.

    An entry reads ``"31.471 (-0.412)"``; in brackets stands the change from the same network in full
    precision. Ours say how sure that is, ``"31.471 (-0.412 ± 0.051)"``, or, where there is no change, how
    sure the mean is, ``"31.883 ± 2.140"``: half the 95 % bootstrap interval over the images. They end with
    ``own`` when it is the reader's own record and with the dataset's true name when only a part was scored.
    The verdict of a row is one word when its datasets agree, else one per dataset; rows of ours have none.
    Methods are spelled alike (`spelled`).
    """
    import pandas as pd

    decimals = PRINTED[metric].decimals
    datasets = list(dict.fromkeys(frame.columns.get_level_values(0)))

    def entry(row: Any, dataset: str) -> str:
        value, drop = row[dataset, "value"], row[dataset, "drop"]
        source = row[dataset, "source"]
        if not math.isfinite(value):
            return source or "–"
        sure = Interval(value, row[dataset, "low"], row[dataset, "high"])
        margin = f" ± {sure.margin:.{decimals}f}" if math.isfinite(sure.margin) else ""
        words = [f"{value:.{decimals}f}"]
        if math.isfinite(drop):
            change = round(-drop, decimals)
            # A change that rounds to nothing has no sign.
            words.append(f"({change:+.{decimals}f}{margin})" if change else f"({0:.{decimals}f}{margin})")
        else:
            words[0] += margin
        words += [source.removeprefix("packaged").strip()] if source != "printed" else []
        return " ".join(filter(None, words))

    def verdict(row: Any) -> str:
        found = {dataset: row[dataset, "verdict"] for dataset in datasets if row[dataset, "verdict"]}
        if len(set(found.values())) <= 1:
            return next(iter(found.values()), "")
        return ", ".join(f"{dataset} {name}" for dataset, name in found.items())

    shown = {dataset: [entry(row, dataset) for _, row in frame.iterrows()] for dataset in datasets}
    shown["verdict"] = [verdict(row) for _, row in frame.iterrows()]
    return pd.DataFrame(shown, index=frame.index).rename(index=spelled, level="method")
