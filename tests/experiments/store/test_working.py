from __future__ import annotations

import json

import pytest
from experiment_fakes import FakeBench, cells, content

from sqlib.errors import InputError, RecordError
from sqlib.experiments.run.runner import run
from sqlib.experiments.store.cells import ResolvedCell, sha256
from sqlib.experiments.store.layers import default_store, latest_records
from sqlib.experiments.store.records import FORMAT, OutdatedRecord, mean, seal, unseal
from sqlib.experiments.store.working import Store


def resolved(i=0, **changed):
    cell = cells(i + 1, **changed)[i]
    return ResolvedCell(cell, cell.dataset, "x", "w")


def test_write_then_read(store):
    cell = resolved()
    store.write(cell.key, content(cell))
    record = store.read(cell.key)
    assert mean(record, "psnr") == 30.0 and record["key"] == cell.key
    assert store.file(cell.key).parent.name == cell.key[:2]
    assert store.keys() == [cell.key] and cell.key in store
    with pytest.raises(KeyError):
        store.read("0" * 64)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: text.replace("30.0", "31.0", 1),
        lambda text: "\0" * len(text),
        lambda text: "[1, 2]",
        lambda text: "{}",
    ],
    ids=["truncated", "empty", "altered", "zeros", "list", "no checksum"],
)
def test_damaged_record_is_set_aside_and_computed_again(store, bench, damage):
    [cell] = cells(1)
    run([cell], store, bench, profile="laptop")
    [key] = store.keys()
    path = store.file(key)
    path.write_text(damage(path.read_text()))
    with pytest.raises(RecordError, match="damaged"):
        store.read(key)
    with pytest.warns(UserWarning, match="damaged"):
        assert list(store.records()) == []
    with pytest.warns(UserWarning, match="moved to"):
        summary = run([cell], store, bench, profile="laptop")
    assert [o.state for o in summary.outcomes] == ["computed"]
    assert mean(store.read(key), "psnr") == 30.0
    assert len(list((store.path / ".damaged").iterdir())) == 1
    assert bench.computed() == ["set0", "set0"]


def test_only_the_claimant_moves_a_damaged_record(store):
    cell = resolved()
    store.write(cell.key, content(cell))
    store.file(cell.key).write_text("{")
    assert store.usable(cell.key, "laptop") is None and cell.key in store


def test_a_record_under_another_key_is_damaged(store):
    first, second = resolved(0), resolved(1)
    store.write(first.key, content(first))
    store.file(second.key).parent.mkdir(exist_ok=True)
    store.file(second.key).write_bytes(store.file(first.key).read_bytes())
    with pytest.raises(RecordError, match="belongs to"):
        store.read(second.key)


@pytest.mark.parametrize(
    ("form", "words"), [(1, "migrate OLD NEW"), (99, "newer sqlib"), (None, "newer"), (True, "newer")]
)
def test_other_format_is_refused(form, words):
    record = seal({"key": "k"})
    assert unseal(json.dumps(record), source="here") == {"key": "k"}
    body = {"key": "k", "format": form}
    said = rf"format {form}, this sqlib reads {FORMAT} \(.*{words}"
    with pytest.raises(RecordError, match=said) as refused:
        unseal(json.dumps({**body, "checksum": sha256(body)}), source="here")
    assert isinstance(refused.value, OutdatedRecord) == (words == "migrate OLD NEW")


def test_unwritable_store_names_the_way_out(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"cannot be written.*--store"):
        run(cells(1), Store(tmp_path / "file" / "store"), FakeBench(tmp_path / "log"), profile="laptop")


def test_leftover_of_a_killed_writer_is_not_a_record(store):
    cell = resolved()
    (store.path / ".tmp" / f"{cell.key}.json").write_text('{"half": ')
    assert store.keys() == [] and cell.key not in store
    store.write(cell.key, content(cell))
    assert list((store.path / ".tmp").iterdir()) == []


def test_default_store_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SQLIB_STORE", str(tmp_path))
    assert default_store() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SQLIB_STORE", "~/records")
    assert default_store() == tmp_path / "records"
    monkeypatch.delenv("SQLIB_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_store().parts[-2:] == ("sqlib", "store")


def test_latest_records_layers_and_newest_and_no_smoke(tmp_path):
    own, packaged = Store(tmp_path / "own"), Store(tmp_path / "packaged")
    a, b, c = (resolved(i) for i in range(3))
    packaged.write(a.key, content(a, psnr=1.0))
    packaged.write(b.key, content(b, psnr=2.0))
    newer = ResolvedCell(b.planned, b.dataset, "x", "other weights")
    packaged.write(newer.key, content(newer, psnr=3.0, when="2026-02-01T00:00:00+00:00"))
    own.write(a.key, content(a, psnr=4.0))
    own.write(c.key, {**content(c), "profile": "smoke"})
    records = latest_records({"own": own, "packaged": packaged})
    assert mean(records[a.planned.id], "psnr") == 4.0 and records[a.planned.id]["origin"] == "own"
    assert mean(records[b.planned.id], "psnr") == 3.0 and records[b.planned.id]["origin"] == "packaged"
    assert c.planned.id not in records
