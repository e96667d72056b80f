"""Reproduce a table: plan it, run what is missing, into a store of one's own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from sqlib.errors import InputError
from sqlib.experiments.run import plan as planning
from sqlib.experiments.run import profiles
from sqlib.experiments.run.cluster import joined
from sqlib.experiments.run.compute import Workbench
from sqlib.experiments.run.runner import Summary, run
from sqlib.experiments.store import layers
from sqlib.experiments.store.working import Store


@dataclass
class Reproduction:
    """Outcome of :func:`reproduce`: what became of each cell, and the store that holds the records."""

    table: str
    profile: str
    summary: Summary
    store: Store
    # Keeps a scratch store alive as long as its reproduction is.
    _scratch: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)


def reproduce(
    table: str,
    *,
    profile: str = "laptop",
    store: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    data_dir: str | None = None,
    seed: int = 0,
    jobs: int = 1,
    dask: str | None = None,
    shard: str | None = None,
    only: Sequence[str] = (),
    progress: bool = False,
) -> Reproduction:
    """Compute the cells of ``table`` that the store does not hold yet.

    The records that ship with sqlib never count as done: a reproduction computes.

    Parameters
    ----------
    table, profile : str
        Names, such as ``"dfsq-table2"`` and ``"laptop"``.
    store : str, path-like or None
        Folder of records; default ``$SQLIB_STORE``, else the user's data folder. The smoke profile uses a
        temporary folder instead, unless one is named here.
    device : str
        Where networks run, such as ``"cpu"`` or ``"cuda"``.
    data_dir : str or None
        Folder of the datasets; default as in :func:`sqlib.datasets.load`.
    seed : int
        Of every random draw; part of what a cell is.
    jobs : int
        Worker processes.
    dask : str or None
        Address of a Dask scheduler, such as ``"tcp://10.0.0.1:8786"``: its workers compute instead. Their
        data and weights are looked for on their machines; ``device`` and ``data_dir`` are theirs.
    shard : str or None
        ``"i/n"``: only every n-th cell from the i-th on, for n machines without a scheduler.
    only : sequence of str
        Texts, such as ``["DFSQ", "4 bit", "Set5"]``: the cells whose line in the plan holds each of them, and
        no others.
    progress : bool
        Show a bar on standard error.

    Raises
    ------
    InputError
        Unknown table or profile, bad shard, ``only`` that fits no cell, a store that cannot be written, that
        is the packaged one, or whose records have the form of an older sqlib; ``dask`` together with ``jobs``
        or ``shard``.
    sqlib.experiments.run.cluster.ClusterError
        No scheduler answers, no worker comes, or the cluster is lost on the way.
    """
    if dask is not None and (jobs != 1 or shard is not None):
        raise InputError("dask with jobs or shard: the scheduler divides the work; give one of the three")
    cells = planning.only(planning.plan(table, profile, seed=seed), only)
    if shard is not None:
        cells = planning.shard(cells, *planning.parse_shard(shard))
    scratch = None
    if store is not None:
        target = Store(store)
    elif profiles.profile(profile).scratch:
        scratch = tempfile.TemporaryDirectory(prefix=f"sqlib-{profile}-")
        target = Store(scratch.name)
    else:
        target = Store(layers.default_store())
    if target.path.resolve() == layers.packaged_store().path.resolve():
        raise InputError(
            f"{target.path} holds packaged records and cannot be written to cell by cell; give another "
            "folder and then run: python -m sqlib package-records FOLDER"
        )
    target.check_current()
    bench = Workbench(device=device, data_dir=data_dir, artifacts=target.artifacts)
    with nullcontext() if dask is None else joined(dask, target) as cluster:
        summary = run(cells, target, bench, profile=profile, jobs=jobs, cluster=cluster, progress=progress)
    return Reproduction(table, profile, summary, target, scratch)
