"""``python -m sqlib train``: pack, train, carry, continue; wrong arguments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sqlib.cli import main
from sqlib.training import TrainConfig
from sqlib.training.config import CONFIGS


@pytest.fixture
def folder(tmp_path: Path, photos: list[tuple[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny = TrainConfig("edsr-small", 2, steps=6, batch=2, patch=8, warmup=2, held_out=1)
    monkeypatch.setitem(CONFIGS, tiny.name, tiny)
    (tmp_path / "images" / "set").mkdir(parents=True)
    for name, image in photos:
        Image.fromarray(image).save(tmp_path / "images" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pack_train_carry_continue(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "edsr-small-x2", "--data", "images", "--pack", "x2.pack"]) == 0
    assert "crops and 1 held-out" in capsys.readouterr().out
    assert main(["train", "edsr-small-x2", "--data", "x2.pack", "--minutes", "0.00001"]) == 0
    assert "the same command continues from training/edsr-small-x2" in capsys.readouterr().out
    assert main(["train", "edsr-small-x2", "--data", "x2.pack", "--carry", "weights"]) == 0
    assert "step 0 of 6" in capsys.readouterr().out
    assert main(["train", "edsr-small-x2", "--data", "x2.pack", "--resume", "weights"]) == 0
    out = capsys.readouterr().out
    assert "continuing at step 0 of 6" in out and "done: weights/edsr-small-x2.safetensors" in out
    assert (folder / "weights" / "edsr-small-x2.json").is_file()


def test_several_folders_are_told_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "more" / "set").mkdir(parents=True)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "more" / "set" / "0.png")
    assert main(["train", "edsr-small-x2", "--data", "images", "more", "--minutes", "0.00001"]) == 0
    assert "6 images, 0 skipped" in capsys.readouterr().out


def test_measure_prints_a_line_a_variant(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "edsr-small-x2", "--data", "images", "--measure"]) == 0
    assert capsys.readouterr().out.count("images/s") == 2


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--data", "absent"], 1, "does not exist"),
        (["--data", "images", "images/set/0.png"], 2, "give one pack, or folders"),
        (["--data", "images/set/0.png"], 1, "no crop pack"),
        (["--data", "images", "--carry", "out"], 1, "no checkpoint of edsr-small-x2"),
        (["--data", "images", "--pack", "a", "--measure"], 2, "not allowed with"),
        (["--data", "images", "--precision", "fp8"], 2, "invalid choice"),
    ],
)
def test_wrong_arguments(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    try:
        code = main(["train", "edsr-small-x2", *arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == status and message in capsys.readouterr().err
