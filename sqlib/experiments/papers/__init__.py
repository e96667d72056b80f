"""The papers: one file each, found by being here, and how to add one from outside.

A module of this package that has a ``PAPER`` is a paper of the book: its tables, the values that are counted,
what it claims, what print and ours differ in and why. Nothing else lists them. Another package adds one by
``register(Paper(...))`` when it is imported.

>>> from sqlib.experiments import papers
>>> sorted(papers.papers())
['2dquant', 'dfsq', 'refqsr']
"""

from __future__ import annotations

import importlib
import pkgutil

from sqlib.errors import InputError
from sqlib.experiments.papers.schema import Derived, Gap, Method, Network, Paper, Statement, Table
from sqlib.experiments.store.cells import CalibrationSpec, TrainingSpec

__all__ = [
    "CalibrationSpec",
    "Derived",
    "Gap",
    "Method",
    "Network",
    "Paper",
    "Statement",
    "Table",
    "TrainingSpec",
    "papers",
    "register",
    "statements",
    "table",
    "tables",
]

_registered: dict[str, Paper] = {}
_loaded = False


def register(paper: Paper) -> Paper:
    """Make a paper known, so that its tables are planned, run, verified and shown like any other.

    Raises
    ------
    InputError
        Its name, or the name of one of its tables, belongs to another paper; two of its tables have one name.
    """
    _load()
    return _add(paper)


def _add(paper: Paper) -> Paper:
    known = _registered
    names = [t.name for t in paper.tables]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"{paper.name!r} has {names.count(twice)} tables called {twice!r}; choose other names"
        )
    if known.get(paper.name, paper) is not paper:
        raise InputError(f"a paper called {paper.name!r} is there already; choose another name")
    taken = {t.name: p.name for p in known.values() if p is not paper for t in p.tables}
    for name in names:
        if name in taken:
            raise InputError(f"table {name!r} of {paper.name!r} is there already, in {taken[name]!r}")
    _registered[paper.name] = paper
    return paper


def _load() -> None:
    """The papers of the book; they come first, so that no other takes their names."""
    global _loaded
    if not _loaded:
        for module in pkgutil.iter_modules(__path__):
            found = getattr(importlib.import_module(f"{__name__}.{module.name}"), "PAPER", None)
            if isinstance(found, Paper):
                _add(found)
        _loaded = True


def papers() -> dict[str, Paper]:
    """All papers by name, in the order of the book's parts; those added from outside come last."""
    _load()
    return dict(sorted(_registered.items(), key=lambda item: item[1].part))


def tables() -> dict[str, Table]:
    """All planned tables by name."""
    return {t.name: t for paper in papers().values() for t in paper.tables}


def table(name: str) -> Table:
    """The definition of one table; InputError for an unknown name."""
    found = tables()
    if name not in found:
        raise InputError(f"unknown table {name!r}; expected one of {', '.join(found)}")
    return found[name]


def statements() -> tuple[Statement, ...]:
    """What all papers claim of their tables, as checks."""
    return tuple(statement for paper in papers().values() for statement in paper.statements)
