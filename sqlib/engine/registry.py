"""Recipes by name. Imports neither torch nor numpy."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from sqlib.errors import InputError

if TYPE_CHECKING:
    from sqlib.engine.recipe import Recipe

R = TypeVar("R", bound="type[Recipe]")
_REGISTRY: dict[str, type[Recipe]] = {}


def register(name: str) -> Callable[[R], R]:
    """Class decorator: make a recipe known under `name`.

    Raises
    ------
    InputError
        For a class that is no recipe, and for a name or spelling that another recipe has.
    """

    def add(cls: R) -> R:
        if not hasattr(cls, "weight_quantizer") or not dataclasses.is_dataclass(cls):
            raise InputError(
                f"register({name!r}): {getattr(cls, '__name__', cls)} is no recipe; derive it from "
                "sqlib.recipes.Recipe and make it a frozen dataclass"
            )
        own = _spellings(name, cls)
        for known, other in _REGISTRY.items():
            # The same class again is a module that is loaded anew.
            again = (other.__module__, other.__qualname__) == (cls.__module__, cls.__qualname__)
            if not again and own & _spellings(known, other):
                raise InputError(
                    f"register({name!r}): {cls.__module__}.{cls.__qualname__} has a name that is taken by "
                    f"the recipe {known!r} ({other.__module__}.{other.__qualname__}); choose another"
                )
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return add


def _spellings(name: str, cls: type[Recipe]) -> set[str]:
    return {_letters(each) for each in (name, cls.__name__, *vars(cls).get("spellings", ()))}


def known() -> dict[str, type[Recipe]]:
    """Name to class of all recipes: those of `sqlib.recipes`, and what others have registered."""
    importlib.import_module("sqlib.recipes")  # by its name: the engine itself knows no recipe
    return _REGISTRY


def names() -> list[str]:
    """Names of all recipes, sorted."""
    return sorted(known())


def canonical(name: Any) -> str | None:
    """The recipe's name for a spelling such as ``"DBDC+Pac"``, ``"Min-Max"`` or ``"2DQuant"``, else None."""
    given = _letters(name) if isinstance(name, str) else ""
    return next((each for each, cls in known().items() if given and given in _spellings(each, cls)), None)


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def create(name: str, **options: Any) -> Recipe:
    """Make a recipe by name, e.g. ``create("percentile", bits=4, percentile=99.5)``; see `canonical`.

    Raises
    ------
    InputError
        For an unknown name or option, or a bad value.
    """
    found = canonical(name)
    if found is None:
        near = difflib.get_close_matches(str(name).casefold(), known(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"unknown recipe {name!r}: expected one of {', '.join(names())}{hint}")
    cls = _REGISTRY[found]
    fields = [f.name for f in dataclasses.fields(cls)]
    unknown = sorted(set(options) - set(fields))
    if unknown:
        raise InputError(f"recipe {found!r} has no option {', '.join(unknown)}; it has {', '.join(fields)}")
    return cls(**options)


def from_dict(data: dict[str, Any]) -> Recipe:
    """Rebuild a recipe from `Recipe.to_dict`; a missing option takes its default.

    Raises
    ------
    InputError
        For anything that is not such a dictionary, and for another version of the recipe that it cannot
        upgrade.
    """
    if not isinstance(data, dict) or "name" not in data:
        raise InputError(f"recipe data {data!r}: expected a dictionary with the key 'name'")
    options = {k: v for k, v in data.items() if k not in ("name", "version")}
    cls = known().get(canonical(data["name"]) or "")
    if cls is not None and data.get("version", cls.version) != cls.version:
        upgraded = cls.upgrade(data["version"], options)
        if upgraded is None:
            raise InputError(
                f"recipe {cls.name!r} has version {cls.version} here, the data says {data['version']!r}; "
                "recompute with the present version"
            )
        options = dict(upgraded)
    return create(data["name"], **options)


def from_json(text: str) -> Recipe:
    """Rebuild a recipe from `Recipe.to_json`."""
    return from_dict(parse(text))


def parse(text: str) -> dict[str, Any]:
    """The dictionary that a line of JSON describes."""
    try:
        data = json.loads(text)
    except (TypeError, ValueError) as error:
        raise InputError(f"recipe: not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"recipe: JSON {type(data).__name__}, expected an object")
    return data
