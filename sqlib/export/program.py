"""A quantized network as a program of torch whose quantizers are the operators of ONNX."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sqlib.engine.batches import arguments, batches, described
from sqlib.engine.inference import Inference
from sqlib.engine.ops import OPS, Operand
from sqlib.engine.tracing import Tracer
from sqlib.errors import InputError
from sqlib.export.grid import Grid, fixed, grid
from sqlib.quantizers import RangeObserver

if TYPE_CHECKING:
    from sqlib.engine import QuantizedModel, Site
    from sqlib.engine.site import Handler


class Program(nn.Module):
    """What is exported: called like the network, with quantizers as operators of ONNX.

    Parameters
    ----------
    model : QuantizedModel
        Quantized.
    example : Tensor
        An input of the network.
    outputs : iterable of str
        Grids of what layers return, by call site; these layers are followed by an operator ``sqlib::Output``
        with the name of their call site.
    four_bits : bool
        Have the integers of weights of 4 bits and fewer between -8 and 7.

    Attributes
    ----------
    activations : dict of tuple of str to Grid
        Grids by call site and operand.
    weights : dict of str to tuple (str, Grid)
        Grids by the key of the weight, and the name of the buffers with its integers.

    Raises
    ------
    InputError
        A quantizer that `sqlib.export.grid.fixed` refuses.
    """

    def __init__(
        self,
        model: QuantizedModel,
        example: Tensor,
        *,
        outputs: Iterable[str] = (),
        four_bits: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.outputs, self.four_bits = model, frozenset(outputs), four_bits
        self.activations: dict[tuple[str, str], Grid] = {}
        self.weights: dict[str, tuple[str, Grid]] = {}
        active = [site for site in model.sites.values() if site.active]
        for site in active:
            for role in site.activation_keys:
                quantizer = model.activation_quantizer(site, role)
                if quantizer is not None and not isinstance(quantizer, nn.Identity):
                    found = fixed(quantizer, None, f"call site {site.name!r} ({site.op}, {role})")
                    self.activations[site.name, role] = grid(found)
        raw = _raw_weights(model, example)
        for site in active:
            if site.weight_key in raw and site.weight_key not in self.weights:
                self._add_weight(site, raw[site.weight_key])

    def _add_weight(self, site: Site, raw: Tensor) -> None:
        quantizer = self.model.weight_quantizer(site.weight_key or "")
        if quantizer is None:
            return
        fitting = fixed(quantizer, raw, f"call site {site.name!r} ({site.op}, {site.weight_role})")
        found = grid(fitting)
        zero = found.zero_point
        half = 8 if self.four_bits and found.top < 16 else 128
        # where they fit, integers whose zero is 0: what runtimes like best
        centred = found.top - int(zero.min()) < half and int(zero.max()) <= half
        shift = zero if centred else torch.full_like(zero, half)
        codes = fitting.codes(raw).cpu() - _along(shift, found.axis, raw.ndim)
        name = f"weight_{len(self.weights)}"
        self.weights[site.weight_key or ""] = name, found
        for part, value in (("codes", codes), ("zero", zero - shift)):
            self.register_buffer(f"{name}_{part}", value.to(torch.int8))
        self.register_buffer(f"{name}_scale", found.scale)

    def integer(self, site: Site) -> bool:
        """Whether all operands of a call site are quantized, with zero among their levels."""
        grids = [found for (name, _), found in self.activations.items() if name == site.name]
        if site.weight_key in self.weights:
            grids.append(self.weights[site.weight_key][1])
        return len(grids) > 1 and all(found.integer for found in grids)

    def forward(self, x: Tensor) -> Tensor:
        tracer = Tracer(self.model.network, _Operators(self))
        with _Outputs(tracer, self._mark), tracer.running():
            return self.model.network(x)  # type: ignore[no-any-return]

    def _mark(self, site: Site, value: Tensor) -> Tensor:
        if site.name not in self.outputs:
            return value
        return _operator("sqlib::Output", (value,), {"site": site.name}, value.dtype, value)

    def weight(self, key: str, like: Tensor) -> Tensor:
        """The values of a weight, from its integers."""
        name, found = self.weights[key]
        codes, scale, zero = (self.get_buffer(f"{name}_{part}") for part in ("codes", "scale", "zero"))
        return _restored(codes, scale, zero, found, like)

    def activation(self, found: Grid, value: Tensor) -> Tensor:
        """The levels nearest to the values of an activation."""
        offset = _along(found.offset, found.axis, value.ndim)
        shifted = value if found.integer else value - offset
        scale, zero = found.scale, found.zero_point.to(torch.uint8)
        attributes = {} if found.axis is None else {"axis": found.axis}
        codes = _operator("QuantizeLinear", (shifted, scale, zero), attributes, torch.uint8, value)
        if found.top < 255:
            codes = codes.clamp(max=found.top)
        return _restored(codes, scale, zero, found, value)


def _restored(codes: Tensor, scale: Tensor, zero: Tensor, found: Grid, like: Tensor) -> Tensor:
    attributes = {} if found.axis is None else {"axis": found.axis}
    values = _operator("DequantizeLinear", (codes, scale, zero), attributes, torch.float32, like)
    return values if found.integer else values + _along(found.offset, found.axis, like.ndim)


def _operator(
    name: str, inputs: tuple[Tensor, ...], attributes: dict[str, Any], dtype: torch.dtype, like: Tensor
) -> Tensor:
    return torch.onnx.ops.symbolic(name, inputs, attributes, dtype=dtype, shape=like.shape)


def _along(values: Tensor, axis: int | None, ndim: int) -> Tensor:
    """Values for each entry of an axis, in the shape that goes with a tensor."""
    if axis is None:
        return values
    shape = [1] * ndim
    shape[axis] = -1
    return values.reshape(shape)


class _Operators:
    """Handler of the pass that is exported."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def enter(self, name: str, make: Callable[[], Site]) -> Site:
        return self.program.model.sites.get(name) or make()

    def operand(self, site: Site, operand: Operand, value: Tensor) -> Tensor:
        if not site.active:
            return value
        if operand.role == (site.weight_role or "weight"):
            key = site.weight_key or ""
            return self.program.weight(key, value) if key in self.program.weights else value
        found = self.program.activations.get((site.name, operand.role))
        return value if found is None else self.program.activation(found, value)


class _Weights(Inference):
    """A pass as usual, which keeps every weight as it is before it is quantized."""

    def __init__(self, model: QuantizedModel) -> None:
        super().__init__(model, None)
        self.found: dict[str, Tensor] = {}

    def operand(self, site: Site, operand: Operand, value: Tensor) -> Tensor:
        if operand.role == (site.weight_role or "weight") and site.active and site.weight_key is not None:
            self.found.setdefault(site.weight_key, value.detach().clone())
        return super().operand(site, operand, value)


class _Outputs(TorchFunctionMode):
    """Hands what layers return to `tell`, with their call site. Entered before the tracer it asks."""

    def __init__(self, tracer: Tracer, tell: Callable[[Site, Tensor], Tensor]) -> None:
        super().__init__()
        self.tracer, self.tell = tracer, tell

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out, site = func(*args, **(kwargs or {})), self.tracer.site
        if func in OPS and site is not None and site.active and site.weight_key is not None:
            return self.tell(site, out)
        return out


def _raw_weights(model: QuantizedModel, example: Tensor) -> dict[str, Tensor]:
    handler = _Weights(model)
    with torch.no_grad():
        _pass(model, handler, example, "example")
    return handler.found


def output_grids(model: QuantizedModel, data: Iterable[Tensor]) -> dict[str, Grid]:
    """8-bit grids over the range of what each quantized layer returns, by call site."""
    seen: dict[str, RangeObserver] = {}

    def see(site: Site, value: Tensor) -> Tensor:
        seen.setdefault(site.name, RangeObserver(8)).update(value)
        return value

    with torch.no_grad():
        for number, batch in enumerate(batches(data, model.network, name="outputs")):
            _pass(model, Inference(model, None), batch, f"outputs batch {number}", see)
    return {name: grid(fixed(observer.finish(), None, name)) for name, observer in seen.items()}


def _pass(
    model: QuantizedModel,
    handler: Handler,
    batch: Any,
    what: str,
    tell: Callable[[Site, Tensor], Tensor] = lambda site, value: value,
) -> None:
    tracer = Tracer(model.network, handler)
    args, kwargs = arguments(batch, model.network)
    try:
        with _Outputs(tracer, tell), tracer.running():
            model.network(*args, **kwargs)
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:  # shapes and types that do not fit
        raise InputError(
            f"{what} ({described(batch)}): the network {type(model.network).__name__} cannot run on it: "
            f"{str(error).partition(chr(10))[0]}; export takes networks of one tensor, and example= is one "
            "that fits"
        ) from error
