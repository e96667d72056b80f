"""Evaluation patch by patch: the whole image's pixels where they must be equal, another protocol always."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sqlib import datasets, metrics, quantize_model, recipes
from sqlib.cli import main
from sqlib.datasets import Pair
from sqlib.errors import InputError
from sqlib.evaluate import evaluate, super_resolve
from sqlib.metrics import Protocol
from sqlib.models.edsr import EDSR
from sqlib.patches import Grid, Tiling, merge, split

RADIUS = 1 + 2 * 2 + 1 + 1 + 1  # of EDSR with two blocks: head, blocks, end of body, upsampler, tail


def edsr(scale: int = 2) -> EDSR:
    torch.manual_seed(3)
    return EDSR("tiny", scale, blocks=2, features=8).eval()


class Recorder(nn.Module):
    """Nearest neighbour; remembers the shapes that it was given, and can answer wrongly."""

    def __init__(self, scale: int = 2) -> None:
        super().__init__()
        self.scale, self.shapes, self.last = scale, list[tuple[int, ...]](), 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(x.shape))
        out = x.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)
        out[-1, 0, 0, 0] += self.last
        return out


class Photos:
    """Images of two sizes, the second smaller than a patch of 20 pixels."""

    name = "photos"

    def __init__(self, photo: np.ndarray) -> None:
        self.images = {"a": photo[:70, :90], "b": photo[:36, :30]}

    def __len__(self) -> int:
        return len(self.images)

    def pairs(self, scale: int) -> Iterator[Pair]:
        for name, hr in self.images.items():
            yield Pair(name, np.ascontiguousarray(hr[::scale, ::scale]), hr)


@pytest.mark.parametrize(("scale", "overlap"), [(2, 2 * RADIUS), (3, 2 * RADIUS + 1)])
def test_pixels_are_those_of_the_whole_image(photo: np.ndarray, scale: int, overlap: int) -> None:
    """In float64 all of them; in float32 up to rounding, as a convolution of another size may add in another
    order. Outputs are float32 gray levels, whose last bit is worth 1.5e-5 at 255."""
    model = edsr(scale)
    tiling = Tiling(overlap + 9, overlap)
    whole = super_resolve(model, photo)
    tiled = super_resolve(model, photo, tiling=tiling)
    assert tiled.shape == whole.shape and tiled.dtype == np.float32
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=2e-4)
    double = model.double()
    exact = super_resolve(double, photo, tiling=tiling) - super_resolve(double, photo)
    assert np.abs(exact).max() <= 2**-15
    # with less overlap, the pixels at the seams are others
    seams = np.abs(super_resolve(double, photo, tiling=Tiling(overlap + 9, 2)) - super_resolve(double, photo))
    assert seams.max() > 1e-2


def test_static_quantizers_see_no_difference(photo: np.ndarray) -> None:
    """Fixed bounds know no image, statistics of the input do."""
    x = torch.from_numpy(photo[:32, :32]).permute(2, 0, 1)[None] / 255
    tiling = Tiling(2 * RADIUS + 8, 2 * RADIUS)
    static = quantize_model(edsr().double(), recipes.MinMax(bits=8), [x])
    difference = super_resolve(static, photo, tiling=tiling) - super_resolve(static, photo)
    assert np.mean(np.abs(difference) > 1e-3) < 1e-3
    dynamic = quantize_model(edsr().double(), recipes.DFSQ(bits=4), [x])
    difference = super_resolve(dynamic, photo, tiling=tiling) - super_resolve(dynamic, photo)
    assert np.mean(np.abs(difference) > 1e-3) > 0.5


def test_batches_change_nothing(photo: np.ndarray) -> None:
    """Patches that go through together are those that go through alone: statistics are per patch."""
    x = torch.from_numpy(photo[:32, :32]).permute(2, 0, 1)[None] / 255
    model = quantize_model(edsr().double(), recipes.DFSQ(bits=4), [x])
    grid = Grid(96, 120, patch=24, overlap=4)
    alone = [super_resolve(model, np.ascontiguousarray(patch)) for patch in split(photo, grid)]
    together = super_resolve(model, photo, tiling=Tiling(24, 4))
    # a code may differ where batches add up in another order
    assert np.mean(np.abs(together - merge(alone, grid, 2)) > 1e-3) < 0.01


def test_batches_are_of_one_size_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 52, 3), dtype=np.uint8)
    model = Recorder()
    whole = super_resolve(model, image)
    model.shapes.clear()
    np.testing.assert_array_equal(super_resolve(model, image, tiling=Tiling(10, 2)), whole)
    # columns 0, 8, ..., 40 (12 wide); rows 0, 8, 16 (14 high)
    assert model.shapes == [(10, 3, 10, 10), (2, 3, 10, 12), (5, 3, 14, 10), (1, 3, 14, 12)]
    model.shapes.clear()
    monkeypatch.setattr("sqlib.evaluate._PIXELS_AT_ONCE", 401)
    np.testing.assert_array_equal(super_resolve(model, image, tiling=Tiling(10, 2)), whole)
    assert [shape[0] for shape in model.shapes] == [4, 4, 2, 2, 2, 2, 1, 1]
    model.shapes.clear()
    monkeypatch.setattr("sqlib.evaluate._PIXELS_AT_ONCE", 1)  # a patch larger than the bound goes alone
    np.testing.assert_array_equal(super_resolve(model, image, tiling=Tiling(10, 2)), whole)
    assert [shape[0] for shape in model.shapes] == [1] * 18


def test_scores_of_patches(photo: np.ndarray) -> None:
    model, data = edsr(), Photos(photo)
    tiling = Tiling(20, 5)
    scores = evaluate(model, data, scale=2, tiling=tiling)
    assert scores.protocol.id == "Y-BT601/crop=scale/uint8/patch=20+5"
    assert scores.to_dict()["protocol"] == scores.protocol.id
    for image, pair in zip(scores.images, data.pairs(2), strict=True):
        height, width = pair.lr.shape[:2]
        grid = Grid(height, width, 20, 5)
        sr = merge([super_resolve(model, np.ascontiguousarray(p)) for p in split(pair.lr, grid)], grid, 2)
        assert image["psnr"] == pytest.approx(metrics.psnr(sr, pair.hr, scale=2), abs=1e-3)
        assert image["ssim"] == pytest.approx(metrics.ssim(sr, pair.hr, scale=2), abs=1e-5)
    whole = evaluate(model, data, scale=2)
    assert whole.protocol.id == "Y-BT601/crop=scale/uint8"
    assert whole.images[0]["psnr"] != scores.images[0]["psnr"]
    assert whole.images[1] == scores.images[1]  # smaller than a patch: the whole image


def test_tiling_of_the_protocol(photo: np.ndarray) -> None:
    rules = Protocol(color="RGB", tiling=Tiling(20, 5))
    assert rules.id == "RGB/crop=scale/uint8/patch=20+5"
    assert Protocol.from_dict(json.loads(json.dumps(rules.to_dict()))) == rules
    assert "tiling" not in Protocol().to_dict()
    assert len({Protocol(tiling=t).id for t in (None, Tiling(96), Tiling(96, 6), Tiling(9, 6))}) == 4
    data = Photos(photo)
    by_protocol = evaluate(edsr(), data, scale=2, protocol=rules)
    by_argument = evaluate(edsr(), data, scale=2, protocol=Protocol(color="RGB"), tiling=Tiling(20, 5))
    both = evaluate(edsr(), data, scale=2, protocol=rules, tiling=Tiling(20, 5))
    assert by_protocol.protocol == by_argument.protocol == both.protocol == rules
    assert by_protocol.images == by_argument.images == both.images
    with pytest.raises(InputError, match=r"patch=20\+5, evaluation was asked with patch=20\+6"):
        evaluate(edsr(), data, scale=2, protocol=rules, tiling=Tiling(20, 6))
    with pytest.raises(InputError, match=r"fields patch and overlap, got \['patch', 'step'\]"):
        Protocol.from_dict({"tiling": {"patch": 96, "step": 90}})


@pytest.mark.parametrize("tiling", [96, (96, 6), "96+6", True, 0])
def test_bad_tilings(photo: np.ndarray, tiling: object) -> None:
    message = r"expected sqlib\.patches\.Tiling\(patch, overlap\), or None"
    with pytest.raises(InputError, match=message):
        super_resolve(edsr(), photo, tiling=tiling)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        evaluate(edsr(), Photos(photo), scale=2, tiling=tiling)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        Protocol(tiling=tiling)  # type: ignore[arg-type]


def test_bad_outputs_of_patches(photo: np.ndarray) -> None:
    model = Recorder()
    model.last = float("nan")  # in a corner that is trimmed as well
    with pytest.raises(InputError, match="NaN or infinite values"):
        super_resolve(model, photo, tiling=Tiling(24, 8))
    model.last = 0.0
    model.register_forward_hook(lambda module, args, out: out[:1])
    with pytest.raises(InputError, match=r"returned \(1, 3, 48, 48\) for a batch of 12; expected \(12, 3"):
        super_resolve(model, photo, tiling=Tiling(24, 4))


def test_patches_that_are_related_come_and_go_one_by_one(photo: np.ndarray) -> None:
    """Of all of them there are bytes alone."""

    class Related(Recorder):
        def together(self, patches: Sequence[torch.Tensor]) -> Iterator[tuple[int, torch.Tensor]]:
            alive: list[weakref.ref[torch.Tensor]] = []
            for number in reversed(range(len(patches))):
                x = patches[number]
                out = self(x)
                assert torch.is_inference_mode_enabled() and x.is_floating_point()
                yield number, out
                alive += [weakref.ref(x), weakref.ref(out)]
                assert sum(known() is not None for known in alive) <= 4

    def without(model: Recorder, **options: Any) -> np.ndarray:
        inside: np.ndarray = super_resolve(model, photo, tiling=Tiling(24, 4), **options)
        assert not torch.is_inference_mode_enabled()
        return inside

    model = Related()
    for options in ({}, {"rounded": True}):
        np.testing.assert_array_equal(without(model, **options), without(Recorder(), **options))
    assert set(model.shapes) >= {(1, 3, 24, 24)}
    model.last = float("nan")
    with pytest.raises(InputError, match="NaN or infinite values"):
        without(model)


def test_gray_levels_are_named_once_per_image(photo: np.ndarray) -> None:
    model = Recorder()
    model.register_forward_hook(lambda module, args, out: out * 255)
    with pytest.warns(UserWarning, match="where white is 1.0") as seen:
        super_resolve(model, photo, tiling=Tiling(24, 4))
    assert len(seen) == 1 and seen[0].filename == __file__


def test_a_network_that_does_not_say_its_scale(photo: np.ndarray) -> None:
    model = nn.Upsample(scale_factor=3, mode="nearest")
    np.testing.assert_array_equal(
        super_resolve(model, photo, tiling=Tiling(24, 4)), super_resolve(model, photo)
    )
    with pytest.raises(InputError, match="patch 0 has 36 x 36 pixels; expected 24 x 24, 1 times 24 x 24"):
        super_resolve(nn.Upsample(scale_factor=1.5), photo, tiling=Tiling(24, 4))


COMMAND = ("evaluate", "edsr-small", "--scale", "4", "--dataset", "builtin", "--first", "1", "--json")


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    from sqlib import models

    assert main((*COMMAND, "--patch", "72", "--overlap", "6")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["protocol"] == "Y-BT601/crop=scale/uint8/patch=72+6"
    data = datasets.load("builtin").subset(1)
    scores = evaluate(models.pretrained("edsr-small", scale=4), data, scale=4, tiling=Tiling(72, 6))
    assert found["psnr"] == pytest.approx(scores.psnr, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--overlap", "6"), "--overlap needs --patch"),
        (("--overlap", "0"), "--overlap needs --patch"),
        (("--patch", "0"), "'0' is not an integer of 1 or more"),
        (("--patch", "7.5"), "'7.5' is not an integer"),
        (
            ("--patch", "6", "--overlap", "6"),
            "overlap=6 of patches of 6 pixels: expected less than the patch",
        ),
        (("--patch", "6", "--overlap", "-1"), "'-1'"),
    ],
)
def test_usage_errors(options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main((*COMMAND, *options)) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and words in captured.err
