from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from experiment_fakes import cells

from sqlib.errors import RecordError
from sqlib.experiments.cells import CalibrationSpec, Cell, ResolvedCell, canonical_json, jsonable, spelled


def test_cell_round_trip_and_stable_id():
    cell = cells(1, calibration=CalibrationSpec("div2k"))[0]
    again = Cell.from_dict(cell.to_dict())
    assert again == cell and again.id == cell.id and hash(again) == hash(cell)


@pytest.mark.parametrize(
    "changed",
    [
        {"bits": "6"},
        {"seed": 1},
        {"dataset": "other"},
        {"protocol": "q"},
        {"recipe": {"name": "minmax", "version": 2, "bits": 4}},
        {"calibration": CalibrationSpec("div2k", n=31)},
    ],
)
def test_every_field_and_the_recipe_version_are_in_the_key(changed):
    cell = cells(1)[0]
    other = dataclasses.replace(cell, **changed)
    assert cell.id != other.id
    keys = {ResolvedCell(c, c.dataset, "x", "w").key for c in (cell, other)}
    assert len(keys) == 2


def test_key_depends_on_data_weights_calibration_and_true_name():
    cell = cells(1)[0]
    keys = {
        ResolvedCell(cell, "set0", "x", "w", "c").key,
        ResolvedCell(cell, "set0[3]", "x", "w", "c").key,
        ResolvedCell(cell, "set0", "y", "w", "c").key,
        ResolvedCell(cell, "set0", "x", "v", "c").key,
        ResolvedCell(cell, "set0", "x", "w", "d").key,
    }
    assert len(keys) == 5


def test_unknown_field_is_an_error():
    with pytest.raises(RecordError, match=r"unknown fields.*colour"):
        Cell.from_dict({**cells(1)[0].to_dict(), "colour": "red"})


def test_canonical_json_ignores_order():
    assert (
        canonical_json({"b": 1, "a": [1, 2]}) == canonical_json({"a": [1, 2], "b": 1}) == '{"a":[1,2],"b":1}'
    )


def test_jsonable_turns_numpy_and_nan_into_json():
    value = jsonable({"a": np.float32(0.5), "b": (np.int64(2), float("nan")), "c": float("-inf")})
    assert value["a"] == 0.5 and value["b"][0] == 2
    assert math.isnan(float(value["b"][1])) and float(value["c"]) == -math.inf
    with pytest.raises(RecordError, match="object"):
        jsonable({"a": object()})


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("MinMax", "Min-Max"),
        ("MinMax, integer zero point", "Min-Max, integer zero point"),
        ("MinMax (no DOBI, no DQC)", "Min-Max (no DOBI, no DQC)"),
        ("weights only: min-max", "weights only: Min-Max"),
        ("DBDC+PaC", "DBDC+Pac"),
        ("DBDC_Pac", "DBDC+Pac"),
        ("DBDC + PaC", "DBDC+Pac"),
        ("DBDC", "DBDC"),
        ("DOBI+DQC, 300 iterations", "DOBI+DQC, 300 iterations"),
        ("aminmax", "aminmax"),
    ],
)
def test_a_method_has_one_spelling(label, shown):
    assert spelled(label) == spelled(shown) == shown


def test_labels_are_spelled_alike_and_cells_keep_theirs():
    cell = cells(1, method="MinMax, integer zero point")[0]
    assert cell.label == "fake x4 Min-Max, integer zero point 4 bit on set0"
    assert cell.to_dict()["method"] == "MinMax, integer zero point"
