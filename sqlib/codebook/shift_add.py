r"""The arithmetic that universal sets are for: multiplying by a point with shifts and additions.

A value u = N/D with N = sign * sum over word sets of 2^{2W - s} turns the product of an integer weight code w
with u into

.. math:: D\,w\,u = \pm \sum_{k:\, w_k \ne 0} \left(w \ll (2W - s_k)\right)

exactly; the factor 1/D goes into the scale. DFSQ says a product needs "four shifters and one adder" (section
3.2.2). That adder has four inputs: built from two-input adders it is three of them, in two stages. A sign
needs a negation on top.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqlib.codebook.universal import ABSENT, UniversalSet
from sqlib.errors import InputError

_MOST = 1 << 40  # codes up to here cannot overflow: the largest numerator is 5120


class Operations(NamedTuple):
    """Work for one product; numbers for a multiplier of any point, arrays (points,) for given points.

    Attributes
    ----------
    shifters
        Shifts by one place or more. (A shift by 0, for the element 1, is a wire.)
    adders
        Two-input additions: one less than the elements that are not 0.
    stages
        Depth of the tree of additions.
    """

    shifters: Any
    adders: Any
    stages: Any


def multiplier(words: int) -> Operations:
    """What a circuit for any point of the set needs: a selectable shift per word set and a sum of them all.

    For four word sets: 4 shifters and a four-input sum, which is 3 two-input adders in 2 stages.
    """
    return Operations(words, words - 1, (words - 1).bit_length())


def operations(universal: UniversalSet, positions: Any = None) -> Operations:
    """What the product with each point needs when the point is known, from its decomposition.

    `positions`: indices into the set (default: every value). int64 arrays of the shape of `positions`.
    """
    shifts = universal.shifts if positions is None else universal.shifts[_positions(universal, positions)]
    terms = (shifts != ABSENT).sum(axis=-1)
    adders = np.maximum(terms - 1, 0)
    stages = np.ceil(np.log2(np.maximum(terms, 1))).astype(np.int64)
    return Operations((shifts > 0).sum(axis=-1), adders, stages)


def multiply(codes: Any, positions: Any, universal: UniversalSet) -> NDArray[np.int64]:
    """``codes * universal.numerators[positions]`` by shifts and additions, exact.

    Parameters
    ----------
    codes
        Integers up to 2^40 in magnitude.
    positions
        Indices into the set; broadcast against `codes`.
    universal : UniversalSet
        The set, from `sqlib.codebook.universal`.

    Returns
    -------
    int64 array of the broadcast shape; divide by ``universal.denominator`` for the product itself.

    Raises
    ------
    InputError
        For anything but integers, larger codes, positions outside the set, shapes that do not broadcast.
    """
    from sqlib.kernels.shift_add import shift_add

    w, rows = _operands(codes, positions, universal)
    out = np.empty(w.shape, np.int64)
    signs = np.sign(universal.numerators)
    shift_add(w.reshape(-1), rows.reshape(-1), signs, universal.shifts, 2 * universal.words, out.reshape(-1))
    return out


def multiply_reference(codes: Any, positions: Any, universal: UniversalSet) -> NDArray[np.int64]:
    """The same in NumPy, a word set at a time."""
    w, rows = _operands(codes, positions, universal)
    total = np.zeros(w.shape, np.int64)
    for word in range(universal.words):
        shift = universal.shifts[rows, word].astype(np.int64)
        present = shift != ABSENT
        total += np.where(present, np.left_shift(w, np.where(present, 2 * universal.words - shift, 0)), 0)
    return total * np.sign(universal.numerators[rows])


def _positions(universal: UniversalSet, positions: Any) -> NDArray[np.int64]:
    rows = np.asarray(positions)
    if rows.dtype.kind not in "iu":
        raise InputError(f"positions of dtype {rows.dtype}: expected integer indices into the universal set")
    if rows.size and (int(rows.min()) < 0 or int(rows.max()) >= len(universal)):
        raise InputError(f"positions from {rows.min()} to {rows.max()}: expected 0 to {len(universal) - 1}")
    return rows.astype(np.int64)


def _operands(
    codes: Any, positions: Any, universal: UniversalSet
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    w = np.asarray(codes)
    if w.dtype.kind not in "iu":
        raise InputError(f"codes of dtype {w.dtype}: expected integers")
    if w.size and max(int(w.max()), -int(w.min())) > _MOST:
        raise InputError(f"codes from {w.min()} to {w.max()}: expected at most 2^40 in magnitude")
    rows = _positions(universal, positions)
    try:
        a, b = np.broadcast_arrays(w.astype(np.int64), rows)
    except ValueError:
        raise InputError(f"codes of shape {w.shape} and positions of shape {rows.shape} do not fit") from None
    return np.ascontiguousarray(a), np.ascontiguousarray(b)
