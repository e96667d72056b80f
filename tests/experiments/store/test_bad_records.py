"""One record that cannot be read costs nobody else: it is ignored, named, counted, and computed again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from experiment_fakes import FakeBench, cells, content

from sqlib.cli import main
from sqlib.experiments import mean
from sqlib.experiments.report.status import status
from sqlib.experiments.run.plan import plan
from sqlib.experiments.run.runner import run
from sqlib.experiments.run.verify import verify
from sqlib.experiments.store import layers
from sqlib.experiments.store.cells import Cell, ResolvedCell, sha256
from sqlib.experiments.store.layers import latest_records
from sqlib.experiments.store.working import Store


def text(change):
    """A damage of the text."""
    return lambda path: path.write_bytes(change(path.read_bytes()))


def sealed(change):
    """A damage with a right checksum: what another version, or a fault in one, would write."""

    def damage(path: Path) -> None:
        record = json.loads(path.read_text())
        record.pop("checksum")
        change(record)
        path.write_text(json.dumps({**record, "checksum": sha256(record)}))

    return damage


def put(*names, value):
    def change(record):
        for name in names[:-1]:
            record = record[name]
        record[names[-1]] = value

    return sealed(change)


def without(*names):
    def change(record):
        for name in names[:-1]:
            record = record[name]
        del record[names[-1]]

    return sealed(change)


def replaced(make):
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


DEEP = b"[" * 200_000
METRICS = ("images", 0, "metrics")
DAMAGES = {
    "NaN token": (text(lambda t: t.replace(b'"psnr": 30.0', b'"psnr": NaN')), "NaN is no JSON value"),
    "Infinity token": (text(lambda t: t.replace(b'"ssim": 0.9', b'"ssim": -Infinity')), "-Infinity is no"),
    "beyond a float": (text(lambda t: t.replace(b'"psnr": 30.0', b'"psnr": 1e999')), "not complete JSON"),
    "5,000 digits": (
        text(lambda t: t.replace(b'"threads": 1', b'"threads": 1' + b"0" * 5000)),
        "not complete JSON",
    ),
    "400 digits": (put(*METRICS, "psnr", value=10**400), "psnr' is 1000"),
    "endless brackets": (text(lambda t: DEEP), "not complete JSON"),
    "truncated": (text(lambda t: t[: len(t) // 2]), "not complete JSON"),
    "empty": (text(lambda t: b""), "not complete JSON"),
    "binary": (text(lambda t: bytes(range(256)) * 9), "not complete JSON"),
    "zeros": (text(lambda t: bytes(len(t))), "not complete JSON"),
    "UTF-16": (text(lambda t: t.decode().encode("utf-16")), "not complete JSON"),
    "another value": (text(lambda t: t.replace(b"30.0", b"31.0")), "does not fit its checksum"),
    "list": (text(lambda t: b"[1, 2]"), "no checksum"),
    "null": (text(lambda t: b"null"), "no checksum"),
    "a newer form": (put("format", value=3), "has format 3, this sqlib reads 2 (a newer sqlib wrote it"),
    "no format": (without("format"), "has format None"),
    "another key": (put("key", value="0" * 64), "belongs to key '0000"),
    "no metrics": (without("images", 0, "metrics"), "field 'images[0].metrics' is missing"),
    "nothing scored": (put("images", 0, "metrics", value={}), "'images[0].metrics' is {}"),
    "an unknown metric": (
        put(*METRICS, "lpips", value=0.1),
        "'images[0]' has the unknown metric 'lpips', expected psnr, ssim, fqr, bitops_g: update",
    ),
    "no cell": (without("cell"), "field 'cell' is missing"),
    "no profile": (without("profile"), "field 'profile' is missing"),
    "no time": (without("time"), "field 'time' is missing"),
    "no seconds": (without("seconds"), "field 'seconds' is missing"),
    "no true name": (without("dataset"), "field 'dataset' is missing"),
    "no torch version": (without("versions", "torch"), "field 'versions.torch' is missing"),
    "a metric of one image only": (
        put(
            "images",
            value=[
                {"name": name, "metrics": {metric: 1.0}} for name, metric in (("a", "psnr"), ("b", "ssim"))
            ],
        ),
        "field 'images[1].metrics.psnr' is missing",
    ),
    "no model": (without("cell", "model"), "field 'cell.model' is missing"),
    "no seed of the cell": (without("cell", "seed"), "field 'cell.seed' is missing"),
    "newer field of a cell": (put("cell", "tiling", value=None), "unknown fields ['tiling']"),
    "newer field of a calibration": (
        put("cell", "calibration", value={"source": "s", "n": 1, "patch": 1, "batch": 1, "mirror": 1}),
        "mirror",
    ),
    "calibration without n": (put("cell", "calibration", value={"source": "s"}), "'cell.calibration.n'"),
    "psnr as words": (put(*METRICS, "psnr", value="high"), "psnr' is 'high', expected a number"),
    "psnr null": (put(*METRICS, "psnr", value=None), "psnr' is None"),
    "psnr true": (put(*METRICS, "psnr", value=True), "psnr' is True"),
    "seconds nan": (put("seconds", value="nan"), "field 'seconds' is 'nan'"),
    "cell a list": (put("cell", value=[]), "field 'cell' is []"),
    "scale as text": (put("cell", "scale", value="4"), "'cell.scale' is '4', expected an integer"),
    "bits a number": (put("cell", "bits", value=4), "'cell.bits' is 4, expected a text"),
    "protocol a list": (put("cell", "protocol", value=["a"]), "field 'cell.protocol' is ['a']"),
    "recipe as text": (put("cell", "recipe", value="minmax"), "'cell.recipe' is 'minmax'"),
    "recipe without a name": (put("cell", "recipe", value={"version": 1}), "'cell.recipe.name' is missing"),
    "weights null": (put("weights_id", value=None), "field 'weights_id' is None"),
    "images an object": (put("images", value={}), "field 'images' is {}"),
    "images of nothing": (put("images", value=[None]), "field 'images[0]' is not an object"),
    "no images": (put("images", value=[]), "field 'images' is []"),
    "hash a number": (put("calibration", value={"sha256": 1}), "field 'calibration.sha256' is 1"),
    "a folder": (replaced(lambda path: path.mkdir()), "it is not a file"),
    "a pipe": (replaced(os.mkfifo), "it is not a file"),
    "a link to nothing": (replaced(lambda path: path.symlink_to("nowhere")), "leads nowhere"),
    "a link to itself": (replaced(lambda path: path.symlink_to(path.name)), "cannot be read"),
}


def fill(store: Store, made: list[Cell]) -> Store:
    for cell in made:
        found = FakeBench(store.path / "log").resolve(cell)
        store.write(found.key, content(found))
    return store


def file_of(store: Store, cell: Cell) -> Path:
    return store.file(ResolvedCell(cell, cell.dataset, "data-" + cell.dataset, "weights").key)


@pytest.mark.filterwarnings("ignore:.*(cannot be read|moved to)")
@pytest.mark.parametrize("name", DAMAGES)
def test_a_bad_record_is_ignored_named_and_counted_and_computed_again(name, store, bench):
    damage, words = DAMAGES[name]
    made = cells(4)
    bad = file_of(fill(store, made), made[1])
    damage(bad)

    records, [unreadable] = store.survey()
    assert sorted(r["cell"]["dataset"] for r in records) == ["set0", "set2", "set3"]
    assert unreadable.path == bad and words in unreadable.reason and "\n" not in unreadable.reason
    with pytest.warns(UserWarning) as warned:
        assert len(latest_records({"own": store})) == 3
    [line] = [str(w.message) for w in warned]
    assert line.startswith(f"{bad} ") and words in line
    assert line.endswith(f"ignored (1 of 1 in {store.path} that cannot be read)")

    result = verify(sample=9, store=store, bench=bench)
    assert str(result) == "verified 3 of 3; 1 of 4 records cannot be read" and not result.ok
    assert os.path.lexists(bad)

    before = len(bench.computed())
    summary = run(made, store, bench, profile="laptop")
    assert [o.state for o in summary.outcomes] == ["present", "computed", "present", "present"]
    assert bench.computed()[before:] == ["set1"]
    assert store.survey()[1] == [] and mean(store.read(bad.stem), "psnr") == 30.0
    # Set aside means kept: only a link that leads nowhere has nothing to keep.
    kept = list((store.path / ".damaged").iterdir()) if (store.path / ".damaged").is_dir() else []
    assert len(kept) == (name != "a link to nothing")


@pytest.mark.filterwarnings("ignore:.*cannot be read")
def test_files_under_a_wrong_name_are_named_and_hide_nothing(store, bench):
    made = cells(2)
    good = file_of(fill(store, made), made[0])
    wrong = [
        store.path / good.name,  # without its folder
        store.path / ("00" if good.name[:2] != "00" else "01") / good.name,
        store.path / "backup" / good.name,
        good.with_name("notes.json"),
        good.with_name(good.stem[:-1] + ".json"),
        good.with_name(good.stem + " (copy).json"),
        good.with_name(good.stem.upper() + ".json"),
    ]
    for path in wrong:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(good.read_bytes())
    (store.path / "package.json").write_text("{}")  # none of ours, by name and place
    records, unreadable = store.survey()
    assert len(records) == 2 and {item.path for item in unreadable} == set(wrong)
    assert all("is not named as records are" in item.reason for item in unreadable)
    assert [o.state for o in run(made, store, bench, profile="laptop").outcomes] == ["present"] * 2


def test_a_folder_that_may_not_be_read_is_named(store, monkeypatch):
    made = cells(3)
    shut = file_of(fill(store, made), made[0]).parent
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != shut)
    assert [item.path for item in store.survey()[1]] == [shut]


def test_a_record_that_cannot_be_opened_is_set_aside(store, bench, monkeypatch):
    made = cells(2)
    bad, read = file_of(fill(store, made), made[0]), Path.read_text

    def refuse(path, *args, **options):
        if path == bad and refusing:
            raise PermissionError(13, "Permission denied")
        return read(path, *args, **options)

    refusing = [True]
    monkeypatch.setattr(Path, "read_text", refuse)
    [item] = store.survey()[1]
    assert str(item) == f"{bad} cannot be read: Permission denied"
    with pytest.warns(UserWarning, match="moved to"):
        summary = run(made, store, bench, profile="laptop")
    assert [o.state for o in summary.outcomes] == ["computed", "present"]
    refusing.clear()
    assert mean(store.read(bad.stem), "psnr") == 30.0


def test_the_bad_record_stays_where_it_is_until_the_new_one_is_complete(store, tmp_path):
    [cell] = cells(1)
    bad = file_of(fill(store, [cell]), cell)
    bad.write_text("{")
    with pytest.warns(UserWarning, match="set0 failed"):
        run([cell], store, FakeBench(tmp_path / "log", broken=("set0",)), profile="laptop")
    assert bad.read_text() == "{" and not (store.path / ".damaged").exists()


def test_one_record_that_cannot_be_computed_does_not_stop_verify(store, tmp_path):
    """Sound, but of something that this sqlib does not know: it differs, and the others are verified."""

    class Newer(FakeBench):
        def compute(self, resolved):
            if resolved.dataset == "set1":
                raise KeyError("a recipe of next year")
            return super().compute(resolved)

    result = verify(sample=9, store=fill(store, cells(3)), bench=Newer(tmp_path / "log"))
    assert str(result) == "verified 2 of 3 (1 differ)" and not result.ok
    assert result.differ == [("fake x4 Min-Max 4 bit on set1", "KeyError: 'a recipe of next year'")]


@pytest.fixture
def ruined(tmp_path):
    """Two sound records of a planned table and one of every damage."""
    made = plan("dfsq-table2", "laptop")[: 2 + len(DAMAGES)]
    store = fill(Store(tmp_path / "store").prepare(), made)
    damaged = [file_of(store, cell) for cell in made[2:]]
    for path, (damage, _) in zip(damaged, DAMAGES.values(), strict=True):
        damage(path)
    return store, damaged


def lines_naming(err: str, paths: list[Path]) -> list[int]:
    return [sum(str(path) in line for line in err.splitlines()) for path in paths]


def test_status_plan_and_verify_answer_for_all_others(ruined, capsys):
    store, damaged = ruined
    where = ["--store", str(store.path)]
    assert main(["status", "dfsq-table2", *where]) == 0
    captured = capsys.readouterr()
    assert f"records that cannot be read and are ignored: {len(damaged)}\n" in captured.out
    assert ", 2 in your store," in captured.out and "Traceback" not in captured.err
    assert lines_naming(captured.err, damaged) == [1] * len(damaged) == [1] * len(captured.err.splitlines())

    assert main(["status", "dfsq-table2", "--json", *where]) == 0
    state = json.loads(capsys.readouterr().out)
    assert [t["own"] for t in state["tables"]] == [2]
    assert {item["path"] for item in state["unreadable"]} == {str(path) for path in damaged}

    assert main(["plan", "dfsq-table2", "--cost", "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out)["dfsq-table2"]["cells"] == len(plan("dfsq-table2", "laptop"))

    # Nothing here has these weights, so nothing can be verified; but it is the records that fail first.
    assert main(["verify", "--sample", "1", "--json", *where]) == 1
    captured = capsys.readouterr()
    assert {item["path"] for item in json.loads(captured.out)["unreadable"]} == {str(p) for p in damaged}
    total = 2 + len(damaged)
    assert captured.err.endswith(f"error: {len(damaged)} of {total} records cannot be read\n")


def test_verify_of_a_store_with_four_of_five_destroyed_fails(tmp_path, capsys):
    store = tmp_path / "store"
    assert main(["reproduce", "dfsq-table2", "--profile", "smoke", "--store", str(store)]) == 0
    keys = Store(store).keys()
    files = [Store(store).file(key) for key in keys]
    for path in files[1:]:
        path.write_bytes(b"")
    capsys.readouterr()
    assert main(["verify", "--sample", "5", "--store", str(store)]) == 1
    captured = capsys.readouterr()
    gone = len(files) - 1
    assert captured.out == f"verified 1 of 1; {gone} of {len(files)} records cannot be read\n"
    assert captured.err.endswith(f"error: {gone} of {len(files)} records cannot be read\n")
    assert all(f"unreadable: {path} is damaged" in captured.err for path in files[1:])


def test_bad_packaged_records_are_treated_alike(ruined, tmp_path, monkeypatch, bench):
    store, damaged = ruined
    monkeypatch.setattr(layers, "packaged_store", lambda: store)
    with pytest.warns(UserWarning) as warned:
        state = status("laptop", table="dfsq-table2", store=tmp_path / "none")
    assert len(state["unreadable"]) == len(warned) == len(damaged)
    assert [(t["own"], t["packaged"]) for t in state["tables"]] == [(0, 2)]
    assert state["exists"] is False
    result = verify(sample=99, bench=bench)
    assert str(result) == f"verified 2 of 2; {len(damaged)} of {2 + len(damaged)} records cannot be read"


@pytest.mark.parametrize("command", [("status",), ("plan", "--cost"), ("verify", "--sample", "1")])
def test_reading_a_store_that_is_not_there_is_a_usage_error(command, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for folder, words in (("typo", "does not exist"), ("file", "is not a folder")):
        given = str(tmp_path / folder)
        assert main([*command, "--store", given]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and f"store {given!r} {words}" in captured.err
        assert captured.err.count("\n") == 1


def test_status_says_that_the_default_store_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SQLIB_STORE", str(tmp_path / "typo"))
    assert main(["status", "dfsq-table2"]) == 0
    assert capsys.readouterr().out.startswith(f"your store: {tmp_path / 'typo'} (no such folder yet)\n")
    (tmp_path / "typo").mkdir()
    assert main(["status", "dfsq-table2"]) == 0
    assert capsys.readouterr().out.startswith(f"your store: {tmp_path / 'typo'}\n")


def test_reproduce_does_not_write_into_a_folder_without_a_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "dfsq-table2", "--profile", "smoke", "--store", ""]) == 2
    assert "argument --store: got ''" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
