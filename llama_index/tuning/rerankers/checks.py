"""What arguments have to be."""

from __future__ import annotations

from numbers import Integral


def whole_number(name: str, value: object, least: int) -> int:
    """The value as an `int`; NumPy's integers are taken too.

    Raises:
        ValueError: it is no whole number, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    return int(value)
