"""Sizes and factors as they are given, and the low-resolution size that follows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sqlib._checks import as_integer
from sqlib.errors import InputError

if TYPE_CHECKING:
    from torch import nn


def image_size(value: Any, name: str) -> tuple[int, int]:
    """``value`` as (width, height)."""
    given = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    sides = [side for side in map(as_integer, given) if side is not None and side >= 1]
    if not len(given) == len(sides) == 2:
        raise InputError(f"{name}={value!r}: expected (width, height) in pixels, such as (1280, 720)")
    return sides[0], sides[1]


def upscaling(scale: Any, model: nn.Module) -> int:
    """The factor that is given, or the model's own."""
    own = getattr(model, "scale", None)
    scale = own if scale is None else scale
    factor = as_integer(scale)
    if factor is None or factor < 1:
        raise InputError(
            f"scale={scale!r}: expected an integer of 1 or more"
            + ("" if own is not None else "; the model has none of its own, so pass scale=")
        )
    if isinstance(own, int) and own != factor:
        raise InputError(f"scale={scale}, but the model is for x{own}; leave scale= out")
    return factor


def low_resolution(size: tuple[int, int], scale: int) -> tuple[int, int]:
    """Width and height before upscaling."""
    width, height = size
    if width % scale or height % scale:
        near = (width - width % scale, height - height % scale)
        raise InputError(
            f"image_size={width}x{height} (width x height of the output) does not divide by the scale {scale}"
            + (f"; {near[0]}x{near[1]} does" if all(near) else "")
        )
    return width // scale, height // scale
