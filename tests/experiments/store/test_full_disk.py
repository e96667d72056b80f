"""A store that can no longer be written stops a run at its first lost cell; what was written is kept."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from experiment_fakes import FakeBench, cells

from sqlib.cli import main
from sqlib.errors import InputError, StoreError
from sqlib.experiments.run.runner import run
from sqlib.experiments.store.working import Store

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full, a disk that is always full")


def fill(store: Store, key: str) -> None:
    """Make the disk full for this record: what is written before its rename goes to /dev/full."""
    (store.path / ".tmp" / f"{key}.json").symlink_to(FULL)


def key_of(bench: FakeBench, cell) -> str:
    return bench.resolve(cell).key


@needs_full
def test_run_stops_at_the_first_lost_cell_and_resumes(store, bench, all_free):
    made = cells(5)
    fill(store, key_of(bench, made[2]))
    with pytest.raises(StoreError) as stopped:
        run(made, store, bench, profile="laptop")
    message = str(stopped.value)
    assert message.startswith("fake x4 Min-Max 4 bit on set2 is lost: ") and "No space left" in message
    assert str(store.file(key_of(bench, made[2]))) in message and "--store" in message
    assert bench.computed() == ["set0", "set1", "set2"]
    assert {r["cell"]["dataset"] for r in store.records()} == {"set0", "set1"}
    assert all_free(store) and list((store.path / ".tmp").iterdir()) == []
    # There is room again.
    summary = run(made, store, bench, profile="laptop")
    assert [o.state for o in summary.outcomes] == ["present", "present", "computed", "computed", "computed"]


@needs_full
def test_workers_stop_too_and_begin_no_other_cell(store, tmp_path):
    bench = FakeBench(tmp_path / "log", seconds=60, slow=("set1",))
    lost, slow, later = cells(1, bits="8"), cells(2, bits="6")[1:], cells(4, bits="4")[2:]
    fill(store, key_of(bench, lost[0]))
    start = time.monotonic()
    with pytest.raises(StoreError, match=r"8 bit on set0 is lost: .*No space left"):
        run([*lost, *slow, *later], store, bench, profile="laptop", jobs=2)
    assert time.monotonic() - start < 50  # not after the slow one
    assert set(bench.computed()) <= {"set0", "set1"} and store.keys() == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_every_reason_is_told_in_words(store, bench, monkeypatch, code):
    def refuse(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StoreError, match=f"set0 is lost.*{os.strerror(code)}"):
        run(cells(3), store, bench, profile="laptop")
    assert bench.computed() == ["set0"] and store.keys() == []
    assert list((store.path / ".tmp").iterdir()) == []


def test_a_claim_that_cannot_be_made_stops_before_anything_is_computed(store, bench):
    (store.path / ".locks" / f"{key_of(bench, cells(1)[0])}.lock").mkdir()
    with pytest.raises(StoreError, match=r"set0 is lost.*\.lock cannot be written: .*irectory"):
        run(cells(3), store, bench, profile="laptop")
    assert bench.computed() == []


def test_nothing_that_fails_later_hides_the_reason(store, bench, monkeypatch):
    """As on a disk that becomes read-only: the record fails, and what is half written cannot be removed."""

    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    # The probe of `prepare` could not be removed either.
    monkeypatch.setattr(Store, "prepare", lambda self: self)
    with pytest.raises(StoreError, match=r"set0 is lost.*Read-only"):
        run(cells(3), store, bench, profile="laptop")
    assert bench.computed() == ["set0"]


def test_a_cell_whose_own_input_cannot_be_read_does_not_stop_the_others(store, tmp_path):
    class Unreadable(FakeBench):
        def compute(self, resolved):
            if resolved.dataset == "set1":
                raise OSError(errno.EIO, "Input/output error")
            return super().compute(resolved)

    with pytest.warns(UserWarning, match="set1 failed: OSError"):
        summary = run(cells(3), store, Unreadable(tmp_path / "log"), profile="laptop")
    assert [o.state for o in summary.outcomes] == ["computed", "failed", "computed"]


@needs_full
def test_a_disk_that_is_full_from_the_start_is_found_before_the_first_cell(store, bench):
    (store.path / ".tmp" / f"probe-{os.getpid()}").symlink_to(FULL)
    with pytest.raises(InputError, match=r"cannot be written \(No space left.*--store"):
        run(cells(3), store, bench, profile="laptop")
    assert bench.computed() == [] and list((store.path / ".tmp").iterdir()) == []


@needs_full
@pytest.mark.parametrize("jobs", [1, 2])
def test_command_says_which_cell_and_where_and_exits_with_1(tmp_path, capfd, jobs):
    args = ["reproduce", "dfsq-table2", "--profile", "smoke", "--shard", "1/5"]
    assert main([*args, "--store", str(tmp_path / "first")]) == 0
    [key] = Store(tmp_path / "first").keys()
    capfd.readouterr()
    store = Store(tmp_path / "second").prepare()
    fill(store, key)
    assert main([*args, "--store", str(store.path), "--jobs", str(jobs)]) == 1
    captured = capfd.readouterr()
    assert captured.out == ""
    error = captured.err.splitlines()[-1]
    assert error.startswith("sqlib reproduce: error: edsr-small x4 FP on builtin[:2]@192 is lost: ")
    assert f"{store.file(key)} cannot be written: No space left on device" in error
    assert "Traceback" not in captured.err and store.keys() == []
