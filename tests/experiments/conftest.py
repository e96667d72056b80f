from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

# Subprocesses and loky workers import the fakes by name, too.
sys.path.insert(0, str(Path(__file__).parent))

from experiment_fakes import FakeBench

from sqlib.experiments import papers
from sqlib.experiments.store.locks import lock
from sqlib.experiments.store.working import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").prepare()


def none_held(store: Store) -> bool:
    """Whether every lock of the store is free."""
    for path in (store.path / ".locks").iterdir():
        with lock(path) as mine:
            if not mine:
                return False
    return True


@pytest.fixture
def all_free():
    """See `none_held`."""
    return none_held


@pytest.fixture
def change_table(monkeypatch):
    """Change fields of the definition of one table, by its name."""

    def change(name: str, **fields: object) -> None:
        for paper in papers.papers().values():
            tables = tuple(replace(t, **fields) if t.name == name else t for t in paper.tables)
            monkeypatch.setitem(papers._registered, paper.name, replace(paper, tables=tables))

    return change


@pytest.fixture
def bench(tmp_path: Path) -> FakeBench:
    return FakeBench(tmp_path / "log")
