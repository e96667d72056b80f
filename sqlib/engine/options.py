"""Options of recipes, declared once with what they accept. Imports neither torch nor numpy.

>>> @dataclass(frozen=True)                                            # doctest: +SKIP
... class Percentile(Recipe):
...     percentile: float = number(99.9, 50, 100, above=True)
...     weight_per: str = choice("channel", "tensor")

`Recipe` checks every option that is declared so, and stores what the check returns: an int for a NumPy
integer, a tuple for a list from JSON.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from sqlib._checks import FULL_PRECISION, as_integer, as_number, check_bits
from sqlib.errors import InputError

Check = Callable[[str, Any], Any]
"""Takes the option's name and a value; returns what to store, or raises `InputError`."""


def option(default: Any, check: Check) -> Any:
    """An option with a check of its own."""
    return dataclasses.field(default=default, metadata={"check": check})


def number(
    default: float | None,
    low: float,
    high: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
    optional: bool = False,
) -> Any:
    """A finite number from `low` (`above`: not `low` itself) to `high` (`below`: not `high` itself).

    `optional` accepts None as well. A default of None without it is one that `Recipe.defaults` fills in.
    """

    def check(name: str, value: Any) -> float | None:
        if optional and value is None:
            return None
        found = as_number(value)
        enough = low < found if above else low <= found
        if not enough or not (found < high if below else found <= high) or math.isinf(found):
            lower = f"above {low:g}" if above else f"of at least {low:g}"
            upper = "" if high >= 10**6 else f" and {'below' if below else 'at most'} {high:g}"
            instead = ", or None" if optional else ""
            raise InputError(f"{name}={value!r}: expected a number {lower}{upper}{instead}")
        return found

    return option(default, check)


def integer(default: int | None, low: int, high: int = 10**9) -> Any:
    """An integer from `low` to `high`."""

    def check(name: str, value: Any) -> int:
        found = as_integer(value)
        if found is None or not low <= found <= high:
            upper = f" and at most {high}" if high < 10**6 else ""
            raise InputError(f"{name}={value!r}: expected an integer of at least {low}{upper}")
        return found

    return option(default, check)


def choice(default: Any, *others: Any) -> Any:
    """One of the given values; the first is the default."""

    def check(name: str, value: Any) -> Any:
        for known in (default, *others):
            if type(value) is type(known) and value == known:
                return known
        expected = ", ".join(repr(known) for known in (default, *others))
        raise InputError(f"{name}={value!r}: expected one of {expected}")

    return option(default, check)


def flag(default: bool | None) -> Any:
    """True or False."""

    def check(name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise InputError(f"{name}={value!r}: expected True or False")
        return value

    return option(default, check)


def patterns(*default: str) -> Any:
    """Name patterns (`fnmatch`), stored as a tuple."""

    def check(name: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)) or not all(isinstance(p, str) and p for p in value):
            raise InputError(f"{name}={value!r}: expected a list of name patterns, e.g. ['*.fc2']")
        return tuple(value)

    return option(tuple(default), check)


def pair(default: tuple[float, float] | None, low: float, high: float = math.inf) -> Any:
    """Two numbers from `low` to `high`, stored as a tuple."""
    single = number(None, low, high).metadata["check"]

    def check(name: str, value: Any) -> tuple[float, float]:
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            raise InputError(f"{name}={value!r}: expected a pair, e.g. {default or (low, low)}")
        return single(name, value[0]), single(name, value[1])

    return option(default, check)


def bit_widths(name: str, value: Any) -> int | tuple[int, int]:
    """The check of ``bits``: a width of 2 to 8, or (weight bits, activation bits), one of which may be 32."""
    if not isinstance(value, (list, tuple)):
        return check_bits(value, low=2, high=8)
    if len(value) != 2:
        raise InputError(f"{name}={value!r}: expected one number or a pair (weight bits, activation bits)")
    weights, activations = (check_bits(b, low=2, high=8, full_precision=True) for b in value)
    if weights == activations == FULL_PRECISION:
        raise InputError(f"{name}=(32, 32) quantizes nothing; give at least one side 2 to 8 bits")
    return weights, activations


def assign(instance: Any, **values: Any) -> None:
    """Set fields of a frozen dataclass while it is being made."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def check_all(instance: Any) -> None:
    """Check every declared option of a dataclass and store what the checks return."""
    for field in dataclasses.fields(instance):
        check = field.metadata.get("check")
        if check is not None:
            assign(instance, **{field.name: check(field.name, getattr(instance, field.name))})
