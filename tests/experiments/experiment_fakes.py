"""A bench that needs no network and no data: made cells with known answers, slow where a test wants that."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from sqlib.experiments.run.compute import NotAvailable
from sqlib.experiments.store.cells import Cell, Place, ResolvedCell


def cells(n: int = 4, **changed: Any) -> list[Cell]:
    options: dict[str, Any] = {
        "model": "fake",
        "scale": 4,
        "weights": "pretrained",
        "bits": "4",
        "protocol": "p",
        "recipe": {"name": "minmax", "version": 1},
        **changed,
    }
    options.setdefault("place", Place("dfsq", "dfsq-table2", "MinMax", options["bits"]))
    return [Cell(dataset=f"set{i}", **options) for i in range(n)]


_COMPUTING = threading.Lock()


class FakeBench:
    """Computes a cell by sleeping; writes one line per start to ``log``, so that tests can count."""

    def __init__(
        self,
        log: Path,
        *,
        seconds: float = 0.0,
        absent: tuple[str, ...] = (),
        broken: tuple[str, ...] = (),
        slow: tuple[str, ...] | None = None,
        kills: tuple[str, ...] = (),
        recipes: bool = False,
    ) -> None:
        self.log, self.seconds, self.absent, self.broken, self.slow = log, seconds, absent, broken, slow
        self.kills, self.recipes = kills, recipes

    def resolve(self, cell: Cell) -> ResolvedCell:
        if cell.dataset in self.absent:
            raise NotAvailable(f"needs data: {cell.dataset}")
        return ResolvedCell(cell, cell.dataset, "data-" + cell.dataset, "weights")

    def compute(self, resolved: ResolvedCell) -> dict[str, Any]:
        with self.log.open("a") as stream:  # one short write to an append-mode file is atomic
            stream.write(f"{os.getpid()} {resolved.planned.dataset} {resolved.planned.bits}\n")
        if resolved.planned.dataset in self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.recipes:
            resolved.planned.make_recipe()
        if resolved.planned.dataset in self.broken:
            raise ValueError("this one cannot be computed")
        if not _COMPUTING.acquire(blocking=False):
            raise RuntimeError("a process computes two cells at a time")
        try:
            if self.slow is None or resolved.planned.dataset in self.slow:
                time.sleep(self.seconds)
        finally:
            _COMPUTING.release()
        return content(resolved)

    def computed(self) -> list[str]:
        """Datasets whose computation was started, in order, repeats included."""
        if not self.log.exists():
            return []
        return [line.split()[1] for line in self.log.read_text().splitlines()]


def content(
    resolved: ResolvedCell, *, psnr: float = 30.0, when: str = "2026-01-01T00:00:00+00:00"
) -> dict[str, Any]:
    cell = resolved.planned
    return {
        "cell": cell.to_dict(),
        "dataset": resolved.dataset,
        "images": [{"name": "a", "metrics": {"psnr": psnr, "ssim": 0.9}}],
        "seconds": 1.0,
        "cpu": "none",
        "threads": 1,
        "device": "cpu",
        "versions": {"torch": "2.0"},
        "code": "made",
        "data": resolved.data,
        "weights_id": resolved.weights_id,
        "calibration": None,
        "time": when,
        "profile": "laptop",
    }
