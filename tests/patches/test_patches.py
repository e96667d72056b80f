"""Cutting and putting together: inverse of each other, the seams, clear about bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sqlib.errors import InputError
from sqlib.patches import Box, Grid, Tiling, merge, split


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Any image, patch and overlap: patches beyond the image, odd overlaps, those above half a patch."""
    patch = draw(st.integers(1, 12))
    size = st.integers(1, 40)
    return Grid(draw(size), draw(size), patch, draw(st.integers(0, patch - 1)))


def numbered(grid: Grid, channels: int = 2) -> np.ndarray:
    """An image (H, W, C) of which no two values are equal."""
    return np.arange(grid.height * grid.width * channels).reshape(grid.height, grid.width, channels)


@given(grids(), st.integers(1, 4))
def test_merge_is_the_inverse_of_split(grid: Grid, scale: int) -> None:
    image = numbered(grid)
    upscaled = image.repeat(scale, 0).repeat(scale, 1)
    patches = [patch.repeat(scale, 0).repeat(scale, 1) for patch in split(image, grid)]
    merged = merge(patches, grid, scale)
    assert merged.dtype == image.dtype
    np.testing.assert_array_equal(merged, upscaled)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    patches = [p.repeat_interleave(scale, 2).repeat_interleave(scale, 3) for p in split(tensor, grid)]
    assert torch.equal(merge(patches, grid, scale)[0].permute(1, 2, 0), torch.from_numpy(upscaled))


@given(grids(), st.integers(1, 4))
def test_half_the_overlap_is_trimmed(grid: Grid, scale: int) -> None:
    """Of the later patch (patch - step) / 2 pixels times the scale, rounded down, are trimmed."""
    patches = split(numbered(grid), grid)
    marked = [
        np.full((scale * p.shape[0], scale * p.shape[1]), number, np.int64)
        for number, p in enumerate(patches)
    ]

    def owners(length: int) -> list[int]:
        """Patch that each upscaled pixel of a side comes from."""
        starts = [0]
        while starts[-1] + (grid.patch - grid.overlap) + grid.patch <= length:
            starts.append(starts[-1] + grid.patch - grid.overlap)
        trim = int(grid.overlap / 2 * scale)
        return [
            max(i for i, start in enumerate(starts) if i == 0 or pixel >= scale * start + trim)
            for pixel in range(scale * length)
        ]

    rows, columns = np.array(owners(grid.height)), np.array(owners(grid.width))
    expected = rows[:, None] * (columns.max() + 1) + columns
    np.testing.assert_array_equal(merge(marked, grid, scale), expected)


def test_boxes_by_hand() -> None:
    grid = Grid(7, 12, patch=5, overlap=3)
    assert grid.rows == [(0, 5), (2, 7)]
    assert grid.columns == [(0, 5), (2, 7), (4, 9), (6, 12)]
    assert grid.boxes[:2] == [Box(0, 5, 0, 5), Box(0, 5, 2, 7)]
    assert (grid.boxes[-1].height, grid.boxes[-1].width) == (5, 6)
    # 3 shared pixels: one stays with the earlier patch, two with the later one
    assert grid.kept()[:4] == [Box(0, 3, 0, 3), Box(0, 3, 3, 5), Box(0, 3, 5, 7), Box(0, 3, 7, 12)]
    # 6 at scale 2: three each
    assert grid.kept(2)[:2] == [Box(0, 7, 0, 7), Box(0, 7, 7, 11)]


def test_a_side_shorter_than_a_patch_is_not_cut() -> None:
    assert Grid(3, 4, patch=96, overlap=6).boxes == [Box(0, 3, 0, 4)]
    assert Grid(3, 20, patch=10, overlap=2).boxes == [Box(0, 3, 0, 10), Box(0, 3, 8, 20)]
    assert Grid(96, 96, patch=96, overlap=6).boxes == [Box(0, 96, 0, 96)]


def test_patches_are_views_and_the_merged_image_is_not() -> None:
    grid = Grid(9, 8, patch=8)
    image = numbered(grid)
    patches = split(image, grid)
    assert np.shares_memory(patches[0], image)
    assert not np.shares_memory(merge(patches, grid), image)


def test_layouts_and_types() -> None:
    grid = Grid(6, 5, patch=4, overlap=1)
    gray = numbered(grid, 1)[..., 0].astype(np.uint8)
    assert merge(split(gray, grid), grid).dtype == np.uint8
    plane = torch.rand(6, 5, dtype=torch.float16, requires_grad=True)
    merged = merge(split(plane, grid), grid)
    assert merged.dtype == torch.float16 and torch.equal(merged, plane)
    merged.sum().backward()
    assert plane.grad is not None and bool((plane.grad == 1).all())
    batch = torch.rand(2, 3, 4, 6, 5)
    assert torch.equal(merge(split(batch, grid), grid), batch)


BAD = [
    ((0, 0), "patch=0: expected an integer of at least 1"),
    ((-4, 0), "patch=-4"),
    ((True, 0), "patch=True"),
    ((8.0, 0), r"patch=8\.0"),
    (("8", 0), "patch='8'"),
    ((None, 0), "patch=None"),
    ((8, 8), "overlap=8 of patches of 8 pixels: expected less than the patch"),
    ((8, 9), "less than the patch"),
    ((8, -1), "overlap=-1: expected an integer of at least 0"),
    ((8, True), "overlap=True"),
    ((8, 2.0), r"overlap=2\.0"),
    ((8, float("nan")), "overlap=nan"),
    ((8, None), "overlap=None"),
]


@pytest.mark.parametrize(("numbers", "message"), BAD)
def test_bad_patches(numbers: tuple[int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Tiling(*numbers)
    with pytest.raises(InputError, match=message):
        Grid(40, 40, *numbers)


@pytest.mark.parametrize(
    ("size", "message"),
    [((0, 8), "height=0"), ((8, -1), "width=-1"), ((8.0, 8), r"height=8\.0"), ((8, True), "width=True")],
)
def test_bad_sizes(size: tuple[int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Grid(*size, 4)


def test_bad_images() -> None:
    grid = Grid(6, 8, patch=4)
    with pytest.raises(InputError, match="has 8 x 6 pixels, the grid is for 6 x 8"):
        split(np.zeros((8, 6, 3)), grid)
    with pytest.raises(InputError, match="has 3 x 6 pixels"):  # channels first
        split(np.zeros((3, 6, 8)), grid)
    with pytest.raises(InputError, match="has 8 x 3 pixels"):  # channels last
        split(torch.zeros(1, 6, 8, 3), grid)
    for image in (np.zeros((1, 6, 8, 3)), np.zeros(6), torch.zeros(6), [[1, 2]], None):
        with pytest.raises(InputError, match=r"expected an array \(H, W\) or \(H, W, C\) or a tensor"):
            split(image, grid)  # type: ignore[type-var]
    with pytest.raises(InputError, match=r"grid is tuple; expected sqlib\.patches\.Grid"):
        split(np.zeros((6, 8)), (4, 0))  # type: ignore[arg-type]


def test_bad_lists_of_patches() -> None:
    grid = Grid(6, 8, patch=4)
    patches = split(np.zeros((6, 8, 3)), grid)
    for wrong in ([], patches[:1], [*patches, patches[0]]):
        with pytest.raises(InputError, match=f"{len(wrong)} patches are given, the grid has 2"):
            merge(wrong, grid)
    with pytest.raises(InputError, match="patch 0 has 6 x 4 pixels; expected 12 x 8, 2 times 6 x 4"):
        merge(patches, grid, 2)
    with pytest.raises(InputError, match="patch 1 has 12 x 8 pixels; expected 6 x 4, 1 times 6 x 4"):
        merge([patches[0], patches[1].repeat(2, 0).repeat(2, 1)], grid)
    with pytest.raises(
        InputError, match=r"patch 1 is an array of float32 .*the first one an array of float64"
    ):
        merge([patches[0], patches[1].astype(np.float32)], grid)
    with pytest.raises(InputError, match=r"\(H, W, 1\), the first one .*\(H, W, 3\)"):
        merge([patches[0], patches[1][..., :1]], grid)
    with pytest.raises(InputError, match="patch 1 is a tensor"):
        merge([patches[0][..., 0], torch.zeros(6, 4)], grid)  # type: ignore[list-item]
    for scale in (0, -1, 1.0, True, None):
        with pytest.raises(InputError, match=f"scale={scale}: expected an integer"):
            merge(patches, grid, scale)  # type: ignore[arg-type]
