"""What training moves: parameters of a quantized network and of its quantizers, by group."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from torch import Tensor, nn

from sqlib._checks import check_number
from sqlib.errors import InputError
from sqlib.fit.variables import Variables, bias_and_norm_parameters, uniform_pairs
from sqlib.quantizers import UniformQuantizer

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel

_HOMES = {
    "bounds": ("weights", "activations"),
    "weight_bounds": ("weights",),
    "activation_bounds": ("activations",),
}
GROUPS = ("weights", "biases", "norms", *_HOMES, "selectors")
_DECIDING = ("selector", "gate")


class Trainable:
    """The tensors to train, each once, with their learning rates.

    Parameters
    ----------
    model : QuantizedModel
        A quantized network.
    train : mapping of str to float
        Group to learning rate, as in `sqlib.fit.train_quantized`.
    relative : bool
        Whether bounds of uniform quantizers move in units of their starting width.
    factors : mapping of str to float or None
        Patterns of `names` to factors of the rate of what has such a name; of several, the first counts.

    Attributes
    ----------
    bounds : list of Variables
        Bounds of uniform quantizers, a vector for each group that has any.
    names : list of str
        Of everything that is trained, as in ``model.named_parameters()``.

    Raises
    ------
    InputError
        An unknown group, a rate or a factor that is no positive number, a pattern that nothing fits, or
        nothing to train.

    Warns
    -----
    UserWarning
        Bounds that one step moves by more than half of their width.
    """

    def __init__(
        self,
        model: QuantizedModel,
        train: Mapping[str, float],
        *,
        relative: bool,
        factors: Mapping[str, float] | None = None,
    ) -> None:
        unknown = sorted(set(train) - set(GROUPS)) if isinstance(train, Mapping) else ["?"]
        if unknown or not train:
            raise InputError(
                f"train={train!r}: expected a dictionary from one or more of {', '.join(GROUPS)} to a rate"
            )
        if "bounds" in train and len(set(train) & set(_HOMES)) > 1:
            raise InputError(f"train={train!r}: 'bounds' are both 'weight_bounds' and 'activation_bounds'")
        if factors is not None and not isinstance(factors, Mapping):
            raise InputError(f"factors={factors!r}: expected a dictionary from patterns of names to factors")
        self.factors = {
            pattern: check_number(f"factors[{pattern!r}]", factor, 0, math.inf, above=True)
            for pattern, factor in (factors or {}).items()
        }
        self._hasty: dict[str, float] = {}
        self.bounds: list[Variables] = []
        self.names: list[str] = []
        self._groups: list[tuple[list[Tensor], float]] = []
        self._plain: list[nn.Parameter] = []
        for group, given in train.items():
            rate = check_number(f"train[{group!r}]", given, 0, math.inf, above=True)
            if group.endswith("bounds"):
                self._add_bounds(model, group, rate, relative=relative)
            elif group == "selectors":
                self._add(_selector_parameters(model), rate)
            else:
                self._add(_network_parameters(model.network, group), rate)
        if not self._groups:
            raise InputError(f"train_quantized: the model has nothing to train in {', '.join(train)}")
        for pattern in self.factors:
            if not any(fnmatchcase(name, pattern) for name in self.names):
                raise InputError(
                    f"factors={{{pattern!r}: ...}} fits nothing that is trained; names are such as "
                    f"{', '.join(self.names[:3])}"
                )
        if self._hasty:
            name, width = min(self._hasty.items(), key=lambda item: item[1])
            warnings.warn(
                f"one step moves the bounds of {len(self._hasty)} quantizers by more than half of their "
                f"width (the narrowest: {name.replace('/', '.')}, {width:.3g}), so that they cannot settle; "
                "lower the learning rate of bounds, or give factors= for these",
                stacklevel=3,
            )

    def _factor(self, name: str) -> float:
        return next((f for pattern, f in self.factors.items() if fnmatchcase(name, pattern)), 1.0)

    def _add_bounds(self, model: QuantizedModel, group: str, rate: float, *, relative: bool) -> None:
        pairs = uniform_pairs(model, (group,))
        if pairs:
            self.bounds.append(Variables(model, (group,), relative=relative, scale_gradients=False))
            self._groups.append(([self.bounds[-1].vector], rate))
        own = {id(t) for q in pairs for t in (q.lower, q.upper)}
        own |= {id(p) for p in _selector_parameters(model).values()}
        others = {}
        for home in _HOMES[group]:
            for name, q in getattr(model, home).named_modules():
                for number in (n for n, pair in enumerate(pairs) if q is pair):
                    sides = [f"{home}.{name}.{side}" for side in ("lower", "upper")]
                    self.names += sides
                    self.bounds[-1].rescale(number, *map(self._factor, sides))
                    if not relative:
                        self._watch(sides[1], q.upper - q.lower, rate)
                for leaf, p in q.named_parameters(recurse=False):
                    if id(p) not in own:
                        others[f"{home}.{name}.{leaf}"] = p
                    if leaf == "alpha":
                        self._watch(f"{home}.{name}.alpha", p, rate)
        self._add(others, rate)

    def _watch(self, name: str, width: Tensor, rate: float) -> None:
        """Note bounds that one step would move by more than half of what lies between them."""
        widths = width.detach()[width.detach() > 0]
        if widths.numel() and self._factor(name) * rate > float(widths.min()) / 2:
            self._hasty[name.rpartition(".")[0]] = float(widths.min())

    def _add(self, parameters: Mapping[str, nn.Parameter], rate: float) -> None:
        new = {n: p for n, p in parameters.items() if not any(p is known for known in self._plain)}
        self.names += new
        self._plain += new.values()
        by_factor: dict[float, list[Tensor]] = {}
        for name, p in new.items():
            by_factor.setdefault(self._factor(name), []).append(p)
        self._groups += [(found, factor * rate) for factor, found in by_factor.items()]

    def groups(self) -> list[tuple[list[Tensor], float]]:
        """What the optimizer moves, with its learning rate."""
        return self._groups

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Within the block, the parameters (bounds aside) collect gradients."""
        for p in self._plain:
            p.requires_grad_(True)
        try:
            yield
        finally:
            for p in self._plain:
                p.requires_grad_(False)
                p.grad = None


def learnable(model: QuantizedModel, *groups: str) -> dict[str, nn.Parameter]:
    """Make parts of a quantized network learnable, for a training loop of one's own.

    Parameters
    ----------
    model : QuantizedModel
        Changed in place: bounds become parameters, and of all parameters only those of the groups collect
        gradients.
    groups : str
        One or more of "bounds" (or "weight_bounds", "activation_bounds") of quantizers, "biases" of layers,
        "norms" (scales and shifts of normalizations), "weights" (all other parameters of the network) and
        "selectors" (which choose bits, or move bounds with the input).

    Returns
    -------
    dict
        Parameters by their names in ``model.named_parameters()``, for an optimizer.

    Raises
    ------
    InputError
        No group, an unknown one, or nothing of them in the model.

    Notes
    -----
    Nothing keeps bounds apart here: `sqlib.fit.distill` and `sqlib.fit.train_quantized` do.

    Examples
    --------
    >>> found = sqlib.fit.learnable(quantized, "bounds", "biases")            # doctest: +SKIP
    >>> optimizer = torch.optim.Adam(found.values(), lr=1e-4)                 # doctest: +SKIP
    """
    from sqlib.engine.model import QuantizedModel

    if not isinstance(model, QuantizedModel):
        raise InputError(f"model is {type(model).__name__}, expected what sqlib.quantize_model gives")
    if not groups or not set(groups) <= set(GROUPS):
        raise InputError(f"groups {groups!r}: expected one or more of {', '.join(GROUPS)}")
    found: dict[str, nn.Parameter] = {}
    deciding = _selector_parameters(model)
    for group in groups:
        if group == "selectors":
            found |= deciding
        elif group not in _HOMES:
            found |= _network_parameters(model.network, group)
        for home in _HOMES.get(group, ()):
            for quantizer in getattr(model, home).modules():
                if isinstance(quantizer, UniformQuantizer):
                    quantizer.learnable()
            named = getattr(model, home).named_parameters(home)
            found |= {name: p for name, p in named if name not in deciding}
    if not found:
        raise InputError(f"the model has nothing to learn in {', '.join(groups)}")
    for p in model.parameters():
        p.requires_grad_(False)
    for p in found.values():
        p.requires_grad_(True)
    return found


def _network_parameters(network: nn.Module, group: str) -> dict[str, nn.Parameter]:
    """Parameters of the network in one group, each once; "weights" are those in no other group."""
    if group != "weights":
        names, found = bias_and_norm_parameters(network, {group})
    else:
        others = {id(p) for p in bias_and_norm_parameters(network, {"biases", "norms"})[1]}
        kept = {n: p for n, p in network.named_parameters() if id(p) not in others}
        names, found = list(kept), list(kept.values())
    return {f"network.{name}": p for name, p in zip(names, found, strict=True)}


def _selector_parameters(model: QuantizedModel) -> dict[str, nn.Parameter]:
    """Parameters of what decides on bits (selectors of banks) and moves bounds with the input (gates)."""
    found: dict[str, nn.Parameter] = {}
    for home in _HOMES["bounds"]:
        for name, module in getattr(model, home).named_modules():
            for part in _DECIDING:
                deciding = module._modules.get(part)
                if deciding is not None:
                    named = deciding.named_parameters()
                    found |= {f"{home}.{name}.{part}.{leaf}": p for leaf, p in named}
    return found
