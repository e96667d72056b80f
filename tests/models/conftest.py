"""Where third-party checkpoints are, if they are here at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def repo_weights() -> Path:
    """Folder with ``carn_m.pth``: $SQLIB_WEIGHTS, else ``shared/weights`` beside the checkout."""
    beside = Path(__file__).parents[3] / "shared" / "weights"
    folder = Path(os.environ.get("SQLIB_WEIGHTS", beside))
    if not (folder / "carn_m.pth").is_file():
        pytest.skip(f"carn_m.pth is not in {folder}; set SQLIB_WEIGHTS to the folder that holds it")
    return folder
