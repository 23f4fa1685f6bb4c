"""What arguments have to be."""

from __future__ import annotations

from numbers import Integral
from typing import Any


def whole_number(name: str, value: object, least: int) -> int:
    """The value as an `int`; NumPy's integers are taken too.

    Raises:
        ValueError: it is no whole number, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    return int(value)


def whole_numbers(name: str, values: object, least: int) -> tuple[int, ...]:
    """The values of a tuple or list, each by `whole_number`."""
    return tuple(whole_number(name, value, least) for value in listed(name, values, "numbers"))


def listed(name: str, value: object, what: str) -> tuple[Any, ...]:
    """The items of a tuple or list, such as `what`.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be a tuple of {what}, got {value!r}")
    return tuple(value)


def set_plain(options: object, name: str, value: object) -> None:
    """Keep a checked value in its plain type, so that reports can be written: NumPy's cannot."""
    object.__setattr__(options, name, value)  # options are frozen, but for this
