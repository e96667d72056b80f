"""Operations of what has no weights yet, against counting by hand."""

import math

import pytest

from sqlib import models
from sqlib.cli import main
from sqlib.errors import InputError
from sqlib.experiments import papers
from sqlib.experiments.papers.published import published_frame
from sqlib.experiments.report import scoreboard, work
from sqlib.training import CONFIGS


def test_rdn_by_hand():
    frame = work.outstanding("dfsq-table3").set_index("network")
    assert list(frame.index) == ["rdn x4", "rdn x2"]
    # Body: 16 blocks of 8 dense layers (growth 64, 64 features, 3 x 3) with a 1 x 1 fusion each, then two.
    dense = sum(9 * (64 + 64 * j) * 64 for j in range(8))
    body = 16 * (dense + (64 + 8 * 64) * 64) + 16 * 64 * 64 + 9 * 64 * 64
    pixels = 48 * 48
    brecq, qdrop = (20_000 + 5_000) * 32, 20_000 * 32  # the short schedules are not planned on RDN
    quantizing = 4 * 3 * 2 * body * pixels * (brecq + qdrop) / 1e15  # four bit-widths
    assert frame["learning"].tolist() == pytest.approx([quantizing] * 2, rel=1e-9)
    six_per_weight = 6 * 22_271_107 * 20_000 * 8 * 32 * 32 / 1e15
    assert six_per_weight <= frame.loc["rdn x4", "training"] < 1.1 * six_per_weight
    both = frame.loc["rdn x4", ["training", "learning"]].sum() * 1e15
    assert frame.loc["rdn x4", "hours"] == pytest.approx(both / work.RATE / 3600)


def test_without_a_schedule_the_hours_are_unknown(monkeypatch):
    monkeypatch.delitem(CONFIGS, "rdn-x2")
    frame = work.outstanding("dfsq-table3").set_index("network")
    assert math.isnan(frame.loc["rdn x2", "training"]) and math.isnan(frame.loc["rdn x2", "hours"])
    assert frame.loc["rdn x4", "hours"] > 0


def test_shipped_networks_need_nothing():
    have = {f"{name} x{scale}" for name, scales in models.available().items() for scale in scales}
    names = set(work.outstanding("dfsq-table2")["network"])
    assert names == {"edsr-baseline x4", "edsr-baseline x2"} - have
    assert work.outstanding("dfsq-beyond").empty
    with pytest.raises(InputError, match="unknown table"):
        work.outstanding("dfsq-table9")


def test_values_that_need_the_published_schedule_say_where_the_estimate_is():
    rows = published_frame(blanks=False)
    told = rows.apply(scoreboard._Needs().of, axis=1).str.contains("--profile full --cost")
    numbers = {"dfsq": (2, 3), "2dquant": (3, 4), "refqsr": (2, 3, 4, 5, 7)}
    planned = {f"{paper}-table{number}" for paper, found in numbers.items() for number in found}
    assert set(rows["table"][told]) == planned <= set(papers.tables())


def test_the_plan_says_it(capsys, monkeypatch):
    monkeypatch.delitem(CONFIGS, "rdn-x2")
    assert main(["plan", "dfsq-table3", "--profile", "full", "--cost"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and "184 cells, no estimate" in said[0]
    assert "rdn x4" in said[1] and "h of a GPU that does 50 x 10^12 a second (assumed)" in said[1]
    assert "rdn x2" in said[2] and "no schedule of training" in said[2] and " h " not in said[2]
