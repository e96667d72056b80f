"""Paths of the book, and its tools as modules."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_tools"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT
