"""Which record is shown: the reader's own before the packaged one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from sqlib.experiments.store.cells import Cell
from sqlib.experiments.store.packaged import PackagedStore
from sqlib.experiments.store.records import SMOKE, Record
from sqlib.experiments.store.working import Store, Unreadable


class Layer(Protocol):
    """What shows records: a working store, or the packaged one."""

    path: Path

    def survey(self) -> tuple[list[Record], list[Unreadable]]: ...

    def records(self) -> list[Record]: ...


def default_store() -> Path:
    """``$SQLIB_STORE``, else ``store`` in the user's data folder for sqlib."""
    if os.environ.get("SQLIB_STORE"):
        return Path(os.environ["SQLIB_STORE"]).expanduser()
    import platformdirs

    return platformdirs.user_data_path("sqlib", appauthor=False) / "store"


def packaged_store() -> Layer:
    """The records measured by the project itself, shipped inside the package."""
    return PackagedStore(Path(__file__).parent / "measured")


def shown_records(store: Layer | str | os.PathLike[str] | None = None) -> dict[str, Record]:
    """Records to show: the reader's own (default: ``$SQLIB_STORE`` or the user's) over the packaged ones.

    Keys are planned cell ids; each record carries ``origin``, ``"own"`` or ``"packaged"``.
    """
    if store is None:
        store = default_store()
    own = Store(store) if isinstance(store, (str, os.PathLike)) else store
    return latest_records({"own": own, "packaged": packaged_store()})


def latest_records(layers: Mapping[str, Layer]) -> dict[str, Record]:
    """Planned cell id -> the record to show, with its layer's name under ``origin``.

    Earlier layers win over later ones (the reader's own store over the packaged one); within a layer the
    newest record wins.
    """
    chosen: dict[str, Record] = {}
    for origin, store in reversed([*layers.items()]):
        layer: dict[str, Record] = {}
        for record in store.records():
            if record.get("profile") == SMOKE:
                continue
            planned = Cell.from_dict(record["cell"]).id
            if planned not in layer or record["time"] > layer[planned]["time"]:
                layer[planned] = {**record, "origin": origin}
        chosen.update(layer)
    return chosen
