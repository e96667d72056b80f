"""The real thing, small: the smoke profile on shipped weights, killed, resumed, and by papermill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from sqlib.errors import DataError, InputError
from sqlib.experiments import mean, packaged_store, plan, reproduce, run_notebook
from sqlib.experiments.papers.dfsq import OURS
from sqlib.experiments.run import compute
from sqlib.experiments.run.verify import verify
from sqlib.experiments.store.cells import Cell
from sqlib.experiments.store.working import Store
from sqlib.images import write_image

CELLS = len(plan("dfsq-table2", "smoke"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A smoke reproduction into a kept folder."""
    return reproduce("dfsq-table2", profile="smoke", store=tmp_path_factory.mktemp("smoke") / "store")


def test_smoke_computes_every_cell_with_a_full_record(finished):
    assert [o.state for o in finished.summary.outcomes] == ["computed"] * CELLS
    records = list(finished.store.records())
    assert len(records) == CELLS
    for record in records:
        assert 15 < mean(record, "psnr") < 50 and 0 < mean(record, "ssim") < 1
        assert len(record["images"]) == 2
        scores = [image["metrics"]["psnr"] for image in record["images"]]
        assert sum(scores) / 2 == pytest.approx(mean(record, "psnr"))
        assert record["dataset"] == "builtin[2]@192" and record["profile"] == "smoke"
        assert {
            "versions",
            "threads",
            "seconds",
            "device",
            "cpu",
            "code",
            "data",
            "weights_id",
            "time",
        } <= set(record)
        assert len(record["code"]) == len(record["data"]) == 64
        quantized = record["cell"]["recipe"] is not None
        assert (record["calibration"] is not None) == quantized
        assert not quantized or record["calibration"]["source"] == "builtin"


def test_quantization_to_four_bits_costs_something_and_subsets_less(finished):
    found = {Cell.from_dict(r["cell"]).id: mean(r, "psnr") for r in finished.store.records()}
    psnr = {cell.place.method: found[cell.id] for cell in plan("dfsq-table2", "smoke")}
    drops = [psnr["FP"] - psnr[method] for method in (OURS, "DFSQ", "MinMax")]
    assert 0 < drops[0] < drops[1] < drops[2] < 3


def test_second_run_computes_nothing(finished):
    again = reproduce("dfsq-table2", profile="smoke", store=finished.store.path)
    assert [o.state for o in again.summary.outcomes] == ["present"] * CELLS


def test_records_verify(finished):
    result = verify(sample=1, store=finished.store)
    assert str(result) == "verified 1 of 1" and result.ok


def test_another_seed_computes_only_what_draws(finished):
    again = reproduce("dfsq-table2", profile="smoke", store=finished.store.path, seed=1, shard="1/2")
    assert [o.state for o in again.summary.outcomes] == ["present", *["computed"] * ((CELLS - 1) // 2)]


def test_only_computes_what_it_chooses(tmp_path):
    run = reproduce("dfsq-table2", profile="smoke", only=["min-max"], store=tmp_path)
    assert [o.cell.place.method for o in run.summary.outcomes] == ["MinMax"] and run.summary.done == 1


def test_smoke_without_a_store_is_scratch(monkeypatch, tmp_path):
    monkeypatch.setenv("SQLIB_STORE", str(tmp_path / "kept"))
    run = reproduce("dfsq-table2", profile="smoke", shard="1/5")
    scratch = run.store.path
    assert len(run.store.keys()) == 1 and scratch != tmp_path / "kept"
    del run
    assert not scratch.exists() and not (tmp_path / "kept").exists()


def test_smoke_never_enters_the_packaged_records():
    with pytest.raises(InputError, match="cannot be written to"):
        reproduce("dfsq-table2", profile="smoke", store=packaged_store().path)


def test_missing_weights_and_data_are_said(monkeypatch, tmp_path):
    monkeypatch.setenv("SQLIB_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("SQLIB_DATA", str(tmp_path))
    monkeypatch.setenv("SQLIB_CACHE", str(tmp_path / "cache"))
    run = reproduce("dfsq-table2", profile="laptop", store=tmp_path / "store")
    assert run.summary.done == 0 and {o.state for o in run.summary.outcomes} == {"skipped"}
    notes = {o.cell.model: o.note for o in run.summary.outcomes}
    assert "needs weights carn_m.pth" in notes["carn-m"] and "$SQLIB_WEIGHTS" in notes["carn-m"]
    assert "needs data" in notes["edsr-small"] and "not found" in notes["edsr-small"]


def test_workbench_shares_model_data_and_quantized_network():
    bench = compute.Workbench()
    cells = [cell for cell in plan("dfsq-table2", "smoke") if cell.place.method in ("FP", "MinMax")]
    full, quantized = (bench.resolve(cell) for cell in cells)
    first = bench.network(quantized)
    assert bench.network(quantized) is first and bench.network(full) is not first
    dataset = bench._dataset(cells[0].dataset)
    assert dataset.pair(0, 4) is dataset.pair(0, 4)


def test_dataset_specification():
    assert compute.open_dataset("builtin[:2]@96").name == "builtin[2]@96"
    for text in ("", "builtin[2]", "builtin@", "a b"):
        with pytest.raises(InputError, match="not of the form"):
            compute.open_dataset(text)


def test_a_set_with_other_pixels_is_not_scored_under_its_name(tmp_path, photo):
    folder = tmp_path / "Set5"
    folder.mkdir()
    for number, name in enumerate(("baby", "bird", "butterfly", "head", "woman")):
        write_image(folder / f"{name}.png", photo[number:])
    run = reproduce(
        "2dquant-table3", store=tmp_path / "store", only=["bilinear x4", "set5"], data_dir=tmp_path
    )
    assert {o.state for o in run.summary.outcomes} == {"skipped"}
    note = run.summary.outcomes[0].note
    assert "needs data: set5 with the pixels on record" in note and f"{folder / 'baby.png'}" in note
    for name in ("set5[:2]", "set5@24"):
        with pytest.raises(DataError, match="with the pixels on record"):
            compute.open_dataset(name, str(tmp_path))


def test_killed_command_resumes(tmp_path):
    store = Store(tmp_path / "store")
    command = [sys.executable, "-m", "sqlib", "reproduce", "dfsq-table2", "--profile", "smoke"]
    command += ["--store", str(store.path)]
    runner = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not store.keys():
            assert runner.poll() is None and time.monotonic() < end, "no record appeared"
            time.sleep(0.01)
        os.kill(runner.pid, signal.SIGKILL)
    finally:
        runner.wait()
    kept = {record["key"]: record for record in store.records()}
    assert 1 <= len(kept) < 4
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{CELLS - len(kept)} computed, {len(kept)} already there" in done.stdout
    assert len(list(store.records())) == CELLS
    assert all(store.read(key) == record for key, record in kept.items())


NOTEBOOK = """
from sqlib import experiments
options = dict(device=device, data_dir=data_dir, seed=seed, store=store)
run = experiments.reproduce("dfsq-table2", profile=profile, **options)
print(run.summary)
"""


def test_one_table_from_an_empty_store_through_papermill(tmp_path):
    parameters = 'profile = "smoke"\ndevice = "cpu"\ndata_dir = None\nseed = 0\nstore = None'
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]}), new_code_cell(NOTEBOOK)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "table.ipynb")
    store = Store(tmp_path / "store")
    out = run_notebook(tmp_path / "table.ipynb", tmp_path / "out.ipynb", store=str(store.path))
    printed = [o.get("text", "") for c in nbformat.read(out, 4).cells for o in c.get("outputs", [])]
    assert f"{CELLS} cells: {CELLS} computed, 0 already there\n" in printed
    assert len(store.keys()) == CELLS
