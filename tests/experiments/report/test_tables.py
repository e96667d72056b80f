"""Tables and scoreboard from made records: known numbers in, known drops and verdicts out."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
from experiment_fakes import content

from sqlib.errors import InputError
from sqlib.experiments import papers
from sqlib.experiments.report import scoreboard, stand_ins, tables
from sqlib.experiments.run.plan import plan
from sqlib.experiments.store import layers
from sqlib.experiments.store.cells import ResolvedCell
from sqlib.experiments.store.working import Store

PSNR = {"32": 32.0, "8": 31.9, "6": 31.5, "4": 29.0, "3": 25.0}


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """An empty packaged store instead of the real one."""
    empty = Store(tmp_path / "packaged")
    monkeypatch.setattr(layers, "packaged_store", lambda: empty)
    return empty


def fill(store, *, model="carn-m", suffix="", weights="w", skip=()):
    for cell in plan("dfsq-table2", "full"):
        known = cell.place.method in ("FP", "MinMax") and (cell.model, cell.scale) == (model, 4)
        if known and cell.bits not in skip:
            resolved = ResolvedCell(cell, cell.dataset + suffix, "x", weights)
            store.write(resolved.key, content(resolved, psnr=PSNR[cell.bits]))
    return store


@pytest.fixture
def edsr(change_table):
    """carn-m stands for the printed EDSR, as a network of that architecture will."""
    table = papers.table("dfsq-table2")
    networks = tuple(
        dataclasses.replace(n, published="EDSR" if n.name == "carn-m" else None) for n in table.networks
    )
    change_table("dfsq-table2", networks=networks)


@pytest.fixture(autouse=True)
def nothing_derived(monkeypatch):
    """Only records decide here; test_derived.py has the values that need none."""
    monkeypatch.setattr(scoreboard, "derived_values", lambda shown: {})


def test_scoreboard_has_every_value_and_nothing_run(packaged, tmp_path):
    frame = scoreboard.scoreboard_frame(tmp_path / "none")
    assert len(frame) == 1966 and frame["id"].is_unique
    assert set(frame["verdict"]) == {"not run"} and frame["own"].isna().all()
    assert frame["reason"].str.len().min() > 0
    counts = scoreboard.scoreboard_counts(frame)
    assert counts.loc["total", "values"] == 1966 and counts.loc["total", "not run"] == 1966
    assert counts.loc["dfsq-table2"].to_dict() == {
        "match": 0,
        "close": 0,
        "shape": 0,
        "gap": 0,
        "not run": 272,
        "values": 272,
    }


def test_published_drop_is_from_the_same_network_scale_and_dataset(packaged, tmp_path):
    frame = scoreboard.scoreboard_frame(tmp_path / "none").set_index("id")
    row = frame.loc["dfsq-table2/EDSR/x2/BRECQ/8/Set5/psnr_y"]
    assert row["published_drop"] == pytest.approx(37.931 - 37.921)
    assert pd.isna(frame.loc["dfsq-table2/EDSR/x2/FP/32/Set5/psnr_y", "published_drop"])


def test_a_table_without_full_precision_takes_that_of_its_network(packaged, tmp_path):
    """DFSQ's Table 1 prints no FP row; its network is Table 2's."""
    frame = scoreboard.scoreboard_frame(tmp_path / "none").set_index("id")
    row = frame.loc["dfsq-table1/EDSR/x4/normalization only/4/Set5/psnr_y"]
    assert row["published_drop"] == pytest.approx(
        frame.loc["dfsq-table2/EDSR/x4/FP/32/Set5/psnr_y", "value"] - 31.543
    )


def test_needs_name_weights_images_and_the_run(packaged, tmp_path):
    reasons = scoreboard.scoreboard_frame(tmp_path / "none").set_index("id")["reason"]
    # Weights that ship need no training, though nothing was scored with them yet.
    assert reasons["dfsq-table2/EDSR/x2/MinMax/8/Set5/psnr_y"] == "a run: sqlib reproduce dfsq-table2"
    assert reasons["dfsq-table3/RDN/x2/MinMax/8/Set5/psnr_y"].split("; ") == [
        "weights of RDN x2: sqlib train rdn-x2",
        "the published schedule: sqlib plan dfsq-table3 --profile full --cost",
    ]
    assert reasons["refqsr-table4/CARN/x4/DDTB+RefQSR/8-4/Test2K/psnr_y"].split("; ") == [
        "weights of CARN x4: sqlib train carn-single-x4",
        "the Test2K images",
        "the published schedule: sqlib plan refqsr-table4 --profile full --cost",
    ]
    # A name is not a network: the EDSR of 2DQuant is another one.
    other = reasons["2dquant-table3/EDSR/x2/DBDC+Pac/4/Set5/psnr_y"]
    assert "EDSR x2, a network that is not planned" in other
    scan = "refqsr-table3/SRResNet/x4/CADyQ+RefQSR clustering=SCAN/delta-3/Urban100/psnr_y"
    assert reasons[scan] == "a recipe or row that is not planned here"
    assert "latency_ms" in reasons["refqsr-table6/SRResNet/x4/DDTB/8/Test4K(4096x2160)/latency_ms"]


def test_a_stand_in_is_for_networks_that_its_table_can_be_run_with():
    """swinir-small is one of SwinIR-light, and not of the EDSR whose rows 2DQuant quotes."""
    answers = {name for names in stand_ins.stand_ins_frame()["answers"] for name in names}
    networks = {tuple(name.split("/")[:2]) for name in answers}
    assert ("2dquant-table3", "SwinIR-light") in networks and ("2dquant-table3", "EDSR") not in networks


def test_a_network_that_was_scored_needs_no_weights(packaged, tmp_path, edsr):
    board = scoreboard.scoreboard_frame(fill(Store(tmp_path / "own"))).set_index("id")
    other = board.loc["dfsq-table2/EDSR/x4/QDROP/8/Set5/psnr_y"]
    assert other["verdict"] == "not run" and other["reason"] == (
        "the published schedule: sqlib plan dfsq-table2 --profile full --cost"
    )


def test_networks_of_our_own_do_not_touch_the_scoreboard(packaged, tmp_path):
    frame = scoreboard.scoreboard_frame(fill(Store(tmp_path / "own")))
    assert set(frame["verdict"]) == {"not run"}


def test_stand_in_gets_verdicts_by_its_drop(packaged, tmp_path, edsr):
    frame = scoreboard.scoreboard_frame(fill(Store(tmp_path / "own"))).set_index("id")
    row = frame.loc["dfsq-table2/EDSR/x4/MinMax/8/Set5/psnr_y"]
    assert row["own"] == 31.9 and row["own_drop"] == pytest.approx(0.1) and row["origin"] == "own"
    assert row["difference"] == pytest.approx(0.1 - row["published_drop"])
    assert row["verdict"] in ("close", "gap")
    assert (frame["verdict"] != "not run").sum() == 5 * 4 * 2
    assert frame.loc["dfsq-table2/EDSR/x4/DFSQ/8/Set5/psnr_y", "verdict"] == "not run"


def test_partial_set_is_never_match_or_close(packaged, tmp_path, edsr):
    frame = scoreboard.scoreboard_frame(fill(Store(tmp_path / "own"), suffix="[3]"))
    assert set(frame["verdict"]) == {"gap", "not run"}
    reasons = frame.loc[(frame["verdict"] == "gap") & (frame["table"] == "dfsq-table2"), "reason"]
    assert reasons.str.contains(r"\[3\], the images at hand").all()


def test_no_drop_between_different_weights(packaged, tmp_path, edsr):
    store = fill(Store(tmp_path / "own"), weights="old", skip=("8", "6", "4", "3"))
    fill(store, weights="new", skip=("32",))
    frame = scoreboard.scoreboard_frame(store).set_index("id")
    row = frame.loc["dfsq-table2/EDSR/x4/MinMax/8/Set5/psnr_y"]
    assert row["own"] == 31.9 and pd.isna(row["own_drop"])
    assert row["verdict"] == "not run" and row["reason"].startswith("its full precision on the same weights")


def test_a_score_that_is_no_number_is_a_gap_and_spoils_nothing_else(packaged, tmp_path, edsr, monkeypatch):
    monkeypatch.setitem(PSNR, "3", float("nan"))
    frame = scoreboard.scoreboard_frame(fill(Store(tmp_path / "own"))).set_index("id")
    assert frame.loc["dfsq-table2/EDSR/x4/MinMax/3/Set5/psnr_y", "verdict"] == "gap"
    assert frame.loc["dfsq-table2/EDSR/x4/MinMax/8/Set5/psnr_y", "own_drop"] == pytest.approx(0.1)
    tables.table_frame("dfsq-table2", store=tmp_path / "own")


def test_images_of_other_names_are_not_paired(packaged, tmp_path, edsr):
    store = fill(Store(tmp_path / "own"))
    keys = store.keys()
    for key in keys:
        record = store.read(key)
        if record["cell"]["bits"] == "8":
            images = [{**image, "name": f"other {image['name']}"} for image in record["images"]]
            store.write(key, {**record, "images": images})
    frame = scoreboard.scoreboard_frame(store).set_index("id")
    assert frame.loc["dfsq-table2/EDSR/x4/MinMax/8/Set5/psnr_y", "verdict"] == "not run"
    assert frame.loc["dfsq-table2/EDSR/x4/MinMax/6/Set5/psnr_y", "own_drop"] == pytest.approx(0.5)
    tables.table_frame("dfsq-table2", store=store)


def test_no_verdict_without_full_precision(packaged, tmp_path, edsr, monkeypatch):
    """A score that happens to be the printed one is no match while its drop is not known."""
    printed = scoreboard.scoreboard_frame(tmp_path / "none").set_index("id")["value"]
    monkeypatch.setitem(PSNR, "8", printed["dfsq-table2/EDSR/x4/MinMax/8/Set5/psnr_y"])
    frame = scoreboard.scoreboard_frame(fill(Store(tmp_path / "own"), skip=("32",)))
    assert set(frame["verdict"]) == {"not run"} and frame["own"].notna().sum() == 4 * 4 * 2


def test_table_has_printed_and_own_rows(packaged, tmp_path):
    frame = tables.table_frame("dfsq-table2", scale=4, store=fill(Store(tmp_path / "own")))
    assert list(frame.columns.get_level_values(0).unique()) == ["Set5", "Set14", "B100", "Urban100"]
    assert frame.index[0] == (4, 32, "FP", "EDSR (printed)") and frame.index[1] == (4, 32, "FP", "carn-m")
    own = frame.loc[(4, 4, "MinMax", "carn-m")]
    assert own["Set5", "value"] == 29.0 and own["Set5", "drop"] == pytest.approx(3.0)
    assert own["Set5", "source"] == "own" and own["Set5", "verdict"] == ""
    assert frame.loc[(4, 4, "MinMax", "edsr-small"), ("Set5", "source")] == "not run"
    assert frame.loc[(4, 4, "DFSQ", "EDSR (printed)"), ("Set5", "value")] == 31.755
    methods = frame.xs((4, 4), level=("scale", "bits")).index.get_level_values("method").unique()
    assert list(methods[:4]) == ["BRECQ", "QDROP", "MinMax", "DFSQ"] and len(methods) == 8
    assert "edsr-baseline" not in frame.index.get_level_values("network")


def test_table_without_print_shows_what_it_plans(packaged, tmp_path):
    frame = tables.table_frame("dfsq-appendix-c", store=Store(tmp_path / "own"))
    assert list(frame.columns.get_level_values(0).unique()) == ["Set5", "Set14", "B100", "Urban100"]
    methods = frame.index.get_level_values("method").unique()
    assert list(methods[:3]) == ["FP", "2 word sets", "3 word sets"]
    assert set(frame.index.get_level_values("network")) == {"carn-m", "edsr-small"}
    assert set(frame["Set5", "source"]) == {"not run"}


def test_own_records_win_over_packaged_ones(packaged, tmp_path):
    fill(packaged)
    own = Store(tmp_path / "own")
    cell = next(c for c in plan("dfsq-table2", "laptop") if c.model == "carn-m" and c.bits == "8")
    resolved = ResolvedCell(cell, cell.dataset, "x", "w")
    own.write(resolved.key, content(resolved, psnr=31.0))
    frame = tables.table_frame("dfsq-table2", scale=4, store=own)
    row = frame.loc[(4, 8, "MinMax", "carn-m")]
    assert (row["Set5", "value"], row["Set5", "source"]) == (31.0, "own")
    assert (row["Set14", "value"], row["Set14", "source"]) == (31.9, "packaged")


def test_partial_set_shows_its_true_name(packaged, tmp_path):
    frame = tables.table_frame("dfsq-table2", scale=4, store=fill(Store(tmp_path / "own"), suffix="[3]"))
    assert frame.loc[(4, 8, "MinMax", "carn-m"), ("Set5", "source")] == "own (set5[3])"


def test_formatted_table_says_value_change_origin_and_verdict(packaged, tmp_path, edsr):
    frame = tables.table_frame("dfsq-table2", scale=4, store=fill(Store(tmp_path / "own")))
    shown = tables.format_table(frame)
    assert list(shown.columns) == ["Set5", "Set14", "B100", "Urban100", "verdict"]
    assert shown.loc[(4, 4, "Min-Max", "carn-m"), "Set5"] == "29.000 (-3.000 ± 0.000) own"
    assert shown.loc[(4, 4, "Min-Max", "carn-m"), "verdict"] == ""
    assert shown.loc[(4, 4, "DFSQ", "EDSR (printed)"), "Set5"] == "31.755 (-0.340)"
    assert shown.loc[(4, 4, "DFSQ", "EDSR (printed)"), "verdict"] == "not run"
    frame.loc[(4, 4, "DFSQ", "EDSR (printed)"), ("Set5", "verdict")] = "close"
    mixed = tables.format_table(frame).loc[(4, 4, "DFSQ", "EDSR (printed)"), "verdict"]
    assert mixed == "Set5 close, Set14 not run, B100 not run, Urban100 not run"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"table": "x"}, "unknown table 'x'"),
        ({"table": "dfsq-table2", "metric": "mse"}, "unknown metric 'mse'"),
        ({"table": "dfsq-table2", "scale": 3}, "has no x3"),
    ],
)
def test_bad_tables(packaged, options, words):
    with pytest.raises(InputError, match=words):
        tables.table_frame(**options)
