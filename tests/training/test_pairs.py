"""Pairs to train on by the names of image sets."""

from __future__ import annotations

import pytest
import torch

import sqlib
from sqlib.cli import main
from sqlib.errors import DataError, InputError


def test_crops_are_aligned_and_drawn_from_their_seed() -> None:
    data = sqlib.training.pairs("builtin", scale=2, patch=12)
    assert len(data.pool.lr) == 7 and data.pool.names[0].startswith("builtin/")
    drawn = [data.draw(4, True, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert drawn[0].args[0].shape == (4, 3, 12, 12) and drawn[0].target.shape == (4, 3, 24, 24)
    assert torch.equal(drawn[0].target, drawn[1].target) and not torch.equal(drawn[0].target, drawn[2].target)
    small = torch.nn.functional.avg_pool2d(drawn[0].target, 2)
    assert float((small - drawn[0].args[0]).abs().mean()) < 0.02


def test_sets_that_do_not_do() -> None:
    with pytest.raises(InputError, match=r"no image of builtin holds a crop of 900 x 900.*at x2"):
        sqlib.training.pairs("builtin", scale=2, patch=900)
    with pytest.raises(InputError, match="unknown dataset 'nothing'"):
        sqlib.training.pairs("builtin+nothing", scale=2)
    with pytest.raises(DataError):
        sqlib.training.pairs("builtin+manga109", scale=2, data_dir="/nowhere")


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": None},
        {"source": ""},
        {"scale": "4"},
        {"scale": 0},
        {"patch": 0},
        {"patch": 2.5},
        {"patch": "8"},
        {"seed": -1},
        {"seed": "a"},
        {"device": "nothing"},
    ],
)
def test_numbers_that_cannot_be(wrong: dict) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))}"):
        sqlib.training.pairs(**{"source": "builtin", "scale": 2, "patch": 12, **wrong})


def test_the_command_line_trains_on_them(capsys: pytest.CaptureFixture[str]) -> None:
    options = [f"--recipe-option={o}" for o in ("steps=1", "batch=1")]
    command = ["evaluate", "edsr-small", "--scale", "4", "--dataset", "builtin", "--recipe", "pams"]
    assert main([*command, "--bits", "4", *options, "--pairs", "nothing"]) == 2
    assert "unknown set of originals 'nothing'" in capsys.readouterr().err
    assert main([*command, "--bits", "4", *options]) == 0
    assert "dB" in capsys.readouterr().out
