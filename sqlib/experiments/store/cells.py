"""Cells: the unit of work that is planned, computed once, stored and compared.

A cell is one experiment: a network with its weights, a recipe, bits, a dataset, a protocol, a seed. Which
tables show it, and under which label, is no part of it: the same experiment is one record wherever it is
shown.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlib.errors import InputError, RecordError

if TYPE_CHECKING:
    from sqlib.recipes import Recipe

FULL_PRECISION = "32"
"""The bit setting of a network that is not quantized."""


def canonical_json(value: object) -> str:
    """The one text form of a JSON value that we hash: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256(value: object) -> str:
    """SHA-256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def jsonable(value: Any) -> Any:
    """``value`` with tuples as lists, NumPy scalars as Python numbers, and NaN and infinities as text.

    JSON has no NaN, and a collapsed network may really score one; ``float("nan")`` reads the text back.
    """
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        return jsonable(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise RecordError(f"a record holds {type(value).__name__} {value!r}, which JSON cannot; convert it first")


def spelled(label: str) -> str:
    """A method's label as a reader sees it: one spelling of names that print and records write in several.

    The labels themselves are part of printed values' names, and stay as they are.
    """
    label = re.sub(r"\bmin-?max\b", "Min-Max", label, flags=re.IGNORECASE)
    return re.sub(r"\bDBDC\s*[+_-]\s*PaC\b", "DBDC+Pac", label, flags=re.IGNORECASE)


def bits_text(bits: Any) -> str:
    """A recipe's bits as the text of a setting: 4 -> ``"4"``, weights and activations (4, 8) -> ``"4/8"``.

    A text, such as the ``"8-4"`` of a method with two widths, is its own.
    """
    return "/".join(map(str, bits)) if isinstance(bits, (list, tuple)) else str(bits)


def bits_value(text: str) -> Any:
    """The inverse of `bits_text`: an integer, a pair, or the text that only its method understands."""
    if text.isdecimal():
        return int(text)
    parts = text.split("/")
    return tuple(map(int, parts)) if len(parts) == 2 and all(p.isdecimal() for p in parts) else text


def _described(recipe: Recipe) -> dict[str, Any]:
    """Every option, as JSON has it; of a recipe among them what is distinct, and its bits."""
    from sqlib.recipes import Recipe

    found = jsonable(recipe.to_dict())
    inner = {name: v for name, v in vars(recipe).items() if isinstance(v, Recipe)}
    return {**found, **{name: {**distinct(v), "bits": found[name]["bits"]} for name, v in inner.items()}}


def distinct(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe is part of an experiment: name, version, and options that are not at their default.

    Its bits are left to the cell. A new option therefore changes no cell as long as its default is what was
    done before; a changed method bumps its recipe's version.
    """
    from sqlib import recipes

    full = _described(recipe)
    identity = {name: full.pop(name) for name in ("name", "version")}
    bits = full.pop("bits", None)
    try:
        plain = _described(recipes.from_dict({**identity, "bits": bits}))
    except InputError:  # some option has no default: all are named
        plain = {}
    options = {name: value for name, value in full.items() if name not in plain or plain[name] != value}
    # A schedule stands for options: where these differ from it, its name says nothing and rebuilds nothing.
    for choice in (options, {k: v for k, v in options.items() if k != "schedule"}):
        try:
            again = _described(recipes.from_dict({**identity, **choice, "bits": bits}))
        except InputError:
            continue
        if again == {**identity, **full, "bits": bits}:
            return {**identity, **choice}
    return {**identity, **full}


@dataclass(frozen=True)
class CalibrationSpec:
    """What a recipe is calibrated on: ``n`` crops of ``patch`` x ``patch`` LR pixels from ``source``."""

    source: str
    n: int = 32
    patch: int = 48
    batch: int = 16


@dataclass(frozen=True)
class TrainingSpec:
    """What a recipe trains on: aligned crops of ``patch`` x ``patch`` LR pixels and their originals.

    ``source`` names sets of originals, joined by ``"+"``, as in ``"bsds400+t91"``.
    """

    source: str
    patch: int = 48


@dataclass(frozen=True)
class Place:
    """Where a table shows a cell: in the row of ``method``, the paper's label, at the table's ``bits``."""

    paper: str
    table: str
    method: str
    bits: str


@dataclass(frozen=True)
class Cell:
    """One planned experiment.

    Attributes
    ----------
    model, scale : str, int
        The network.
    weights : str
        ``"pretrained"`` (shipped with sqlib), ``"none"`` (nothing to load) or a file name looked up in the
        weights folder.
    bits : str
        The setting as text: ``"4"``, ``"4/8"`` (weights/activations), whatever the recipe understands;
        ``"32"`` for full precision.
    dataset : str
        A dataset name, possibly with a limit and a crop as in ``"builtin[:2]@192"``.
    protocol : str
        The id of the scoring protocol, with its tiling.
    recipe : dict or None
        `distinct` of the recipe, or None for the full-precision network.
    training : TrainingSpec or None
        For recipes that train on pairs.
    counted : str or None
        Output size, as in ``"1280x720"``, for which BitOPs and FQR are recorded besides; None: they are not.
    place : Place or None
        Where a plan found it. No part of the experiment: cells that differ in it alone are equal.
    """

    model: str
    scale: int
    weights: str
    bits: str
    dataset: str
    protocol: str
    seed: int = 0
    recipe: dict[str, Any] | None = field(default=None, hash=False)
    calibration: CalibrationSpec | None = None
    training: TrainingSpec | None = None
    counted: str | None = None
    place: Place | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        # not asdict, which copies the recipe field by field: thousands of cells are hashed for one page
        values = {name: getattr(self, name) for name in _FIELDS}
        if self.calibration is not None:
            values["calibration"] = asdict(self.calibration)
        if self.training is not None:
            values["training"] = asdict(self.training)
        # what a cell has no use for is no part of its identity
        values = {k: v for k, v in values.items() if v is not None or k not in ("training", "counted")}
        result: dict[str, Any] = jsonable(values)
        return result

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cell:
        if set(data) - set(_FIELDS):
            raise RecordError(
                f"cell has unknown fields {sorted(set(data) - set(_FIELDS))}; known: {sorted(_FIELDS)}"
            )
        values = dict(data)
        try:
            if values.get("calibration") is not None:
                values["calibration"] = CalibrationSpec(**values["calibration"])
            if values.get("training") is not None:
                values["training"] = TrainingSpec(**values["training"])
            return cls(**values)
        except TypeError as error:  # a field is missing, or the calibration has one that we do not know
            raise RecordError(f"cell cannot be read: {error}") from error

    @cached_property
    def id(self) -> str:
        """Hash of the planned cell alone (no data, no weights): the same question, not the same answer."""
        return sha256(self.to_dict())

    @property
    def label(self) -> str:
        """The cell in words, for people: as its table calls it, else by its recipe."""
        bits, method = self.bits, "FP"
        if self.place is not None:
            bits, method = self.place.bits, self.place.method
        elif self.recipe is not None:
            options = [f"{k}={v}" for k, v in self.recipe.items() if k not in ("name", "version")]
            method = " ".join([str(self.recipe["name"]), *([f"({', '.join(options)})"] if options else [])])
        bits = "" if self.recipe is None else f" {bits} bit"
        return f"{self.model} x{self.scale} {spelled(method)}{bits} on {self.dataset}"

    def make_recipe(self) -> Recipe:
        """The recipe itself; InputError where this sqlib does not have it, or has another version of it."""
        from sqlib import recipes

        if self.recipe is None:
            raise InputError(f"{self.label} is in full precision: it has no recipe")
        return recipes.from_dict({**self.recipe, "bits": bits_value(self.bits)})


_FIELDS = (
    "model",
    "scale",
    "weights",
    "bits",
    "dataset",
    "protocol",
    "seed",
    "recipe",
    "calibration",
    "training",
    "counted",
)


@dataclass(frozen=True)
class ResolvedCell:
    """A cell whose inputs were found: what was asked, under which true name, on which bytes."""

    planned: Cell
    dataset: str
    data: str
    weights_id: str
    calibration: str | None = None
    training: str | None = None

    @property
    def key(self) -> str:
        """Content address: network and weights, recipe and bits, data and protocol, seed and calibration."""
        cell = self.planned
        counted = {} if cell.counted is None else {"counted": cell.counted}
        return sha256(
            {
                **self._fitted(),
                "dataset": self.dataset,
                "data": self.data,
                "protocol": cell.protocol,
                **counted,
            }
        )

    @property
    def network_key(self) -> str:
        """Content address of the quantized network: all that decides it, whatever it is then scored on."""
        return sha256(self._fitted())

    def _fitted(self) -> dict[str, Any]:
        cell = self.planned
        spec = cell.calibration
        pairs = cell.training
        trained = {} if pairs is None else {"training": {"pairs": self.training, "patch": pairs.patch}}
        return {
            **trained,
            "network": {"model": cell.model, "scale": cell.scale, "weights": self.weights_id},
            "recipe": cell.recipe,
            "bits": cell.bits,
            "seed": cell.seed,
            # the same crops in other batches are another sum
            "calibration": None
            if self.calibration is None
            else {"crops": self.calibration, "batch": None if spec is None else spec.batch},
        }
