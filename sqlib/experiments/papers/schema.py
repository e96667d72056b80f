"""The words that a paper is written in: networks, methods, tables, statements, gaps, counted values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any

from sqlib.errors import InputError
from sqlib.experiments.store.cells import CalibrationSpec, TrainingSpec, bits_value

if TYPE_CHECKING:
    from sqlib.patches import Tiling


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
    named. ``bits`` are the settings of the rows: a number, ``"8/4"`` (weights/activations), or a text that
    the recipe understands, or that stands for the ``bits`` among its ``options``. ``tiling`` and ``training``
    replace those of the table.
    """

    label: str
    recipe: str | None
    bits: tuple[int | str, ...] = (32,)
    options: Mapping[str, Any] = field(default_factory=dict)
    side: str | None = None
    profiles: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None
    tiling: Tiling | None = None
    training: TrainingSpec | None = None

    def __post_init__(self) -> None:
        where = f"method {self.label!r}"
        if self.side not in (None, "weights", "activations"):
            raise InputError(f"{where}: side={self.side!r}, expected 'weights', 'activations' or None")
        _check_tuples(self, where, "bits", "profiles", "networks")

    def recipe_bits(self, bits: int | str) -> Any:
        """Bits of the recipe in the row of ``bits``: both sides alike, or one in full precision."""
        if self.side is None:
            return self.options.get("bits", bits_value(str(bits)))
        return (bits, 32) if self.side == "weights" else (32, bits)


@dataclass(frozen=True)
class Table:
    """A table of a paper as a product of networks, methods with their bits, and datasets.

    Scored is by the preset ``protocol``, on whole images or on the patches of ``tiling``. ``training`` is for
    recipes that train on pairs; with ``counted``, an output size such as ``"1280x720"``, records also hold
    the BitOPs of such an image and the FQR. Both may differ by dataset; a dataset that a mapping does not
    name has neither.
    """

    name: str
    paper: str
    title: str
    networks: tuple[Network, ...]
    methods: tuple[Method, ...]
    calibration: CalibrationSpec
    datasets: tuple[str, ...]
    protocol: str = "default"
    tiling: Tiling | Mapping[str, Tiling] | None = None
    training: TrainingSpec | None = None
    counted: str | Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        from sqlib import metrics

        where = f"table {self.name!r}"
        _check_tuples(self, where, "networks", "methods", "datasets")
        try:
            metrics.protocol(self.protocol)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        calibration: Any = self.calibration
        if not isinstance(calibration, CalibrationSpec):
            raise InputError(f"{where}: calibration={calibration!r}, expected a CalibrationSpec")


def _check_tuples(owner: Any, where: str, *names: str) -> None:
    """A comma that is forgotten makes one thing of a tuple of one."""
    for name in names:
        value = getattr(owner, name)
        if value is not None and not isinstance(value, (tuple, list)):
            raise InputError(f"{where}: {name}={value!r}, expected a tuple, such as ({value!r},)")


@dataclass(frozen=True)
class Statement:
    """``low <= drop(worse) - drop(better) <= high`` in dB, for each bit-width and dataset.

    Attributes
    ----------
    name, text : str
        Short name; the claim in words.
    source : str
        Where the paper says it.
    table : str
        The planned table that holds both rows.
    better, worse : str
        Their labels.
    bits : tuple of int or str
        Settings it is claimed for, of the better row.
    against : mapping of int or str to int or str
        Setting of the better row to that of the worse one, where they differ.
    networks : tuple of str
        Printed networks it is claimed for, and ours that stand for them; by default all of the table.
    low, high : float
        Bounds of the gain in dB.
    share : float
        Also, drop(better) is at most this share of drop(worse); by default any.
    ours : mapping of str to str or tuple of str
        Printed label to the label of the variant that stands for it on our networks, where the printed
        method itself was not run (a shorter schedule); to several where networks have one each. The summary
        names them.
    """

    name: str
    text: str
    source: str
    table: str
    better: str
    worse: str
    bits: tuple[int | str, ...]
    low: float = 0.0
    high: float = math.inf
    share: float = math.inf
    ours: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    against: Mapping[int | str, int | str] = field(default_factory=dict)
    networks: tuple[str, ...] = ()

    def variants(self, label: str) -> tuple[str, ...]:
        """Labels that stand for a printed one on our networks."""
        found = self.ours.get(label, label)
        return (found,) if isinstance(found, str) else found


@dataclass(frozen=True)
class Gap:
    """An explained difference.

    Attributes
    ----------
    name : str
        Short name.
    values : tuple of str
        Patterns (`fnmatch`) of the ids of printed values, as in ``published_frame``.
    text : str
        The paragraph: what print says, what we count or measure, and where the two part.
    """

    name: str
    values: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Derived:
    """A recomputed value in the unit of print, and how it was counted where that is not plain.

    Attributes
    ----------
    value, note : float, str
        As above.
    close : float
        Difference from print that is still close, for values that rest on something fitted to print.
    """

    value: float
    note: str = ""
    close: float = 0.0


@dataclass(frozen=True)
class Paper:
    """One paper: everything that the book knows of it.

    Attributes
    ----------
    name : str
        As in the column ``paper`` of its printed values; its printed tables are called ``name-table1``.
    part : float
        The part of the book it belongs to, which orders the papers.
    printed : tuple of Traversable
        CSV files of its printed values (see `sqlib.experiments.papers.published`).
    tables : tuple of Table
        Its planned tables, and ours that belong to it.
    statements, gaps : tuple of Statement, tuple of Gap
        What it claims, and why values differ.
    labels : mapping of str to str
        Printed label of a method to the name of our recipe, for saying what a value that was not run needs.
    derived : callable or None
        Values that need no weights, by the id of the printed value: recomputed whenever they are shown. Such
        a value has no cell and no record, because nothing was measured: it follows from the network's
        definition and the counting in :mod:`sqlib.cost`, and is the same on every machine.
    derived_tables : frozenset of str
        The tables that hold such values; others need not wait for them.
    """

    name: str
    part: float = math.inf
    printed: tuple[Traversable, ...] = ()
    tables: tuple[Table, ...] = ()
    statements: tuple[Statement, ...] = ()
    gaps: tuple[Gap, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    derived: Callable[[], Mapping[str, Derived]] | None = None
    derived_tables: frozenset[str] = frozenset()


def printed(prefix: str) -> tuple[Traversable, ...]:
    """The CSV files in ``published/`` whose names begin with ``prefix`` and an underscore."""
    folder = resources.files("sqlib.experiments.papers") / "published"
    return tuple(f for f in folder.iterdir() if f.name.startswith(f"{prefix}_") and f.name.endswith(".csv"))
