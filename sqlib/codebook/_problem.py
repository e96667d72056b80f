"""The data of a choice of points behind one face: on a lattice (a histogram), or off it (sorted values).

Both know, per channel, the exact subset, the squared error of any subset, the costs between candidates, and
the data as sorted, weighted atoms for the heuristics. Subsets are integer arrays (channels, levels) of
ascending positions in the candidates.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sqlib.codebook.lattice import LatticeHistogram
from sqlib.errors import InputError

MOST_CANDIDATES = 4096


class Costs(NamedTuple):
    """Squared error that is added by leaving out candidates; see `sqlib.kernels.shortest_path`."""

    start: NDArray[np.float64]
    end: NDArray[np.float64]
    between: NDArray[np.float64]  # between[j, i]: of those between i and j


class Atoms(NamedTuple):
    """Sorted values of one channel and their weights, float64."""

    values: NDArray[np.float64]
    weights: NDArray[np.float64]


class Problem(Protocol):
    """What `fit_codebook` and the selectors need."""

    candidates: NDArray[np.float64]
    channels: int

    @property
    def lattice(self) -> tuple[NDArray[np.int64], int] | None:
        """Numerators of the candidates and their denominator, or None."""

    def choose(self, levels: int, zero: int) -> NDArray[np.int64]:
        """The exact subset; `zero` is a position that must be in it, or -1."""

    def error(self, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        """Squared error of subsets (duplicates allowed), float64 (channels,)."""

    def costs(self, channel: int) -> Costs:
        """Costs between all candidates."""

    def atoms(self, channel: int) -> Atoms:
        """The data of a channel."""


class LatticeProblem:
    """Candidates and midpoints on the lattice of a histogram.

    `rows`: the data itself, when it is at hand; without it, the atoms of a channel are one per bin, at the
    mean of its values, which the heuristics then see instead of the data.
    """

    def __init__(
        self,
        histogram: LatticeHistogram,
        candidates: NDArray[np.float64],
        numerators: NDArray[np.int64],
        rows: SortedProblem | None = None,
    ) -> None:
        self.histogram, self.candidates, self.numerators = histogram, candidates, numerators
        self.channels, self.denominator = len(histogram.counts), histogram.denominator
        self._rows = rows

    @property
    def lattice(self) -> tuple[NDArray[np.int64], int]:
        return self.numerators, self.denominator

    def choose(self, levels: int, zero: int) -> NDArray[np.int64]:
        from sqlib.kernels.exact_choice import choose_on_lattice

        h = self.histogram
        chosen = np.empty((self.channels, levels), np.int64)
        quanta = _quantum(h.counts.sum(axis=1), h.denominator)
        choose_on_lattice(h.counts, h.sums, self.numerators, 2 * h.denominator, zero, quanta, chosen)
        return chosen

    def error(self, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.histogram.error(self.numerators[chosen]).reshape(-1)

    def costs(self, channel: int) -> Costs:
        return SortedProblem.from_atoms(self.atoms(channel), self.candidates).costs(0)

    def atoms(self, channel: int) -> Atoms:
        if self._rows is not None:
            return self._rows.atoms(channel)
        h = self.histogram
        occupied = np.flatnonzero(h.counts[channel])
        weights = h.counts[channel, occupied]
        position = occupied - 2 * h.denominator
        centres = (position + position % 2) // 2
        return Atoms((centres + h.sums[channel, occupied] / weights) / h.denominator, weights)


def _quantum(weight: Any, denominator: int) -> Any:
    """Powers of two, of which counts up to `weight` times (4D)^2 stay below 2^53: whole counts stay whole."""
    bits = 53 - np.ceil(np.log2(16.0 * denominator**2))
    return np.exp2(np.ceil(np.log2(weight)) - bits)


class RowsProblem:
    """Candidates on a lattice and unweighted values of which only the exact choice and its error are wanted.

    One histogram serves all channels in turn and stays in the cache; `LatticeProblem` keeps one per channel.
    """

    def __init__(
        self,
        rows: NDArray[Any],
        candidates: NDArray[np.float64],
        numerators: NDArray[np.int64],
        denominator: int,
    ) -> None:
        self.candidates, self.numerators, self.denominator = candidates, numerators, denominator
        self.channels = len(rows)
        self._rows = np.ascontiguousarray(rows)
        self._error: tuple[NDArray[np.int64], NDArray[np.float64]] | None = None

    @property
    def lattice(self) -> tuple[NDArray[np.int64], int]:
        return self.numerators, self.denominator

    def _histogram(self) -> LatticeProblem:
        histogram = LatticeHistogram(self.denominator, self.channels)
        histogram.add(self._rows)  # raises, or clamps values a few ulp outside [-1, 1]
        return LatticeProblem(histogram, self.candidates, self.numerators)

    def choose(self, levels: int, zero: int) -> NDArray[np.int64]:
        from sqlib.kernels.exact_choice import choose_from_rows

        quantum = float(_quantum(self._rows.shape[1], self.denominator))
        self._error = choose_from_rows(self._rows, self.denominator, self.numerators, zero, quantum, levels)
        return self._histogram().choose(levels, zero) if self._error is None else self._error[0]

    def error(self, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        if self._error is not None and self._error[0] is chosen:
            return self._error[1]
        return self._histogram().error(chosen)

    def costs(self, channel: int) -> Costs:
        return self._histogram().costs(channel)

    def atoms(self, channel: int) -> Atoms:
        return self._histogram().atoms(channel)


class SortedProblem:
    """Any candidates: the values of each channel sorted, float64."""

    lattice: tuple[NDArray[np.int64], int] | None = None

    def __init__(
        self, rows: NDArray[Any], weights: NDArray[np.float64] | None, candidates: NDArray[np.float64]
    ) -> None:
        self.candidates = candidates
        self.channels = len(rows)
        self._rows, self._weights = rows, weights
        self._sorted: tuple[int, Atoms] | None = None

    @classmethod
    def from_atoms(cls, atoms: Atoms, candidates: NDArray[np.float64]) -> SortedProblem:
        return cls(atoms.values[None], atoms.weights[None], candidates)

    def atoms(self, channel: int) -> Atoms:
        if self._sorted is None or self._sorted[0] != channel:  # keeps one channel: memory
            row = self._rows[channel]
            if self._weights is None:
                atoms = Atoms(np.sort(row).astype(np.float64), np.ones(row.size))
            else:
                order = np.argsort(row, kind="stable")
                atoms = Atoms(row[order].astype(np.float64), self._weights[channel, order])
            self._sorted = channel, atoms
        return self._sorted[1]

    def choose(self, levels: int, zero: int) -> NDArray[np.int64]:
        from sqlib.kernels.exact_choice import choose_from_costs

        chosen = np.empty((self.channels, levels), np.int64)
        for channel in range(self.channels):
            choose_from_costs(*self.costs(channel), zero, chosen[channel])
        return chosen

    def error(self, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        errors = np.empty(self.channels)
        for channel in range(self.channels):
            points = self.candidates[chosen[channel]]
            values, weights = self.atoms(channel)
            nearest = points[np.searchsorted((points[:-1] + points[1:]) / 2, values, side="left")]
            errors[channel] = np.sum(weights * np.square(values - nearest))
        return errors

    def costs(self, channel: int) -> Costs:
        from sqlib.kernels.sorted_costs import sorted_costs

        size = self.candidates.size
        if size > MOST_CANDIDATES:
            raise InputError(
                f"{size} candidates on no universal set's lattice: expected at most {MOST_CANDIDATES} (their "
                f"costs take {size * size * 8 >> 20} MB); thin them out, or round them to multiples of 1/5120"
            )
        start, end, between = np.empty(size), np.empty(size), np.empty((size, size))
        sorted_costs(*self.atoms(channel), self.candidates, start, end, between)
        return Costs(start, end, between)
