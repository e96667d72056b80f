"""BitOPs and FQR beside the scores: of the bits that each image really used."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sqlib
from sqlib import datasets
from sqlib.cost import cost
from sqlib.errors import InputError
from sqlib.evaluate import evaluate, super_resolve
from sqlib.experiments.run.scoring import output_size, scored
from sqlib.metrics import DEFAULT, protocol
from sqlib.patches import Grid, Tiling, split

sys.path.insert(0, str(Path(__file__).parents[2]))
from toy_banks import Banked, cnn, patches

RULES = replace(protocol(DEFAULT), tiling=Tiling(24, 6))


@pytest.fixture(scope="module")
def photographs():
    return datasets.load("builtin").subset(3).crop(120)


def score(network, photographs, counted="96x96"):
    return scored(network, photographs, scale=2, protocol=RULES, device="cpu", counted=counted)


def test_fixed_bits_cost_every_image_alike(photographs):
    quantized = sqlib.quantize_model(cnn(), sqlib.recipes.MinMax(bits=4), [patches()])
    found = score(quantized, photographs)
    plain = evaluate(quantized, photographs, scale=2, protocol=RULES).images
    spent = cost(quantized, (96, 96), patch=24, overlap=6)
    assert [{k: v for k, v in image.items() if k not in ("fqr", "bitops_g")} for image in found] == plain
    assert {image["bitops_g"] for image in found} == {spent.bitops / 1e9}
    assert {image["fqr"] for image in found} == {4.0}
    assert score(cnn(), photographs)[0]["fqr"] == 32


def test_bits_that_the_image_decides(photographs):
    quantized = sqlib.quantize_model(cnn(), Banked(), [patches()])
    found = score(quantized, photographs)
    plain = evaluate(quantized, photographs, scale=2, protocol=RULES).images
    for image, before, pair in zip(found, plain, photographs.pairs(2), strict=True):
        assert image["psnr"] == before["psnr"] and image["name"] == before["name"]
        lr = torch.from_numpy(pair.lr.copy()).permute(2, 0, 1)[None].float() / 255
        grid = Grid(60, 60, 24, 6)
        each = []
        for patch in split(lr, grid):  # one by one, as CADyQ counts
            with quantized.context() as context, torch.no_grad():
                quantized(patch)
            active = [float(b) for site, b in context.bits.items() if quantized.sites[site].active]
            each.append(sum(active) / len(active))
        assert image["fqr"] == pytest.approx(sum(each) / len(each), rel=1e-12)
        with quantized.passes() as passes:
            super_resolve(quantized, pair.lr, tiling=RULES.tiling)
        spent = cost(quantized, (96, 96), patch=24, overlap=6, context=passes)
        assert image["bitops_g"] == spent.bitops / 1e9
    assert len({image["fqr"] for image in found}) > 1, "images differ"


def test_without_a_size_nothing_is_counted(photographs):
    assert set(score(cnn(), photographs, None)[0]) == {"name", "psnr", "ssim"}


@pytest.mark.parametrize("size", ["720p", "1280", "1280x", "x720", "12.5x3"])
def test_sizes_that_are_none(size):
    assert output_size("1280x720") == (1280, 720)
    with pytest.raises(InputError, match="WIDTHxHEIGHT"):
        output_size(size)
