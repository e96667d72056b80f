"""What the pixels of calibration data may be, and inputs that are nothing like those of calibration."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sqlib.engine.batches import described, tensors
from sqlib.errors import InputError
from sqlib.models import SRNetwork

FAR = 4
"""An input is far outside the calibrated range beyond this many widths of it."""
TINY = 1 / 200
"""An input is tiny if its largest magnitude is below this share of the calibrated one: 0..1 beside 0..255."""


def extent(found: Iterable[Tensor]) -> tuple[float, float] | None:
    """Smallest and largest value of floating tensors; None if there are none, or not all are finite."""
    pairs = [torch.aminmax(t.detach()) for t in found if t.is_floating_point() and t.numel()]
    if not pairs:
        return None
    lower, upper = min(float(p.min) for p in pairs), max(float(p.max) for p in pairs)
    return (lower, upper) if abs(lower) + abs(upper) < float("inf") else None


def images(batch: Any) -> list[Tensor]:
    """The first tensor of a batch that can be an image or a sequence."""
    return [t for t in tensors(batch) if t.ndim >= 3 and t.is_floating_point()][:1]


def check_contract(network: nn.Module, data: Iterable[Any]) -> None:
    """Hold calibration batches against what is known of the networks of `sqlib.models`: RGB in 0..1.

    Raises
    ------
    InputError
        A batch that is not (N, 3, H, W), which broadcasting would make one.

    Warns
    -----
    UserWarning
        Values that are no images in 0..1; the message names their range.
    """
    if not isinstance(network, SRNetwork):
        return
    name = getattr(network, "name", type(network).__name__)
    for number, batch in enumerate(data):
        for t in tensors(batch):
            if t.ndim != 4 or t.shape[1] != 3:
                raise InputError(
                    f"calibration batch {number} ({described(t)}): {name} takes RGB images (N, 3, H, W); "
                    "its calls cannot run on it as meant: give single images as x[None] and gray ones as "
                    "x.expand(-1, 3, -1, -1)"
                )
    found = extent(t for batch in data for t in tensors(batch))
    if found is None:
        return
    lower, upper = found
    if lower < -0.5 or upper > 1.5:
        advice = "divide 8-bit images by 255" if upper > 2 else "undo their normalization"
    elif 0 < upper <= 1 / 255:
        advice = "they have been divided by 255 twice"
    else:
        return
    warnings.warn(
        f"calibration images lie in {lower:g}..{upper:g}, but {name} takes RGB in 0..1 ({advice}): what is "
        "fitted to them does not fit real images",
        stacklevel=3,
    )


class InputRange:
    """The values that inputs had at calibration.

    Parameters
    ----------
    lower, upper : float
        Smallest and largest value.
    """

    def __init__(self, lower: float, upper: float) -> None:
        self.lower, self.upper = lower, upper
        self._checked = self._warned = False

    def check(self, given: Any) -> None:
        """Warn, once, if an input is in other units than those of calibration, as 0..255 and 0..1 are.

        One pass over the input where it lies in main memory. Elsewhere only the first input is looked at,
        because reading a number back waits for all that the device has to do.
        """
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]
        if self._warned or tracing or torch.compiler.is_compiling():
            return
        found = [x for x in images(given) if type(x) is Tensor and x.device.type != "meta"]
        if not found or (self._checked and found[0].device.type != "cpu"):
            return
        self._checked = True
        seen = extent(found)
        if seen is None or not self._strange(*seen):
            return
        self._warned = True
        warnings.warn(
            f"an input lies in {seen[0]:g}..{seen[1]:g}, calibration data lay in {self.lower:g}.."
            f"{self.upper:g}: give both in the same units (8-bit images divided by 255, or neither)",
            stacklevel=5,
        )

    def _strange(self, lower: float, upper: float) -> bool:
        size = max(abs(self.lower), abs(self.upper))
        width = FAR * max(self.upper - self.lower, size)
        far = lower < self.lower - width or upper > self.upper + width
        return size > 0 and (far or 0 < max(abs(lower), abs(upper)) < TINY * size)
