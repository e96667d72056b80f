"""Networks: exact sizes, shapes, conventions."""

from __future__ import annotations

import pytest
import torch

from sqlib import models
from sqlib.errors import InputError
from sqlib.models._interpolation import Bilinear
from sqlib.models.carn import CARN


@pytest.mark.parametrize(
    ("name", "scale", "count"),
    [
        ("edsr-baseline", 2, 1_369_859),
        ("edsr-baseline", 3, 1_554_499),
        ("edsr-baseline", 4, 1_517_571),
        ("edsr-large", 2, 40_729_603),
        ("edsr-large", 3, 43_680_003),
        ("edsr-large", 4, 43_089_923),
        ("bsrn", 2, 331_628),
        ("bsrn", 4, 352_400),
        ("carn", 4, 1_591_939),
        # The released CARN-M file holds 414,811 numbers: these and two fixed colour shifts of 12.
        ("carn-m", 4, 414_811 - 24),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, scale: int, count: int) -> None:
    assert models.count_parameters(models.create(name, scale=scale)) == count


def test_carn_for_one_scale_has_its_published_size() -> None:
    assert models.count_parameters(CARN("carn", 4, scales=(4,))) == 1_111_875


@pytest.mark.parametrize("name", ["edsr-baseline", "edsr-small", "carn", "carn-m", "carn-single", "bsrn"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_output_is_scale_times_larger(name: str, scale: int) -> None:
    model = models.create(name, scale=scale)
    with torch.inference_mode():
        out = model(torch.rand(2, 3, 7, 5))
    assert out.shape == (2, 3, 7 * scale, 5 * scale)
    assert torch.isfinite(out).all()
    assert (model.name, model.scale, model.training) == (name, scale, False)


@pytest.mark.parametrize("name", [*models.names(), "bilinear"])
@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "images in 0..1, .*uint8; divide bytes by 255"),
        (torch.zeros(1, 1, 16, 16), "takes RGB images"),
        (torch.zeros(3, 16, 16), "takes RGB images"),
    ],
)
def test_what_is_no_image_in_0_to_1_is_refused(name: str, x: torch.Tensor, words: str) -> None:
    """Bytes times a range would be numbers, only wrong ones."""
    with torch.device("meta"):
        network = Bilinear(4) if name == "bilinear" else models.create(name, scale=4)
    with pytest.raises(InputError, match=words):
        network(x.to("meta"))


@pytest.mark.parametrize("name", ["edsr-small", "carn-m"])
def test_default_skip_names_real_convolutions(name: str) -> None:
    """The papers' convention leaves exactly the shallow ends in full precision."""
    from fnmatch import fnmatch

    model = models.create(name, scale=4)
    convolutions = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d)]
    for pattern in model.default_skip:
        assert any(fnmatch(n, pattern) for n in convolutions), pattern
    kept = [n for n in convolutions if not any(fnmatch(n, p) for p in model.default_skip)]
    assert len(kept) == {"edsr-small": 16, "carn-m": 21}[name]


def test_edsr_computes_in_0_to_255() -> None:
    """The body sees 255 x - mean: feeding 0..255 images would silently cost several dB."""
    model = models.create("edsr-small", scale=4)
    seen = []
    model.head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        model(torch.ones(1, 3, 4, 4))
    expected = 255 * (1 - torch.tensor([0.4488, 0.4371, 0.4040]))
    torch.testing.assert_close(seen[0][0, :, 0, 0], expected)


@pytest.mark.parametrize("scale", [0, 1, 5, 2.5, 4.0, True, None, [4], "four"])
def test_wrong_scale_is_refused(scale: object) -> None:
    with pytest.raises(InputError, match="exists for x2, x3, x4"):
        models.create("edsr-small", scale=scale)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", ["4", 4.0, True, None])
def test_a_scale_that_is_no_number_is_shown_as_it_is(scale: object) -> None:
    for ask in (models.best, lambda scale: models.card("edsr-small", scale=scale)):
        with pytest.raises(InputError, match=f"scale={scale!r}: expected an integer"):
            ask(scale)


def test_unknown_network_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown network 'edsr'; expected one of bsrn, .*edsr-baseline, "):
        models.create("edsr", scale=4)
