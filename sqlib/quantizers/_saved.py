"""Quantizers as data: the table of classes that a file may name, and the way there and back.

A saved quantizer is an entry of plain options, with the name of its class in this table, and some tensors.
Nothing is looked up but this table, so a file cannot make a program import or run anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sqlib.errors import InputError

Q = TypeVar("Q", bound=type[nn.Module])

_CLASSES: dict[str, type[nn.Module]] = {"identity": nn.Identity}


def saved_as(name: str) -> Callable[[Q], Q]:
    """Class decorator: quantizers, or selectors, of this class are saved under `name`, and rebuilt by it.

    The class has ``options()``, which gives a dictionary of integers, truth values, strings, None, and
    dictionaries of these by name, and a class method ``rebuild(options, tensors)``, which makes an equal
    quantizer from it and from the tensors of the state dict. The name is part of every file and must stay.

    A quantizer made of others has ``parts()``, a dictionary of them by their names in the state dict; each is
    saved under its own class, and ``rebuild(options, tensors, parts)`` gets them back.

    Raises
    ------
    InputError
        Another class has the name.
    """

    def add(cls: Q) -> Q:
        known = _CLASSES.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise InputError(f"saved_as({name!r}): {known.__name__} has this name; choose another one")
        _CLASSES[name] = cls
        return cls

    return add


def describe(quantizer: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A quantizer as (options with its class, tensors)."""
    name = next((name for name, cls in _CLASSES.items() if cls is type(quantizer)), None)
    if name is None:
        raise InputError(
            f"{type(quantizer).__name__} is no quantizer that can be saved, these are "
            f"{', '.join(cls.__name__ for cls in _CLASSES.values())}; name the class with "
            "sqlib.quantizers.saved_as"
        )
    entry = {"class": name, **({} if name == "identity" else quantizer.options())}  # type: ignore[operator]
    tensors = {k: t for k, t in quantizer.state_dict().items() if k.rpartition(".")[2] != "_extra_state"}
    for k in getattr(quantizer, "packed", ()):
        small = int(getattr(quantizer, "bits", 16)) <= 8
        tensors[k] = torch.round(tensors[k]).to(torch.uint8 if small else torch.int32)
    for part, module in _parts(quantizer).items():
        try:
            found, own = describe(module)
        except InputError as error:
            raise InputError(f"its {part}: {error}") from error
        entry.setdefault("parts", {})[part] = found
        tensors |= {f"{part}.{k}": t for k, t in own.items()}
    return entry, tensors


def _parts(quantizer: nn.Module) -> dict[str, nn.Module]:
    return quantizer.parts() if hasattr(quantizer, "parts") else {}  # type: ignore[operator, no-any-return]


def rebuild(entry: Any, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The quantizer that `describe` gave the description of.

    Raises
    ------
    InputError
        The class is unknown, or no quantizer of it has such options and tensors.
    """
    if not isinstance(entry, dict) or not all(_plain(value) for value in entry.values()):
        raise InputError(f"{entry!r}: expected an object of numbers, truth values, names and null")
    options = dict(entry)
    name = options.pop("class", None)
    cls = _CLASSES.get(str(name))
    if cls is None:
        raise InputError(
            f"class {name!r} is unknown, expected one of {', '.join(_CLASSES)}; import the module that "
            "defines it, or use the version of sqlib that wrote the file"
        )
    parts = _rebuild_parts(options.pop("parts", {}), tensors)
    try:
        given = (options, tensors, parts) if hasattr(cls, "parts") else (options, tensors)
        made: nn.Module = cls() if cls is nn.Identity else cls.rebuild(*given)  # type: ignore[attr-defined]
    except KeyError as error:
        raise InputError(f"{error.args[0]!r} of a {name!r} quantizer is missing") from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"no {name!r} quantizer can be made of {options}: {error}") from error
    again, own = describe(made)
    for key in [*again, *entry]:
        if key not in entry or key not in again or again[key] != entry[key]:
            found, here = (repr(e[key]) if key in e else "missing" for e in (entry, again))
            raise InputError(f"option {key!r} of a {name!r} quantizer is {found}, its tensors make it {here}")
    for key in [*own, *tensors]:
        if key not in tensors or key not in own or own[key].shape != tensors[key].shape:
            raise InputError(f"tensor {key!r} is not one that a {name!r} quantizer of {options} has")
    return made


def _rebuild_parts(entries: Any, tensors: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    if not isinstance(entries, dict):
        raise InputError(f"parts={entries!r}: expected an object of quantizers by name")
    made = {}
    for part, entry in entries.items():
        prefix = f"{part}."
        own = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
        try:
            made[part] = rebuild(entry, own)
        except InputError as error:
            raise InputError(f"its {part}: {error}") from error
    return made


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and _plain(v) for k, v in value.items())
    return value is None or isinstance(value, (bool, int, str))
