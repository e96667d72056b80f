"""Papers are found by being there, and another package adds one by being imported."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from experiment_fakes import FakeBench

from sqlib.errors import InputError
from sqlib.experiments import mean, papers, plan, published_frame, reproduce, scoreboard_frame, table_frame
from sqlib.experiments.papers import Method, Network, Paper, Statement, Table, register
from sqlib.experiments.report.statements import statement_frame
from sqlib.experiments.report.status import status
from sqlib.experiments.run.runner import run
from sqlib.experiments.run.verify import verify
from sqlib.experiments.store.cells import CalibrationSpec

TOY = '''
"""A paper of somebody else's, in a package of somebody else's."""

from pathlib import Path

from sqlib.experiments.papers import Method, Network, Paper, Statement, Table, register
from sqlib.experiments.store.cells import CalibrationSpec

register(
    Paper(
        name="toy",
        printed=(Path(__file__).with_name("toy.csv"),),
        tables=(
            Table(
                name="toy-table1",
                paper="toy",
                title="A table",
                networks=(Network("edsr-small", 4, "pretrained", published="ToyNet"),),
                methods=(Method("FP", None), Method("Ours", "minmax", (4, "4/8"))),
                calibration=CalibrationSpec("builtin", n=2, patch=24, batch=2),
                datasets=("set5",),
            ),
        ),
        statements=(Statement("toy", "Eight bits help", "toy", "toy-table1", "Ours", "Ours", (4,)),),
    )
)
'''
VALUES = """paper,table,model,scale,method,bits,dataset,metric,value
toy,table1,ToyNet,x4,FP,32,Set5,psnr_y,30.00
toy,table1,ToyNet,x4,Ours,4,Set5,psnr_y,30.00
toy,table1,ToyNet,x4,Ours,4/8,Set5,psnr_y,29.97
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The package, imported; forgotten again afterwards."""
    monkeypatch.setattr(papers, "_registered", dict(papers.papers()))
    (tmp_path / "toy_paper.py").write_text(TOY)
    (tmp_path / "toy.csv").write_text(VALUES)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("toy_paper")
    yield papers.papers()["toy"]
    del sys.modules["toy_paper"]


def test_every_module_with_a_paper_is_one():
    assert list(papers.papers()) == ["dfsq", "2dquant", "refqsr"]  # as the parts of the book
    assert list(papers.tables())[:2] == ["dfsq-table1", "dfsq-table2"]
    with pytest.raises(InputError, match="unknown table 'toy-table1'"):
        papers.table("toy-table1")


def test_a_paper_from_outside_is_planned_run_verified_and_judged(toy, store, bench):
    cells = plan("toy-table1", "laptop")
    assert [(c.place.method, c.place.bits, c.bits) for c in cells] == [
        ("FP", "32", "32"),
        ("Ours", "4", "4"),
        ("Ours", "4/8", "4/8"),
    ]
    assert run(cells, store, bench, profile="laptop").done == 3
    assert len(published_frame(blanks=False)) == 1966 + 3
    board = scoreboard_frame(store)
    board = board[board["table"] == "toy-table1"].set_index("id")
    assert board["verdict"].tolist() == ["match", "match", "close"]
    assert board["difference"].tolist() == pytest.approx([0, 0, -0.03])
    frame = table_frame("toy-table1", store=store)
    assert frame.index.get_level_values("bits").tolist() == [32, 32, 4, 4, "4/8", "4/8"]
    assert frame.loc[(4, "4/8", "Ours", "edsr-small"), ("Set5", "value")] == 30.0
    assert len(statement_frame(toy.statements[0], store=store)) == 2  # in print and on ours
    [state] = status("laptop", table="toy-table1", store=store.path)["tables"]
    assert (state["own"], state["missing"]) == (3, [])
    assert str(verify(sample=3, store=store, bench=bench)) == "verified 3 of 3"


def test_it_runs_on_a_real_network(toy, tmp_path):
    made = reproduce("toy-table1", profile="smoke", store=tmp_path / "store")
    assert [o.state for o in made.summary.outcomes] == ["computed", "computed"]
    assert all(15 < mean(record, "psnr") < 50 for record in made.store.records())


def test_without_it_nothing_is_left_of_it():
    assert not published_frame()["paper"].eq("toy").any() and "toy-table1" not in papers.tables()
    assert isinstance(scoreboard_frame(FakeStore()), pd.DataFrame)


class FakeStore:
    """A store without records."""

    path = None

    def survey(self):
        return [], []

    def records(self):
        return []


TABLE = Table(
    "a-table",
    "other",
    "",
    (Network("edsr-small", 4, "pretrained"),),
    (Method("FP", None),),
    CalibrationSpec("builtin"),
    ("set5",),
)


def test_a_name_that_is_taken_is_refused(toy):
    with pytest.raises(InputError, match="a paper called 'dfsq' is there already"):
        register(Paper(name="dfsq"))
    same = dataclasses.replace(TABLE, name="toy-table1")
    with pytest.raises(InputError, match="table 'toy-table1' of 'other' is there already, in 'toy'"):
        register(Paper(name="other", tables=(same,)))
    assert "other" not in papers.papers() and register(toy) is toy


def test_a_table_of_the_book_is_refused_before_anything_was_asked_for(monkeypatch):
    """Registered first, it would take the place of the book's, and of all papers after it."""
    monkeypatch.setattr(papers, "_registered", {})
    monkeypatch.setattr(papers, "_loaded", False)
    same = dataclasses.replace(TABLE, name="refqsr-table2", paper="mine")
    with pytest.raises(InputError, match="table 'refqsr-table2' of 'mine' is there already, in 'refqsr'"):
        register(Paper(name="mine", tables=(same,)))
    assert {"dfsq", "2dquant", "refqsr"} <= set(papers.papers()) and "mine" not in papers.papers()


def test_two_tables_of_one_name_are_refused(toy):
    with pytest.raises(InputError, match="'other' has 2 tables called 'twice'"):
        register(Paper(name="other", tables=(dataclasses.replace(TABLE, name="twice"),) * 2))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dataclasses.replace(TABLE, datasets="set5"), "datasets='set5', expected a tuple"),
        (lambda: dataclasses.replace(TABLE, methods=Method("FP", None)), "methods=Method.*expected a tuple"),
        (lambda: dataclasses.replace(TABLE, protocol="defualt"), "unknown protocol 'defualt'"),
        (lambda: dataclasses.replace(TABLE, calibration=None), "calibration=None, expected a Calibration"),
        (lambda: Method("x", "minmax", (4,), side="weight"), "side='weight', expected 'weights'"),
        (lambda: Method("x", "minmax", 4), "bits=4, expected a tuple"),
        (lambda: Method("x", "minmax", (4,), networks="edsr-small"), "networks='edsr-small', expected"),
    ],
)
def test_mistakes_in_a_table_are_named(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_the_example_of_the_page_on_contributing_is_planned_and_shown(monkeypatch, store, bench):
    monkeypatch.setattr(papers, "_registered", dict(papers.papers()))
    page = (Path(__file__).parents[3] / "book" / "contributing.md").read_text(encoding="utf8")
    [block] = [b for b in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if "papers.register" in b]
    exec(block, {})
    cells = plan("mine-table1", "laptop")
    assert [cell.bits for cell in cells] == ["32", "4", "4/8"]
    assert run(cells, store, bench, profile="laptop").done == 3
    frame = table_frame("mine-table1", store=store)
    assert frame.index.get_level_values("bits").tolist() == [32, 4, "4/8"]


def test_claims_of_all_papers_are_found(toy):
    assert [s.name for s in papers.statements()][-1] == "toy"
    assert all(isinstance(s, Statement) for s in papers.statements())


def test_patches_are_part_of_the_protocol(change_table, tmp_path):
    from sqlib.metrics import PROTOCOLS
    from sqlib.patches import Tiling

    whole = plan("dfsq-table2", "smoke")[:1]
    change_table("dfsq-table2", tiling=Tiling(24, overlap=4))
    cut = plan("dfsq-table2", "smoke")[:1]
    assert cut[0].protocol == f"{PROTOCOLS['default'].id}/patch=24+4" and cut[0].id != whole[0].id
    scores = [
        mean(next(iter(reproduce_one(cells, tmp_path / str(i)).records())), "psnr")
        for i, cells in enumerate((whole, cut))
    ]
    assert 0 < abs(scores[0] - scores[1]) < 1


def test_patches_and_counted_sizes_of_each_dataset(change_table):
    from sqlib.experiments.papers.refqsr import SIZES, TILINGS

    counted = {name: f"{width}x{height}" for name, (width, height) in SIZES.items()}
    change_table("dfsq-table2", tiling=TILINGS, counted=counted, datasets=tuple(TILINGS))
    found = {(c.dataset, c.protocol.rpartition("/")[2], c.counted) for c in plan("dfsq-table2", "full")}
    assert found == {
        ("urban100", "patch=72+6", "1280x720"),
        ("test2k", "patch=96+6", "2048x1080"),
        ("test4k", "patch=96+6", "4096x2160"),
    }
    # of a set that the table says nothing about, nothing holds
    smoke = {("patch" in c.protocol, c.counted) for c in plan("dfsq-table2", "smoke")}
    assert smoke == {(False, None)}
    change_table("dfsq-table2", tiling=None, counted="64x64")
    assert {c.counted for c in plan("dfsq-table2", "smoke")} == {"64x64"}


def reproduce_one(cells, folder):
    from sqlib.experiments.run.compute import Workbench
    from sqlib.experiments.store.working import Store

    store = Store(folder)
    assert run(cells, store, Workbench(), profile="laptop").done == 1
    return store


def test_a_bench_is_only_asked_for_what_is_not_there(toy, store, tmp_path):
    bench = FakeBench(tmp_path / "other")
    cells = plan("toy-table1", "laptop")
    run(cells, store, bench, profile="laptop")
    run(cells, store, bench, profile="laptop")
    assert len(bench.computed()) == 3
