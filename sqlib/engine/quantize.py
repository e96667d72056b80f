"""The front door: quantize any network, without touching it.

>>> quantized = sqlib.quantize_model(network, sqlib.recipes.MinMax(bits=8), calibration)   # doctest: +SKIP
>>> quantized.report()                                                                    # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import Any

from torch import nn

from sqlib.engine import skip as rules
from sqlib.engine.batches import batches, kept
from sqlib.engine.calibration import calibrate
from sqlib.engine.model import QuantizedModel
from sqlib.engine.network import check_network, copied, ordinary_tensors
from sqlib.engine.ranges import InputRange, check_contract, extent, images
from sqlib.engine.recipe import Lesson, Recipe
from sqlib.engine.tracing import add_hooks
from sqlib.errors import InputError


def quantize_model(
    model: nn.Module,
    recipe: Recipe,
    calibration: Iterable[Any],
    *,
    skip: Iterable[str] | str | None = None,
    pairs: Any = None,
    start: QuantizedModel | None = None,
    resume: str | PathLike[str] | None = None,
) -> QuantizedModel:
    """Return a fake-quantized copy of a network.

    Parameters
    ----------
    model : nn.Module
        Any network whose work is done in convolutions, linear layers and matrix products, called as modules,
        functions or operators. Never changed: parameters, buffers, mode and hooks stay as they are.
    recipe : Recipe
        How to quantize, e.g. ``sqlib.recipes.MinMax(bits=4)``.
    calibration : iterable
        Iterable of input tensors (N, C, H, W), of tuples for networks with several inputs, or of dictionaries
        of keyword arguments; moved to the network's device and floating dtype. Read once and kept in memory.
        All statistics come from the full-precision network in evaluation mode, without autocast.
    skip : iterable of str, str or None
        Patterns (`fnmatch`) of call sites to leave in full precision; a module's name also covers everything
        inside it, and ``[]`` quantizes everything. Default: the network's ``default_skip`` if it has one,
        otherwise the first convolution and the upsampler, from the convolution that feeds the first
        upsampling on; without one, the last convolution (see `sqlib.engine.skip`). The report says which.
    pairs
        For recipes that train on them (PAMS): an iterable of floating-point tensors (low, high), (N, C, H, W)
        and (N, C, scale H, scale W), in the network's units, or what draws batches itself, such as
        `sqlib.training.Crops`.
    start : QuantizedModel or None
        For recipes that start from the result of another one (``recipe.starts_from()``): that result. Made
        here if it is not given. The new network has its trained weights.
    resume : str, path-like or None
        Folder in which recipes that learn keep their unfinished state, made if absent. The same call, after
        whatever ended the one before, continues from it to the same result bit for bit (same CPU and number
        of threads); remove the folder when done.

    Returns
    -------
    QuantizedModel
        In evaluation mode, whatever mode the network is in; made of ordinary tensors even inside of
        `torch.inference_mode`.

    Raises
    ------
    InputError
        For non-finite weights or activations, weights without values (meta device), empty or unusable
        calibration data, a pattern that matches nothing, or a network without a call that could be quantized.
        For pairs or a start that the recipe has no use for, and a start made by another recipe or of another
        network.

    Warns
    -----
    UserWarning
        Calibration images that are not in 0..1, for a network of `sqlib.models`; pairs whose targets are in
        other units than their inputs.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model is {type(model).__name__}, expected a torch.nn.Module")
    if isinstance(model, QuantizedModel):
        raise InputError(
            "model is already quantized; quantize the network it was made from (model.network is a copy "
            "whose biases the recipe may have changed)"
        )
    inside = next((name for name, part in model.named_modules() if isinstance(part, QuantizedModel)), None)
    if inside is not None:
        raise InputError(f"the network's module {inside!r} is already quantized; quantize the network once")
    if not isinstance(recipe, Recipe):
        raise InputError(
            f"recipe is {recipe!r}, expected a recipe such as sqlib.recipes.MinMax(bits=8) or "
            "sqlib.recipes.create(name)"
        )
    check_network(model)
    patterns = None if skip is None else rules.check_patterns(skip)
    if pairs is not None and not recipe.paired:
        raise InputError(f"{type(recipe).__name__} does not train on pairs: leave pairs= out")
    if not (pairs is None or hasattr(pairs, "draw") or isinstance(pairs, Iterable)):
        raise InputError(
            f"pairs is {type(pairs).__name__}, expected an iterable of (low, high), or what draws such"
        )
    calibration = batches(calibration, model)
    pairs = pairs if pairs is None or hasattr(pairs, "draw") else kept(pairs)
    recipe.admit(model, pairs, calibration)
    base = recipe.starts_from()
    if base is not None and start is None:
        start = quantize_model(
            model, base, calibration, skip=skip, pairs=pairs if base.paired else None, resume=resume
        )
    with ordinary_tensors(model):
        network = copied(model)
        if start is not None:
            _continue_from(start, network, recipe)
        recipe.prepare(network)
        network.eval()
        data = batches(calibration, network)
        check_contract(network, data)
        elsewhere = add_hooks(network)
        quantized = QuantizedModel(network, recipe).eval()
        seen = extent(t for batch in data for t in images(batch))
        quantized.input_range = None if seen is None else InputRange(*seen)
        calibrate(quantized, recipe, data, patterns, elsewhere)
        recipe.refine(quantized, data, resume)
        recipe.learn(quantized, Lesson(pairs, model, start, data, resume))
    return quantized.eval()


def _continue_from(start: QuantizedModel, network: nn.Module, recipe: Recipe) -> None:
    """Give `network` the weights of `start`, which has to be what the recipe starts from."""
    base = recipe.starts_from()
    if base is None:
        raise InputError(f"{type(recipe).__name__} starts from the network itself: leave start= out")
    if not isinstance(start, QuantizedModel) or start.recipe != base:
        found = start.recipe if isinstance(start, QuantizedModel) else type(start).__name__
        raise InputError(f"start is made by {found}; {type(recipe).__name__} with these options needs {base}")
    try:
        network.load_state_dict(start.network.state_dict())
    except RuntimeError as error:
        raise InputError(
            f"start is another network than the {type(network).__name__} to quantize: {error}"
        ) from error
