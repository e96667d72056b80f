"""Recipes and networks of somebody else's: a worker process knows them once it has imported their modules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlib.errors import InputError
from sqlib.experiments.store.cells import Cell


def modules_of(cells: Iterable[Cell]) -> dict[str, str]:
    """Modules outside sqlib that define the recipes and networks of some cells, with the folder of each.

    What is defined in ``__main__`` is left out, as no other process can import it.
    """
    from sqlib import models
    from sqlib.engine.registry import known

    names: set[str] = set()
    for cell in cells:
        if cell.model in models.names():
            names.add(models.spec(cell.model).network.__module__)
        names.update(known()[name].__module__ for name in _recipes(cell.recipe) if name in known())
    outside = (name for name in sorted(names) if name.partition(".")[0] not in ("sqlib", "__main__"))
    return {name: _folder(name) for name in outside}


def imported(modules: Mapping[str, str]) -> None:
    """Import modules, by their folder where they are not installed.

    Raises
    ------
    InputError
        One cannot be imported here.
    """
    for name, folder in modules.items():
        if folder and folder not in sys.path:
            sys.path.append(folder)
        try:
            importlib.import_module(name)
        except Exception as error:  # a module may raise anything
            raise InputError(
                f"the module {name!r}, which defines the recipe or network, cannot be imported by the worker "
                f"({type(error).__name__}: {error}); install it there, or put its folder in PYTHONPATH"
            ) from error


def _recipes(value: Any) -> Iterator[str]:
    """Names of a recipe and of those among its options."""
    if isinstance(value, Mapping):
        yield str(value.get("name"))
        for option in value.values():
            yield from _recipes(option)


def _folder(name: str) -> str:
    """The folder that has to be in ``sys.path``; empty where the module is no file."""
    file = getattr(sys.modules.get(name.partition(".")[0]), "__file__", None)
    if file is None:
        return ""
    path = Path(file).absolute()
    return str(path.parents[1] if path.name == "__init__.py" else path.parent)
