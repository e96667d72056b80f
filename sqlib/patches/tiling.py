"""The rule by which any image is cut: side of a patch and overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlib._checks import check_integer
from sqlib.errors import InputError


@dataclass(frozen=True)
class Tiling:
    """Cut every image into patches, as in ``evaluate(..., tiling=Tiling(96, overlap=6))``.

    A side that is shorter than a patch is not cut (CADyQ's release does the same), so that a set of images of
    many sizes has one tiling; an image shorter on both sides is processed whole.

    Attributes
    ----------
    patch : int
        Side of a patch, in pixels of the low-resolution image.
    overlap : int
        Pixels that neighbours share, below ``patch``.

    Raises
    ------
    InputError
        Anything but integers, a patch below 1, an overlap below 0 or not below the patch.

    Examples
    --------
    >>> Tiling(96, overlap=6).id
    'patch=96+6'
    """

    patch: int
    overlap: int = 0

    def __post_init__(self) -> None:
        for name, low in (("overlap", 0), ("patch", 1)):
            object.__setattr__(self, name, check_integer(name, getattr(self, name), low, 2**31))
        if self.overlap >= self.patch:
            raise InputError(
                f"overlap={self.overlap} of patches of {self.patch} pixels: expected less than the patch"
            )

    @property
    def id(self) -> str:
        """Its part of a protocol's id."""
        return f"patch={self.patch}+{self.overlap}"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Tiling:
        """Rebuild from ``dataclasses.asdict``; a key too many or too few is an error."""
        if set(values) != {"patch", "overlap"}:
            raise InputError(f"a tiling has the fields patch and overlap, got {sorted(values)}")
        return cls(**values)


def check_tiling(tiling: object) -> None:
    """Raise `InputError` unless `tiling` is a :class:`Tiling` or None."""
    if tiling is not None and not isinstance(tiling, Tiling):
        raise InputError(
            f"tiling is {tiling!r}; expected sqlib.patches.Tiling(patch, overlap), or None for whole images"
        )
