"""Cells whose recipe trains on pairs: what they train on is part of them; a base is made once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

import sqlib
from sqlib import recipes
from sqlib.engine import registry
from sqlib.experiments import papers
from sqlib.experiments.papers import Method, Network, Paper, Table, TrainingSpec
from sqlib.experiments.run.compute import Workbench
from sqlib.experiments.run.plan import plan
from sqlib.experiments.run.runner import run
from sqlib.experiments.store.cells import CalibrationSpec, Cell, distinct
from sqlib.experiments.store.records import check_fields, mean
from sqlib.experiments.store.working import Store
from sqlib.patches import Tiling


@dataclass(frozen=True)
class SecondStage(recipes.PAMS):
    """PAMS at 4 bits that starts from PAMS at 8 bits."""

    def starts_from(self):
        return recipes.PAMS(bits=8, steps=2, halve_every=1, batch=2)


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(papers, "_registered", dict(papers.papers()))
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry.known()))
    recipes.register("test-second-stage")(SecondStage)
    tiny = {"steps": 2, "halve_every": 1, "batch": 2}
    found = Table(
        name="test-trained-table",
        paper="test-trained",
        title="Recipes that train on pairs",
        networks=(Network("edsr-small", 4, "pretrained"),),
        methods=(
            Method("FP", None),
            Method("PAMS", "pams", (8, 4), tiny),
            Method("second", "test-second-stage", (4,), tiny),
            Method("MinMax", "minmax", (4,)),
        ),
        calibration=CalibrationSpec("builtin", n=2, patch=24, batch=2),
        datasets=("builtin[:1]@96",),
        tiling=Tiling(16, 4),
        training=TrainingSpec("builtin", patch=16),
        counted="96x96",
    )
    return papers.register(Paper(name="test-trained", tables=(found,))).tables[0]


def test_only_recipes_that_train_on_pairs_have_them(table):
    cells = {(c.place.method, c.bits): c for c in plan(table.name, "laptop")}
    assert cells["PAMS", "8"].training == TrainingSpec("builtin", patch=16)
    assert cells["FP", "32"].training is None and cells["MinMax", "4"].training is None
    assert "training" not in cells["MinMax", "4"].to_dict()
    for cell in cells.values():
        assert Cell.from_dict(cell.to_dict()) == cell and cell.counted == "96x96"
    other = replace(cells["PAMS", "8"], training=TrainingSpec("builtin", patch=24))
    assert other.id != cells["PAMS", "8"].id


def test_records_and_a_base_that_is_shared(table, tmp_path, monkeypatch):
    made = []
    original = sqlib.quantize_model

    def quantize_model(network, recipe, *args, **options):
        made.append(distinct(recipe)["name"] + str(recipe.bits))
        return original(network, recipe, *args, **options)

    monkeypatch.setattr(sqlib, "quantize_model", quantize_model)
    store = Store(tmp_path / "store")
    bench = Workbench(artifacts=store.artifacts)
    cells = plan(table.name, "laptop")
    summary = run(cells, store, bench, profile="laptop")
    assert not summary.of("failed"), summary.of("failed")
    # the second stage found the 8-bit network that a cell before it had made
    assert sorted(made) == ["minmax4", "pams4", "pams8", "test-second-stage4"]
    records = {o.cell.place.method + o.cell.bits: store.read(o.key) for o in summary.outcomes}
    for record in records.values():
        check_fields(record)
        assert set(record["images"][0]["metrics"]) == {"psnr", "ssim", "fqr", "bitops_g"}
    assert mean(records["PAMS4"], "fqr") == 4
    assert mean(records["PAMS8"], "bitops_g") == pytest.approx(4 * mean(records["PAMS4"], "bitops_g"))
    assert records["PAMS4"]["cell"]["training"] == {"source": "builtin", "patch": 16}
    cell = Cell.from_dict(records["PAMS4"]["cell"])
    assert records["PAMS4"]["training"] == {"sha256": bench.resolve(cell).training}
    assert "training" not in records["MinMax4"]


def test_other_pairs_are_another_network(table):
    cell = next(c for c in plan(table.name, "laptop") if c.place.method == "PAMS")
    bench = Workbench()
    first = bench.resolve(cell)
    other = bench.resolve(replace(cell, training=TrainingSpec("builtin", patch=24)))
    assert first.training and first.network_key != other.network_key
    assert first.network_key != replace(first, training="0" * 64).network_key
