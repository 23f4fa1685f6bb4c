"""What arguments have to be; every constructor and options class uses these."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def check_options(options: T | None, kind: type[T]) -> T:
    """The options given, or the defaults.

    Raises:
        TypeError: they belong to something else.
    """
    if options is None:
        return kind()
    return of_type("options", options, kind)


def of_type(name: str, value: T, kind: type[Any], what: str | None = None) -> T:
    """The value, if it is of that class.

    Args:
        name: of the argument.
        value: what was given.
        kind: the class.
        what: how the message calls the class; its name by default.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {what or kind.__name__}, got {type(value).__name__}")
    return value


def whole_number(name: str, value: object, least: int) -> int:
    """The value as an `int`; NumPy's integers are taken too.

    Raises:
        ValueError: it is no whole number, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    return int(value)


def number(name: str, value: object, low: float, high: float = float("inf")) -> float:
    """The value as a `float`, from `low` to `high`.

    Raises:
        ValueError: it is no number, or outside.
    """
    plain = isinstance(value, Real) and not isinstance(value, bool)
    if not plain or not low <= value <= min(high, sys.float_info.max):  # type: ignore[arg-type]
        bounds = f">= {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} must be a number {bounds}, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def share(name: str, value: object) -> float:
    """The value as a `float` between 0 and 1, neither of the two.

    Raises:
        ValueError: it is no number, or outside.
    """
    plain = isinstance(value, Real) and not isinstance(value, bool)
    if not plain or not 0 < value < 1:  # type: ignore[arg-type]
        raise ValueError(f"{name} must be between 0 and 1, got {value!r:.100}")
    return float(value)  # type: ignore[arg-type]


def flag(name: str, value: object) -> bool:
    """The value, if it is true or false.

    Raises:
        TypeError: it is something else.
    """
    return bool(of_type(name, value, bool, "True or False"))


def text_or_none(name: str, value: object) -> None:
    """A text, or `None`.

    Raises:
        TypeError: it is something else.
    """
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a text or None, got {value!r:.100}")


def path_or_none(name: str, value: Any) -> Any:
    """A path as it was given, or `None`; see `folder_path`."""
    return value if value is None or folder_path(name, value) else None


def items_of(name: str, value: Any, what: str) -> Iterable[Any]:
    """An iterable of `what`, which no text and no bytes are.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of {what}, got {type(value).__name__}")
    return value


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


def folder_path(name: str, value: object) -> Path:
    """The value as a path.

    Raises:
        TypeError: it is neither text nor a path, or empty, or holds a null character.
    """
    plain = isinstance(value, str | os.PathLike) and isinstance(os.fspath(value), str)
    if not plain or not os.fspath(value) or "\0" in os.fspath(value):  # type: ignore[call-overload]
        raise TypeError(f"{name} must be a path, got {value!r:.200}")
    return Path(value)  # type: ignore[arg-type]


def output_path(value: object) -> Path | None:
    """An engine's `model_output_path`: a path, or `None` to write nothing."""
    return None if value is None else folder_path("model_output_path", value)


def set_plain(options: object, name: str, value: object) -> None:
    """Keep a checked value in its plain type, so that reports can be written: NumPy's cannot."""
    object.__setattr__(options, name, value)  # options are frozen, but for this
