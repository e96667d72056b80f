"""Writing a quantized network as an ONNX file."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from sqlib._files import check_output, write_atomically
from sqlib.engine import QuantizedModel
from sqlib.errors import InputError
from sqlib.export import rewrite, shuffle
from sqlib.export.program import Program, output_grids
from sqlib.quantizers import UniformQuantizer

OPSET = 21
"""The first whose `DequantizeLinear` takes integers of 4 bits."""


@dataclass(frozen=True)
class Exported:
    """What `export_onnx` wrote.

    Attributes
    ----------
    quantized : tuple of str
        Call sites whose operands are quantized.
    integer : tuple of str
        Those of them that a runtime can compute in integers: zero is a level of all their operands.
    bytes : int
        Size of the file.
    """

    quantized: tuple[str, ...]
    integer: tuple[str, ...]
    bytes: int


def export_onnx(
    model: QuantizedModel,
    path: str | PathLike[str],
    *,
    outputs: Iterable[Tensor] | None = None,
    round_zero: bool = False,
    int4: bool = False,
    example: Tensor | None = None,
) -> Exported:
    """Write a quantized network as an ONNX file with integer weights and activations.

    Every fake-quantizer becomes a pair ``QuantizeLinear``, ``DequantizeLinear`` with 8-bit integers, fewer
    bits with a limit on the integers between them; weights are integers in the file. Batch, height and width
    of the image are free. Input and output are called "input" and "output".

    Parameters
    ----------
    model : QuantizedModel
        From `sqlib.quantize_model`, with uniform quantizers whose bounds are fixed; not changed.
    path : str or path-like
        File to write; one that is there is replaced.
    outputs : iterable of Tensor or None
        Batches (N, C, H, W), such as the calibration data: quantize what layers return, too, in 8 bits over
        the range seen here, wherever no quantizer follows anyway. Runtimes multiply integers only where
        integers come out, so this makes the file fast, at a small loss; pixel shuffles are made cheaper, too
        (`sqlib.export.shuffle`). None: the numbers are those of `model`, up to the order of sums.
    round_zero : bool
        Move bounds that are real numbers (2DQuant, DBDC+Pac) by up to half a step, so that zero is a level.
        Else their levels are kept and an addition is written, which integer products do without.
    int4 : bool
        Store weights of 4 bits and fewer as ``INT4``, two to a byte. The file is smaller and not faster.
    example : Tensor or None
        An input, for networks that do not take 3 channels or need another size than 32 x 40; of two samples.

    Raises
    ------
    InputError
        A recipe that integers cannot express, a network that torch cannot export, packages that are missing,
        a path that cannot be written.
    """
    _check(model)
    check_output(path, overwrite=True)
    if example is not None and not isinstance(example, Tensor):
        raise InputError(f"example is {type(example).__name__}, expected a tensor such as (2, C, H, W)")
    twin = copy.deepcopy(model).cpu().eval()
    for quantizer in twin.modules() if round_zero else ():
        if isinstance(quantizer, UniformQuantizer):
            quantizer.integer_zero = True
    batch = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    batch = batch if example is None else example.detach().cpu()
    grids = {} if outputs is None else output_grids(twin, outputs)
    program = Program(twin, batch, outputs=grids, four_bits=int4).eval()
    made = _traced(program, batch)
    graph = made.graph
    rewrite.quantize_outputs(graph, grids)
    if grids:
        shuffle.rewrite(graph)
    if int4:
        rewrite.pack(graph)
    _finish(made, model)
    data = _bytes(made)
    write_atomically(path, data)
    quantized = [site for site in model.sites.values() if site.active]
    integer = tuple(site.name for site in quantized if program.integer(site))
    return Exported(tuple(site.name for site in quantized), integer, len(data))


def _check(model: object) -> None:
    if not isinstance(model, QuantizedModel):
        raise InputError(
            f"model is {type(model).__name__}, expected a quantized network (sqlib.quantize_model); one in "
            "full precision needs no more than torch.onnx.export"
        )
    kinds = {p.dtype for p in model.network.parameters()}
    if kinds - {torch.float32}:
        raise InputError(f"the network has {', '.join(map(str, kinds))} parameters: export it in float32")
    try:
        import onnx_ir  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"ONNX files need the package {error.name}: pip install onnx onnxscript onnxruntime"
        ) from None
    if not hasattr(torch.onnx, "ops"):
        raise InputError(f"ONNX files need torch 2.8 or newer, this is {torch.__version__}")


def _traced(program: Program, example: Tensor) -> Any:
    free = torch.export.Dim.DYNAMIC
    sizes = ({0: free, 2: free, 3: free},)
    try:
        with torch.no_grad(), _quiet():
            traced = torch.export.export(program, (example,), dynamic_shapes=sizes, strict=False)
            found = torch.onnx.export(traced, dynamo=True, opset_version=OPSET, verbose=False)
    except InputError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"torch cannot export this network for images of any size: {type(error).__name__}: {reason}"
        ) from error
    assert found is not None
    return found.model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remarks on itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _finish(made: Any, model: QuantizedModel) -> None:
    """Order, names, and none of the paths of this machine that torch notes at every operator."""
    graph = made.graph
    graph.sort()
    graph.inputs[0].name, graph.outputs[0].name = "input", "output"
    graph.opset_imports.pop("sqlib", None)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[name]
    for node in graph:
        node.metadata_props.clear()
        node.doc_string = None
    for value in (*graph.initializers.values(), *graph.inputs, *graph.outputs):
        value.metadata_props.clear()
    made.metadata_props.clear()
    made.metadata_props["sqlib.recipe"] = model.recipe.to_json()
    made.producer_name, made.producer_version = "sqlib", None


def _bytes(made: Any) -> bytes:
    import onnx
    import onnx_ir as ir

    proto = ir.serde.serialize_model(made)
    onnx.checker.check_model(proto)
    return proto.SerializeToString(deterministic=True)  # type: ignore[no-any-return]
