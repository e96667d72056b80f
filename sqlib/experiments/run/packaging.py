"""Writing the packaged records: those that are there, and newer ones from working stores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlib._files import locked
from sqlib.errors import InputError
from sqlib.experiments.papers import papers
from sqlib.experiments.run.plan import plan
from sqlib.experiments.store import layers
from sqlib.experiments.store.cells import Cell
from sqlib.experiments.store.packaged import PackagedStore, package, strangers
from sqlib.experiments.store.records import SMOKE, Record
from sqlib.experiments.store.working import Store


@dataclass(frozen=True)
class Packaged:
    """Records written for each paper, and labels of those left out because no table shows them."""

    papers: dict[str, int]
    left_out: tuple[str, ...]


def package_records(
    stores: Sequence[str | os.PathLike[str]], into: str | os.PathLike[str] | None = None
) -> Packaged:
    """Add the records of working stores to a packaged folder (default: the one in this installation).

    Of several records of one cell, made with other data or by other code, the newest stays: it is the one
    that tables show. A record stands with the first paper one of whose tables shows it. Run again, it writes
    the same bytes. Two at once wait for each other.

    Raises
    ------
    InputError
        Something in a store cannot be read, or the folder has records of a paper that is not registered here:
        nothing is written.
    """
    folder = layers.packaged_store().path if into is None else Path(into)
    with locked(folder):
        return _package_records(stores, folder)


def _package_records(stores: Sequence[str | os.PathLike[str]], folder: Path) -> Packaged:
    records: dict[str, Record] = {}
    sources: list[layers.Layer] = [PackagedStore(folder), *map(Store, stores)]
    for layer in sources:
        found, unreadable = layer.survey()
        if unreadable:
            raise InputError(
                f"{len(unreadable)} records cannot be read, first {unreadable[0]}; mend them first"
            )
        for record in found:
            cell = Cell.from_dict(record["cell"]).id
            newest = cell not in records or record["time"] >= records[cell]["time"]
            if newest and record["profile"] != SMOKE:
                records[cell] = record
    unknown = strangers(folder, papers())
    if unknown:
        raise InputError(
            f"{folder} has records of {', '.join(unknown)}, no paper that is known here: import what "
            "registers it, or take its file away"
        )
    homes: dict[str, str] = {}
    for paper in papers().values():
        for table in paper.tables:
            for profile in ("laptop", "full"):
                for planned in plan(table.name, profile):
                    homes.setdefault(planned.id, paper.name)
    chosen: dict[str, list[Record]] = {name: [] for name in dict.fromkeys(homes.values())}
    left_out = []
    for cell, record in records.items():
        if cell in homes:
            chosen[homes[cell]].append(record)
        else:
            left_out.append(Cell.from_dict(record["cell"]).label)
    package(folder, {name: found for name, found in chosen.items() if found})
    return Packaged({name: len(found) for name, found in chosen.items()}, tuple(sorted(left_out)))
