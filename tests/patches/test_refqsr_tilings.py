"""The patches of RefQSR's test images: how many, of what sizes, and bits of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy_banks import NETWORKS, Banked, patches

from sqlib import datasets, quantize_model
from sqlib.cost import patch_sizes
from sqlib.errors import InputError
from sqlib.evaluate import evaluate, super_resolve
from sqlib.experiments.papers.refqsr import SIZES, TILINGS
from sqlib.images import write_image
from sqlib.patches import Grid, Tiling, merge, split


class Enlarge(nn.Module):
    """Nearest neighbour, which remembers the shapes that it was given."""

    scale = 4

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(x.shape))
        return nn.functional.interpolate(x, scale_factor=4, mode="nearest")


COUNTS = {
    "urban100": (8, 62_868, {(72, 72): 3, (72, 114): 3, (122, 72): 1, (122, 114): 1}),
    "test2k": (10, 147_936, {(96, 96): 4, (96, 180): 4, (152, 96): 1, (152, 180): 1}),
    "test4k": (55, 611_376, {(96, 96): 40, (96, 180): 10, (124, 96): 4, (124, 180): 1}),
}


@pytest.mark.parametrize("dataset", COUNTS)
def test_patches_of_the_printed_sizes(dataset: str) -> None:
    """The last patch is extended: one more at the border would make 1465.8 of the printed 1442.41."""
    width, height = (side // 4 for side in SIZES[dataset])
    tiling = TILINGS[dataset]
    sizes = patch_sizes((width, height), tiling.patch, tiling.overlap)
    count, pixels, expected = COUNTS[dataset]
    assert sizes == expected and sum(sizes.values()) == count
    assert sum(n * w * h for (w, h), n in sizes.items()) == pixels
    columns, rows = (
        len(Grid(height, width, tiling.patch, 6).columns),
        len(Grid(height, width, tiling.patch, 6).rows),
    )
    assert pixels == (width + (columns - 1) * 6) * (height + (rows - 1) * 6)


def test_images_of_2k_and_4k(tmp_path: Path, no_data: Path) -> None:
    """Made-up images of the real sizes, as loaded and cut."""
    for name, number in (("test2k", 1201), ("test4k", 1301)):
        width, height = SIZES[name]
        ramp = np.linspace(0, 255, width // 4, dtype=np.uint8)[None, :, None]
        lr = np.ascontiguousarray(np.broadcast_to(ramp, (height // 4, width // 4, 3)))
        folder = tmp_path / name
        (folder / "HR").mkdir(parents=True)
        (folder / "LR_bicubic" / "X4").mkdir(parents=True)
        write_image(folder / "HR" / f"{number}.png", lr.repeat(4, 0).repeat(4, 1))
        write_image(folder / "LR_bicubic" / "X4" / f"{number}x4.png", lr)
        data, model = datasets.load(name, data_dir=tmp_path), Enlarge()
        assert data.name == f"{name}[1]" and data.names == (str(number),)
        pair = data.pair(0, 4)
        assert pair.hr.shape == (height, width, 3) and np.array_equal(pair.lr, lr)
        np.testing.assert_allclose(super_resolve(model, lr, tiling=TILINGS[name]), pair.hr, atol=1e-4)
        found: dict[tuple[int, int], int] = {}
        for n, _, high, wide in model.shapes:
            found[wide, high] = found.get((wide, high), 0) + n
        assert found == COUNTS[name][2]
    scores = evaluate(
        Enlarge(), datasets.load("test2k", data_dir=tmp_path), scale=4, tiling=TILINGS["test2k"]
    )
    assert scores.protocol.id == "Y-BT601/crop=scale/uint8/patch=96+6"
    assert (scores.psnr, scores.ssim, scores.dataset) == (np.inf, 1, "test2k[1]")


@pytest.mark.parametrize(
    ("height", "width", "batches"),
    [
        (6, 7, [1]),  # smaller than a patch
        (8, 8, [1]),  # a patch exactly
        (13, 8, [1]),  # room for one, which is extended
        (6, 30, [3, 1]),  # one side shorter, which is not cut
        (16, 17, [1, 1, 1, 1]),  # four of four sizes
        (20, 33, [12, 3]),  # a batch of many and one of fewer
    ],
)
def test_bits_of_each_patch_are_those_that_it_has_alone(height: int, width: int, batches: list[int]) -> None:
    noise = np.random.default_rng(0).uniform(-128, 127, (height, width, 3))
    lr = (128 + noise * np.linspace(0.02, 1, width)[:, None]).astype(np.uint8)
    model, tiling = quantize_model(NETWORKS["cnn"](), Banked(), [patches()]), Tiling(8, 2)
    with model.passes() as passes:
        whole = super_resolve(model, lr, tiling=tiling)
    assert [context.samples for context in passes] == batches
    grid = Grid(height, width, 8, 2)
    with model.passes() as alone:
        pieces = [super_resolve(model, np.ascontiguousarray(piece)) for piece in split(lr, grid)]
    np.testing.assert_allclose(whole, merge(pieces, grid, 2), atol=1e-3)
    # as many patches of every size took every number of bits at every call site
    assert _bits(passes) == _bits(alone)


def _bits(passes: list) -> list[tuple]:
    rows = []
    for context in passes:
        each = torch.stack([context.bits[site] for site in sorted(context.bits)], 1).tolist()
        rows += [(context.size, *bits) for bits in each]
    return sorted(rows)


def test_tilings_that_leave_no_step() -> None:
    lr = np.zeros((20, 20, 3), np.uint8)
    for overlap in (8, 9):
        with pytest.raises(InputError, match=f"overlap={overlap} of patches of 8 pixels: expected less than"):
            super_resolve(Enlarge(), lr, tiling=Tiling(8, overlap))


def test_a_list_of_images_of_different_sizes_is_no_batch() -> None:
    sizes = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 12, 12)
    with pytest.raises(InputError, match="calibration"):
        quantize_model(NETWORKS["cnn"](), Banked(), [[sizes]])
    # one after the other they are batches
    quantized = quantize_model(NETWORKS["cnn"](), Banked(), sizes)
    assert quantized.has_banks
