"""Recipes: one published method each, as a frozen dataclass. Importing them loads neither torch nor numpy."""

from __future__ import annotations

from sqlib.recipes._base import Observer, Recipe, create, from_dict, from_json, names, register
from sqlib.recipes.brecq import BRECQ
from sqlib.recipes.compensated import CompensatedDFSQ
from sqlib.recipes.dfsq import DFSQ
from sqlib.recipes.minmax import MinMax
from sqlib.recipes.percentile import Percentile
from sqlib.recipes.qdrop import QDrop

__all__ = [
    "BRECQ",
    "DFSQ",
    "CompensatedDFSQ",
    "MinMax",
    "Observer",
    "Percentile",
    "QDrop",
    "Recipe",
    "create",
    "from_dict",
    "from_json",
    "names",
    "register",
]
