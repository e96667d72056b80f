from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from experiment_fakes import FakeBench, cells

from sqlib.errors import InputError
from sqlib.experiments.run.plan import shard
from sqlib.experiments.run.runner import WorkerError, run
from sqlib.experiments.store.layers import latest_records
from sqlib.experiments.store.working import Store

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from experiment_fakes import FakeBench, cells
from sqlib.experiments.run.runner import run
from sqlib.experiments.store.working import Store
folder = Path(sys.argv[2])
bench = FakeBench(folder / "log", seconds=float(sys.argv[4]))
summary = run(cells(int(sys.argv[3])), Store(folder / "store"), bench, profile="laptop")
print(summary)
"""


def start(folder: Path, n: int, seconds: float) -> subprocess.Popen[str]:
    fakes = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", SCRIPT, fakes, str(folder), str(n), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def test_computes_once_then_finds_everything(store, bench, all_free):
    first = run(cells(4), store, bench, profile="laptop")
    second = run(cells(4), store, bench, profile="laptop")
    assert [o.state for o in first.outcomes] == ["computed"] * 4
    assert [o.state for o in second.outcomes] == ["present"] * 4
    assert bench.computed() == ["set0", "set1", "set2", "set3"]
    assert str(second) == "4 cells: 0 computed, 4 already there"
    assert all_free(store)


def test_a_record_of_smoke_does_not_keep_a_profile_from_computing_what_is_shown(store, bench):
    assert len(run(cells(2), store, bench, profile="smoke").of("computed")) == 2
    assert latest_records({"own": store}) == {}
    assert len(run(cells(2), store, bench, profile="laptop").of("computed")) == 2
    assert latest_records({"own": store}).keys() == {cell.id for cell in cells(2)}
    for profile in ("smoke", "laptop", "full"):
        assert len(run(cells(2), store, bench, profile=profile).of("present")) == 2


def test_absent_inputs_are_skipped_and_failures_do_not_stop_the_rest(store, tmp_path):
    bench = FakeBench(tmp_path / "log", absent=("set1",), broken=("set2",))
    with pytest.warns(UserWarning, match="set2 failed: ValueError"):
        summary = run(cells(4), store, bench, profile="laptop")
    assert [o.state for o in summary.outcomes] == ["computed", "skipped", "failed", "computed"]
    assert summary.of("skipped")[0].note == "needs data: set1"
    assert summary.done == 2 and "1 not run, 1 failed" in str(summary)


def test_killed_run_resumes_and_computes_nothing_twice_but_the_cell_in_flight(tmp_path):
    store, log = Store(tmp_path / "store"), tmp_path / "log"
    runner = start(tmp_path, 6, 0.3)
    try:
        wait_until(lambda: len(store.keys()) == 2 and len(log.read_text().splitlines()) == 3)
        os.kill(runner.pid, signal.SIGKILL)
    finally:
        runner.wait()
    kept = store.keys()
    in_flight = FakeBench(log).computed()[-1]
    bench = FakeBench(log)
    summary = run(cells(6), store, bench, profile="laptop")
    assert summary.done == 6 and set(kept) <= set(store.keys())
    assert [o.state for o in summary.outcomes].count("present") == 2
    counts = Counter(bench.computed())
    assert counts == {**{f"set{i}": 1 for i in range(6)}, in_flight: 2}
    assert len(list(store.records())) == 6


def test_two_runners_share_the_work(tmp_path):
    runners = [start(tmp_path, 8, 0.15) for _ in range(2)]
    texts = [runner.communicate(timeout=60)[0] for runner in runners]
    bench = FakeBench(tmp_path / "log")
    assert [runner.returncode for runner in runners] == [0, 0]
    assert sorted(bench.computed()) == [f"set{i}" for i in range(8)]
    assert len(list(Store(tmp_path / "store").records())) == 8
    assert all(text.startswith("8 cells: ") and "busy" not in text for text in texts)
    # Both ends see every cell done, whoever did it.
    done = [sum(int(part.split()[0]) for part in text.split(": ")[1].split(", ")) for text in texts]
    assert done == [8, 8]


def test_a_cell_of_a_killed_runner_is_taken_over_by_the_waiting_one(tmp_path):
    log = tmp_path / "log"
    runner = start(tmp_path, 1, 60)
    try:
        wait_until(lambda: log.exists() and log.read_text())
        waiting = start(tmp_path, 1, 0)
        time.sleep(0.5)
        assert waiting.poll() is None  # it waits for the holder
        os.kill(runner.pid, signal.SIGKILL)
        assert waiting.communicate(timeout=30)[0] == "1 cells: 1 computed, 0 already there\n"
    finally:
        runner.kill()
        runner.wait()


def test_interrupt_leaves_a_consistent_store(store, tmp_path, all_free):
    class Interrupted(FakeBench):
        def compute(self, resolved):
            if resolved.dataset == "set2":
                raise KeyboardInterrupt
            return super().compute(resolved)

    bench = Interrupted(tmp_path / "log")
    with pytest.raises(KeyboardInterrupt):
        run(cells(4), store, bench, profile="laptop")
    assert len(list(store.records())) == 2
    assert all_free(store)
    again = run(cells(4), store, FakeBench(tmp_path / "log"), profile="laptop")
    assert [o.state for o in again.outcomes] == ["present", "present", "computed", "computed"]


def test_workers_compute_each_cell_once(store, bench):
    made = [cell for bits in ("8", "6", "4") for cell in cells(2, bits=bits)]
    summary = run(made, store, bench, profile="laptop", jobs=2)
    assert [o.state for o in summary.outcomes] == ["computed"] * 6
    assert [o.cell for o in summary.outcomes] == made
    assert len(bench.computed()) == 6 and len(list(store.records())) == 6


def test_stores_of_shards_copied_into_one_folder_are_one(store, bench, tmp_path):
    for index in (1, 2, 3):
        part = Store(tmp_path / f"part-{index}")
        run(shard(cells(7), index, 3), part, bench, profile="laptop")
        shutil.copytree(part.path, store.path, dirs_exist_ok=True)
    merged = run(cells(7), store, bench, profile="laptop")
    assert [o.state for o in merged.outcomes] == ["present"] * 7
    assert len(bench.computed()) == len(store.records()) == 7


def test_a_killed_worker_process_is_told(store, tmp_path):
    bench = FakeBench(tmp_path / "log", kills=("set2",))
    made = cells(3)
    with pytest.raises(WorkerError, match=r"one of 2 worker processes was killed.* run the same again"):
        run(made, store, bench, profile="laptop", jobs=2)
    summary = run(made, store, FakeBench(tmp_path / "plain"), profile="laptop")
    assert summary.done == 3


def test_jobs_must_be_positive(store, bench):
    with pytest.raises(InputError, match="jobs is 0"):
        run(cells(1), store, bench, profile="laptop", jobs=0)


def test_progress_lines_tell_score_and_time_left(store, bench, capsys):
    run(cells(2), store, bench, profile="laptop", progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert (
        lines[0].startswith("[1/2] fake x4 Min-Max 4 bit on set0 computed: 30.000 dB") and "left" in lines[0]
    )
    assert "left" not in lines[1]
