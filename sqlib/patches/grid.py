r"""Where the patches of one image lie, and which pixels of each are kept.

Along a side of length :math:`L`, with patch :math:`p` and overlap :math:`o`, patches start at

.. math:: 0,\ p - o,\ 2(p - o),\ \dots \qquad \text{as long as } \mathrm{start} + p \le L,

and the last one is extended to the border, so that no further one is needed (the rule of CADyQ's release;
RefQSR's counts follow it as well). At scale :math:`s` neighbours share :math:`s\,o` pixels. The earlier patch
keeps the first :math:`\lfloor s\,o / 2 \rfloor` of them and the later one (right, lower) the rest, so that it
also keeps the extra pixel of an odd number.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product
from typing import NamedTuple

from sqlib._checks import check_integer
from sqlib.errors import InputError
from sqlib.patches.tiling import Tiling

_LARGEST = 2**31


class Box(NamedTuple):
    """A rectangle of pixels: rows ``top`` to ``bottom`` and columns ``left`` to ``right``, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.right - self.left


@dataclass(frozen=True)
class Grid:
    """The patches of one image.

    Attributes
    ----------
    height, width : int
        Of the image, in pixels.
    patch, overlap : int
        As in :class:`Tiling`.

    Raises
    ------
    InputError
        Anything but integers, an empty image, or what :class:`Tiling` refuses.

    Examples
    --------
    >>> grid = Grid(180, 320, patch=72, overlap=6)
    >>> grid.rows, grid.columns
    ([(0, 72), (66, 180)], [(0, 72), (66, 138), (132, 204), (198, 320)])
    >>> len(grid.boxes), grid.boxes[1]
    (8, Box(top=0, bottom=72, left=66, right=138))
    """

    height: int
    width: int
    patch: int
    overlap: int = 0

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            object.__setattr__(self, name, check_integer(name, getattr(self, name), 1, _LARGEST))
        tiling = Tiling(self.patch, self.overlap)  # refuses what is no patch
        object.__setattr__(self, "patch", tiling.patch)
        object.__setattr__(self, "overlap", tiling.overlap)

    @property
    def rows(self) -> list[tuple[int, int]]:
        """First row of the patches and the row behind their last, from top to bottom."""
        return _spans(self.height, self.patch, self.overlap)

    @property
    def columns(self) -> list[tuple[int, int]]:
        """First column of the patches and the column behind their last, from left to right."""
        return _spans(self.width, self.patch, self.overlap)

    @property
    def boxes(self) -> list[Box]:
        """The patches, row by row."""
        return [Box(*rows, *columns) for rows, columns in product(self.rows, self.columns)]

    def kept(self, scale: int = 1) -> list[Box]:
        """What is kept of each patch: boxes that cover the upscaled image and do not overlap.

        Parameters
        ----------
        scale : int
            Factor by which the patches were upscaled; the boxes are in pixels of the upscaled image.
        """
        scale = check_integer("scale", scale, 1, _LARGEST)
        rows = _seams(self.rows, self.overlap, scale)
        columns = _seams(self.columns, self.overlap, scale)
        return [Box(*rows, *columns) for rows, columns in product(pairwise(rows), pairwise(columns))]


def check_grid(grid: object) -> None:
    """Raise `InputError` unless `grid` is a :class:`Grid`."""
    if not isinstance(grid, Grid):
        raise InputError(f"grid is {type(grid).__name__}; expected sqlib.patches.Grid(height, width, patch)")


def _spans(length: int, patch: int, overlap: int) -> list[tuple[int, int]]:
    starts = range(0, max(length - patch, 0) + 1, patch - overlap)
    return [(start, start + patch) for start in starts[:-1]] + [(starts[-1], length)]


def _seams(spans: list[tuple[int, int]], overlap: int, scale: int) -> list[int]:
    """Where the kept parts begin and end: one number more than there are patches."""
    inner = [scale * start + scale * overlap // 2 for start, _ in spans[1:]]
    return [0, *inner, scale * spans[-1][1]]
