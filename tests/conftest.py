"""Fixtures that several test modules share."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))  # toy_banks, for the tests and the processes they start

_SHARED = Path(__file__).resolve().parents[2] / "shared"  # beside the checkout


def _folder(variable: str, default: Path) -> Path | None:
    """The folder named by an environment variable, else the default; None where there is none."""
    folder = Path(os.environ[variable]) if os.environ.get(variable) else default
    return folder.resolve() if folder.is_dir() else None


def pytest_collection_finish() -> None:
    """What is imported by now, a million objects, need not be looked through for garbage again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real benchmark images; tests that need them are skipped without it."""
    folder = _folder("SQLIB_DATA", _SHARED / "data")
    if folder is None:
        pytest.skip("needs the benchmark images: set SQLIB_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """Folder of third-party checkpoints; tests that need them are skipped without it."""
    folder = _folder("SQLIB_WEIGHTS", _SHARED / "weights")
    if folder is None:
        pytest.skip("needs third-party checkpoints: set SQLIB_WEIGHTS to their folder")
    return folder


@pytest.fixture(autouse=True)
def _same_draws_every_time() -> None:
    """Tests that do not seed PyTorch themselves draw the same, alone and in any order."""
    torch.manual_seed(0)


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    """A real photograph, 96 x 120."""
    from sqlib import datasets

    builtin = datasets.load("builtin")
    return np.ascontiguousarray(builtin.hr(builtin.names.index("chelsea"))[100:196, 150:270])


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any image set: no SQLIB_DATA, an empty cache (returned)."""
    cache = tmp_path / "cache"
    monkeypatch.delenv("SQLIB_DATA", raising=False)
    monkeypatch.setenv("SQLIB_CACHE", str(cache))
    return cache
