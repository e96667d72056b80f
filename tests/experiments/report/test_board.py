"""The scoreboard's page part: which rows it has, in which state, and what a reader's text of each is."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from experiment_fakes import content

from sqlib import experiments, widgets
from sqlib.errors import InputError
from sqlib.experiments.report import board, scoreboard, stand_ins
from sqlib.experiments.run.plan import plan
from sqlib.experiments.store import layers
from sqlib.experiments.store.cells import ResolvedCell
from sqlib.experiments.store.working import Store

PSNR = {"FP": 32.0, "MinMax": 29.5, "DFSQ, the paper's variant": 31.0}


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """edsr-small x4 in DFSQ's Table 2: full precision, Min-Max and a variant at 4 bits; no other record."""
    folder = tmp_path_factory.mktemp("stores")
    store = Store(folder / "own")
    for cell in plan("dfsq-table2", "full"):
        known = (cell.model, cell.scale) == ("edsr-small", 4) and cell.bits in ("32", "4")
        if known and cell.place.method in PSNR:
            part = "[3]" if cell.dataset == "urban100" else ""
            resolved = ResolvedCell(cell, cell.dataset + part, "x", "w")
            store.write(resolved.key, content(resolved, psnr=PSNR[cell.place.method]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "packaged_store", lambda: Store(folder / "packaged"))
        patch.setattr(scoreboard, "derived_values", lambda shown: {})
        yield scoreboard.scoreboard_frame(store), stand_ins.stand_ins_frame(store)


@pytest.fixture(scope="module")
def rows(frames):
    return board.board_rows(*frames)


def at(rows, **place):
    found = [row for row in rows if all(row[name] == value for name, value in place.items())]
    assert len(found) == 1, found
    return found[0]


def test_stand_ins_hold_scores_drops_and_what_they_answer(frames):
    own = frames[1]
    psnr = own[(own["metric"] == "psnr_y") & (own["table"] == "dfsq-table2")]
    assert set(psnr["network"]) == {"edsr-small"} and len(psnr) == 4 * 3
    row = psnr[(psnr["method"] == "MinMax") & (psnr["dataset"] == "set5")].iloc[0]
    assert row["own"] == 29.5 and row["own_drop"] == 2.5
    assert row["answers"] == ("dfsq-table2/EDSR/x4/MinMax/4/Set5/psnr_y",)
    assert psnr[psnr["method"] == "FP"]["own_drop"].isna().all()
    assert set(psnr[psnr["method"] == "DFSQ, the paper's variant"]["answers"]) == {()}
    assert "urban100[3]" in set(psnr["dataset"])


def test_every_printed_value_is_one_row_and_our_own_follow(rows):
    states = pd.Series([row["state"] for row in rows])
    assert (states != board.OURS).sum() == 1966 and set(states) <= set(board.STATES)
    assert (states[:1966] != board.OURS).all() and (states[1966:] == board.OURS).all()
    assert {row["table"][: row["table"].index("-")] for row in rows[:16]} == {"dfsq"}


def test_value_run_on_a_stand_in_has_a_state_of_its_own_and_no_difference(rows):
    place = dict(table="dfsq-table2", network="EDSR x4", method="Min-Max", bits="4-bit", metric="PSNR (dB)")
    row = at(rows, **place, dataset="Set5")
    assert row["state"] == "stand-in" and row["difference"] == ""
    assert (row["ours"], row["our_drop"]) == ("29.500", "2.500")
    assert row["others"] == [("edsr-small x4", "29.500", "2.500", "0.000")]
    assert at(rows, **place, dataset="Urban100")["others"][0][0] == "edsr-small x4, Urban100[3]"
    assert at(rows, **{**place, "network": "EDSR x2"}, dataset="Set5")["state"] == "not run"


def test_method_that_no_paper_prints_is_ours_only(rows):
    place = dict(network="edsr-small x4", method="DFSQ, the paper's variant", dataset="Set5")
    row = at(rows, **place, table="dfsq-table2", metric="PSNR (dB)")
    assert row["state"] == "ours only" and row["printed"] == "" and row["ours"] == "31.000"


def test_page_holds_every_row_in_compact_form(frames, rows):
    page = BeautifulSoup(board.scoreboard_html(*frames), "html.parser")
    data = json.loads(page.select_one("script.sq-board-data").string)
    assert len(data["rows"]) == len(rows)
    first, texts = data["rows"][0], data["texts"]
    names = ("table", "network", "method", "bits", "dataset", "metric")
    assert [texts[name][i] for name, i in zip(names, first)] == [rows[0][name] for name in names]
    assert data["states"][first[12]] == rows[0]["state"] and texts["reason"][first[13]] == rows[0]["reason"]
    assert page.noscript is not None and len(page.decode()) < 500_000


def test_every_metric_has_a_name_for_readers():
    assert set(experiments.published_frame(blanks=False)["metric"]) <= set(board._METRICS)


def test_page_and_notebook_show_it(frames, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    monkeypatch.setenv("SQLIB_STATIC", "1")
    experiments.show_scoreboard(*frames)
    assert 'class="sq-board"' in shown.pop().data
    monkeypatch.delenv("SQLIB_STATIC")
    experiments.show_scoreboard(*frames)
    assert "stand-in" in shown.pop().children[1].value


def test_other_frames_are_refused(frames):
    with pytest.raises(InputError, match="expected a stand_ins_frame"):
        experiments.show_scoreboard(frames[0], frames[0])
    assert not widgets.static_mode()
