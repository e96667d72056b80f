"""The runner: cells in, records out; resumable, interruptible, shared between processes and machines."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sqlib.errors import InputError, SqlibError, StoreError
from sqlib.experiments.run.compute import NotAvailable
from sqlib.experiments.run.modules import imported, modules_of
from sqlib.experiments.run.plan import groups
from sqlib.experiments.run.progress import Progress
from sqlib.experiments.store.cells import Cell, ResolvedCell
from sqlib.experiments.store.metrics import METRICS
from sqlib.experiments.store.records import Record, mean
from sqlib.experiments.store.working import Store

if TYPE_CHECKING:
    from sqlib.experiments.run.cluster import Cluster

State = Literal["computed", "present", "busy", "skipped", "failed"]


class WorkerError(SqlibError, RuntimeError):
    """A worker process on this machine died."""


class Bench(Protocol):
    """What computes cells; :class:`sqlib.experiments.run.compute.Workbench` is the real one."""

    def resolve(self, cell: Cell) -> ResolvedCell: ...

    def compute(self, resolved: ResolvedCell) -> dict[str, Any]: ...


class Records(Protocol):
    """Where records go; :class:`sqlib.experiments.store.working.Store` is the usual one."""

    def usable(self, key: str, profile: str) -> Record | None: ...

    def claim(self, key: str, *, wait: bool = False) -> AbstractContextManager[bool]: ...

    def write(self, key: str, content: Mapping[str, Any]) -> Record: ...


@dataclass(frozen=True)
class Task:
    """Cells of one network, for one worker process.

    ``modules`` are those that the worker has to import first, ``wait`` as for `run_cell`.
    """

    cells: Sequence[Cell]
    profile: str
    modules: Mapping[str, str]
    wait: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one cell; ``note`` is its score, or why it has none, ``key`` that of its record."""

    cell: Cell
    state: State
    note: str = ""
    key: str = ""


@dataclass
class Summary:
    """Outcomes of a run, one per cell, in the planner's order."""

    outcomes: list[Outcome] = field(default_factory=list)

    def of(self, state: State) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.state == state]

    @property
    def done(self) -> int:
        """Cells that have a record now."""
        return len(self.of("computed")) + len(self.of("present"))

    def __str__(self) -> str:
        counts = [f"{len(self.of('computed'))} computed", f"{len(self.of('present'))} already there"]
        states: tuple[State, ...] = ("skipped", "failed", "busy")
        names = {"skipped": "not run", "failed": "failed", "busy": "held by another runner"}
        counts += [f"{len(self.of(state))} {names[state]}" for state in states if self.of(state)]
        return f"{len(self.outcomes)} cells: " + ", ".join(counts)


def run(
    cells: Sequence[Cell],
    store: Store,
    bench: Bench,
    *,
    profile: str,
    jobs: int = 1,
    cluster: Cluster | None = None,
    progress: bool = False,
) -> Summary:
    """Compute the cells that ``store`` does not hold.

    A cell is claimed before it is computed, so several runners on one store divide the work; a cell held by
    another runner is left for last and then waited for, and taken over if that runner died. Every record is
    on disk before the next cell starts: a killed run loses the cell in flight and nothing else. A cell that
    raises is reported as failed and does not stop the others; a record that cannot be written does.

    Parameters
    ----------
    cells : sequence of Cell
        In the planner's order.
    bench : Bench
        Computes cells. With ``jobs > 1`` or a cluster it is pickled to the workers.
    profile : str
        Name written into the records.
    jobs : int
        Worker processes (joblib's loky). Cells of one quantized network stay together.
    cluster : Cluster or None
        Of `sqlib.experiments.run.cluster.joined`: its workers compute, whatever ``jobs`` is.

    Raises
    ------
    InputError
        The store cannot be written from the start, or ``jobs < 1``.
    StoreError
        A record cannot be written (a full disk, for example): the others would be lost like it, so the run
        stops, worker processes included, and keeps what is written.
    WorkerError
        A worker process was killed, as the system does where memory is short.
    """
    if jobs < 1:
        raise InputError(f"jobs is {jobs}, expected 1 or more")
    store.prepare()
    summary = Summary()
    waiting: list[Cell] = []
    with Progress(len(cells), enabled=progress) as shown:

        def settle(outcome: Outcome) -> None:
            summary.outcomes.append(outcome)
            note = f": {outcome.note}" if outcome.note else ""
            shown.advance(f"{outcome.cell.label} {outcome.state}{note}", worked=outcome.state == "computed")

        for outcome in _outcomes(cells, store, bench, profile, jobs, cluster):
            if outcome.state == "busy":
                waiting.append(outcome.cell)
            else:
                settle(outcome)
        if waiting:
            for outcome in _outcomes(waiting, store, bench, profile, jobs, cluster, wait=True):
                settle(outcome)
    position = {cell: number for number, cell in enumerate(cells)}
    summary.outcomes.sort(key=lambda outcome: position[outcome.cell])
    return summary


def _outcomes(
    cells: Sequence[Cell],
    store: Store,
    bench: Bench,
    profile: str,
    jobs: int,
    cluster: Cluster | None,
    *,
    wait: bool = False,
) -> Iterator[Outcome]:
    if cluster is None and jobs == 1:
        for cell in cells:
            yield run_cell(cell, store, bench, profile, wait=wait)
        return
    from joblib import Parallel, delayed

    tasks = [Task(group, profile, modules_of(group), wait) for group in groups(cells)]
    if cluster is None:
        # One group a worker and none waiting in line: where a record cannot be written, no other is begun.
        options: Mapping[str, Any] = {"n_jobs": jobs, "pre_dispatch": "n_jobs", "return_as": "generator"}
        calls = [delayed(run_group)(task, store, bench) for task in tasks]
    else:
        options = cluster.options
        calls = [delayed(cluster.compute)(cluster.sent(task), bench) for task in tasks]
    try:
        for results in Parallel(batch_size=1, **options)(calls):
            yield from results if cluster is None else cluster.received(results)
    except BrokenExecutor as error:
        raise WorkerError(
            f"one of {jobs} worker processes was killed, for want of memory perhaps. What was written is "
            "kept: run the same again, with fewer --jobs"
        ) from error


def run_group(task: Task, store: Records, bench: Bench) -> list[Outcome]:
    """What a worker process does: one task."""
    try:
        imported(task.modules)
    except InputError as error:
        return [Outcome(cell, "failed", str(error)) for cell in task.cells]
    return [run_cell(cell, store, bench, task.profile, wait=task.wait) for cell in task.cells]


def run_cell(cell: Cell, store: Records, bench: Bench, profile: str, *, wait: bool = False) -> Outcome:
    """Compute one cell unless its record is there, its inputs are missing or another runner holds it."""
    try:
        resolved = bench.resolve(cell)
        key = resolved.key
        if store.usable(key, profile) is not None:
            return Outcome(cell, "present", key=key)
        with store.claim(key, wait=wait) as mine:
            if not mine:
                return Outcome(cell, "busy", "another runner holds it")
            # The runner that held the claim a moment ago may have finished it.
            if store.usable(key, profile) is not None:
                return Outcome(cell, "present", key=key)
            record = store.write(key, {**bench.compute(resolved), "profile": profile})
    except NotAvailable as error:
        return Outcome(cell, "skipped", str(error))
    except StoreError as error:
        raise StoreError(
            f"{cell.label} is lost: {error}. Stopped; what was written is kept. Make room, or give another "
            "folder with --store or $SQLIB_STORE, and run the same again"
        ) from error
    except Exception as error:
        # One bad cell (an image too small, no memory) must not cost the others; the summary and the exit
        # status report it.
        warnings.warn(f"{cell.label} failed: {type(error).__name__}: {error}", stacklevel=2)
        return Outcome(cell, "failed", f"{type(error).__name__}: {error}")
    return Outcome(cell, "computed", f"{_score(record)} in {float(record['seconds']):.1f} s", key)


def _score(record: Record) -> str:
    """The first metric of a record, for people."""
    metric = METRICS[next(iter(record["images"][0]["metrics"]))]
    return f"{mean(record, metric.name):.{metric.decimals}f} {metric.unit}".strip()
