"""The report of an engine: base against tuned, with intervals, and the verdict."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields as dataclass_fields
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from llama_index.tuning._files import PathLike, read_json, write_text_atomic
from llama_index.tuning.errors import ArtifactError

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


@dataclass(frozen=True)
class QueryGain:
    """One measured query that changed much.

    Attributes:
        id: in the dataset.
        query: its text, at most 300 characters.
        documents: texts that answer it, at most two, of at most 300 characters each.
        base: the primary metric with the base.
        tuned: with the tuned component.
    """

    id: str
    query: str
    documents: list[str]
    base: float
    tuned: float


@dataclass(frozen=True, kw_only=True, repr=False)
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
        model: what was tuned, or what it stands on, by name.
        date: when it was measured, ISO 8601 in UTC.
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
        queries: the ten that gained most and the ten that lost most, if the engine knows them.
    """

    title: str
    method: str
    primary: str
    gains: Gains
    accepted: bool = False
    reason: str = ""
    model: str = ""
    date: str = ""
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
    queries: list[QueryGain] = field(default_factory=list)

    def __repr__(self) -> str:
        gain = self.gains.get(self.primary)
        shown = f", {self.primary} {gain.mean:+.4f}, n={gain.n}" if gain else ""
        return f"{type(self).__name__}({self.title!r}, {self.verdict}{shown})"

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
        """`"accepted"` or `"base kept"`; what it was not measured on is said with it."""
        word = "accepted" if self.accepted else "base kept"
        if self.measured_on:
            return f"{word} on stand-in questions"
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
        """The report that `to_dict` gave.

        Raises:
            ArtifactError: it is none.
        """
        with report_faults():
            fields = {**data, "gains": gains_of(data["gains"])}
            fields["slices"] = {name: gains_of(part) for name, part in data["slices"].items()}
            check_fields(cls, fields)
            if (before := data.get("before")) is not None:
                fields["before"] = tuple(before)
            fields["queries"] = [QueryGain(**item) for item in data.get("queries", [])]
            return cls(**fields)

    def save_json(self, path: PathLike) -> None:
        """Write the report as JSON, atomically."""
        write_text_atomic(path, json.dumps(self.to_dict(), ensure_ascii=False, indent=2))

    @classmethod
    def from_json(cls, path: PathLike) -> FinetuneReport:
        """Load what `save_json` wrote."""
        return cls.from_dict(read_json(path, ArtifactError))

    def save_html(self, path: PathLike) -> None:
        """Write one HTML page that needs no other file: light, dark, and for print."""
        from llama_index.tuning.pages.report import report_page

        write_text_atomic(path, report_page(self))

    def _repr_html_(self) -> str:
        from llama_index.tuning.pages.report import report_page

        return report_page(self, whole=False)

    def plot(self) -> Figure:
        """Gains with their intervals, a panel for each group of queries, below one another.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from llama_index.tuning.pages.report import plot_gains

        return plot_gains(self)


def most_changed(
    base: Iterable[float],
    tuned: Iterable[float],
    described: Callable[[int], tuple[str, str, Sequence[str]]],
    most: int = 10,
) -> list[QueryGain]:
    """The queries that gained most, then those that lost most; at most `most` of each.

    Args:
        base: one value for each query.
        tuned: the same queries' values with the other component.
        described: position → id, text, texts that answer it.
        most: of each kind.
    """
    values = [(float(b), float(a)) for b, a in zip(base, tuned, strict=True)]
    changes = sorted((after - before, row) for row, (before, after) in enumerate(values))
    lost = [row for change, row in changes if change < 0][:most]
    gained = [row for change, row in reversed(changes) if change > 0][:most]
    found = []
    for row in (*gained, *lost):
        id_, query, documents = described(row)
        texts = [_short(text) for text in documents[:2]]
        before, after = (round(number, 6) for number in values[row])
        found.append(QueryGain(id_, _short(query), texts, before, after))
    return found


def _short(text: str) -> str:
    """At most 300 characters on one line, which every file can hold."""
    line = " ".join(text[:1200].split())
    kept = line if len(line) <= 300 else line[:299] + "…"
    return kept.encode("utf-8", "replace").decode("utf-8")


def installed_versions(*packages: str) -> dict[str, str]:
    """Package → version of those that are installed, this one first."""
    found = {}
    for package in ("llama-index-tuning", "llama-index-core", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def gains_of(data: Mapping[str, Any]) -> Gains:
    """The gains in plain data, by name.

    Raises:
        TypeError: a number is missing, or is none.
    """
    gains = {str(name): Gain(**gain) for name, gain in data.items()}
    for name, gain in gains.items():
        for part, value in vars(gain).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"gain {name}: {part} must be a number, got {value!r:.100}")
    return gains


_PLAIN = {"str": str, "bool": bool, "int": int, "list": list, "dict": dict, "Gains": dict}


def check_fields(cls: type[Any], values: Mapping[str, Any]) -> None:
    """Values that are to be fields of a dataclass have the types that it gives them.

    Raises:
        TypeError: naming the first that has not.
    """
    for field_ in dataclass_fields(cls):
        kind = _PLAIN.get(str(field_.type).partition("[")[0])
        value = values.get(field_.name)
        if field_.name in values and kind is not None and not isinstance(value, kind):
            what = "a text" if kind is str else f"a {kind.__name__}"
            raise TypeError(f"{field_.name} must be {what}, got {value!r:.100}")


@contextlib.contextmanager
def report_faults() -> Iterator[None]:
    """What goes wrong inside, while a report is made of plain data, is said of the report."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        what = f"{exc} is missing" if isinstance(exc, KeyError) else str(exc)
        raise ArtifactError(f"this is no report, or a damaged one: {what}") from exc


def _table(gains: Gains) -> list[str]:
    level = next(iter(gains.values())).confidence
    rows = [f"  {'metric':<14}{'base':>8}{'tuned':>8}{'gain':>9}   {level:.0%} interval"]
    for name, gain in gains.items():
        rows.append(
            f"  {name:<14}{gain.base:>8.4f}{gain.tuned:>8.4f}{gain.mean:>+9.4f}"
            f"   {gain.low:+.4f} to {gain.high:+.4f}"
        )
    return rows
