"""Finding a cell's inputs and computing it, with everything shared between cells kept at hand."""

from __future__ import annotations

import os
import re
import time
from dataclasses import fields
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlib.errors import DataError, InputError
from sqlib.experiments import provenance
from sqlib.experiments.cells import CalibrationSpec, Cell, ResolvedCell

if TYPE_CHECKING:
    from torch import nn

    from sqlib import models
    from sqlib.datasets import Calibration, Dataset

_DATASET = re.compile(r"(?P<name>[\w-]+)(\[:(?P<n>\d+)\])?(@(?P<size>\d+))?")


class NotAvailable(Exception):
    """A cell's weights or data are not on this machine; the message says what it needs."""


def weights_folder() -> Path:
    """Folder of third-party checkpoints: ``$SQLIB_WEIGHTS``, else ``shared/weights`` beside the checkout."""
    if os.environ.get("SQLIB_WEIGHTS"):
        return Path(os.environ["SQLIB_WEIGHTS"])
    return Path(__file__).resolve().parents[3] / "shared" / "weights"


def open_dataset(name: str, data_dir: str | None = None) -> Dataset:
    """The dataset of a cell: a name, a limit and a centre crop, as in ``"builtin[:2]@192"``."""
    from sqlib import datasets

    match = _DATASET.fullmatch(name)
    if match is None:
        raise InputError(f"dataset {name!r} is not of the form NAME, NAME[:n] or NAME[:n]@size")
    dataset = datasets.load(match["name"], data_dir=data_dir)
    if match["n"]:
        dataset = dataset.subset(int(match["n"]))
    if match["size"]:
        dataset = dataset.crop(int(match["size"]))
    return dataset


def _keeping(dataset: Dataset) -> Dataset:
    """``dataset`` with every pair decoded and resized once and then kept (B100 at x4: 50 MB)."""
    from sqlib.datasets import Dataset, Pair

    class Kept(Dataset):
        @cached_property
        def _kept(self) -> dict[tuple[int, int], Pair]:
            return {}

        def pair(self, index: int, scale: int) -> Pair:
            if (index, scale) not in self._kept:
                self._kept[index, scale] = super().pair(index, scale)
            return self._kept[index, scale]

    return Kept(**{f.name: getattr(dataset, f.name) for f in fields(dataset)})


class Workbench:
    """Models, calibration crops and decoded datasets, each made once and shared by the cells that need it.

    Cells arrive sorted by network and recipe (:func:`sqlib.experiments.planner.plan` sorts them), so one
    quantized network at a time is enough. Not thread-safe; every worker process has its own.
    """

    def __init__(self, *, device: str = "cpu", data_dir: str | None = None) -> None:
        self.device = device
        self.data_dir = data_dir
        self._models: dict[tuple[str, int, str], models.SRNetwork] = {}
        self._datasets: dict[str, Dataset] = {}
        self._calibrations: dict[tuple[CalibrationSpec, int, int], Calibration] = {}
        self._network: tuple[object, nn.Module] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process that receives this bench many times builds it once and keeps what it has loaded.
        return _process_workbench, (self.device, self.data_dir)

    def resolve(self, cell: Cell) -> ResolvedCell:
        """Find the cell's weights and data.

        Raises
        ------
        NotAvailable
            They are not here; the message says what is needed.
        """
        model = self._model(cell)
        try:
            dataset = self._dataset(cell.dataset)
            data = dataset.fingerprint(cell.scale)
            calibration = None
            if cell.calibration is not None:
                calibration = str(self._calibration(cell)["sha256"])
        except DataError as error:
            raise NotAvailable(f"needs data: {error}") from error
        return ResolvedCell(cell, dataset.name, data, str(model.weights_id), calibration)

    def compute(self, resolved: ResolvedCell) -> dict[str, Any]:
        """Score one cell and return its record's content (all but key, checksum and profile)."""
        from sqlib.evaluate import evaluate

        cell = resolved.planned
        start = time.perf_counter()
        network = self._quantized(cell)
        prepared = time.perf_counter()
        dataset = self._dataset(cell.dataset)
        scores = evaluate(
            network, dataset, scale=cell.scale, protocol=_protocol(cell.protocol), device=self.device
        )
        calibration = self._calibration(cell) if cell.calibration is not None else None
        return {
            "cell": {**cell.to_dict(), "dataset": resolved.dataset},
            "planned": cell.to_dict(),
            "psnr": scores.psnr,
            "ssim": scores.ssim,
            "n": scores.n,
            "images": scores.images,
            "seconds": time.perf_counter() - start,
            "seconds_preparing": prepared - start,
            "device": self.device,
            "cpu": provenance.cpu_model(),
            "threads": provenance.threads(),
            "versions": provenance.versions(),
            "code": provenance.code_hash(code_roots(cell)),
            "data": resolved.data,
            "weights_id": resolved.weights_id,
            "calibration": calibration,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _model(self, cell: Cell) -> nn.Module:
        from sqlib import models
        from sqlib.models._interpolation import Bilinear

        key = (cell.model, cell.scale, cell.weights)
        if key not in self._models:
            # One network at a time: the next one replaces it.
            self._models.clear()
            model: models.SRNetwork
            if cell.weights == "none":
                model = Bilinear(cell.scale)
            elif cell.weights == "pretrained":
                try:
                    model = models.pretrained(cell.model, scale=cell.scale, download=False)
                except DataError as error:
                    raise NotAvailable(f"needs weights: {error}") from error
            else:
                path = weights_folder() / cell.weights
                if not path.is_file():
                    raise NotAvailable(
                        f"needs weights {cell.weights} for {cell.model} x{cell.scale} "
                        "(set $SQLIB_WEIGHTS to the folder that holds them)"
                    )
                model = models.load(path, cell.model, scale=cell.scale)
            model.eval()
            self._models[key] = model
        return self._models[key]

    def _dataset(self, name: str) -> Dataset:
        if name not in self._datasets:
            self._datasets[name] = _keeping(open_dataset(name, self.data_dir))
        return self._datasets[name]

    def _crops(self, cell: Cell) -> Calibration:
        from sqlib import datasets

        spec = cell.calibration
        assert spec is not None
        key = (spec, cell.scale, cell.seed)
        if key not in self._calibrations:
            self._calibrations[key] = datasets.calibration(
                spec.source,
                n=spec.n,
                patch=spec.patch,
                scale=cell.scale,
                seed=cell.seed,
                batch=spec.batch,
                data_dir=self.data_dir,
            )
        return self._calibrations[key]

    def _calibration(self, cell: Cell) -> dict[str, Any]:
        return dict(self._crops(cell).record())

    def _quantized(self, cell: Cell) -> nn.Module:
        """The cell's network, quantized and calibrated; kept, as the next cell usually wants the same."""
        from sqlib import recipes
        from sqlib.engine.quantize import quantize_model

        model = self._model(cell)
        if cell.recipe is None:
            return model
        wanted = (cell.model, cell.scale, cell.weights, str(cell.recipe), cell.calibration, cell.seed)
        if self._network is None or self._network[0] != wanted:
            network = quantize_model(model, recipes.from_dict(cell.recipe), self._crops(cell))
            self._network = (wanted, network.eval())
        return self._network[1]


@cache
def _process_workbench(device: str, data_dir: str | None) -> Workbench:
    return Workbench(device=device, data_dir=data_dir)


def _protocol(identifier: str) -> Any:
    from sqlib.metrics import PROTOCOLS

    for protocol in PROTOCOLS.values():
        if protocol.id == identifier:
            return protocol
    raise InputError(f"unknown protocol id {identifier!r}; known: {sorted(p.id for p in PROTOCOLS.values())}")


def code_roots(cell: Cell) -> list[str]:
    """Modules whose sources (with all they import) decide the cell's number."""
    from sqlib import models, recipes

    roots = ["sqlib.evaluate", "sqlib.datasets", "sqlib.models", "sqlib.experiments.compute"]
    if cell.weights != "none":  # networks and recipes are found by name, not by import
        roots.append(models.spec(cell.model).network.__module__)
    if cell.recipe is None:
        return roots
    recipe = recipes.from_dict(cell.recipe)
    return [*roots, "sqlib.engine.quantize", type(recipe).__module__]
