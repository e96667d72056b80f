from __future__ import annotations

import sys
from pathlib import Path

import pytest

# Subprocesses and loky workers import the fakes by name, too.
sys.path.insert(0, str(Path(__file__).parent))

from experiment_fakes import FakeBench

from sqlib.experiments.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").prepare()


@pytest.fixture
def bench(tmp_path: Path) -> FakeBench:
    return FakeBench(tmp_path / "log")
