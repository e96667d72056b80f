"""Recipes: one published method each, as a frozen dataclass. Importing them loads neither torch nor numpy."""

from __future__ import annotations

from sqlib.engine.recipe import Observer, Recipe
from sqlib.engine.registry import canonical, create, from_dict, from_json, names, register
from sqlib.recipes.brecq import BRECQ
from sqlib.recipes.compensated import CompensatedDFSQ
from sqlib.recipes.dbdc_pac import DBDCPaC
from sqlib.recipes.density import Density
from sqlib.recipes.dfsq import DFSQ
from sqlib.recipes.dobi import DOBI
from sqlib.recipes.minmax import MinMax
from sqlib.recipes.mse import MSE
from sqlib.recipes.percentile import Percentile
from sqlib.recipes.qdrop import QDrop
from sqlib.recipes.twodquant import TwoDQuant

__all__ = [
    "BRECQ",
    "DFSQ",
    "DOBI",
    "MSE",
    "CompensatedDFSQ",
    "DBDCPaC",
    "Density",
    "MinMax",
    "Observer",
    "Percentile",
    "QDrop",
    "Recipe",
    "TwoDQuant",
    "canonical",
    "create",
    "from_dict",
    "from_json",
    "names",
    "register",
]
