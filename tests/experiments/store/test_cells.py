from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from experiment_fakes import cells

from sqlib import recipes
from sqlib.errors import InputError, RecordError
from sqlib.experiments import papers
from sqlib.experiments.run.plan import plan
from sqlib.experiments.store.cells import (
    CalibrationSpec,
    Cell,
    Place,
    ResolvedCell,
    bits_text,
    bits_value,
    canonical_json,
    distinct,
    jsonable,
    spelled,
)


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
        {"recipe": {"name": "minmax", "version": 2}},
        {"recipe": {"name": "minmax", "version": 1, "weight_per": "tensor"}},
        {"calibration": CalibrationSpec("div2k", batch=8)},
        {"model": "other"},
        {"scale": 2},
    ],
)
def test_every_field_and_the_recipe_version_are_in_the_key(changed):
    cell = cells(1)[0]
    other = dataclasses.replace(cell, **changed)
    assert cell.id != other.id
    keys = {ResolvedCell(c, c.dataset, "x", "w", "crops").key for c in (cell, other)}
    assert len(keys) == 2


def test_where_a_cell_is_shown_is_no_part_of_it():
    cell = cells(1)[0]
    other = dataclasses.replace(cell, place=Place("2dquant", "2dquant-table3", "Min-Max", "4"))
    assert cell == other and cell.id == other.id
    keys = {ResolvedCell(c, c.dataset, "x", "w").key for c in (cell, other)}
    assert len(keys) == 1 and "place" not in cell.to_dict()


def test_how_weights_and_data_are_found_is_no_part_of_the_key():
    cell = cells(1, calibration=CalibrationSpec("div2k", n=32))[0]
    other = dataclasses.replace(
        cell, weights="copy.pth", dataset="set0[:5]", calibration=CalibrationSpec("df2k", n=31)
    )
    assert len({ResolvedCell(c, "set0", "x", "w", "crops").key for c in (cell, other)}) == 1


def test_the_network_is_the_same_on_every_dataset():
    first, second = (ResolvedCell(cell, cell.dataset, cell.dataset, "w") for cell in cells(2))
    assert first.key != second.key and first.network_key == second.network_key
    other = ResolvedCell(cells(1, bits="6")[0], "set0", "set0", "w")
    assert other.network_key != first.network_key


def test_options_at_their_default_are_no_part_of_a_cell():
    assert distinct(recipes.MinMax(bits=4)) == {"name": "minmax", "version": recipes.MinMax.version}
    assert distinct(recipes.MinMax(bits=(4, 8), weight_per="channel")) == distinct(recipes.MinMax(bits=4))
    assert distinct(recipes.MinMax(bits=4, weight_per="tensor"))["weight_per"] == "tensor"


@pytest.mark.parametrize("table", papers.tables())
def test_every_planned_recipe_can_be_made_again_from_its_cell(table):
    chosen = papers.table(table)
    wanted = {
        (network.name, method.label, str(bits)): recipes.create(
            method.recipe, **{**method.options, "bits": method.recipe_bits(bits)}
        )
        for method in chosen.methods
        for network in chosen.networks
        for bits in method.bits
        if method.recipe and network.name in (method.networks or (network.name,))
    }
    found = [cell for cell in plan(table, "full") if cell.recipe]
    assert len(found) > 0
    for cell in found:
        assert cell.make_recipe() == wanted[cell.model, cell.place.method, cell.place.bits]


@pytest.mark.parametrize(
    ("bits", "text"), [(4, "4"), ((4, 8), "4/8"), ([32, 3], "32/3"), ("8-4", "8-4"), ("delta-3", "delta-3")]
)
def test_bit_settings_are_text(bits, text):
    assert bits_text(bits) == text
    assert bits_value(text) == (tuple(bits) if isinstance(bits, list) else bits)


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
    place = Place("2dquant", "2dquant-table3", "MinMax, integer zero point", "4")
    cell = cells(1, place=place)[0]
    assert cell.label == "fake x4 Min-Max, integer zero point 4 bit on set0"
    assert cell.place.method == "MinMax, integer zero point"
    recipe = {"name": "minmax", "version": 1, "integer_zero": True}
    plain = dataclasses.replace(cell, place=None, recipe=recipe, bits="4/8")
    assert plain.label == "fake x4 Min-Max (integer_zero=True) 4/8 bit on set0"
    full = dataclasses.replace(plain, recipe=None, bits="32")
    assert full.label == "fake x4 FP on set0"
    with pytest.raises(InputError, match="in full precision"):
        full.make_recipe()
