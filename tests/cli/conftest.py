"""Fixtures of the command-line tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sqlib.cli import main
from sqlib.images import write_image

Fails = Callable[..., str]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A small image file ``in.png``, alone in its folder."""
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    write_image(tmp_path / "in.png", image)
    return tmp_path / "in.png"


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that must fail: one line on standard error (returned), none on standard output."""

    def run(status: int, *args: object) -> str:
        assert main([str(arg) for arg in args]) == status
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1 and "Traceback" not in captured.err
        assert "internal error" not in captured.err
        return captured.err

    return run
