"""Numbers and other options as users give them: one check, one message. Imports neither torch nor numpy."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any

from sqlib.errors import InputError

FULL_PRECISION = 32


def check_bits(bits: Any, *, low: int = 1, high: int = 16, full_precision: bool = False) -> int:
    """Return `bits` as an int, or raise an `InputError` that says what is accepted.

    Parameters
    ----------
    bits
        An integer (also a NumPy integer); booleans, floats and strings are refused.
    low, high : int
        Smallest and largest bit-width accepted.
    full_precision : bool
        Whether 32 ("leave in full precision") is accepted as well.
    """
    expected = f"an integer from {low} to {high}" + (", or 32 for full precision" if full_precision else "")
    value = as_integer(bits)
    if value is None:
        raise InputError(f"bits={bits!r} ({type(bits).__name__}): expected {expected}")
    if low <= value <= high or (full_precision and value == FULL_PRECISION):
        return value
    raise InputError(f"bits={value}: expected {expected}")


def check_percentile(percentile: Any, name: str = "percentile") -> float:
    """Return `percentile` as a float above 50 and up to 100, or raise an `InputError` naming the option."""
    value = as_number(percentile)
    if not 50.0 < value <= 100.0:
        raise InputError(f"{name}={percentile!r}: expected a number above 50 and up to 100, e.g. 99.9")
    return value


def check_steps(steps: Any) -> int:
    """Return the number of steps of a bounds search, or raise an `InputError`."""
    value = as_integer(steps)
    if value is None or not 1 <= value <= 1000:
        raise InputError(f"steps={steps!r}: expected an integer from 1 to 1000 (100 as published)")
    return value


def check_clip(clip: Any) -> float | None:
    """Return the share of values that density clipping may cut, None for the default; or raise."""
    if clip is None:
        return None
    value = as_number(clip)
    if not 0 <= value < 1:
        raise InputError(f"clip={clip!r}: expected a share from 0 to below 1, e.g. 1e-4, or None")
    return value


def check_variant(variant: Any) -> str:
    """Return which side is followed where a paper and its released code differ, or raise an `InputError`."""
    if variant not in ("release", "paper"):
        raise InputError(f"variant={variant!r}: expected 'release' or 'paper'")
    return str(variant)


def as_integer(value: Any) -> int | None:
    """`value` as an int, also if it is a NumPy integer; None for booleans and what is no integer."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def as_number(value: Any) -> float:
    """`value` as a float, also if it is a NumPy scalar; NaN for booleans and what is no such number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.nan


def check_integer(name: str, value: Any, low: int, high: int) -> int:
    """`value` as an int from `low` to `high`, else `InputError`."""
    number = as_integer(value)
    if number is None or not low <= number <= high:
        raise InputError(f"{name}={value!r}: expected an integer of at least {low}" + _upto(high))
    return number


def check_number(name: str, value: Any, low: float, high: float, *, above: bool = False) -> float:
    """`value` as a float from `low` (or above it) to `high`, else `InputError`."""
    number = as_number(value)
    if not (low < number if above else low <= number) or not number <= high or math.isinf(number):
        expected = f"above {low:g}" if above else f"of at least {low:g}"
        raise InputError(f"{name}={value!r}: expected a number {expected}" + _upto(high))
    return number


def check_choice(name: str, value: Any, known: Iterable[str]) -> None:
    """Raise `InputError` unless `value` is one of some names."""
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name}={value!r}: expected one of {', '.join(known)}")


def check_flag(name: str, value: Any) -> None:
    """Raise `InputError` unless `value` is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name}={value!r}: expected True or False")


def _upto(high: float) -> str:
    return f" and at most {high:g}" if high < 10**6 else ""
