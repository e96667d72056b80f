"""A store of the older form: told how to migrate, and migrated with nothing lost and nothing computed."""

from __future__ import annotations

import json

import pytest
from experiment_fakes import FakeBench

from sqlib.cli import main
from sqlib.errors import RecordError
from sqlib.experiments import mean, plan, reproduce, table_frame
from sqlib.experiments.run.runner import run
from sqlib.experiments.store.cells import Cell, jsonable, sha256
from sqlib.experiments.store.layers import latest_records
from sqlib.experiments.store.working import Store


def old_record(cell, *, psnr=30.0, **changed):
    """A record of format 1 for a planned cell, as it was written."""
    place = cell.place
    recipe = None if cell.recipe is None else jsonable(cell.make_recipe().to_dict())
    planned = {
        **{k: v for k, v in cell.to_dict().items() if k != "bits"},
        "paper": place.paper,
        "table": place.table,
        "method": place.method,
        "bits": place.bits,
        "recipe": recipe,
    }
    record = {
        "format": 1,
        "key": sha256([planned]),
        "planned": planned,
        "cell": {**planned, "dataset": f"{cell.dataset}[3]"},
        "psnr": psnr,
        "ssim": 0.9,
        "n": 2,
        "images": [{"name": name, "psnr": psnr, "ssim": 0.9} for name in ("a", "b")],
        "seconds": 1.0,
        "seconds_preparing": 0.0,
        "cpu": "none",
        "threads": 1,
        "device": "cpu",
        "versions": {"torch": "2.0"},
        "code": "of last year",
        "data": "data",
        "weights_id": "weights",
        "calibration": None if cell.calibration is None else {"sha256": "crops", "crops": [["a", 1, 2]]},
        "time": "2026-01-01T00:00:00+00:00",
        "profile": "laptop",
        **changed,
    }
    return {**record, "checksum": sha256(record)}


def write(folder, *records):
    for record in records:
        file = folder / record["key"][:2] / f"{record['key']}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record))
    return folder


@pytest.fixture
def planned():
    """Cells of one network in two tables that share its full-precision rows, and nothing else."""
    chosen = [c for t in ("dfsq-table2", "dfsq-beyond") for c in plan(t, "laptop")]
    chosen = [c for c in chosen if c.model == "carn-m" and c.dataset == "set5"]
    return [
        c for c in chosen if c.place.method in ("FP", "BRECQ, 500 iterations", "weights only: compensated")
    ]


def test_every_record_is_found_again(planned, tmp_path, capsys):
    old = write(tmp_path / "old", *(old_record(c, psnr=30.0 + i) for i, c in enumerate(planned)))
    shared = len(planned) - len({c.id for c in planned})
    assert shared == 1
    before = {path: path.read_bytes() for path in old.rglob("*.json")}
    assert main(["migrate", str(old), str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{len(planned)} records read, {len(planned) - 1} written to {tmp_path / 'new'}"
    assert said[1] == "1 were of an experiment that another record has, too"
    assert said[2].startswith("they differed: carn-m x4 FP on set5: psnr by ") and len(said) == 3
    assert {path: path.read_bytes() for path in old.rglob("*.json")} == before
    store = Store(tmp_path / "new")
    records = latest_records({"own": store})
    for i, cell in enumerate(planned):
        record = records[cell.id]
        assert mean(record, "psnr") == 30.0 + i or cell.recipe is None
        assert record["dataset"] == "set5[3]" and record["code"] == "of last year"
        if cell.recipe is not None:
            assert Cell.from_dict(record["cell"]).make_recipe() == cell.make_recipe()
    frame = table_frame("dfsq-table2", store=store)
    assert frame.loc[(4, 32, "FP", "carn-m"), ("Set5", "source")] == "own (set5[3])"


class Found(FakeBench):
    """A bench that finds the data the old records were measured on."""

    def resolve(self, cell):
        from sqlib.experiments.store.cells import ResolvedCell

        crops = None if cell.calibration is None else "crops"
        return ResolvedCell(cell, f"{cell.dataset}[3]", "data", "weights", crops)


def test_a_run_finds_migrated_records_and_computes_nothing(planned, tmp_path):
    old = write(tmp_path / "old", *map(old_record, planned))
    assert main(["migrate", str(old), str(tmp_path / "new")]) == 0
    bench = Found(tmp_path / "log")
    summary = run(planned, Store(tmp_path / "new"), bench, profile="laptop")
    assert {o.state for o in summary.outcomes} == {"present"} and bench.computed() == []


def test_records_of_one_experiment_keep_the_one_that_knows_most(planned, tmp_path):
    cell = next(c for c in planned if c.recipe is not None)
    knows = old_record(cell, psnr=29.0, seconds_preparing=70.0, key="1" * 64)
    newer = old_record(cell, psnr=29.0, time="2027-01-01T00:00:00+00:00", key="2" * 64)
    old = write(tmp_path / "old", knows, newer)
    assert main(["migrate", str(old), str(tmp_path / "new")]) == 0
    [record] = Store(tmp_path / "new").records()
    assert record["seconds_preparing"] == 70.0


def test_every_command_says_how_to_migrate(planned, tmp_path, capsys):
    old = write(tmp_path / "my store", *map(old_record, planned))
    advice = f"python -m sqlib migrate '{old}' NEW"
    assert main(["status", "dfsq-table2", "--store", str(old)]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and advice in captured.err
    assert f"{len(planned)} records in {old} have the form of an older sqlib" in captured.err
    assert f"cannot be read and are ignored: {len(planned)}\n" in captured.out
    assert main(["reproduce", "dfsq-table2", "--profile", "smoke", "--store", str(old)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and advice in captured.err
    assert main(["verify", "--sample", "1", "--store", str(old)]) == 1
    assert "migrate" in capsys.readouterr().err
    assert {path.name for path in old.iterdir()} == {r["key"][:2] for r in map(old_record, planned)}
    with pytest.warns(UserWarning, match="older sqlib") as warned:
        table_frame("dfsq-table2", store=old)
    assert len(warned) == 1


def test_a_table_is_shown_although_the_readers_own_store_is_old(planned, tmp_path, monkeypatch):
    monkeypatch.setenv("SQLIB_STORE", str(write(tmp_path / "old", *map(old_record, planned))))
    with pytest.warns(UserWarning, match="older sqlib"):
        assert (table_frame("dfsq-table2")["Set5", "source"] == "packaged").any()
    made = reproduce("dfsq-table2", profile="smoke", shard="1/5")  # scratch: not into the old store
    assert made.summary.done == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"planned": {}}, "cannot become 2: KeyError"),
        ({"images": [{"psnr": 1.0}]}, "cannot become 2: KeyError"),
        ({"images": [{"name": "a", "lpips": 1.0}]}, "unknown metric 'lpips'"),
        ({"format": 7}, "format 7, this sqlib reads 2"),
    ],
)
def test_one_that_cannot_be_migrated_stops_the_others(planned, tmp_path, capsys, change, words):
    record = {k: v for k, v in {**old_record(planned[0]), **change}.items() if k != "checksum"}
    old = write(tmp_path / "old", old_record(planned[1]), {**record, "checksum": sha256(record)})
    assert main(["migrate", str(old), str(tmp_path / "new")]) == 1
    assert words in capsys.readouterr().err and not (tmp_path / "new").exists()


@pytest.mark.parametrize("changed", [{"name": "yours"}, {"version": 99}])
def test_a_recipe_that_cannot_be_made_here_is_kept_with_all_its_options(planned, tmp_path, changed):
    cell = next(c for c in planned if c.place.method == "weights only: compensated")
    record = old_record(cell)
    record["planned"]["recipe"].update(changed)
    record = {k: v for k, v in record.items() if k != "checksum"}
    old = write(tmp_path / "old", {**record, "checksum": sha256(record)})
    assert main(["migrate", str(old), str(tmp_path / "new")]) == 0
    [kept] = Store(tmp_path / "new").records()
    options = {k: v for k, v in record["planned"]["recipe"].items() if k != "bits"}
    assert kept["cell"]["recipe"] == options and kept["cell"]["bits"] == cell.bits
    assert Cell.from_dict(kept["cell"]).id != cell.id


def test_wrong_folders_are_told(planned, tmp_path, capsys):
    old, new = write(tmp_path / "old", old_record(planned[0])), str(tmp_path / "new")
    assert main(["migrate", str(tmp_path / "none"), new]) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["migrate", str(tmp_path / "empty"), new]) == 1
    assert "holds no records of an older form" in capsys.readouterr().err
    assert main(["migrate", str(old), new]) == 0
    assert main(["migrate", str(old), new]) == 1  # twice into one folder
    assert "holds records; give a folder that is not there yet" in capsys.readouterr().err
    assert main(["migrate", new, str(tmp_path / "third")]) == 1
    assert "holds no records of an older form" in capsys.readouterr().err


def test_a_store_of_both_forms_is_brought_into_one(planned, tmp_path, capsys):
    new, old = Store(tmp_path / "new"), write(tmp_path / "old", old_record(planned[0]))
    assert main(["migrate", str(old), str(new.path)]) == 0
    mixed = write(new.path, old_record(planned[0], psnr=99.0), old_record(planned[1]))
    assert main(["reproduce", "dfsq-table2", "--store", str(mixed)]) == 1
    assert f"migrate {mixed} NEW" in capsys.readouterr().err
    assert main(["migrate", str(mixed), str(tmp_path / "third")]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        f"3 records read, 2 written to {tmp_path / 'third'}",
        "1 were of an experiment that another record has, too",
    ]
    records = latest_records({"own": Store(tmp_path / "third")})
    assert [mean(records[planned[i].id], "psnr") for i in (0, 1)] == [30.0, 30.0]


def test_a_damaged_old_record_is_an_error(planned, tmp_path):
    from sqlib.experiments.store.migrate import migrate

    old = write(tmp_path / "old", old_record(planned[0]))
    [file] = old.rglob("*.json")
    file.write_text(file.read_text()[:-20])
    with pytest.raises(RecordError, match="damaged"):
        migrate(old, Store(tmp_path / "new"))
