"""``python -m sqlib train``: train, continue, from a teacher, from other weights; wrong arguments."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sqlib import models
from sqlib.cli import main
from sqlib.training import TrainConfig, prepare
from sqlib.training.config import CONFIGS


@pytest.fixture
def folder(tmp_path: Path, photos: list[tuple[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> Path:
    tiny = TrainConfig("edsr-small", 2, steps=6, batch=2, patch=8, warmup=2, held_out=1)
    taught = TrainConfig(
        "edsr-small", 4, steps=3, batch=2, patch=8, border=1, held_out=1, teacher="edsr-small",
        start="edsr-small-x2",
    )  # fmt: skip
    monkeypatch.setitem(CONFIGS, tiny.name, tiny)
    monkeypatch.setitem(CONFIGS, taught.name, taught)
    monkeypatch.setenv("SQLIB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images" / "set").mkdir(parents=True)
    for name, image in photos:
        Image.fromarray(image).save(tmp_path / "images" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_and_continue(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "edsr-small-x2", "--data", "images", "--minutes", "0.00001"]) == 0
    assert "the same command continues from training/edsr-small-x2" in capsys.readouterr().out
    assert main(["train", "edsr-small-x2", "--data", "images"]) == 0
    out = capsys.readouterr().out
    assert "continuing at step 0 of 6" in out and "done: training/edsr-small-x2/edsr-small-x2.safe" in out
    assert (folder / "training" / "edsr-small-x2" / "edsr-small-x2.json").is_file()


def test_a_teacher_enlarges_what_has_no_original(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped x4 network teaches."""
    from sqlib import datasets

    for i, item in enumerate(list(datasets.load("builtin").pairs(4))[:4]):
        Image.fromarray(item.hr[:64, : 64 + 4 * i]).save(folder / "images" / "set" / f"{i}.png")
        (folder / "small").mkdir(exist_ok=True)
        Image.fromarray(item.lr[:16, : 16 + i]).save(folder / "small" / f"{i}.png")
    (folder / "images" / "set" / "4.png").unlink()
    assert main(["train", "edsr-small-x4", "--data", "images", "--inputs", "small"]) == 0
    assert "8 images, 0 skipped" in capsys.readouterr().out
    card = json.loads((folder / "training/edsr-small-x4/edsr-small-x4.json").read_text())
    assert (card["data"]["images"], card["data"]["inputs"]) == (3, 4)
    teacher = models.pretrained("edsr-small", scale=4)
    said = {"name": "edsr-small", "weights_id": teacher.weights_id, "licence": "this project's own"}
    assert card["teacher"] == said
    assert card["start"]["from"] == "edsr-small-x2"
    # x2 and x4 share everything but the upsampler.
    assert card["start"]["new"] and all(name.startswith("upsampler.") for name in card["start"]["new"])
    assert len(list((folder / "cache" / "teacher").glob("*.npy"))) == 8


def test_a_function_is_taken_and_only_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SRResNet computes what EDSR does; a training that goes on does not need that again."""
    config = TrainConfig("srresnet-small", 4, steps=2, batch=2, patch=8, held_out=1, start="edsr-small-x4")
    monkeypatch.setitem(CONFIGS, config.name, config)
    command = ["train", config.name, "--data", "images", "--minutes"]
    assert main([*command, "0.00001"]) == 0
    assert f"{config.name}: begins with the function of edsr-small-x4" in capsys.readouterr().out
    module = importlib.import_module("sqlib.training.prepare")  # the package has a function of this name
    monkeypatch.setattr(module, "find_start", lambda *_, **__: pytest.fail("computed again"))
    assert main([*command, "5", "--start", "edsr-small-x2"]) == 1
    assert "started from edsr-small-x4, not from edsr-small-x2" in capsys.readouterr().err
    assert main([*command, "5"]) == 0
    card = json.loads((folder / "training" / config.name / f"{config.name}.json").read_text())
    assert card["start"] == {"from": "edsr-small-x4", "taken": "function", "new": []}


def test_several_folders_are_told_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "more" / "set").mkdir(parents=True)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "more" / "set" / "0.png")
    assert main(["train", "edsr-small-x2", "--data", "images", "more", "--minutes", "0.00001"]) == 0
    assert "6 images, 0 skipped" in capsys.readouterr().out


def test_an_image_counts_once_however_often_it_is_given(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a held-out image would be trained on under its other name."""
    (folder / "copy").mkdir()
    image = Image.open(folder / "images" / "set" / "0.png")
    image.save(folder / "copy" / "renamed.bmp")
    arguments = ["train", "edsr-small-x2", "--data", "images", "images", "copy", "--minutes", "0.00001"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "5 images, 6 skipped" in printed.out
    assert "skipped copy/renamed.bmp: the same pixels as images/set/0.png" in printed.err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--data", "absent"], 1, "does not exist"),
        (["--data", "images/set/0.png"], 1, "does not exist"),
        (["--data", "images", "--inputs", "images"], 1, "has no teacher"),
        (["--data", "images", "--start", "absent.pth"], 1, "absent.pth does not exist"),
        (["--data", "images", "--start", "swinir-small-x2"], 1, "none of the"),
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


def test_weights_of_unknown_origin_are_not_called_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: TrainConfig
) -> None:
    """A teacher from a file in ``$SQLIB_WEIGHTS``, called as training calls its results: anybody's."""
    from sqlib import datasets

    shutil.copy(models.WEIGHTS_FOLDER / "edsr-small-x2.safetensors", tmp_path)
    monkeypatch.setattr(models, "WEIGHTS_FOLDER", tmp_path / "nothing ships")
    monkeypatch.setenv("SQLIB_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("SQLIB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    for i, item in enumerate(list(datasets.load("builtin").pairs(2))[:3]):
        Image.fromarray(item.hr[:64, :64]).save(tmp_path / "images" / f"{i}.png")
    found = prepare(replace(tiny, teacher="edsr-small"), [tmp_path / "images"])
    assert found.provenance["teacher"]["licence"] == "unknown"
