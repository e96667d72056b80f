"""The records behind a page, from made records."""

from __future__ import annotations

import pytest
from experiment_fakes import content

from sqlib.errors import InputError
from sqlib.experiments import drops_frame, provenance_frame, seconds_frame, table_frame
from sqlib.experiments.run.plan import plan
from sqlib.experiments.store import layers
from sqlib.experiments.store.cells import ResolvedCell
from sqlib.experiments.store.working import Store


@pytest.fixture
def store(tmp_path, monkeypatch):
    """CARN-M's Min-Max rows; only the first dataset of a bit-width knows how long calibration took."""
    monkeypatch.setattr(layers, "packaged_store", lambda: Store(tmp_path / "packaged"))
    made = Store(tmp_path / "own")
    for cell in plan("dfsq-table2", "full"):
        if cell.model == "carn-m" and cell.place.method in ("FP", "MinMax"):
            resolved = ResolvedCell(cell, cell.dataset, "x", "w")
            record = content(resolved, psnr=32.0 if cell.bits == "32" else 20 + int(cell.bits))
            first = cell.dataset == "set5" and cell.recipe is not None
            record["seconds_preparing"] = 7.0 + int(cell.bits) if first else 0.0
            made.write(resolved.key, record)
    return made


def test_drops_are_those_of_the_table_one_row_each(store):
    rows = drops_frame("dfsq-table2", store=store)
    assert list(rows.columns) == [
        "scale", "bits", "method", "network", "dataset", "value", "drop", "verdict", "source",
    ]  # fmt: skip
    own = rows[rows["network"] == "carn-m"].set_index(["bits", "dataset"])
    assert len(own) == 20 and own.loc[(4, "Set5"), "drop"] == pytest.approx(8.0)
    assert set(own["source"]) == {"own"}
    wide = table_frame("dfsq-table2", store=store)
    assert len(rows) == wide.xs("value", axis=1, level=1).notna().sum().sum()
    ssim = drops_frame("dfsq-table2", metric="ssim_y", store=store)
    assert ssim.loc[ssim["network"] == "EDSR (printed)", "value"].between(0, 1).all()


def test_provenance_names_every_record_once(store):
    rows = provenance_frame(["dfsq-table2"], store=store)
    assert len(rows) == 20 == rows["record"].nunique()
    assert set(rows["method"]) == {"FP", "Min-Max"}  # as readers see it
    assert rows["record"].str.len().eq(8).all() and rows["network"].eq("carn-m x4").all()
    assert rows["dataset"].tolist() == rows.sort_values(list(rows.columns[:5]))["dataset"].tolist()
    # The same experiment is one record wherever it is shown.
    shared = provenance_frame(["dfsq-table1"], store=store)
    assert set(shared["method"]) == {"FP"} and set(shared["record"]) < set(rows["record"])
    assert provenance_frame(["2dquant-table3"], store=store).empty


def test_seconds_are_those_of_the_record_that_knows(store):
    rows = seconds_frame(["dfsq-table2"], store=store).set_index("bits")["seconds"]
    assert rows.to_dict() == {8: 15.0, 6: 13.0, 4: 11.0, 3: 10.0}


@pytest.mark.parametrize("frame", [provenance_frame, seconds_frame])
def test_wrong_tables_are_told(frame, store):
    with pytest.raises(InputError, match="expected a list"):
        frame("dfsq-table2", store=store)
    with pytest.raises(InputError, match="dfsq-table9"):
        frame(["dfsq-table9"], store=store)
