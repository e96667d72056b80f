"""Operations of what has no weights yet, against counting by hand."""

import math

import pytest

from sqlib.errors import InputError
from sqlib.experiments import definitions, scoreboard, work
from sqlib.experiments.frame import published_frame


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
    six_per_weight = 6 * 22_271_107 * 30_000 * 16 * pixels / 1e15
    assert six_per_weight <= frame.loc["rdn x4", "training"] < 1.1 * six_per_weight
    assert math.isnan(frame.loc["rdn x2", "training"])
    hours = (frame["training"].fillna(0) + frame["learning"]) * 1e15 / work.RATE / 3600
    assert frame["hours"].tolist() == pytest.approx(hours.tolist())


def test_shipped_networks_need_nothing():
    names = set(work.outstanding("dfsq-table2")["network"])
    assert names == {"edsr-baseline x4", "edsr-baseline x2"}
    assert work.outstanding("dfsq-beyond").empty
    with pytest.raises(InputError, match="unknown table"):
        work.outstanding("dfsq-table9")


def test_values_that_need_a_gpu_say_where_the_estimate_is():
    rows = published_frame(blanks=False)
    rows = rows[rows["table"].isin(["dfsq-table2", "dfsq-table3"])]
    told = rows.apply(scoreboard.needs, axis=1)
    assert told.str.contains("--profile full --cost").all()
    assert set(rows["table"]) <= set(definitions.TABLES)
