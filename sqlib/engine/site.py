"""A call site: one place in a network where a product happens, and what is decided about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from sqlib.engine.ops import Operand


@dataclass
class Site:
    """One call site.

    Attributes
    ----------
    name : str
        Unique name, e.g. "body.0.conv1", "attn.bmm#1".
    base : str
        The name without "#k".
    module, module_type : str
        Path and class name of the module whose forward makes the call ("" is the network itself).
    op : str
        "conv2d", "linear", "matmul", ...
    order : int
        Position in the order of first calls.
    call : int
        k: how often this module made this kind of call before, in one forward pass.
    weight, weight_shape, weight_axis : (str or None), (tuple of int or None), (int or None)
        Name and shape of the weight and the axis of its output channels, None where both operands are
        activations. A weight that is computed in the forward pass (weight normalization) is "(computed)".
    weight_role, weight_key : str or None
        Which operand is the weight, and the key of its quantizer.
    weight_sqnr_db : float or None
        Signal to quantization noise of the weight at calibration.
    supported : bool
        False for products that sqlib does not quantize.
    active, rule : bool, str
        Whether the site is quantized, and the rule that decided it.
    calls : int
        Number of calls during one pass over the calibration data.
    activation_keys : dict of str to str
        Operand to key of its activation quantizer.
    """

    name: str
    base: str
    module: str
    module_type: str
    op: str
    order: int
    call: int
    weight: str | None = None
    weight_shape: tuple[int, ...] | None = None
    weight_axis: int | None = None
    weight_role: str | None = None
    weight_key: str | None = None
    weight_sqnr_db: float | None = None
    supported: bool = True
    active: bool = False
    rule: str = ""
    calls: int = 0
    activation_keys: dict[str, str] = field(default_factory=dict)


class Handler(Protocol):
    """What happens at a call site; one implementation each for discovery, calibration and inference."""

    def enter(self, name: str, make: Callable[[], Site]) -> Site:
        """The site called `name`; `make` creates it if it is new."""

    def operand(self, site: Site, operand: Operand, value: Tensor) -> Tensor:
        """The tensor to use in place of `value`."""
