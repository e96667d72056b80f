r"""Block reconstruction: make each unit of the quantized network answer as it does in full precision.

For the units in the order of their calls, with everything before them already quantized, Adam minimizes over
rounding variables and activation steps

.. math:: \frac1{NP} \sum_{n,p} \sum_c |f(\hat x)_{ncp} - f(x)_{ncp}|^2
          + \lambda \sum_i \left(1 - |2 h_i - 1|^\beta\right)

where x enters the unit f in full precision and :math:`\hat x` in the quantized network, N samples of P
positions each (BRECQ, Li et al., ICLR 2021, Eq. 10; QDrop, Wei et al., ICLR 2022).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from sqlib.engine.identity import settings
from sqlib.errors import InputError
from sqlib.fit.loop import Bar, fit
from sqlib.fit.loop.checkpoint import fingerprint, place
from sqlib.fit.reconstruction.blocks import Unit, find_units
from sqlib.fit.reconstruction.calls import Call, calls
from sqlib.fit.reconstruction.learner import Learner, Samples, quantizing
from sqlib.fit.reconstruction.options import Stage

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel


class Outcome(NamedTuple):
    """What reconstruction did to one unit.

    `before` and `after` are mean squared errors of the unit's output over the calibration samples, relative
    to the variance of its full-precision output; without drops, weights rounded hard. `undecided` is the
    share of rounding variables that were not within 0.05 of 0 or 1 at the end.
    """

    unit: str
    sites: tuple[str, ...]
    before: float
    after: float
    undecided: float


def reconstruct(
    model: QuantizedModel,
    data: Sequence[Any],
    stages: Iterable[Stage],
    *,
    resume: str | os.PathLike[str] | None = None,
) -> list[Outcome]:
    """Run the stages on `model` in place and say what came of it; callers may have gradients switched off.

    Parameters
    ----------
    model : QuantizedModel
        Calibrated, with uniform quantizers.
    data : sequence
        The calibration batches.
    stages : iterable of Stage
        One or more sweeps over the units.
    resume : str, path-like or None
        A folder for a checkpoint of every unit, named by everything that decides the result. Called again,
        units that are done take no more steps, and the one at hand continues: bit for bit on a CPU with the
        same number of threads.

    Raises
    ------
    InputError
        A loss or gradient that is not finite, a network that calls a unit in another way once it is
        quantized.
    """
    stages = list(stages)
    decides = [dataclasses.asdict(s) for s in stages], settings(model), model.state_dict(), data
    folder = place(resume, "reconstruct", lambda: fingerprint(*decides), end="")
    outcomes = []
    with _frozen(model), torch.inference_mode(False), torch.enable_grad():
        units, rest = find_units(model, data)
        with Bar(len(units) * sum(stage.iterations for stage in stages)) as bar:
            for number, stage in enumerate(stages):
                generator = torch.Generator().manual_seed(stage.seed + number)
                for index, unit in enumerate(units):
                    file = None if folder is None else folder / f"stage{number}-unit{index}.pt"
                    outcomes.append(_reconstruct_unit(model, unit, data, stage, generator, file, bar))
    for unit in units:
        for site in unit.sites:
            site.rule = f"quantized; reconstructed in {unit.path or 'the whole network'!r}"
    for site in rest:
        site.rule = "quantized; not reconstructed: no module around it is a function of one tensor"
    model.refresh()
    return outcomes


def _reconstruct_unit(
    model: QuantizedModel,
    unit: Unit,
    data: Iterable[Any],
    stage: Stage,
    generator: torch.Generator,
    file: Path | None,
    bar: Bar,
) -> Outcome:
    learner = Learner(model, unit, _samples(model, unit, data, stage), stage, generator)
    before = learner.error()
    sites = tuple(site.name for site in unit.sites)
    if stage.iterations == 0 or not learner.groups():
        bar.skip(stage.iterations)
        return Outcome(unit.path, sites, before, before, 0.0)
    fit(learner, file=file, bar=bar)
    undecided = learner.settle()
    return Outcome(unit.path, sites, before, learner.error(), undecided)


def _samples(model: QuantizedModel, unit: Unit, data: Iterable[Any], stage: Stage) -> list[Samples]:
    """Everything that enters and should leave the unit, samples of one call and shape together.

    Calls that reach none of the unit's own sites are left out: another unit has settled those (a layer of a
    block that is called once more outside of the block), or they stay in full precision.
    """
    own = {site.name for site in unit.sites}
    handler = quantizing(model, stage)
    groups: dict[Any, list[tuple[Call, Call]]] = {}
    for batch in data:
        exact = calls(model, unit.module, batch, None, unit.calls)
        seen = calls(model, unit.module, batch, handler, unit.calls)
        if [c.x.shape for c in exact] != [c.x.shape for c in seen]:
            raise InputError(
                f"reconstruction: quantized, the network calls {unit.path!r} in another way than in full "
                "precision (its control flow depends on the data); leave that part out with skip="
            )
        for full, quantized in zip(exact, seen, strict=True):
            if not own & quantized.sites:
                continue
            rest = (quantized.key, repr(quantized.args), repr(quantized.kwargs))
            place = (
                quantized.number,
                tuple(quantized.x.shape[1:]),
                rest,
                frozenset(quantized.counts.items()),
            )
            groups.setdefault(place, []).append((full, quantized))
    return [
        Samples(
            pairs[0][1],
            torch.cat([q.x for _, q in pairs]),
            torch.cat([f.x for f, _ in pairs]),
            torch.cat([f.out for f, _ in pairs]),
        )
        for pairs in groups.values()
    ]


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter of the network collects gradients meanwhile."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)
