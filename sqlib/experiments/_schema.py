"""The words tables and claims are written in: networks, methods, tables, profiles, statements."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlib.experiments.cells import CalibrationSpec


@dataclass(frozen=True)
class Network:
    """One of our networks in a table; ``published`` is the printed network it stands for, if any.

    ``profiles`` restricts it to those named, and ``datasets`` the table's datasets.
    """

    name: str
    scale: int
    weights: str
    published: str | None = None
    profiles: tuple[str, ...] | None = None
    datasets: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Method:
    """A row of a table: its label and the recipe behind it (None: full precision).

    Only a method that is what the paper printed carries the printed label; a variant (a shorter schedule, a
    step of our own) has a label of its own and never earns the printed value's verdict. ``side`` quantizes
    one side alone, ``"weights"`` or ``"activations"``. ``profiles`` and ``networks`` restrict it to those
    named.
    """

    label: str
    recipe: str | None
    bits: tuple[int, ...] = (32,)
    options: Mapping[str, Any] = field(default_factory=dict)
    side: str | None = None
    profiles: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None

    def recipe_bits(self, bits: int) -> int | tuple[int, int]:
        """Bits of the recipe in the row of ``bits``: both sides alike, or one in full precision."""
        if self.side is None:
            return bits
        return (bits, 32) if self.side == "weights" else (32, bits)


@dataclass(frozen=True)
class Table:
    """A table of a paper as a product of networks, methods with their bits, and datasets."""

    name: str
    paper: str
    title: str
    networks: tuple[Network, ...]
    methods: tuple[Method, ...]
    calibration: CalibrationSpec
    datasets: tuple[str, ...]
    protocol: str = "default"


@dataclass(frozen=True)
class Profile:
    """How much of a table is run.

    ``datasets`` and ``calibration`` replace the table's own where given; ``networks`` (name, scale) and
    ``bits`` restrict them. ``scratch`` profiles never write to a kept store.
    """

    name: str
    networks: tuple[tuple[str, int], ...] | None = None
    bits: tuple[int, ...] | None = None
    datasets: tuple[str, ...] | None = None
    calibration: CalibrationSpec | None = None
    scratch: bool = False


@dataclass(frozen=True)
class Statement:
    """``low <= drop(worse) - drop(better) <= high`` in dB, for each bit-width and dataset.

    Attributes
    ----------
    name, text
        Short name; the claim in words.
    source
        Where the paper says it.
    table
        The planned table that holds both rows.
    better, worse
        Their labels.
    bits
        Bit-widths it is claimed for.
    low, high
        Bounds of the gain in dB.
    share
        Also, drop(better) is at most this share of drop(worse); by default any.
    ours
        Printed label to the label of the variant that stands for it on our networks, where the printed
        method itself was not run (a shorter schedule); the summary names it.
    """

    name: str
    text: str
    source: str
    table: str
    better: str
    worse: str
    bits: tuple[int, ...]
    low: float = 0.0
    high: float = math.inf
    share: float = math.inf
    ours: Mapping[str, str] = field(default_factory=dict)
