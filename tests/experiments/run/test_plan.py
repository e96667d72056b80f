from __future__ import annotations

import numpy as np
import pytest

from sqlib.errors import InputError
from sqlib.experiments import papers
from sqlib.experiments.run.plan import estimate, groups, only, parse_shard, plan, shard
from sqlib.experiments.run.profiles import PROFILES
from sqlib.experiments.store.cells import CalibrationSpec


def test_laptop_plan_of_dfsq_table2():
    cells = plan("dfsq-table2", "laptop")
    # Four sets, five networks; FP, five methods at four bit-widths and one at two
    assert len(cells) == 4 * 5 * (1 + 5 * 4 + 2) and len({c.id for c in cells}) == len(cells)
    edsr = {(name, scale) for name in ("edsr-small", "edsr-baseline") for scale in (4, 2)}
    assert {(c.model, c.scale) for c in cells} == {("carn-m", 4), *edsr}
    rows = [(c.place.method, c.place.bits) for c in cells if c.model == "carn-m" and c.dataset == "b100"]
    assert rows[:5] == [("FP", "32"), *[("MinMax", b) for b in ("8", "6", "4", "3")]]
    full = [cell for cell in cells if cell.place.method == "FP"]
    assert all(cell.recipe is None and cell.calibration is None for cell in full)
    quantized = [cell for cell in cells if cell.place.method == "MinMax"]
    assert all(cell.recipe["name"] == "minmax" and cell.recipe["version"] >= 1 for cell in quantized)
    assert {cell.calibration for cell in quantized} == {CalibrationSpec("div2k", 32, 48, 16)}


def test_a_short_schedule_never_carries_the_printed_label():
    full = plan("dfsq-table2", "full")
    made = [(c.place.method, c.make_recipe()) for c in full if c.recipe]
    schedules = {(method, recipe.schedule) for method, recipe in made if hasattr(recipe, "schedule")}
    assert schedules == {
        ("BRECQ", "published"),
        ("QDROP", "published"),
        ("BRECQ, 500 iterations", "laptop"),
        ("QDrop, 500 iterations", "laptop"),
    }
    assert {c.place.method for c in plan("dfsq-table2", "laptop")}.isdisjoint({"BRECQ", "QDROP"})
    # ... and the printed label not only has the published number of steps, but the published units, too.
    published = [recipe for method, recipe in made if method in ("BRECQ", "QDROP")]
    assert published and not any(recipe.relative for recipe in published)


def test_full_adds_the_printed_networks_and_smoke_is_its_own():
    laptop = {cell.id for cell in plan("dfsq-table2", "laptop")}
    full = plan("dfsq-table2", "full")
    assert laptop < {cell.id for cell in full}
    stand_ins = {(n.name, n.published) for t in papers.tables().values() for n in t.networks if n.published}
    assert {("edsr-baseline", "EDSR"), ("rdn", "RDN")} <= stand_ins
    smoke = plan("dfsq-table2", "smoke")
    assert {cell.model for cell in smoke} == {"edsr-small"} and not laptop & {cell.id for cell in smoke}
    assert [cell.bits for cell in smoke] == ["32", "4", "4", "4", "4"]


def test_a_network_may_have_fewer_datasets_than_its_table():
    cells = plan("2dquant-table3", "full")
    seen = {name: {c.dataset for c in cells if c.model == name} for name in ("swinir-small", "swinir-light")}
    assert seen["swinir-small"] == {"set5", "set14", "b100"}
    assert seen["swinir-light"] == {"set5", "set14", "b100", "urban100", "manga109"}
    assert {c.dataset for c in plan("2dquant-table3", "smoke")} == {"builtin[:2]@192"}


def test_one_side_alone_is_a_pair_of_bits():
    cells = [c for c in plan("dfsq-beyond", "laptop") if c.dataset == "set5" and c.model == "carn-m"]
    pairs = {c.place.method: c.bits for c in cells if c.place.bits == "3"}
    assert pairs["DFSQ"] == "3"
    assert pairs["weights only: compensated"] == "3/32" and pairs["activations only: DFSQ"] == "32/3"
    one_sided = next(c for c in cells if c.bits == "3/32")
    assert one_sided.make_recipe().bits == (3, 32)


def test_a_seed_of_numpy_is_a_number():
    seed = np.random.default_rng(0).integers(1, 2)
    assert plan("dfsq-table2", "laptop", seed=seed) == plan("dfsq-table2", "laptop", seed=1)


def test_seed_changes_only_what_draws():
    base, other = plan("dfsq-table2", "laptop"), plan("dfsq-table2", "laptop", seed=1)
    assert [a.id == b.id for a, b in zip(base, other)] == [cell.recipe is None for cell in base]


@pytest.mark.parametrize("table", papers.tables())
@pytest.mark.parametrize("profile", PROFILES)
def test_plans_are_deterministic_and_grouped_by_network(table, profile):
    cells = plan(table, profile)
    assert cells == plan(table, profile)
    assert [cell for group in groups(cells) for cell in group] == cells


@pytest.mark.parametrize(
    ("table", "profile", "seed", "words"),
    [
        ("dfsq-table9", "laptop", 0, "unknown table 'dfsq-table9'; expected one of dfsq-table1, dfsq-table2"),
        ("dfsq-table2", "desktop", 0, "unknown profile 'desktop'; expected one of smoke, laptop, full"),
        ("dfsq-table2", "laptop", -1, "seed is -1"),
        ("dfsq-table2", "laptop", "a", "seed is 'a'"),
    ],
)
def test_bad_plans(table, profile, seed, words):
    with pytest.raises(InputError, match=words):
        plan(table, profile, seed=seed)


def test_shards_are_a_partition():
    cells = plan("dfsq-table2", "laptop")
    parts = [shard(cells, i, 7) for i in range(1, 8)]
    assert sorted(c.id for part in parts for c in part) == sorted(c.id for c in cells)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert parse_shard("2/8") == (2, 8)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", ""])
def test_bad_shard(text):
    with pytest.raises(InputError, match="expected i/n"):
        parse_shard(text)


def test_only_keeps_the_cells_that_hold_every_text():
    cells = plan("dfsq-table2", "laptop")
    left = only(cells, ["EDSR-small x4", "4 bit", "set5"])
    assert left == [
        c for c in cells if (c.model, c.scale, c.bits, c.dataset) == ("edsr-small", 4, "4", "set5")
    ]
    assert left and only(cells, []) == cells and only([], ["set5"]) == []


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["edsr-small", "urban99"], "'edsr-small' 'urban99': none of"),
        ("set5", r"expected a list.*\['set5'\]"),
    ],
)
def test_only_that_chooses_nothing(texts, words):
    with pytest.raises(InputError, match=words):
        only(plan("dfsq-table2", "laptop"), texts)


def test_estimate_uses_own_record_then_similar_then_nothing():
    cells = [c for c in plan("dfsq-table2", "laptop") if c.dataset in ("set5", "set14")]
    first = cells[0]
    assert (first.model, first.dataset) == ("carn-m", "set5")
    records = {first.id: {"cell": first.to_dict(), "seconds": 2.0}}
    result = estimate(cells, records)
    known = sum(c.model == "carn-m" and c.dataset == "set5" for c in cells)
    assert (result.seconds, result.known) == (2.0 * known, known)
    assert result.unknown == len(cells) - known > 0


def test_a_variant_passes_its_options_and_keeps_to_its_profiles(change_table):
    variants = (
        papers.Method("MinMax", "minmax", (4,)),
        papers.Method("MinMax, per tensor", "minmax", (4,), {"weight_per": "tensor"}, profiles=("laptop",)),
    )
    change_table("dfsq-table2", methods=variants)
    cells = [c for c in plan("dfsq-table2", "laptop") if c.model == "carn-m" and c.dataset == "set5"]
    assert {c.place.method: c.make_recipe().weight_per for c in cells} == {
        "MinMax": "channel",
        "MinMax, per tensor": "tensor",
    }
    assert {c.place.method for c in plan("dfsq-table2", "full")} == {"MinMax"}


def test_enlargement_without_weights_is_a_row_of_its_own():
    cells = [c for c in plan("2dquant-table3", "laptop") if c.model == "bilinear"]
    assert {c.place.method for c in cells} == {"Bicubic"} and all(c.recipe is None for c in cells)
    assert {c.scale for c in cells} == {2, 3, 4} and {c.weights for c in cells} == {"none"}
