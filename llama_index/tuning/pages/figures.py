"""Numbers as people read them, and where they stand in a figure, in per cent of its width.

Positions are per cent so that a figure scales with the page while its text does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class Interval(Protocol):
    """What a figure shows of a gain."""

    @property
    def low(self) -> float: ...
    @property
    def mean(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def n(self) -> int: ...


def value(number: float) -> str:
    """Three decimals, fewer for large numbers: `0.641`, `12.3`, `1,340`."""
    if not math.isfinite(number):
        return "–"
    digits = 3 if abs(number) < 10 else 1 if abs(number) < 1000 else 0
    text = f"{number:,.{digits}f}" if abs(number) < 1e6 else f"{number:.2g}"
    return text.replace("-", "−")


def signed(number: float) -> str:
    """The same with its sign: `+0.014`."""
    text = value(number)
    return text if text.startswith(("−", "–")) else f"+{text}"


def plain(number: float) -> str:
    """As short as it goes, to four significant digits: `64`, `0.0003`, `6.1e-07`."""
    if isinstance(number, int) or (math.isfinite(number) and number == int(number)):
        return f"{int(number)}"
    return f"{number:.4g}"


FEW = 10
"""Of fewer queries an interval shows nothing: `gate.MIN_QUERIES`."""


def direction(gain: Interval) -> Literal["up", "down", "open"]:
    """Whether a gain or a loss is shown."""
    if gain.n < FEW:
        return "open"
    return "up" if gain.low > 0 else "down" if gain.high < 0 else "open"


@dataclass(frozen=True)
class Scale:
    """From values to per cent of the width.

    >>> scale = Scale.of([0.0, 0.02])
    >>> scale.at(scale.low), scale.at(scale.high)
    (0.0, 100.0)
    """

    low: float
    high: float

    @classmethod
    def of(cls, numbers: Iterable[float]) -> Scale:
        """Room for all finite numbers and zero, with a little air."""
        found = [0.0, *(float(number) for number in numbers if math.isfinite(number))]
        low, high = min(found), max(found)
        air = (high - low or 1.0) * 0.06
        return cls(low - air, high + air)

    def at(self, number: float) -> float:
        """Per cent of the width; what lies beyond the scale or is no number, at its end."""
        if not math.isfinite(number):
            return 100.0 if number > 0 else 0.0
        return round(min(100.0, max(0.0, 100 * (number - self.low) / (self.high - self.low))), 2)

    def ticks(self, most: int = 5) -> list[tuple[float, str]]:
        """Round numbers on the scale, with how they are written; zero among them."""
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough)
        digits = max(0, 1 - math.floor(math.log10(step)))
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [(n * step, _tick(n * step, digits)) for n in range(first, last + 1)]


def scale_of(rows: Iterable[tuple[str, Interval]]) -> Scale:
    """A scale for the intervals of gains."""
    return Scale.of(end for _, gain in rows for end in (gain.low, gain.mean, gain.high))


def curve_points(xs: Sequence[float], ys: Sequence[float], x: Scale, y: Scale) -> str:
    """The points of a line in a square of 100 by 100, its origin at the lower left."""
    return " ".join(f"{x.at(a)},{round(100 - y.at(b), 2)}" for a, b in zip(xs, ys, strict=True))


def _tick(number: float, digits: int) -> str:
    text = f"{number:+,.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("+0", "-0") else text.replace("-", "−")
