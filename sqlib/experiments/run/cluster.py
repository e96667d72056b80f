"""Cells on the workers of an existing Dask cluster, behind joblib's Dask backend.

A worker that sees the store's folder works in it as every runner does. One that does not has an `Outbox` in
its place: each record goes to the parent as soon as it is computed, and the parent writes it. Either way a
worker, or the scheduler, that dies takes the cell in flight along and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlib.errors import SqlibError
from sqlib.experiments.run.runner import Bench, Outcome, Task, run_group
from sqlib.experiments.store.cells import Cell, canonical_json
from sqlib.experiments.store.records import Record, seal, serves, unseal
from sqlib.experiments.store.working import Store

if TYPE_CHECKING:
    from distributed import Client

CONNECT = 10
"""Seconds in which a scheduler has to answer."""
ARRIVE = 30
"""Seconds in which the first worker has to be there."""

_computing = threading.Lock()  # a worker process has one workbench: of its threads one computes


class ClusterError(SqlibError, RuntimeError):
    """A Dask cluster that does not answer, has no workers, or is lost; the message says what to do."""


@dataclass(frozen=True)
class Sent:
    """A task, the file by which a worker knows the store's folder, and keys that the store may ask for."""

    task: Task
    mark: Path
    held: list[str]


class Cluster:
    """What `run` needs of a cluster: :func:`joined` makes it."""

    #: Of `joblib.Parallel`. All is handed over at once: the scheduler sees who is free and who comes later.
    options: Mapping[str, Any] = {"n_jobs": -1, "pre_dispatch": "all", "return_as": "generator_unordered"}

    def __init__(self, store: Store, mark: Path) -> None:
        self._store = store
        self._mark = mark
        self._held: dict[str, list[Record]] = {}
        for record in store.survey()[0]:
            self._held.setdefault(Cell.from_dict(record["cell"]).id, []).append(record)

    @staticmethod
    def compute(sent: Sent, bench: Bench) -> list[tuple[Outcome, str | None]]:
        """On a worker: the outcomes of a task, each with its record where that was sent to the parent."""
        import torch
        from distributed import get_worker

        worker = get_worker()
        outbox = Outbox(sent.mark.name, sent.held)
        store = Store(sent.mark.parents[1]) if sent.mark.is_file() else outbox
        with _computing:
            torch.set_num_threads(max(torch.get_num_threads(), worker.state.nthreads))
            outcomes = run_group(sent.task, store, bench)
        return [(_named(each, worker), outbox.sent.get(each.key)) for each in outcomes]

    def sent(self, task: Task) -> Sent:
        """A task for a worker that may or may not see the store."""
        held = (record for cell in task.cells for record in self._held.get(cell.id, []))
        return Sent(task, self._mark, [record["key"] for record in held if serves(record, task.profile)])

    def keep(self, text: str) -> None:
        """Write a record that a worker sent, unless it is there."""
        record = unseal(text, source="from a worker")
        key = record["key"]
        if self._store.usable(key, record["profile"]) is None:
            with self._store.claim(key, wait=True):
                if self._store.usable(key, record["profile"]) is None:
                    self._store.write(key, record)

    def received(self, results: Sequence[tuple[Outcome, str | None]]) -> list[Outcome]:
        """The outcomes of a group, with its records written."""
        for _, text in results:
            if text is not None:
                self.keep(text)
        return [outcome for outcome, _ in results]


@contextlib.contextmanager
def joined(address: str, store: Store) -> Iterator[Cluster]:
    """Connect to the scheduler at ``address``; while the block runs, joblib's calls go to its workers.

    Raises
    ------
    ClusterError
        Dask is not installed, no scheduler answers, no worker comes, or the cluster is lost on the way.
    """
    try:
        from distributed.client import FutureCancelledError
        from joblib import parallel_config
    except ImportError as error:
        raise ClusterError("Dask is not installed: pip install distributed") from error
    store.prepare()
    with _marked(store) as mark, ThreadPoolExecutor(1) as writer, _connected(address, writer) as client:
        cluster = Cluster(store, mark)
        # Not in the client's thread, which must not wait. What fails here fails again in `received`.
        client.subscribe_topic(mark.name, lambda event: writer.submit(cluster.keep, event[1]))
        _greet_workers(client, address)
        try:
            with parallel_config(_backend(client)):
                yield cluster
        except FutureCancelledError as error:
            raise ClusterError(
                f"the Dask scheduler at {address} is lost; what was finished is kept: run the same again, "
                "with or without --dask"
            ) from error


def _backend(client: Client) -> Any:
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        """joblib's own runs a single job in this process, and waits for ever for one that Dask gave up."""

        def effective_n_jobs(self, n_jobs: int) -> int:
            return 2

        def submit(self, func: Any, callback: Any = None) -> Any:
            ((_, (sent, _), _),) = func.items
            return super().submit(func, lambda result: callback(_settled(result, sent.task)))

        async def _collect(self) -> None:
            while self._continue:
                async for future, result in self.waiting_futures:
                    self._results.pop(future).set_result(result)
                    self._callbacks.pop(future)(result)
                await asyncio.sleep(0.01)

    return Backend(client=client)


def _settled(result: Any, task: Task) -> Any:
    """The result of a task; where Dask gave the task up (kind, error, trace), its cells failed."""
    from distributed import KilledWorker

    if not isinstance(result, tuple):
        return result
    error = result[1]
    note = f"Dask gave it up: {type(error).__name__}: {error}"
    if isinstance(error, KilledWorker):
        n = error.allowed_failures + 1
        note = f"workers died of it or beside it, {n} in all, for want of memory perhaps: their logs say why"
    return [[(Outcome(cell, "failed", note), None) for cell in task.cells]]


@contextlib.contextmanager
def _connected(address: str, helper: ThreadPoolExecutor) -> Iterator[Client]:
    from distributed import Client

    log = logging.getLogger("distributed.client")
    level = log.level
    log.setLevel(logging.CRITICAL)  # a scheduler that is lost is our error, in one line
    try:
        try:
            # In a thread: this one may have an event loop already, that of a notebook.
            helper.submit(lambda: asyncio.run(_greet(address))).result()
            client = Client(address, timeout=CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0] or "something takes the connection and is silent"
            raise ClusterError(
                f"no Dask scheduler answers at {address!r} ({reason}); "
                "give the address that 'dask scheduler' prints, such as tcp://10.0.0.1:8786"
            ) from error
        with client:
            yield client
    finally:
        log.setLevel(level)


async def _greet(address: str) -> None:
    """Ask for the scheduler: `Client` would wait for ever where something else listens."""
    from distributed import Security
    from distributed.comm.core import connect

    options = Security().get_connection_args("client")
    async with asyncio.timeout(CONNECT + 1):  # `connect` gives a reason within its own
        comm = await connect(address, timeout=CONNECT, **options)
        await comm.write({"op": "identity", "reply": True})
        kind = (await comm.read()).get("type")
        await comm.close()
    if kind != "Scheduler":
        raise ValueError(f"a Dask {str(kind).casefold()} does")


def _greet_workers(client: Client, address: str) -> None:
    """Wait for the first, and see that those that are there can read a task: one that cannot ends."""
    try:
        client.wait_for_workers(1, timeout=ARRIVE)
    except TimeoutError as error:
        raise ClusterError(
            f"no worker has come to the Dask scheduler at {address} within {ARRIVE} s; start one on each "
            f"machine: dask worker {address} --nthreads 1"
        ) from error
    for worker, found in client.run(import_module, __name__, on_error="return").items():
        if isinstance(found, ImportError):
            raise ClusterError(
                f"worker {worker} cannot import {__name__} ({found}); install the same sqlib there as here"
            )


@contextlib.contextmanager
def _marked(store: Store) -> Iterator[Path]:
    """A file by which a worker knows the store's folder; its name is that of this run."""
    mark = store.path.resolve() / ".tmp" / f"dask-{uuid4().hex}"
    mark.touch()
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


class Outbox:
    """What a worker that does not see the store's folder has in its place."""

    def __init__(self, topic: str, held: Sequence[str]) -> None:
        self._topic = topic
        self._held = held
        self.sent: dict[str, str] = {}

    def usable(self, key: str, profile: str) -> Record | None:
        """Something if the parent has the record of ``key``, or a worker has sent it and then died."""
        from distributed import get_client

        if key in self._held:
            return {"key": key}
        for _, text in get_client().get_events(self._topic):
            record = unseal(text, source="from a worker")
            if record["key"] == key:
                self.sent[key] = text
                return record
        return None

    @contextlib.contextmanager
    def claim(self, key: str, *, wait: bool = False) -> Iterator[bool]:
        """Always ours: the scheduler hands out every cell once."""
        yield True

    def write(self, key: str, content: Mapping[str, Any]) -> Record:
        """Send a record to the parent."""
        from distributed import get_worker

        record = seal({**content, "key": key})
        self.sent[key] = canonical_json(record)
        get_worker().log_event(self._topic, self.sent[key])
        return record


def _named(outcome: Outcome, worker: Any) -> Outcome:
    """What went wrong, with where."""
    place = f"worker {worker.name} on {socket.gethostname()}"
    if outcome.state == "skipped":
        advice = "give --data-dir a folder that it sees, or start it with SQLIB_DATA and SQLIB_WEIGHTS set"
        return replace(outcome, note=f"{place} {outcome.note} ({advice})")
    return replace(outcome, note=f"{place}: {outcome.note}") if outcome.state == "failed" else outcome
