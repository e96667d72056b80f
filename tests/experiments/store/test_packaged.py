"""The packaged records: all there, what they are called, and one damaged line costs nobody else."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from experiment_fakes import cells, content

from sqlib.cli import main
from sqlib.errors import DataError, InputError
from sqlib.experiments import papers
from sqlib.experiments.run.packaging import package_records
from sqlib.experiments.run.plan import plan
from sqlib.experiments.store.cells import Cell, ResolvedCell, canonical_json, distinct, sha256
from sqlib.experiments.store.layers import packaged_store, shown_records
from sqlib.experiments.store.packaged import PackagedStore, package
from sqlib.experiments.store.records import seal
from sqlib.experiments.store.working import Store

CROPS = {"sha256": "c", "batch": 16, "crops": [["a", 1, 2], ["b", 3, 4]]}


def made(n=3, **changed):
    """Records as a run leaves them."""
    found = [ResolvedCell(cell, cell.dataset, "x", "w") for cell in cells(n, **changed)]
    return [{**content(item), "key": item.key} for item in found]


def lines(path):
    return path.read_text().splitlines()


def test_what_is_taken_out_is_what_was_put_in(tmp_path):
    records = made()
    records[0]["calibration"] = records[1]["calibration"] = CROPS
    records[2]["images"] = [
        {"name": name, "metrics": {"psnr": 1.0 / 3.0, "ssim": "nan"}} for name in ("a", "ä")
    ]
    package(tmp_path, {"one": records[:2], "two": records[2:]})
    found, unreadable = PackagedStore(tmp_path).survey()
    assert unreadable == [] and found == sorted(records, key=lambda record: record["key"])
    assert [len(lines(tmp_path / f"{name}.jsonl")) for name in ("one", "two")] == [2, 1]
    # What they share stands once.
    assert len(lines(tmp_path / "calibrations.jsonl")) == 1 and len(lines(tmp_path / "images.jsonl")) == 2


def test_the_order_of_records_does_not_change_a_byte(tmp_path):
    records = made(5)
    package(tmp_path / "a", {"one": records})
    package(tmp_path / "b", {"one": records[::-1]})
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 3
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def resealed(change):
    def damage(text):
        record = json.loads(text)
        change(record)
        return canonical_json(seal({k: v for k, v in record.items() if k not in ("checksum", "format")}))

    return damage


DAMAGES = {
    "cut": (lambda text: text[:-9], "not complete JSON"),
    "altered": (lambda text: text.replace("30.0", "31.0"), "does not fit its checksum"),
    "empty": (lambda text: "", "not complete JSON"),
    "of an unknown metric": (
        resealed(lambda r: r["images"].update(lpips=[0.1])),
        "unknown metric 'lpips', expected psnr, ssim",
    ),
    "with a score too many": (
        resealed(lambda r: r["images"].update(psnr=[1.0, 2.0])),
        "one score for every image",
    ),
    "of nobody's images": (resealed(lambda r: r.update(names="0")), "'0' is not in images.jsonl"),
    "of nobody's crops": (
        resealed(lambda r: r.update(calibration="0")),
        "is not in images.jsonl or calibrations",
    ),
    "without a cell": (resealed(lambda r: r.pop("cell")), "'cell' is missing"),
    "of a newer form": (
        lambda text: canonical_json(
            {**json.loads(resealed(lambda r: None)(text)), "format": 3, "checksum": newer(text)}
        ),
        "has format 3, this sqlib reads 2 (a newer sqlib wrote it: update)",
    ),
}


def newer(text):
    return sha256({**{k: v for k, v in json.loads(text).items() if k != "checksum"}, "format": 3})


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_line_is_named_and_the_others_are_read(tmp_path, name):
    damage, words = DAMAGES[name]
    package(tmp_path, {"one": made(3)})
    file = tmp_path / "one.jsonl"
    before = lines(file)
    file.write_text("\n".join([before[0], damage(before[1]), before[2]]) + "\n")
    store = PackagedStore(tmp_path)
    records, [unreadable] = store.survey()
    keys = sorted(record["key"] for record in made(3))
    assert [record["key"] for record in records] == [keys[0], keys[2]]
    assert unreadable.path == file and "line 2" in unreadable.reason and words in unreadable.reason
    with pytest.warns(UserWarning, match=r"line 2 .*ignored \(1 of 1 in"):
        assert len(store.records()) == 2
    with pytest.raises(InputError, match="1 records cannot be read"):
        package_records([], tmp_path)


def test_a_damaged_shared_line_takes_those_that_need_it(tmp_path):
    records = made(2)
    records[0]["calibration"] = CROPS
    package(tmp_path, {"one": records})
    (tmp_path / "calibrations.jsonl").write_text("{\n")
    found, unreadable = PackagedStore(tmp_path).survey()
    assert [record["key"] for record in found] == [records[1]["key"]] and len(unreadable) == 2


def test_what_is_there_stays_when_the_disk_is_full(tmp_path, monkeypatch):
    package(tmp_path, {"one": made(3)})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        package(tmp_path, {"two": made(5)})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_whenever_it_is_stopped_every_record_can_be_read(tmp_path, monkeypatch):
    """Two generations without a common picture or crop, stopped before each renaming of a file."""
    old, new = made(3), made(3, model="carn")
    for records, name in ((old, "a"), (new, "b")):
        for record in records:
            record["calibration"] = {**CROPS, "sha256": name}
            record["images"] = [{"name": name, "metrics": {"psnr": 30.0, "ssim": 0.9}}]
    gone = made(1, model="edsr")
    keys = {record["key"] for record in (*old, *new, *gone)}
    rename = Path.replace
    for last in range(20):
        folder = tmp_path / str(last)
        package(folder, {"one": old, "gone": gone})
        moved = 0

        def replace(self, target, last=last):
            nonlocal moved
            if moved == last:
                raise KeyboardInterrupt
            moved += 1
            return rename(self, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", replace)
            try:
                package(folder, {"one": new, "two": old})
            except KeyboardInterrupt:
                found, unreadable = PackagedStore(folder).survey()
                assert unreadable == [] and {record["key"] for record in found} <= keys
                continue
        break
    assert last >= 4  # it was stopped
    assert [file.name for file in sorted(folder.iterdir())] == [
        "calibrations.jsonl",
        "images.jsonl",
        "one.jsonl",
        "two.jsonl",
    ]
    assert len(lines(folder / "images.jsonl")) == 2


def test_two_at_once_lose_nothing(tmp_path):
    """Each begins with what the other wrote."""
    stores = []
    chosen = [c for c in plan("2dquant-cnn", "laptop") if c.place.method == "DOBI"][:4]
    for number, cell in enumerate(chosen):
        item = ResolvedCell(cell, cell.dataset, "x", "w")
        store = Store(tmp_path / f"store-{number}").prepare()
        store.write(item.key, content(item))
        stores.append(store.path)
    with ThreadPoolExecutor(len(stores)) as pool:
        list(pool.map(lambda path: package_records([path], tmp_path / "into"), stores))
    assert len(PackagedStore(tmp_path / "into").records()) == len(stores)


def test_records_of_a_paper_that_is_not_registered_are_not_thrown_away(tmp_path):
    package(tmp_path, {"mine": made(1)})
    with pytest.raises(InputError, match="has records of mine, no paper that is known here"):
        package_records([], into=tmp_path)
    assert (tmp_path / "mine.jsonl").is_file()


@pytest.mark.parametrize("newest", [0, 1])
def test_of_one_cell_the_newest_record_stays_whichever_store_it_is_in(tmp_path, newest):
    cell = next(c for c in plan("2dquant-cnn", "laptop") if c.place.method == "DOBI")
    written = []
    for number in (0, 1):
        item = ResolvedCell(cell, cell.dataset, f"inputs {number}", "w")  # other images: another key
        store = Store(tmp_path / f"store-{number}").prepare()
        day = 2 if number == newest else 1
        store.write(item.key, content(item, when=f"2026-01-0{day}T00:00:00+00:00"))
        written.append(item.key)
    stores = [tmp_path / f"store-{number}" for number in (0, 1)]
    assert written[0] != written[1]
    assert sum(package_records(stores, tmp_path / "packaged").papers.values()) == 1
    [record] = PackagedStore(tmp_path / "packaged").records()
    assert record["key"] == written[newest]


def test_the_command_adds_records_and_says_what_it_leaves_out(tmp_path, capsys):
    store = Store(tmp_path / "store").prepare()
    planned = [c for c in plan("2dquant-cnn", "laptop") if c.place.method == "FP"]
    shared = [c for c in planned if c.id in {d.id for d in plan("dfsq-table2", "laptop")}]
    own = next(c for c in plan("2dquant-cnn", "laptop") if c.place.method == "DOBI")
    for cell in (*planned, own, *cells(1)):
        found = ResolvedCell(cell, cell.dataset, "x", "w")
        store.write(found.key, content(found))
    args = ["package-records", str(store.path), "--into", str(tmp_path / "packaged")]
    assert main(args) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"dfsq: {len(shared)} records",  # with the first paper that shows it
        f"2dquant: {len(planned) - len(shared) + 1} records",
        "refqsr: 0 records",
        "left out, no table shows it: fake x4 Min-Max 4 bit on set0",
    ]
    before = {path.name: path.read_bytes() for path in (tmp_path / "packaged").iterdir()}
    assert main(args) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "packaged").iterdir()} == before
    kept = shown_records(PackagedStore(tmp_path / "packaged"))
    assert kept[own.id]["origin"] == "own"
    assert len(PackagedStore(tmp_path / "packaged").records()) == len(planned) + 1


def test_every_packaged_record_can_be_read_and_is_under_its_own_key():
    records, unreadable = packaged_store().survey()
    assert unreadable == [] and len(records) >= 849
    for record in records:
        cell = Cell.from_dict(record["cell"])
        crops = None if record["calibration"] is None else record["calibration"]["sha256"]
        pairs = None if cell.training is None else record["training"]["sha256"]
        found = ResolvedCell(cell, record["dataset"], record["data"], record["weights_id"], crops, pairs)
        assert found.key == record["key"]
        if cell.recipe is not None:  # in the shortest form, so that a plan finds it
            assert distinct(cell.make_recipe()) == cell.recipe


def test_every_packaged_record_is_shown_by_a_table_of_its_paper():
    for name, paper in papers.papers().items():
        file = packaged_store().path / f"{name}.jsonl"
        cells_ = [json.loads(text)["cell"] for text in lines(file)] if file.exists() else []
        shown = {c.id for t in paper.tables for p in ("laptop", "full") for c in plan(t.name, p)}
        assert {Cell.from_dict(cell).id for cell in cells_} <= shown
        assert bool(cells_) == bool(paper.tables)
