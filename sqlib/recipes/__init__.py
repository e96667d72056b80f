"""Recipes: one published method each, as a frozen dataclass. Importing them loads neither torch nor numpy."""

from __future__ import annotations

from sqlib.recipes._base import Observer, Recipe, create, from_dict, from_json, names, register
from sqlib.recipes.compensated import CompensatedDFSQ
from sqlib.recipes.dfsq import DFSQ
from sqlib.recipes.minmax import MinMax
from sqlib.recipes.percentile import Percentile

__all__ = [
    "DFSQ",
    "CompensatedDFSQ",
    "MinMax",
    "Observer",
    "Percentile",
    "Recipe",
    "create",
    "from_dict",
    "from_json",
    "names",
    "register",
]
