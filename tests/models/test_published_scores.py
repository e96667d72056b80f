"""Third-party checkpoints reach the scores measured for them under our protocol: the ports are right."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlib import datasets, models
from sqlib.evaluate import evaluate


@pytest.mark.parametrize(
    ("name", "scale", "psnr"),
    [
        ("elan-light", 4, 32.438),
        ("carn-single", 2, 37.883),
        ("bsrn", 2, 38.084),
        ("bsrn", 4, 32.350),
        ("edsr-8x64", 2, 37.801),
        ("carn-m", 4, 31.883),
    ],
)
def test_set5(
    name: str, scale: int, psnr: float, data_dir: Path, weights_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = models.spec(name).file(name, scale)
    assert known is not None
    if not (weights_dir / known.file).is_file():
        pytest.skip(f"needs {known.file} in SQLIB_WEIGHTS")
    monkeypatch.setenv("SQLIB_WEIGHTS", str(weights_dir))
    model = models.pretrained(name, scale=scale, download=False)
    assert model.licence == known.licence
    scores = evaluate(model, datasets.load("set5", data_dir=data_dir), scale=scale)
    assert scores.n == 5
    assert scores.psnr == pytest.approx(psnr, abs=0.005)
