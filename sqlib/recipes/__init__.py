"""Recipes: one published method each, as a frozen dataclass. Importing them loads neither torch nor numpy.

A recipe is a module of this package, found by being here: ``sqlib.recipes.MinMax`` is the class of that name
in ``minmax.py``. `register` makes one known from anywhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from sqlib.engine.recipe import Observer, Recipe
from sqlib.engine.registry import canonical, create, from_dict, from_json, names, register

_CLASSES: dict[str, type[Recipe]] = {}
for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    if not _module.name.rpartition(".")[2].startswith("_"):
        for _value in vars(importlib.import_module(_module.name)).values():
            if isinstance(_value, type) and _value.__module__ == _module.name and issubclass(_value, Recipe):
                _CLASSES[_value.__name__] = _value

__all__ = [
    "Observer",
    "Recipe",
    "canonical",
    "create",
    "from_dict",
    "from_json",
    "names",
    "register",
    *sorted(_CLASSES),
]


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return _CLASSES[name]
    raise AttributeError(f"module 'sqlib.recipes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_CLASSES})
