"""Recompute a sample of the packaged records and compare."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlib.errors import InputError
from sqlib.experiments.run.compute import NotAvailable, Workbench, code_of
from sqlib.experiments.run.progress import Progress
from sqlib.experiments.run.runner import Bench
from sqlib.experiments.store import layers, provenance
from sqlib.experiments.store.cells import Cell
from sqlib.experiments.store.records import Record, mean
from sqlib.experiments.store.working import Unreadable

#: How far a recomputed score may be from the recorded one, by metric. Others, such as counts, repeat exactly.
Tolerance = Mapping[str, float]
#: The same processor, versions and number of threads repeat every bit; the margin is for other code that
#: computes the same thing.
SAME_MACHINE: Tolerance = {"psnr": 1e-3, "ssim": 1e-5}
#: Otherwise sums run in another order (relative 1e-6), which in full precision moves single pixels by one
#: grey level.
OTHER_FULL_PRECISION: Tolerance = {"psnr": 2e-3, "ssim": 2e-5}
#: In a quantized network a value beside a rounding boundary then takes the neighbouring level, and later
#: layers carry that on. Measured with CARN-M x4 on Set5, one thread against two: single images up to 0.011 dB
#: and 9e-5 SSIM, means up to 7e-4 dB and 1.4e-5. A fifth of the 0.05 dB that we call close.
OTHER_QUANTIZED: Tolerance = {"psnr": 1e-2, "ssim": 2e-4}
#: A training takes another course by then. Measured with swinir-small, an Intel processor against one of AMD:
#: DBDC+Pac at 4 bits 0.017 dB in the mean of B100; 2DQuant at 3 bits 0.005 dB in that of Set5 and 0.043 dB in
#: one image, to the last digit the same with the code of then and with today's.
OTHER_TRAINED: Tolerance = {"psnr": 5e-2, "ssim": 1e-3}


@dataclass
class Verification:
    """Labels of the sampled cells by what became of them; ``differ`` and ``skipped`` with the reason.

    ``readable`` counts the records that the sample was drawn from, ``unreadable`` holds what lies among them
    and cannot be read, which fails the verification whatever the sample.
    """

    verified: list[str] = field(default_factory=list)
    differ: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    not_reached: list[str] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    readable: int = 0

    @property
    def n(self) -> int:
        return len(self.verified) + len(self.differ) + len(self.skipped) + len(self.not_reached)

    @property
    def ok(self) -> bool:
        """Something was verified, nothing differs, and every record can be read."""
        return bool(self.verified) and not self.differ and not self.unreadable

    def __str__(self) -> str:
        text = f"verified {len(self.verified)} of {self.n}"
        parts = []
        if self.differ:
            parts.append(f"{len(self.differ)} differ")
        if self.skipped:
            parts.append(f"{len(self.skipped)} skipped: weights or data absent")
        if self.not_reached:
            parts.append(f"{len(self.not_reached)} not reached in time")
        text = f"{text} ({', '.join(parts)})" if parts else text
        if self.unreadable:
            total = self.readable + len(self.unreadable)
            text += f"; {len(self.unreadable)} of {total} records cannot be read"
        return text


def tolerance(record: Record) -> Tolerance:
    """What we grant this record on this machine."""
    here = (provenance.versions(), provenance.cpu_model(), provenance.threads())
    if here == (record["versions"], record["cpu"], record["threads"]) and record["device"] == "cpu":
        return SAME_MACHINE
    if record["cell"]["recipe"] is None:
        return OTHER_FULL_PRECISION
    return OTHER_TRAINED if Cell.from_dict(record["cell"]).make_recipe().learns else OTHER_QUANTIZED


def verify(
    *,
    sample: int,
    max_seconds: float | None = None,
    seed: int = 0,
    store: layers.Layer | None = None,
    bench: Bench | None = None,
    progress: bool = False,
) -> Verification:
    """Recompute ``sample`` records drawn from ``store`` and compare every metric, means and every image.

    Records measured by code that has changed since, in a module that their recipe or network really uses, are
    drawn first.

    Parameters
    ----------
    sample : int
        How many records, at least 1; all of them when there are fewer.
    max_seconds : float or None
        Start no further cell that would, by its record, end later than this. The first is always computed.
    seed : int
        Of the draw.
    store : layers.Layer or None
        Default: the packaged records. Those that cannot be read are never drawn; they are listed, and then
        nothing is ``ok``.
    bench : Bench or None
        What computes; default: this machine, on its CPU.
    progress : bool
        Show a bar on standard error.
    """
    if sample < 1:
        raise InputError(f"sample is {sample}, expected 1 or more")
    if max_seconds is not None and not max_seconds > 0:
        raise InputError(f"max_seconds is {max_seconds}, expected more than 0")
    records, unreadable = (store or layers.packaged_store()).survey()
    drawn = random.Random(seed).sample(sorted(records, key=lambda record: str(record["key"])), len(records))
    drawn = sorted(drawn, key=lambda record: record["code"] == code_of(Cell.from_dict(record["cell"])))[
        :sample
    ]
    bench = bench or Workbench()
    result = Verification(unreadable=unreadable, readable=len(records))
    start = time.monotonic()
    with Progress(len(drawn), enabled=progress) as shown:
        for record in drawn:
            cell = Cell.from_dict(record["cell"])
            left = math.inf if max_seconds is None else max_seconds - (time.monotonic() - start)
            if (result.verified or result.differ) and float(record["seconds"]) > left:
                result.not_reached.append(cell.label)
                continue
            shown.advance(f"{cell.label} {_check(record, cell, bench, result)}", worked=True)
    return result


def _check(record: Record, cell: Cell, bench: Bench, result: Verification) -> str:
    try:
        resolved = bench.resolve(cell)
        found = (resolved.weights_id, resolved.data, resolved.dataset, resolved.calibration)
        sha = record["calibration"]["sha256"] if record["calibration"] is not None else None
        wanted = (record["weights_id"], record["data"], record["dataset"], sha)
        if found != wanted:
            names = ("weights", "data", "dataset", "calibration crops")
            other = ", ".join(name for name, a, b in zip(names, found, wanted) if a != b)
            raise NotAvailable(f"the {other} it was measured with are not here, others are")
        again = bench.compute(resolved)
    except NotAvailable as error:
        result.skipped.append((cell.label, str(error)))
        return f"skipped: {error}"
    except Exception as error:
        # As in a run: a record of something that this sqlib cannot compute must not cost the others.
        result.differ.append((cell.label, f"{type(error).__name__}: {error}"))
        return f"failed: {error}"
    difference = compare(record, again, tolerance(record))
    if difference:
        result.differ.append((cell.label, difference))
        return f"differs: {difference}"
    result.verified.append(cell.label)
    return "verified"


def _paired(record: Record, again: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Images of one name; where the same pixels have other names here, those of one rank by score."""
    named = {image["name"] for image in record["images"]} == {image["name"] for image in again["images"]}

    def order(image: Mapping[str, Any]) -> Any:
        return image["name"] if named else [float(value) for value in image["metrics"].values()]

    return zip(sorted(record["images"], key=order), sorted(again["images"], key=order), strict=True)


def compare(record: Record, again: Mapping[str, Any], allowed: Tolerance) -> str:
    """Empty when the recomputed scores agree, else the first difference in words."""
    if len(again["images"]) != len(record["images"]):
        return f"{len(again['images'])} images, recorded {len(record['images'])}"
    scored = record["images"][0]["metrics"]
    rows: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = [
        ("mean", {m: mean(record, m) for m in scored}, {m: mean(again, m) for m in scored})
    ]
    rows += [(str(a["name"]), a["metrics"], b["metrics"]) for a, b in _paired(record, again)]
    for name, old, new in rows:
        for metric in old:
            was, now = float(old[metric]), float(new[metric])
            # A single image has fewer pixels to average over than the mean of the set.
            limit = allowed.get(metric, 0.0) * (1 if name == "mean" else 4)
            same = (math.isnan(was) and math.isnan(now)) or was == now
            if not same and not abs(was - now) <= limit:
                return f"{name} {metric} {now:.6f}, recorded {was:.6f} (allowed {limit:g})"
    return ""
