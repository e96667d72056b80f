"""Statistics of an image that comes in patches: gathered first, then used, then gone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sqlib import quantize_model
from sqlib.codebook import Codebook
from sqlib.evaluate import super_resolve
from sqlib.models.edsr import EDSR
from sqlib.patches import Tiling
from sqlib.patches.image_statistics import image_statistics, measuring
from sqlib.quantizers import SubsetQuantizer
from sqlib.recipes import DFSQ

NAN = np.array(np.nan)


def quantizer(**options: Any) -> SubsetQuantizer:
    return SubsetQuantizer(Codebook(np.linspace(-1, 1, 16), NAN, NAN, ""), **options)


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("channelwise", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_patches_without_overlap_give_what_the_image_gives(
    centre: bool, channelwise: bool, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = quantizer(centre=centre, channelwise=channelwise)
    if plain:
        monkeypatch.setattr(own, "fake", own.fake_torch)
    x = torch.randn(1, 3, 12, 16, generator=torch.Generator().manual_seed(1)) * torch.linspace(1, 9, 16)
    whole, patches = own(x), x.split(8, dim=3)
    alone = torch.cat([own(patch) for patch in patches], dim=3)
    with image_statistics(own) as complete:
        first = torch.cat([own(patch) for patch in patches], dim=3)
        complete()
        second = torch.cat([own(patch) for patch in patches], dim=3)
    assert torch.equal(first, alone) and not torch.equal(alone, whole)
    torch.testing.assert_close(second, whole)
    assert own.image is None and torch.equal(own(x), whole)


def test_what_no_patch_reached_measures_by_itself() -> None:
    own, x = quantizer(), torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(2))
    with image_statistics(own) as complete:
        complete()
        assert torch.equal(own(x), quantizer()(x))


def test_it_ends_with_an_error_too() -> None:
    own = quantizer()
    with pytest.raises(KeyError), image_statistics(own):
        raise KeyError
    assert own.image is None


def test_whom_it_concerns() -> None:
    found = nn.ModuleList(
        [quantizer(), quantizer(patch=4), quantizer(scale=2.0, centre=False), nn.Identity()]
    )
    assert measuring(found) == [found[0]]


def test_a_dark_and_a_bright_half() -> None:
    """By itself the dark half gets levels of its own; with the statistics of the image it does not."""
    torch.manual_seed(0)
    network = EDSR("tiny", 2, blocks=1, features=8).eval()
    photo = np.random.default_rng(0).integers(0, 40, (24, 48, 3), dtype=np.uint8)
    photo[:, 24:] += 200
    x = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    model = quantize_model(network, DFSQ(bits=4), [x])
    whole = super_resolve(model, photo)
    alone, together = (
        np.abs(super_resolve(model, photo, tiling=Tiling(24, 12), one_image=on) - whole).mean()
        for on in (False, True)
    )
    assert together < alone / 2
    tiles = quantize_model(network, DFSQ(bits=4, statistics="patch", patch=8), [x])
    assert measuring(tiles) == []
    np.testing.assert_array_equal(
        super_resolve(tiles, photo, tiling=Tiling(24, 0), one_image=True),
        super_resolve(tiles, photo, tiling=Tiling(24, 0)),
    )
