"""A quantized network as plain data and tensors, and the other way round."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, TypedDict

from torch import Tensor

from sqlib import __version__
from sqlib.engine import artifact, identity
from sqlib.engine.identity import Identity
from sqlib.engine.ranges import InputRange
from sqlib.engine.site import Site
from sqlib.errors import InputError
from sqlib.quantizers import _saved

if TYPE_CHECKING:
    from sqlib.engine.model import QuantizedModel

_SIDES = ("weights", "activations")


class Manifest(TypedDict):
    """What the file says beside its tensors; these are named as in the model's state dict."""

    format: int
    sqlib: str
    recipe: dict[str, Any]
    about: dict[str, Any]
    input_range: list[float] | None
    sites: list[dict[str, Any]]
    weight_keys: list[str]
    weights: dict[str, dict[str, Any]]
    activations: dict[str, dict[str, Any]]
    network: Identity


def save(model: QuantizedModel, path: str | PathLike[str], about: Mapping[str, Any]) -> None:
    """Write a quantized network; `about` are attributes that do not follow from its network's tensors."""
    described, own = identity.describe(model.network)
    tensors = {f"network.{name}": t for name, t in own.items()}
    entries: dict[str, dict[str, dict[str, Any]]] = {side: {} for side in _SIDES}
    for side in _SIDES:
        for key, quantizer in getattr(model, side).items():
            try:
                entries[side][key], found = _saved.describe(quantizer)
            except InputError as error:
                raise InputError(f"quantizer {key!r} of the {side}: {error}") from error
            tensors |= {f"{side}.{key}.{name}": t for name, t in found.items()}
    seen = model.input_range
    manifest = Manifest(
        format=artifact.FORMAT,
        sqlib=__version__,
        recipe=model.recipe.to_dict(),
        about={k: v for k, v in ((k, identity.plain(v)) for k, v in about.items()) if v is not ...},
        input_range=None if seen is None else [seen.lower, seen.upper],
        sites=[_described(site) for site in model.sites.values()],
        weight_keys=sorted(model.weight_keys),
        weights=entries["weights"],
        activations=entries["activations"],
        network=described,
    )
    artifact.write(path, manifest, tensors)


def check(manifest: Any) -> Manifest:
    """The manifest, if it has the form of one; else `InputError`."""
    for name, hint in typing.get_type_hints(Manifest).items():
        if name not in manifest or not _conforms(manifest[name], hint):
            raise InputError(f"its manifest has no usable {name!r}; save the network again")
    return manifest  # type: ignore[no-any-return]


def network_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the network itself, by their names there."""
    return {k.removeprefix("network."): t for k, t in tensors.items() if k.startswith("network.")}


def fill(model: QuantizedModel, manifest: Manifest, tensors: Mapping[str, Tensor]) -> None:
    """Give a model whose network has been restored its sites and quantizers.

    Raises
    ------
    InputError
        The parts do not go together.
    """
    for entry in manifest["sites"]:
        site = _site(entry)
        if site.name in model.sites:
            raise InputError(f"call site {site.name!r} is there twice")
        model.sites[site.name] = site
    parts: dict[tuple[str, str], dict[str, Tensor]] = {(s, key): {} for s in _SIDES for key in manifest[s]}  # type: ignore[literal-required]
    for name, t in tensors.items():
        side, _, rest = name.partition(".")
        key, _, own = rest.partition(".")
        if side == "network":
            continue
        if (side, key) not in parts:
            raise InputError(f"tensor {name!r} belongs to nothing in the manifest")
        parts[side, key][own] = t
    for (side, key), found in parts.items():
        try:
            getattr(model, side)[key] = _saved.rebuild(manifest[side][key], found)  # type: ignore[literal-required]
        except (InputError, KeyError) as error:  # KeyError: no name for a module
            raise InputError(f"quantizer {key!r} of the {side}: {error}") from error
    model.weight_keys = set(manifest["weight_keys"])
    _check_keys(model.sites.values(), model)
    seen = manifest["input_range"]
    if seen is not None:
        if len(seen) != 2:
            raise InputError(f"the range of inputs is {seen}, expected two numbers")
        model.input_range = InputRange(*seen)


def _check_keys(sites: Iterable[Site], model: QuantizedModel) -> None:
    for site in sites:
        lacking = [role for role in site.activation_keys if model.activation_quantizer(site, role) is None]
        if site.weight_key is not None and site.weight_key not in model.weight_keys:
            lacking.append(str(site.weight_role))
        if lacking:
            raise InputError(f"call site {site.name!r} lacks the quantizer of its {lacking[0]}")


def _described(site: Site) -> dict[str, Any]:
    data = dataclasses.asdict(site)
    noise = site.weight_sqnr_db  # infinite where a weight is all zeros, or on its levels
    return {**data, "weight_sqnr_db": None if noise is None else str(float(noise))}


def _site(entry: dict[str, Any]) -> Site:
    data, hints = dict(entry), typing.get_type_hints(Site)
    try:
        noise, shape = data["weight_sqnr_db"], data["weight_shape"]
        data["weight_sqnr_db"] = None if noise is None else float(noise)
        data["weight_shape"] = None if shape is None else tuple(shape)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"call site {data.get('name')!r} is incomplete: {error!r}") from error
    wrong = [n for n in hints if n not in data or not _conforms(data[n], hints[n])] + list(
        data.keys() - hints
    )
    if wrong:
        raise InputError(f"call site {data.get('name')!r} has {wrong[0]}={data.get(wrong[0], 'missing')!r}")
    return Site(**data)


def _conforms(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is what a type annotation says."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if kind in (typing.Union, types.UnionType):
        return any(_conforms(value, one) for one in inner)
    if kind is dict:
        return isinstance(value, dict) and all(_conforms(v, inner[1]) for v in value.values())
    if kind in (list, tuple):
        return isinstance(value, kind) and all(_conforms(v, inner[0]) for v in value)
    if typing.is_typeddict(hint):
        parts = typing.get_type_hints(hint)
        return isinstance(value, dict) and all(k in value and _conforms(value[k], parts[k]) for k in parts)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is hint
