"""Finding a cell's inputs and computing it, with everything shared between cells kept at hand."""

from __future__ import annotations

import os
import re
import time
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlib.errors import DataError, InputError
from sqlib.experiments.run.artifacts import Artifacts
from sqlib.experiments.run.plan import network_of
from sqlib.experiments.run.scoring import scored
from sqlib.experiments.store import layers, provenance
from sqlib.experiments.store.cells import (
    CalibrationSpec,
    Cell,
    ResolvedCell,
    TrainingSpec,
    bits_text,
    distinct,
)
from sqlib.experiments.store.working import Store

if TYPE_CHECKING:
    from torch import nn

    from sqlib import QuantizedModel, models
    from sqlib.datasets import Calibration, Dataset
    from sqlib.training import Crops

_DATASET = re.compile(r"(?P<name>[\w-]+)(\[:(?P<n>\d+)\])?(@(?P<size>\d+))?")


class NotAvailable(Exception):
    """A cell's weights or data are not on this machine; the message says what it needs."""


def checkpoint(name: str) -> Path | None:
    """A third-party checkpoint by the name of its file: in ``$SQLIB_WEIGHTS``, else in the cache, or None."""
    from sqlib.models._pretrained import weights_cache

    given = os.environ.get("SQLIB_WEIGHTS")
    folders = [*([Path(given).expanduser()] if given else []), weights_cache()]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def open_dataset(name: str, data_dir: str | None = None) -> Dataset:
    """The dataset of a cell: a name, a limit and a centre crop, as in ``"builtin[:2]@192"``."""
    from sqlib import datasets

    match = _DATASET.fullmatch(name)
    if match is None:
        raise InputError(f"dataset {name!r} is not of the form NAME, NAME[:n] or NAME[:n]@size")
    dataset = datasets.load(match["name"], data_dir=data_dir)
    if dataset.altered:
        raise DataError(
            f"{dataset.name} with the pixels on record; those of {dataset.items[0].hr} and the others beside "
            "it differ (another version of the set, or compressed with loss)"
        )
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

    Cells arrive sorted by network and recipe (:func:`sqlib.experiments.run.plan.plan` sorts them), so one
    quantized network at a time is enough. Those whose recipe learns are kept in the folder ``artifacts``, for
    other processes and later runs, too; without one they are made here. Not thread-safe; every worker process
    has its own.
    """

    def __init__(
        self, *, device: str = "cpu", data_dir: str | None = None, artifacts: Path | None = None
    ) -> None:
        self.device = device
        self.data_dir = data_dir
        self.artifacts = None if artifacts is None else Artifacts(artifacts)
        self._models: dict[tuple[str, int, str], models.SRNetwork] = {}
        self._datasets: dict[str, Dataset] = {}
        self._calibrations: dict[tuple[CalibrationSpec, int, int], Calibration] = {}
        self._pools: dict[tuple[TrainingSpec, int, int], Crops] = {}
        self._network: tuple[object, nn.Module] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process that receives this bench many times builds it once and keeps what it has loaded.
        # It may have another working folder.
        data_dir = None if self.data_dir is None else os.path.abspath(self.data_dir)
        folder = None if self.artifacts is None else self.artifacts.path.absolute()
        return _process_workbench, (self.device, data_dir, folder)

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
            training = None if cell.training is None else self._pairs(cell).pool.fingerprint()
        except DataError as error:
            raise NotAvailable(f"needs data: {error}") from error
        return ResolvedCell(cell, dataset.name, data, str(model.weights_id), calibration, training)

    def compute(self, resolved: ResolvedCell) -> dict[str, Any]:
        """Score one cell and return its record's content (all but key, checksum and profile)."""
        cell = resolved.planned
        start = time.perf_counter()
        network = self.network(resolved)
        prepared = time.perf_counter()
        images = scored(
            network,
            self._dataset(cell.dataset),
            scale=cell.scale,
            protocol=_protocol(cell.protocol),
            device=self.device,
            counted=cell.counted,
        )
        calibration = self._calibration(cell) if cell.calibration is not None else None
        trained = {} if resolved.training is None else {"training": {"sha256": resolved.training}}
        return {
            **trained,
            "cell": cell.to_dict(),
            "dataset": resolved.dataset,
            "images": [
                {"name": image["name"], "metrics": {k: v for k, v in image.items() if k != "name"}}
                for image in images
            ],
            "seconds": time.perf_counter() - start,
            "seconds_preparing": prepared - start,
            "device": self.device,
            "cpu": provenance.cpu_model(),
            "threads": provenance.threads(),
            "versions": provenance.versions(),
            "code": code_of(cell),
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
                path = checkpoint(cell.weights)
                if path is None:
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

    def _pairs(self, cell: Cell) -> Crops:
        """What a cell trains on; its sets are read once."""
        from sqlib import training

        spec = cell.training
        assert spec is not None
        key = (spec, cell.scale, cell.seed)
        if key not in self._pools:
            self._pools[key] = training.pairs(
                spec.source,
                scale=cell.scale,
                patch=spec.patch,
                seed=cell.seed,
                data_dir=self.data_dir,
                device=self.device,
            )
        return self._pools[key]

    def _calibration(self, cell: Cell) -> dict[str, Any]:
        return dict(self._crops(cell).record())

    def network(self, resolved: ResolvedCell) -> nn.Module:
        """The cell's network, quantized and calibrated; kept, as the next cell usually wants the same."""
        cell = resolved.planned
        model = self._model(cell)
        if cell.recipe is None:
            return model
        wanted = network_of(cell)
        if self._network is None or self._network[0] != wanted:
            self._network = (wanted, self._fitted(resolved, model).eval())
        return self._network[1]

    def _fitted(self, resolved: ResolvedCell, model: nn.Module) -> QuantizedModel:
        from sqlib import quantize_model

        cell = resolved.planned
        recipe, crops = cell.make_recipe(), self._crops(cell)
        pairs = self._pairs(cell) if recipe.paired else None

        def make(resume: Path | None = None) -> QuantizedModel:
            base = recipe.starts_from()
            start = None
            if base is not None:  # a network of its own, which other cells may share
                recipe.admit(model, pairs)
                own = replace(cell, recipe=distinct(base), bits=bits_text(base.to_dict()["bits"]))
                start = self._fitted(replace(resolved, planned=own), model)
            return quantize_model(model, recipe, crops, pairs=pairs, start=start, resume=resume)

        if self.artifacts is None or not recipe.learns:
            return make()
        return self.artifacts.fitted(resolved.network_key, model, make)


@cache
def _process_workbench(device: str, data_dir: str | None, artifacts: Path | None) -> Workbench:
    if artifacts is not None and not artifacts.parent.is_dir():  # a machine without the store's folder
        artifacts = Store(layers.default_store()).artifacts
    return Workbench(device=device, data_dir=data_dir, artifacts=artifacts)


_TILING = re.compile(r"(?P<rest>.+)/patch=(?P<patch>\d+)\+(?P<overlap>\d+)")


def _protocol(identifier: str) -> Any:
    from sqlib.metrics import PROTOCOLS
    from sqlib.patches import Tiling

    match = _TILING.fullmatch(identifier)
    tiling = None if match is None else Tiling(int(match["patch"]), int(match["overlap"]))
    for protocol in PROTOCOLS.values():
        if protocol.id == (identifier if match is None else match["rest"]):
            return replace(protocol, tiling=tiling)
    raise InputError(f"unknown protocol id {identifier!r}; known: {sorted(p.id for p in PROTOCOLS.values())}")


def code_of(cell: Cell) -> str:
    """Hash of the sources that decide the cell's number; empty where network or recipe are not known here."""
    try:
        return _code_hash(tuple(code_roots(cell)))
    except InputError:
        return ""


_code_hash = cache(provenance.code_hash)


def code_roots(cell: Cell) -> list[str]:
    """Modules whose sources (with all they use) decide the cell's number.

    That is what reads and scores images, its network, and, where it is quantized, the engine and its recipe.
    """
    from sqlib import quantize_model

    roots = ["sqlib.evaluate", "sqlib.datasets", _network_module(cell.model, cell.weights)]
    if cell.recipe is not None:
        roots += [quantize_model.__module__, type(cell.make_recipe()).__module__]
    if cell.counted is not None:
        roots.append("sqlib.cost")
    return roots


@cache
def _network_module(model: str, weights: str) -> str:
    from sqlib import models
    from sqlib.models._interpolation import Bilinear

    if weights == "none":
        return Bilinear.__module__
    return models.spec(model).network.__module__
