"""Universal sets: sizes, symmetry, decompositions, the paper's worked example."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from sqlib.codebook import UniversalSet, universal, universal_set
from sqlib.errors import InputError

SIZES = {2: 29, 3: 107, 4: 377, 5: 1295}


@pytest.mark.parametrize("words", SIZES)
def test_the_set_is_every_average_of_word_set_elements(words):
    sets = [
        [Fraction(1), Fraction(1, 2**k), Fraction(1, 2 ** (k + words)), Fraction(0)]
        for k in range(1, words + 1)
    ]
    averages = {sum(choice, Fraction(0)) / words for choice in itertools.product(*sets)}
    want = sorted(averages | {-a for a in averages})
    assert len(want) == SIZES[words]
    s = universal(words)
    assert [Fraction(int(n), s.denominator) for n in s.numerators] == want
    np.testing.assert_array_equal(universal_set(words), [float(v) for v in want])
    assert s.denominator == words * 4**words
    assert [list(w) for w in s.word_sets] == sets


@pytest.mark.parametrize("words", SIZES)
def test_decompositions_form_their_values_with_elements_of_the_word_sets(words):
    s = universal(words)
    for value, numerator in zip(s.values, s.numerators):
        d = s.decomposition(value)
        assert d.sign * sum(d.elements) / words == Fraction(int(numerator), s.denominator)
        assert all(e in w for e, w in zip(d.elements, s.word_sets))
        assert all(e == (0 if k < 0 else Fraction(1, 2**k)) for e, k in zip(d.elements, d.shifts))


def test_of_several_decompositions_the_shortest_is_kept():
    s = universal(4)
    shortest: dict[Fraction, int] = {}
    for choice in itertools.product(*s.word_sets):
        value = sum(choice, Fraction(0)) / 4
        shortest[value] = min(shortest.get(value, 9), sum(e != 0 for e in choice))
    for value, terms in shortest.items():
        assert sum(e != 0 for e in s.decomposition(float(value)).elements) == terms


def test_the_papers_example_needs_the_element_1_of_the_first_set():
    """0.8125 = (1 + 1/4 + 1 + 1)/4 and no other way: with 0 first, as printed, 3.25 is out of reach."""
    s = universal(4)
    ways = [c for c in itertools.product(*s.word_sets) if sum(c) / 4 == Fraction(13, 16)]
    assert ways == [(1, Fraction(1, 4), 1, 1)]
    assert s.decomposition(0.8125).elements == ways[0]
    assert s.decomposition(-0.8125).sign == -1
    assert s.decomposition(0).shifts == (-1, -1, -1, -1)


def test_107_is_the_three_word_set():
    assert len(universal_set(3)) == 107
    assert len(universal_set()) == len(universal_set(4)) == 377


def test_the_cached_object_cannot_be_changed_through_its_arrays():
    assert isinstance(universal(4), UniversalSet)
    universal_set(4)[0] = 9.0
    assert universal_set(4)[0] == -1
    with pytest.raises(ValueError, match="read-only"):
        universal(4).numerators[0] = 0


@pytest.mark.parametrize("words", [1, 6, 0, -1, 2.5, "4", None, True])
def test_bad_words(words):
    with pytest.raises(InputError, match="2, 3, 4 or 5"):
        universal_set(words)


def test_a_value_outside_the_set_names_the_nearest():
    with pytest.raises(InputError, match=r"nearest value is 0\.8125 = 832/1024"):
        universal(4).decomposition(0.8129)
