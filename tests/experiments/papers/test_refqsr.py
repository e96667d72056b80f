"""RefQSR's costs recomputed: shares of queries, fixed bits, and rows on bases that are rows themselves."""

from __future__ import annotations

import dataclasses

import pytest

from sqlib.experiments import plan, published_frame
from sqlib.experiments.papers import _refqsr_accounting as accounting
from sqlib.experiments.papers import refqsr
from sqlib.experiments.store.cells import distinct
from sqlib.recipes import DDTB, PAMS, RefQSR


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str, float, float]]:
    """(network, metric, printed, ours) of every row of RefQSR at fixed bits."""
    derived = refqsr.derived_values()
    found = published_frame().set_index("id")
    return [
        (found.at[name, "model"], found.at[name, "metric"], found.at[name, "value"], value.value)
        for name, value in derived.items()
        if "+RefQSR" in name and "table6" not in name
    ]


@pytest.mark.parametrize("network, within", [("SRResNet", 0.004), ("CARN", 0.004), ("ELAN", 0.017)])
def test_bitops_at_fixed_bits(rows: list[tuple[str, str, float, float]], network: str, within: float) -> None:
    """Issue: the cells of Table 2 within 0.5 %; CARN and ELAN by the same accounting."""
    off = [
        abs(ours / text - 1) for name, metric, text, ours in rows if (name, metric) == (network, "bitops_g")
    ]
    assert len(off) == 30 and max(off) < within


def test_fqr_at_fixed_bits(rows: list[tuple[str, str, float, float]]) -> None:
    off = [abs(ours - text) for _, metric, text, ours in rows if metric == "fqr"]
    assert len(off) == 90 and max(off) <= 0.01


def test_shares_that_print_implies() -> None:
    """methods.md 9.2: 0.490, 0.576 and 0.655, from SRResNet and from CARN alike."""
    for label, name in (("SRResNet", "srresnet"), ("CARN", "carn")):
        found = [accounting.implied_share(label, name, d) for d in ("Urban100", "Test2K", "Test4K")]
        assert found == pytest.approx([0.490, 0.576, 0.655], abs=0.0011)


def test_table_6_has_weights_of_4_bits() -> None:
    """55.03 G instead of Table 2's 60.89 (pitfall 57)."""
    found = refqsr.derived_values()
    row = "refqsr-table6/SRResNet/x4/DDTB+RefQSR Total/8-4/Test4K(4096x2160)"
    assert found[f"{row}/bitops_g"].value == pytest.approx(55.03, rel=0.002)
    assert found[f"{row}/fqr"].value == pytest.approx(5.87, abs=0.005)


def test_a_row_starts_from_the_row_of_its_base() -> None:
    """So that the base is trained once."""
    cells = {(c.place.method, c.place.bits): c for c in plan("refqsr-table2", "laptop") if c.place}
    refined = cells["DDTB+RefQSR, 300 iterations of 8 pairs", "4-3"].make_recipe()
    base = cells["DDTB, 1,000 iterations of 8 crops", "4"]
    assert isinstance(refined, RefQSR) and refined.starts_from() == base.make_recipe()
    assert distinct(refined.base) == base.recipe


def test_longer_rows_have_controls_of_their_length() -> None:
    """RefQSR with and without RefER from one base, and the base trained for as many iterations in all."""
    cells = {
        c.place.method: c.make_recipe() for c in plan("refqsr-lengths", "laptop") if c.place and c.recipe
    }
    base = cells["DDTB, 1,000 iterations"]
    refined = {name: r for name, r in cells.items() if isinstance(r, RefQSR)}
    lengths = sorted({r.steps for r in refined.values()})
    assert len(refined) == 2 * len(lengths) and all(r.starts_from() == base for r in refined.values())
    for steps in lengths:
        with_it = refined[f"DDTB+RefQSR, {steps:,} iterations"]
        without = refined[f"DDTB+RefQSR w/o RefER, {steps:,} iterations"]
        assert dataclasses.replace(without, refiner="refer") == with_it
        assert cells[f"DDTB, {base.steps + steps:,} iterations"].steps == base.steps + steps


def test_options_of_the_base_do_not_spell_out_defaults() -> None:
    assert distinct(RefQSR(base=PAMS(4), low=3)) == {"name": "refqsr", "version": 2, "low": 3}
    base = {"name": "ddtb", "version": 1, "bits": 4}
    assert distinct(RefQSR(base=DDTB(4), low=3)) == {"name": "refqsr", "version": 2, "base": base, "low": 3}


def test_rows_with_the_printed_label_train_as_the_paper_does() -> None:
    """Section 4.1: DIV2K, patches of 48, 400 / 800 / 400 epochs of 1,000 iterations."""
    for name in (f"refqsr-table{number}" for number in (2, 3, 4, 5, 7)):
        for cell in plan(name, "full"):
            assert cell.place is not None
            if cell.recipe is None or "," in cell.place.method:
                continue
            assert cell.training is not None
            assert (cell.training.source, cell.training.patch) == ("div2k", 48), cell.label
            recipe = cell.make_recipe()
            if isinstance(recipe, RefQSR):
                epochs, halved = (800, 300) if cell.model == "carn-single" else (400, 150)
                assert (recipe.steps, recipe.halve_every) == (1000 * epochs, 1000 * halved), cell.label


def test_every_printed_row_but_other_peoples_clusterings_is_planned() -> None:
    printed = published_frame(blanks=False)
    for name in (f"refqsr-table{number}" for number in (2, 3, 4, 5, 7)):
        rows = printed[printed["table"] == name]
        planned = {(c.place.method, c.place.bits) for c in plan(name, "full") if c.place}
        absent = {*zip(rows["method"], rows["bits"], strict=True)} - planned
        assert {method.rpartition("=")[2] for method, _ in absent} <= {"SCAN", "SeCu"}, (name, absent)
