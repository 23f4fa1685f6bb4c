"""The report of an engine: base against tuned, with intervals, and the verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.tuning._files import PathLike, write_text_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Gain:
    """A mean paired difference with its interval.

    Attributes:
        base: mean of the base.
        tuned: mean of the tuned.
        low: lower end of the interval of `tuned - base`.
        high: its upper end.
        n: number of queries.
        confidence: the interval's level, such as 0.9.
    """

    base: float
    tuned: float
    low: float
    high: float
    n: int
    confidence: float

    @property
    def mean(self) -> float:
        """The gain: tuned minus base."""
        return self.tuned - self.base


Gains = dict[str, Gain]


@dataclass(frozen=True, kw_only=True)
class FinetuneReport:
    """What a tuning run gained, on queries that it was not trained on.

    `print(report)` shows the table; `to_dict()`, `save_json()`, `save_html()` and `plot()` carry
    it elsewhere.

    Attributes:
        title: what was tuned, such as `"embedding adapter (linear, query side)"`.
        method: how the numbers came about, such as `"5-fold cross-fitting"`.
        primary: the metric that the gate looks at.
        gains: metric → base, tuned and the gain's interval, over all measured queries.
        slices: group of queries → metric → gain, such as documents with and without training
            queries.
        base: what the tuned component is compared with, if its name says more than "base".
        measured_on: what was asked, if not questions: the verdict says it.
        guards: names of the slices that must not lose for the gate to accept.
        also_shown: names of the slices that are comparisons with something else, whose gain the
            gate wants to see too.
        before: what is there without any component of this kind, and its primary metric, where
            more is served than that even after a refusal: the headline says both.
        accepted: whether `get_finetuned_model()` returns the tuned component.
        reason: why, in a sentence.
        data: what was measured on: counts and the dataset's fingerprint.
        options: the engine's options.
        seed: the run's seed.
        seconds: step → seconds.
        history: training curve, one entry for each epoch of each fold.
        notes: what a reader should know beside the numbers.
        versions: library → version.
        unit: what was measured, in the plural: queries, items, conversations.
    """

    title: str
    method: str
    primary: str
    gains: Gains
    accepted: bool = False
    reason: str = ""
    base: str = ""
    measured_on: str = ""
    before: tuple[str, float] | None = None
    guards: list[str] = field(default_factory=list)
    also_shown: list[str] = field(default_factory=list)
    slices: dict[str, Gains] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    unit: str = "queries"

    def __str__(self) -> str:
        lines = [f"{self.title}: {self.verdict.upper()}", self.reason, ""]
        if headline := self.headline:
            lines = [f"{self.title}: {headline}", f"{self.verdict}: {self.reason}", ""]
        for name, gains in self.groups().items():
            lines += [f"{name} (n={next(iter(gains.values())).n}, {self.method})", *_table(gains)]
            lines.append("")
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines).rstrip()

    def groups(self) -> dict[str, Gains]:
        """All of them first, then each slice that has any; empty where nothing was measured."""
        same = [name for name, gains in self.slices.items() if gains == self.gains]
        whole = ", ".join([f"all {self.unit}", *same])  # no table twice
        others = {name: gains for name, gains in self.slices.items() if name not in same}
        return {name: gains for name, gains in {whole: self.gains, **others}.items() if gains}

    @property
    def headline(self) -> str:
        """`ndcg@10: your retriever 0.808 → served 0.912; of that, tuning +0.020`, or nothing."""
        if self.before is None:
            return ""
        (name, value), gain = self.before, self.gains[self.primary]
        served = gain.tuned if self.accepted else gain.base
        what = "" if self.accepted else f" ({self.base})"
        return (
            f"{self.primary}: {name} {value:.3f} → served {served:.3f}{what}; "
            f"of that, tuning {served - gain.base:+.3f}"
        )

    @property
    def verdict(self) -> str:
        """`"accepted"`, `"base kept"`, or either with `"not measured"`."""
        word = "accepted" if self.accepted else "base kept"
        return word if self.gains else f"{word}, not measured"

    def guard(self, name: str) -> Gain:
        """The gain of a slice that the gate looks at: of the primary metric, or of its only one."""
        part = self.slices[name]
        return part.get(self.primary) or next(iter(part.values()))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FinetuneReport:
        """The report that `to_dict` gave."""
        fields = dict(data)
        fields["gains"] = _gains(fields["gains"])
        if (before := fields.get("before")) is not None:
            fields["before"] = tuple(before)
        fields["slices"] = {name: _gains(part) for name, part in fields["slices"].items()}
        return cls(**fields)

    def save_json(self, path: PathLike) -> None:
        """Write the report as JSON, atomically."""
        write_text_atomic(path, json.dumps(self.to_dict(), ensure_ascii=False, indent=2))

    @classmethod
    def from_json(cls, path: PathLike) -> FinetuneReport:
        """Load what `save_json` wrote."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    def save_html(self, path: PathLike) -> None:
        """Write one HTML page that needs no other file; with the plot where matplotlib is."""
        from llama_index.tuning._report_views import render

        write_text_atomic(path, render(self))

    def plot(self) -> Figure:
        """Gains with their intervals, one panel for each group of queries.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from llama_index.tuning._report_views import plot_gains

        return plot_gains(self)


def installed_versions(*packages: str) -> dict[str, str]:
    """Package → version of those that are installed, this one first."""
    found = {}
    for package in ("llama-index-tuning", "llama-index-core", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _gains(data: Mapping[str, Any]) -> Gains:
    return {name: Gain(**gain) for name, gain in data.items()}


def _table(gains: Gains) -> list[str]:
    level = next(iter(gains.values())).confidence
    rows = [f"  {'metric':<14}{'base':>8}{'tuned':>8}{'gain':>9}   {level:.0%} interval"]
    for name, gain in gains.items():
        rows.append(
            f"  {name:<14}{gain.base:>8.4f}{gain.tuned:>8.4f}{gain.mean:>+9.4f}"
            f"   {gain.low:+.4f} to {gain.high:+.4f}"
        )
    return rows
