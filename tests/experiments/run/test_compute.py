"""The code behind a number: the modules that its network and recipe really use, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sqlib.experiments import plan
from sqlib.experiments.run.compute import code_of, code_roots
from sqlib.experiments.store.cells import CalibrationSpec, Cell
from sqlib.experiments.store.provenance import code_modules


def cell(recipe: str | None, model: str = "edsr-small") -> Cell:
    return Cell(
        model=model,
        scale=4,
        weights="pretrained",
        bits="4",
        dataset="set5",
        protocol="p",
        recipe=None if recipe is None else {"name": recipe, "version": 1},
        calibration=None if recipe is None else CalibrationSpec("div2k"),
    )


def modules(recipe: str | None, model: str = "edsr-small") -> set[str]:
    return set(code_modules(code_roots(cell(recipe, model))))


def test_each_recipe_has_its_own_module_and_not_the_others():
    minmax, trained = modules("minmax"), modules("twodquant")
    assert "sqlib.recipes.minmax" in minmax and "sqlib.recipes.twodquant" in trained
    # 2DQuant starts from the bounds of others, Min-Max's among them; nothing of its training is in Min-Max's.
    assert trained > minmax
    learning = {name for name in trained - minmax if "distill" in name or "fit" in name}
    assert learning and not any("twodquant" in name or "brecq" in name for name in minmax)


def test_full_precision_depends_on_no_recipe_and_each_network_on_its_own_file():
    full = modules(None)
    assert not any(name.startswith("sqlib.recipes") or "quantize" in name for name in full)
    assert {"sqlib.evaluate", "sqlib.metrics", "sqlib.resize", "sqlib.models.edsr"} <= full
    assert "sqlib.models.swinir" not in full and "sqlib.models.edsr" not in modules(None, "swinir-small")


def test_the_hash_tells_recipes_and_networks_apart_and_bits_not():
    one = cell("minmax")
    assert code_of(one) == code_of(replace(one, bits="8", dataset="set14", seed=1)) != ""
    assert (
        len({code_of(cell(r)) for r in ("minmax", "twodquant", None)} | {code_of(cell("minmax", "carn-m"))})
        == 4
    )


@pytest.mark.parametrize("changed", [{"model": "yours"}, {"recipe": {"name": "yours", "version": 1}}])
def test_what_is_not_known_here_has_no_hash(changed):
    assert code_of(replace(cell("minmax"), **changed)) == ""
    assert code_of(replace(cell("minmax"), recipe={"name": "minmax", "version": 99})) == ""


def test_an_enlargement_without_weights_has_one():
    bilinear = next(c for c in plan("2dquant-table3", "laptop") if c.model == "bilinear")
    assert "sqlib.models._interpolation" in code_modules(code_roots(bilinear))
