"""Cells: the unit of work that is planned, computed once, stored and compared.

A cell is one network, one recipe, one dataset, scored once. It carries PSNR and SSIM together, because
they come out of the same images.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from sqlib.errors import RecordError


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

    The labels themselves are part of cells and of printed values' names, and stay as they are.
    """
    label = re.sub(r"\bmin-?max\b", "Min-Max", label, flags=re.IGNORECASE)
    return re.sub(r"\bDBDC\s*[+_-]\s*PaC\b", "DBDC+Pac", label, flags=re.IGNORECASE)


@dataclass(frozen=True)
class CalibrationSpec:
    """What a recipe is calibrated on: ``n`` crops of ``patch`` x ``patch`` LR pixels from ``source``."""

    source: str
    n: int = 32
    patch: int = 48
    batch: int = 16


@dataclass(frozen=True)
class Cell:
    """One experiment of one table.

    ``method`` is the paper's label (``"FP"``, ``"MinMax"``), ``recipe`` the recipe's dict with its
    ``version``, or None for the full-precision network; ``weights`` is ``"pretrained"`` (shipped with
    sqlib), ``"none"`` (nothing to load) or a file name looked up in the weights folder; ``dataset`` a
    dataset name, possibly with a limit and a crop as in ``"builtin[:2]@192"``; ``protocol`` the id of the
    scoring protocol.
    """

    paper: str
    table: str
    model: str
    scale: int
    weights: str
    method: str
    bits: str
    dataset: str
    protocol: str
    seed: int = 0
    recipe: dict[str, Any] | None = field(default=None, hash=False)
    calibration: CalibrationSpec | None = None

    def to_dict(self) -> dict[str, Any]:
        # not asdict, which copies the recipe field by field: thousands of cells are hashed for one page
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.calibration is not None:
            values["calibration"] = asdict(self.calibration)
        result: dict[str, Any] = jsonable(values)
        return result

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cell:
        known = {f.name for f in fields(cls)}
        if set(data) - known:
            raise RecordError(f"cell has unknown fields {sorted(set(data) - known)}; known: {sorted(known)}")
        values = dict(data)
        try:
            if values.get("calibration") is not None:
                values["calibration"] = CalibrationSpec(**values["calibration"])
            return cls(**values)
        except TypeError as error:  # a field is missing, or the calibration has one that we do not know
            raise RecordError(f"cell cannot be read: {error}") from error

    @cached_property
    def id(self) -> str:
        """Hash of the planned cell alone (no data, no weights): the same question, not the same answer."""
        return sha256(self.to_dict())

    @property
    def label(self) -> str:
        """The cell in words, for people."""
        bits = "" if self.recipe is None else f" {self.bits} bit"
        return f"{self.model} x{self.scale} {spelled(self.method)}{bits} on {self.dataset}"


@dataclass(frozen=True)
class ResolvedCell:
    """A cell whose inputs were found: what was asked, under which true name, on which bytes."""

    planned: Cell
    dataset: str
    data: str
    weights_id: str
    calibration: str | None = None

    @property
    def key(self) -> str:
        """Content address: the cell (with its recipe's version), the data's and the weights' hashes."""
        cell = {**self.planned.to_dict(), "dataset": self.dataset}
        inputs = {"data": self.data, "weights": self.weights_id, "calibration": self.calibration}
        return sha256({"cell": cell, "inputs": inputs})
