"""The arithmetic of what nobody here has run: training a network, and recipes that learn, in full.

Counted in operations (a multiplication and its addition are two), because hours depend on the machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlib.experiments.run.plan import plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

RATE = 50e12
"""Operations a second of a large GPU that is kept busy: an assumption, not a measurement."""

# They learn one unit at a time, so a step of every unit is one step of the body: forward and backward, three
# times the operations of the forward pass.
_BLOCKWISE = ("brecq", "qdrop")
_PASSES = 3


def outstanding(table: str) -> pd.DataFrame:
    """What the networks of a table need whose weights do not ship, in profile ``full``.

    Returns
    -------
    pandas.DataFrame
        Columns ``network``; ``training`` and ``learning``, operations in 10^15 of the whole schedule of the
        weights (NaN where no schedule is configured) and of all recipes of the table that learn block by
        block, at all their bits; ``hours`` of both at `RATE`, NaN where one is not known. Scoring and recipes
        that only search are not counted.

    Raises
    ------
    InputError
        Unknown table.
    """
    import pandas as pd

    from sqlib import models
    from sqlib.training import CONFIGS
    from sqlib.training.overview import training_flops

    available = models.available()
    recipes: dict[tuple[str, int], dict[str, Mapping[str, Any]]] = {}
    patch = {}
    for cell in plan(table, "full"):
        at = (cell.model, cell.scale)
        if cell.weights == "pretrained" and cell.scale not in available.get(cell.model, ()):
            found = recipes.setdefault(at, {})
            if cell.recipe is not None and cell.calibration is not None:
                found[f"{cell.recipe} {cell.bits}"] = cell.make_recipe().to_dict()
                patch[at] = cell.calibration.patch
    rows = []
    for (name, scale), found in recipes.items():
        config = CONFIGS.get(f"{name}-x{scale}")
        training = float("nan") if config is None else float(training_flops(config))
        learning = _learning(name, scale, found.values(), patch.get((name, scale), 0))
        rows.append((f"{name} x{scale}", training, learning))
    frame = pd.DataFrame(rows, columns=["network", "training", "learning"])
    frame["hours"] = (frame["training"] + frame["learning"]) / RATE / 3600
    return frame.assign(training=frame["training"] / 1e15, learning=frame["learning"] / 1e15)


def _learning(name: str, scale: int, recipes: Any, patch: int) -> float:
    """Operations of all `recipes` that learn, on crops of `patch` x `patch` low-resolution pixels."""
    import torch

    from sqlib import models
    from sqlib.cost import cost

    learners = [recipe for recipe in recipes if recipe["name"] in _BLOCKWISE]
    if not learners:
        return 0.0
    with torch.device("meta"):  # shapes only
        one = cost(models.create(name, scale=scale), (patch * scale, patch * scale))
    body = sum(layer.macs for layer in one.layers if layer.quantized)
    total = 0.0
    for recipe in learners:
        steps = recipe["iterations"] + recipe.get("activation_iterations", 0)
        total += 2.0 * body * _PASSES * steps * recipe["batch"]
    return total
