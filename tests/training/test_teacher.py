"""Which network teaches: told from others by what it computes; refused when it computes in another range."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sqlib import models
from sqlib.errors import InputError
from sqlib.models import SRNetwork
from sqlib.models._interpolation import Bilinear
from sqlib.training import teacher_targets
from sqlib.training.teacher import check_teacher, teacher_id

CPU = torch.device("cpu")


class Wrapped(SRNetwork):
    """A network behind a change of its input and another of its output."""

    name = "wrapped"

    def __init__(self, inner: SRNetwork, before: Callable[..., Tensor], after: Callable[..., Tensor]) -> None:
        super().__init__()
        self.inner, self.scale, self.before, self.after = inner, inner.scale, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.inner(self.before(x)))


def _true(name: str, scale: int, request: pytest.FixtureRequest) -> SRNetwork:
    if name == "bsrn":
        folder = request.getfixturevalue("weights_dir")
        request.getfixturevalue("monkeypatch").setenv("SQLIB_WEIGHTS", str(folder))
    return models.pretrained(name, scale=scale, download=False)


def test_the_targets_are_this_networks_own(tmp_path: Path) -> None:
    """Not those of one with the same label: "random" for weights put in by hand, stale after a change."""
    images = [("plain", np.full((8, 8, 3), 90, np.uint8))]
    teachers = [models.create(name, scale=2) for name in ("edsr-small", "swinir-small", "edsr-small")]
    for teacher in teachers:
        teacher.load_state_dict(models.pretrained(teacher.name, scale=2).state_dict())
    with torch.no_grad():
        next(teachers[2].parameters()).mul_(1.01)
    found = [teacher_targets(teacher, images, scale=2, folder=tmp_path)[0][:] for teacher in teachers]
    assert not np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])
    with pytest.raises(InputError, match="trained weights"):
        teacher_targets(models.create("srresnet", scale=2), images, scale=2, folder=tmp_path)


@pytest.mark.parametrize("name", ["edsr-small", "swinir-small", "bsrn"])
def test_loaded_weights_identify_a_network_until_anything_changes(
    request: pytest.FixtureRequest, name: str
) -> None:
    teacher = _true(name, 2, request)
    assert teacher_id(teacher) == teacher.weights_id
    teacher.to(memory_format=torch.channels_last).train()(torch.zeros(1, 3, 8, 8))  # type: ignore[call-overload]
    assert teacher_id(teacher) == teacher.weights_id, "how it was used does not count"
    seen = {teacher.weights_id}
    for change in (
        lambda: setattr(teacher, "option", 4),
        lambda: next(teacher.parameters()).data.mul_(1.001),
        lambda: [buffer.add_(1) for buffer in teacher.buffers()],  # not part of the state dict
        lambda: setattr(teacher, "name", "other"),
        lambda: setattr(teacher, "weights_id", "random"),
    ):
        change()
        seen.add(teacher_id(teacher))
    for kind in ("One", "Other"):
        seen.add(teacher_id(type(kind, (Wrapped,), {})(teacher, torch.clone, torch.clone)))
    assert len(seen) == 7 + any(True for _ in teacher.buffers())


@pytest.mark.parametrize("name", ["edsr-small", "swinir-small", "bsrn"])
@pytest.mark.parametrize(
    ("taken", "given", "before", "after"),
    [
        ("0..255", "0..255", lambda x: x / 255, lambda y: y * 255),
        ("0..255", "0..1", lambda x: x / 255, lambda y: y),
        ("0..1", "0..255", lambda x: x, lambda y: y * 255),
        ("0..1/255", "0..1/255", lambda x: x * 255, lambda y: y / 255),
        ("-1..1", "-1..1", lambda x: (x + 1) / 2, lambda y: 2 * y - 1),
        ("0..1", "-1..1", lambda x: x, lambda y: 2 * y - 1),
        ("-1..1", "0..1", lambda x: (x + 1) / 2, lambda y: y),
    ],
)
def test_a_teacher_in_another_range_is_refused(
    request: pytest.FixtureRequest,
    name: str,
    taken: str,
    given: str,
    before: Callable[..., Tensor],
    after: Callable[..., Tensor],
) -> None:
    wrong = Wrapped(_true(name, 2, request), before, after).eval()
    with pytest.raises(InputError, match=re.escape(f"takes RGB in {taken} and gives it in {given}")):
        check_teacher(wrong, CPU)


@pytest.mark.parametrize(
    ("name", "scale"),
    [("edsr-small", 2), ("edsr-small", 4), ("swinir-small", 2), ("bsrn", 2), ("bsrn", 3), ("bsrn", 4)],
)
def test_a_teacher_in_0_to_1_passes(request: pytest.FixtureRequest, name: str, scale: int) -> None:
    check_teacher(_true(name, scale, request), CPU)


def test_what_only_interpolates_passes_and_what_is_no_enlargement_does_not() -> None:
    bilinear = Bilinear(2)
    check_teacher(bilinear, CPU)  # as good in every range
    for after, message in (
        (lambda y: y.flip(1), r"its error is \d\d.\d\d of 255, expected at most 20"),
        (lambda y: y * torch.where(y > 0.9, torch.nan, 1.0), "its error is nan of 255"),
        (lambda y: y * torch.inf, "trained weights"),
        (lambda y: y[..., 1:], r"makes \(7, 3, 96, 95\) of \(7, 3, 48, 48\); a teacher for x2 must"),
    ):
        with pytest.raises(InputError, match=message):
            check_teacher(Wrapped(bilinear, torch.clone, after), CPU)


def test_one_image_that_no_network_enlarges_ends_nothing_but_nan_does(tmp_path: Path) -> None:
    teacher = models.pretrained("edsr-small", scale=2)
    rng = np.random.default_rng(0)
    images = [("noise", rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))]
    images += [
        ("stripes", np.tile(np.repeat(np.uint8([0, 255]), 3), 4)[:, None, None].repeat(24, 1).repeat(3, 2))
    ]
    assert len(teacher_targets(teacher, images, scale=2, folder=tmp_path)) == 2
    broken = Wrapped(teacher, torch.clone, lambda y: y if y.shape[-1] > 48 else y * torch.nan)
    with pytest.raises(InputError, match="makes NaN or infinite values of noise; leave the image out"):
        teacher_targets(broken, images, scale=2, folder=tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())
