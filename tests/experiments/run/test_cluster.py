"""Dask: real scheduler and worker processes, some of them killed."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from distributed import Client, LocalCluster
from experiment_fakes import FakeBench, cells

from sqlib.cli import main
from sqlib.engine import registry
from sqlib.errors import InputError, StoreError
from sqlib.experiments import papers, plan, reproduce
from sqlib.experiments.run import cluster
from sqlib.experiments.run.cluster import ClusterError, joined
from sqlib.experiments.run.compute import Workbench
from sqlib.experiments.run.modules import modules_of
from sqlib.experiments.run.runner import run
from sqlib.experiments.store.cells import distinct
from sqlib.experiments.store.working import Store

FAKES, ROOT = Path(__file__).parents[1], Path(__file__).parents[3]
THREADS = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}


def wait_until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


class Dask:
    """A scheduler and its workers, as subprocesses in ``folder``; the workers have no data."""

    def __init__(self, folder: Path, processes: contextlib.ExitStack, allowed_failures: int = 3) -> None:
        self.folder, self.processes, self.allowed_failures = folder, processes, allowed_failures
        self.scheduler = self.start("scheduler", "--port", "0", "--scheduler-file", str(folder / "scheduler"))
        wait_until(lambda: (folder / "scheduler").is_file() and (folder / "scheduler").read_text())
        self.address = json.loads((folder / "scheduler").read_text())["address"]

    def start(self, kind: str, *args: str, path: Path = ROOT) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **THREADS, "PYTHONPATH": f"{path}{os.pathsep}{FAKES}"}
        environment["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = str(self.allowed_failures)
        for variable in ("SQLIB_DATA", "SQLIB_WEIGHTS", "SQLIB_CACHE"):
            environment[variable] = str(self.folder / "none")
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--host", "127.0.0.1"]
        log = self.processes.enter_context((self.folder / f"{kind}.log").open("a"))
        process = subprocess.Popen(
            [*command, "--no-dashboard", *args],
            cwd=self.folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
        self.processes.callback(process.wait)
        self.processes.callback(process.kill)
        return process

    def add_worker(self, name: str, path: Path = ROOT) -> subprocess.Popen[bytes]:
        """One process with one thread; what kills it kills it for good."""
        options = ["--nthreads", "1", "--name", name, "--no-nanny", "--local-directory", str(self.folder)]
        return self.start("worker", self.address, *options, path=path)


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    """A scheduler and two workers."""
    with contextlib.ExitStack() as processes:
        started = Dask(tmp_path_factory.mktemp("dask"), processes)
        for name in ("first", "second"):
            started.add_worker(name)
        yield started


@pytest.fixture
def scheduler(tmp_path):
    """One without workers, which gives up a task of which one has died."""
    with contextlib.ExitStack() as processes:
        yield Dask(tmp_path, processes, allowed_failures=0)


@pytest.fixture(params=[True, False], ids=["shared", "apart"])
def shared(request, monkeypatch):
    """Whether the workers see the store's folder."""
    if not request.param:
        hide_store(monkeypatch)
    return request.param


def hide_store(monkeypatch):
    """Workers on the same machine as a store, made to believe that they are not."""

    @contextlib.contextmanager
    def elsewhere(store):
        yield Path(f"/nowhere/.tmp/{store.path.parent.name}-{time.monotonic_ns()}")

    monkeypatch.setattr(cluster, "_marked", elsewhere)


def run_on(address, made, store, bench):
    with joined(address, store) as workers:
        return run(made, store, bench, profile="laptop", cluster=workers)


def settings(n_datasets, *bits):
    """Groups of cells, one per bit setting."""
    return [cell for each in bits for cell in cells(n_datasets, bits=each)]


def test_computes_once_then_finds_everything(dask, shared, store, bench, all_free):
    made = settings(3, "8", "6", "5", "4")
    first, second = (run_on(dask.address, made, store, bench) for _ in range(2))
    assert [o.state for o in first.outcomes] == ["computed"] * 12
    assert [o.cell for o in first.outcomes] == made
    assert [o.state for o in second.outcomes] == ["present"] * 12
    assert len(bench.computed()) == 12 and len(store.records()) == 12
    assert all_free(store) and not list((store.path / ".tmp").iterdir())


def starts(bench):
    """Process and cell of every computation that was begun, in order."""
    lines = bench.log.read_text().splitlines() if bench.log.exists() else []
    return [(int(line.split()[0]), line.split(maxsplit=1)[1]) for line in lines]


def test_a_killed_worker_costs_its_cell_in_flight(dask, shared, store, tmp_path):
    bench = FakeBench(tmp_path / "log", seconds=0.3)

    def kill_one():
        wait_until(lambda: len(store.keys()) >= 2 and len(starts(bench)) >= 4)
        pid, cell = starts(bench)[-1]
        os.kill(pid, signal.SIGKILL)
        return cell

    with ThreadPoolExecutor(1) as other:
        killing = other.submit(kill_one)
        summary = run_on(dask.address, settings(3, "8", "6", "5", "4"), store, bench)
    dask.add_worker("after")
    assert summary.done == 12 and len(store.records()) == 12
    counts = Counter(cell for _, cell in starts(bench))
    assert counts.pop(killing.result()) == 2
    assert set(counts.values()) == {1} and len(counts) == 11


def test_after_a_killed_scheduler_a_plain_run_computes_what_is_missing(
    scheduler, store, tmp_path, monkeypatch
):
    hide_store(monkeypatch)
    bench, made = FakeBench(tmp_path / "log", seconds=0.3), settings(5, "8", "4")
    scheduler.add_worker("only")

    def kill_scheduler():
        wait_until(lambda: len(store.keys()) >= 2)
        scheduler.scheduler.kill()

    with ThreadPoolExecutor(1) as other:
        killing = other.submit(kill_scheduler)
        with pytest.raises(ClusterError, match=r"scheduler at tcp://.* is lost; .* run the same again"):
            run_on(scheduler.address, made, store, bench)
    killing.result()
    kept = len(store.keys())
    plain = FakeBench(tmp_path / "plain")
    summary = run(made, store, plain, profile="laptop")
    assert 2 <= kept < 10 and summary.done == len(store.records()) == 10
    assert len(plain.computed()) == 10 - kept


def test_no_worker_one_without_sqlib_and_one_that_dies(scheduler, store, tmp_path, monkeypatch):
    bench = FakeBench(tmp_path / "log", kills=("set0",))
    monkeypatch.setattr(cluster, "ARRIVE", 0.3)
    with pytest.raises(ClusterError, match=f"no worker has come .* {scheduler.address} .* start one on each"):
        run_on(scheduler.address, cells(1), store, bench)
    monkeypatch.setattr(cluster, "ARRIVE", 120)
    (tmp_path / "other" / "sqlib").mkdir(parents=True)
    (tmp_path / "other" / "sqlib" / "__init__.py").write_text("raise ImportError('it is another')")
    other = scheduler.add_worker("other", tmp_path / "other")
    with pytest.raises(
        ClusterError, match=r"worker tcp://\S+ cannot import sqlib\S+ \(it is another\); install"
    ):
        run_on(scheduler.address, cells(1), store, bench)
    other.kill()
    with Client(scheduler.address, set_as_default=False) as client:
        wait_until(lambda: not client.ncores())
    scheduler.add_worker("mortal")
    (outcome,) = run_on(scheduler.address, cells(1), store, bench).outcomes
    assert outcome.state == "failed" and "1 in all, for want of memory perhaps" in outcome.note


def test_absent_inputs_and_failures_name_the_worker(dask, store, tmp_path):
    bench = FakeBench(tmp_path / "log", absent=("set1",), broken=("set2",))
    summary = run_on(dask.address, cells(4), store, bench)
    assert [o.state for o in summary.outcomes] == ["computed", "skipped", "failed", "computed"]
    host = re.escape(socket.gethostname())
    absent, broken = (o.note for o in summary.outcomes[1:3])
    assert re.fullmatch(rf"worker \w+ on {host} needs data: set1 \(give --data-dir .*SQLIB_DATA.*\)", absent)
    assert re.fullmatch(rf"worker \w+ on {host}: ValueError: this one cannot be computed", broken)


def test_of_the_threads_of_a_worker_one_computes(store, tmp_path):
    class Bench(FakeBench):
        def compute(self, resolved):
            return {**super().compute(resolved), "threads": torch.get_num_threads()}

    bench = Bench(tmp_path / "log", seconds=0.02)
    local = LocalCluster(n_workers=1, threads_per_worker=3, processes=False, dashboard_address=":0")
    with local:  # in this process
        summary = run_on(local.scheduler_address, settings(1, "8", "6", "5", "4"), store, bench)
    assert [o.state for o in summary.outcomes] == ["computed"] * 4
    assert {record["threads"] for record in store.records()} == {3}


def test_a_record_that_cannot_be_written_stops_the_run(dask, store, bench, monkeypatch):
    hide_store(monkeypatch)

    def full(key, content):
        raise StoreError(f"{store.file(key)} cannot be written: no space left")

    monkeypatch.setattr(store, "write", full)
    with pytest.raises(StoreError, match="no space left"):
        run_on(dask.address, cells(2), store, bench)


@pytest.fixture
def one_thread():
    """Torch in this process as in a worker."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_records_are_those_of_a_plain_run(dask, tmp_path, capsys, one_thread, change_table):
    methods = tuple(m for m in papers.table("dfsq-table2").methods if m.label in ("FP", "MinMax"))
    change_table("dfsq-table2", methods=methods)
    command = ["reproduce", "dfsq-table2", "--profile", "smoke", "--store", str(tmp_path / "store")]
    assert main([*command, "--dask", dask.address]) == 0
    assert "2 cells: 2 computed, 0 already there" in capsys.readouterr().out
    plain = reproduce("dfsq-table2", profile="smoke")
    times = ("seconds", "seconds_preparing", "time")
    found, expected = (
        [{k: v for k, v in record.items() if k not in times} for record in store.records()]
        for store in (Store(tmp_path / "store"), plain.store)
    )
    assert found == expected and len(found) == 2


def test_a_worker_without_the_data_says_which_and_what_to_do(dask, store):
    made = [cell for cell in plan("dfsq-table2", "laptop") if cell.recipe is None]
    made = [next(cell for cell in made if cell.model == model) for model in ("edsr-small", "carn-m")]
    summary = run_on(dask.address, made, store, Workbench())
    data, weights = (o.note for o in summary.outcomes)
    assert [o.state for o in summary.outcomes] == ["skipped"] * 2
    assert re.match(r"worker (first|second|after) on \S+ needs data: dataset 'set5' not found in ", data)
    assert str(dask.folder / "none") in data and "set SQLIB_DATA to a folder" in data
    assert re.match(r"worker (first|second|after) on \S+ needs weights carn_m.pth .*SQLIB_WEIGHTS", weights)


RECIPE = """
from dataclasses import dataclass
from sqlib.recipes import MinMax, register

@register("{name}")
@dataclass(frozen=True)
class {name}(MinMax):
    pass
"""


@pytest.fixture
def beside(tmp_path, monkeypatch, request):
    """Two cells of a recipe whose module is where this process alone looks, and the module's path."""
    name = f"Beside{abs(hash(request.node.name))}"  # workers keep what they have imported
    path = tmp_path / "recipes" / f"{name.lower()}.py"
    path.parent.mkdir()
    path.write_text(RECIPE.format(name=name))
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry.known()))
    recipe = distinct(getattr(importlib.import_module(path.stem), name)(bits=4))
    yield [cell for bits in ("4", "8") for cell in cells(1, bits=bits, recipe=recipe)], path
    del sys.modules[path.stem]


@pytest.mark.parametrize("where", ["dask", "loky"])
def test_workers_import_what_registered_a_recipe(where, beside, request, store, tmp_path):
    made, path = beside
    assert modules_of(made) == {path.stem: str(path.parent)}
    bench = FakeBench(tmp_path / "log", recipes=True)
    if where == "dask":
        summary = run_on(request.getfixturevalue("dask").address, made, store, bench)
    else:
        summary = run(made, store, bench, profile="laptop", jobs=2)
    assert [o.note for o in summary.outcomes if o.state != "computed"] == []
    assert {record["cell"]["recipe"]["name"] for record in store.records()} == {made[0].recipe["name"]}


def test_a_module_that_a_worker_cannot_import_is_named(dask, beside, store, bench):
    made, path = beside
    path.write_text("raise RuntimeError('not here')")
    summary = run_on(dask.address, made[:1], store, bench)
    assert summary.outcomes[0].state == "failed"
    note = rf"worker \w+ on \S+: the module '{path.stem}', .* cannot be imported .*\(RuntimeError: not here\)"
    assert re.match(note + "; install it there, or put its folder in PYTHONPATH", summary.outcomes[0].note)


def test_modules_of_inner_recipes_and_networks(beside):
    cell, path = beside[0][0], beside[1]
    outer = replace(cell, recipe={"name": "refqsr", "version": 1, "base": cell.recipe})
    assert modules_of([outer]) == {path.stem: str(path.parent)}
    assert modules_of([replace(cell, recipe=None), replace(cell, model="edsr-small", recipe=None)]) == {}


@pytest.fixture
def silent():
    """The address of something that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "127.0.0.1:9", "nonsense", "zzz://a:1", "silent"])
def test_a_dead_address_is_one_line(address, request, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT", 0.5)
    address = request.getfixturevalue("silent") if address == "silent" else address
    start = time.monotonic()
    status = main(["reproduce", "dfsq-table2", "--dask", address, "--store", str(tmp_path / "store")])
    captured = capsys.readouterr()
    assert status == 1 and captured.out == "" and captured.err.count("\n") == 1
    assert f"error: no Dask scheduler answers at '{address}'" in captured.err
    assert "the address that 'dask scheduler' prints" in captured.err
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("other", [("--jobs", "1"), ("--jobs", "2"), ("--shard", "1/2")])
def test_dask_with_jobs_or_shard_is_a_usage_error(other, capsys):
    assert main(["reproduce", "dfsq-table2", "--dask", "tcp://127.0.0.1:9", *other]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "--dask with --jobs or --shard" in err and "give one" in err


@pytest.mark.parametrize("other", [{"jobs": 2}, {"shard": "1/2"}])
def test_dask_with_jobs_or_shard_is_an_input_error(other):
    with pytest.raises(InputError, match="dask with jobs or shard"):
        reproduce("dfsq-table2", dask="tcp://127.0.0.1:9", **other)


def test_help_shows_the_three_ways(capsys):
    assert main(["reproduce", "--help"]) == 0
    text = capsys.readouterr().out
    for words in ("--jobs 2", "--dask tcp://10.0.0.1:8786", "dask-jobqueue", "--shard 3/8"):
        assert words in text
