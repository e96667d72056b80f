r"""Universal sets: every value that a few power-of-two word sets can form, and how each is formed.

With W word sets of four elements each,

.. math:: W_k = \{1, 2^{-k}, 2^{-(k+W)}, 0\}, \qquad u = \pm\frac{1}{W} \sum_{k=1}^{W} w_k, \quad w_k \in W_k

every value is an integer over D = W 4^W, so products with it are shifts and additions
(`sqlib.codebook.shift_add`), and the midpoints between values lie on a lattice of step 1/(2D)
(`sqlib.codebook.lattice`).

Source: DFSQ (Zhong et al. 2023, arXiv 2305.05888), section 3.2.2, and its released code, which builds W = 4;
W = 2 is the set of Subset Quantization (Oh et al., ECCV 2022). The exponents for W = 3 and 5 follow the
pattern of the two. DFSQ's text prints 107 values for its four word sets: that is the size for three; four
give 377.
"""

from __future__ import annotations

import itertools
import operator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sqlib.errors import InputError

WORDS = (2, 3, 4, 5)
ABSENT = -1


class Decomposition(NamedTuple):
    """How one value is formed: ``value = sign * sum(elements) / words``.

    Attributes
    ----------
    sign : int
        -1, 0 or 1.
    elements : tuple of Fraction
        The element taken from each word set, in order.
    shifts : tuple of int
        Right shift of each element (0 for the element 1), `ABSENT` (-1) where the element is 0.
    """

    sign: int
    elements: tuple[Fraction, ...]
    shifts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class UniversalSet:
    """A universal set; build it with `universal`.

    Attributes
    ----------
    words : int
        Number of word sets W, 2 to 5.
    numerators : ndarray of int64
        int64 (size,), sorted and symmetric about 0; ``values = numerators / denominator``.
    shifts : ndarray of int8
        int8 (size, words): right shift of the element taken from each word set, -1 where that element is 0.
        Of several ways to form a value, the one with the fewest non-zero elements; among those, the one that
        takes its larger elements from the earlier word sets.
    """

    words: int
    numerators: NDArray[np.int64]
    shifts: NDArray[np.int8]

    @property
    def denominator(self) -> int:
        """The common denominator D = words * 4**words, one of 32, 192, 1024 and 5120."""
        return denominator(self.words)

    @property
    def values(self) -> NDArray[np.float64]:
        """The values, float64 (size,), sorted, from -1 to 1."""
        return self.numerators / self.denominator

    @property
    def word_sets(self) -> tuple[tuple[Fraction, ...], ...]:
        """The elements of each word set, largest first, 0 last."""
        return word_sets(self.words)

    def __len__(self) -> int:
        return self.numerators.size

    def index(self, value: Any) -> int:
        """Position of a value (a number, exact to half a unit in the last place of the set).

        Raises
        ------
        InputError
            If the set does not hold `value`; the message names the nearest value.
        """
        values = self.values
        at = int(np.argmin(np.abs(values - float(value))))
        if abs(values[at] - float(value)) > 1e-12:
            raise InputError(
                f"{value!r} is not in the universal set of {self.words} word sets; the nearest value is "
                f"{values[at]} = {self.numerators[at]}/{self.denominator}"
            )
        return at

    def decomposition(self, value: Any) -> Decomposition:
        """The elements and shifts that form `value`, e.g. 0.8125 = (1 + 1/4 + 1 + 1)/4 with four word sets.

        Raises
        ------
        InputError
            If the set does not hold `value`.
        """
        at = self.index(value)
        shifts = tuple(int(s) for s in self.shifts[at])
        elements = tuple(Fraction(0) if s == ABSENT else Fraction(1, 1 << s) for s in shifts)
        return Decomposition(int(np.sign(self.numerators[at])), elements, shifts)


def denominator(words: int) -> int:
    """D = words * 4**words, over which every value of the set is an integer."""
    return words * 4**words


def word_sets(words: int) -> tuple[tuple[Fraction, ...], ...]:
    """The elements {1, 2^-k, 2^-(k + words), 0} of word sets k = 1 .. words."""
    return tuple(
        (Fraction(1), Fraction(1, 1 << k), Fraction(1, 1 << (k + words)), Fraction(0))
        for k in range(1, check_words(words) + 1)
    )


def check_words(words: Any) -> int:
    """Return `words` as an int, or raise an `InputError` unless it is 2, 3, 4 or 5."""
    if not isinstance(words, bool):
        try:
            value = operator.index(words)
        except TypeError:
            value = 0
        if value in WORDS:
            return value
    raise InputError(f"words={words!r}: expected the number of word sets, 2, 3, 4 or 5")


def universal(words: int = 4) -> UniversalSet:
    """The universal set of `words` word sets, with its numerators and decompositions.

    Raises
    ------
    InputError
        Unless `words` is 2, 3, 4 or 5.
    """
    return _universal(check_words(words))


@cache
def _universal(words: int) -> UniversalSet:
    choices = [(0, k, k + words, ABSENT) for k in range(1, words + 1)]
    found: dict[int, tuple[int, ...]] = {}
    for shifts in itertools.product(*choices):
        numerator = sum(1 << (2 * words - s) for s in shifts if s != ABSENT)
        if numerator not in found or shifts.count(ABSENT) > found[numerator].count(ABSENT):
            found[numerator] = shifts
    magnitudes = sorted(found)
    numerators = [-m for m in reversed(magnitudes) if m] + magnitudes
    table = UniversalSet(
        words, np.array(numerators, np.int64), np.array([found[abs(m)] for m in numerators], np.int8)
    )
    table.numerators.flags.writeable = table.shifts.flags.writeable = False  # one object serves all callers
    return table


def universal_set(words: int = 4) -> NDArray[np.float64]:
    """The values of the universal set of `words` word sets, signed and sorted.

    Parameters
    ----------
    words : int
        Number of word sets: 2, 3, 4 or 5 for 29, 107, 377 or 1,295 values. DFSQ uses 4.

    Returns
    -------
    float64 array, from -1 to 1.

    Raises
    ------
    InputError
        Unless `words` is 2, 3, 4 or 5.
    """
    return universal(words).values
