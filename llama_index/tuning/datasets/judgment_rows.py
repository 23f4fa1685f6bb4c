"""Judgments out of other shapes: rows of a file, a `LabelledRagDataset`; and groups to split by.

How far verdicts on the same items agree: of two sources, of two orders of a pair.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations
from typing import Any

from llama_index.tuning.datasets.judgments import Judgment, JudgmentDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.text.words import normalise

_FIELDS = tuple(field.name for field in fields(Judgment))
_TEXTS = ("query", "response", "reference", "second_response", "feedback", "source", "judge")
_NUMBERS = ("score", "weight")
_VERDICTS: Mapping[str, bool | float] = {
    **dict.fromkeys(("yes", "true", "pass", "passing"), True),
    **dict.fromkeys(("no", "false", "fail", "failing"), False),
    **{"a": 1.0, "b": 0.0, "tie": 0.5},
}


@dataclass(frozen=True)
class LoadedJudgments:
    """A dataset, and what became of the rows.

    Args:
        dataset: of the rows that were kept.
        counts: rows, kept, and how many were changed or left out for each reason.
    """

    dataset: JudgmentDataset
    counts: dict[str, int]


def load_rows(
    rows: Iterable[Mapping[str, Any]],
    columns: Mapping[str, str | None],
    verdicts: Mapping[str, bool | float] | None,
    source: str,
    coerce: bool,
) -> LoadedJudgments:
    """See `JudgmentDataset.from_rows`."""
    rows = list(rows)
    _check_columns(rows, columns)
    read = {str(label).casefold(): v for label, v in (verdicts or _VERDICTS).items()}
    named = {**{name: name for name in _FIELDS}, **columns}
    names = {ours: theirs for ours, theirs in named.items() if theirs is not None}
    counts: Counter[str] = Counter(rows=len(rows), kept=0)
    judgments = []
    for row in rows:
        found = {ours: row[theirs] for ours, theirs in names.items() if theirs in row}
        changes: list[str] = []
        try:
            judgment = _judgment(found, read, coerce, changes)
        except _LeftOut as exc:
            counts[f"left out: {exc}"] += 1
            continue
        counts["kept"] += 1
        counts.update(changes)
        judgments.append(judgment if judgment.source else replace(judgment, source=source))
    if not judgments:
        raise DatasetError("no row is left:", [f"{name}: {n}" for name, n in counts.items()])
    return LoadedJudgments(JudgmentDataset(judgments), dict(counts))


class _LeftOut(Exception):  # noqa: N818 - ends one row, never seen by callers
    """A row that gives no judgment."""


def _check_columns(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str | None]) -> None:
    unknown = sorted(set(columns) - {*_FIELDS, "verdict"})
    if unknown:
        raise ValueError(
            f"columns: no judgment has {', '.join(unknown)}; choose of: "
            f"{', '.join((*_FIELDS, 'verdict'))}"
        )
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DatasetError(f"row {number} must be an object, got {type(row).__name__}")
    there = {key for row in rows for key in row}
    missing = [
        f"{ours}: {theirs!r}"
        for ours, theirs in columns.items()
        if theirs is not None and theirs not in there
    ]
    if missing:
        raise DatasetError("columns that no row has:", missing)


def _judgment(
    found: Mapping[str, Any],
    verdicts: Mapping[str, bool | float],
    coerce: bool,
    changes: list[str],
) -> Judgment:
    values = {name: value for name, value in found.items() if value is not None}
    label = values.pop("verdict", None)
    if label is not None:
        values.update(_read_verdict(label, verdicts))
    if values.get("response") is None:
        raise _LeftOut("no response")
    said = values.get("passing") is not None or values.get("score") is not None
    if not said and not values.get("invalid"):
        raise _LeftOut("no verdict")
    for name in _TEXTS:
        if name in values and not isinstance(values[name], str):
            values[name] = _text(name, values[name], coerce, changes)
    contexts = values.get("contexts")
    if isinstance(contexts, str):
        if not coerce:
            raise _LeftOut("contexts: str")
        values["contexts"] = [contexts]
        changes.append("contexts: str made a list")
    for name in _NUMBERS:
        value = values.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise _LeftOut(f"{name} is no number")
    judgment = Judgment(**values)
    try:
        JudgmentDataset([judgment])
    except DatasetError as exc:
        raise _LeftOut(str(exc).rsplit(": ", 1)[-1]) from None
    return judgment


def _read_verdict(label: Any, verdicts: Mapping[str, bool | float]) -> dict[str, Any]:
    known = str(label).casefold()
    if known not in verdicts:
        raise _LeftOut(f"verdict {label!r} is not in verdicts")
    value = verdicts[known]
    return {"passing": value} if isinstance(value, bool) else {"score": float(value)}


def _text(name: str, value: Any, coerce: bool, changes: list[str]) -> str:
    kind = type(value).__name__
    if not coerce or not isinstance(value, (bool, int, float)):
        raise _LeftOut(f"{name}: {kind}")
    changes.append(f"{name}: {kind} made a text")
    return str(value)


def without_verdict(number: int, row: Any) -> Judgment:
    """A sample's texts, whatever verdict is beside them."""
    if isinstance(row, Mapping):
        unknown = sorted(map(str, set(row) - set(_FIELDS)))
        if unknown:
            raise DatasetError(f"sample {number} has unknown fields: {', '.join(unknown)}")
        row = Judgment(**row)
    if not isinstance(row, Judgment):
        raise TypeError(f"sample {number} must be a Judgment or an object, got {row!r:.80}")
    return replace(
        row, score=None, passing=None, feedback=None, source="", judge=None, invalid=False
    )


def rag_samples(dataset: Any, predictions: Any) -> list[Judgment]:
    """Answers of a `LabelledRagDataset`, or of predictions on it, without verdicts."""
    if predictions is None:
        return [sample for _, sample in _answers(dataset)]
    found = list(getattr(predictions, "predictions", predictions))
    examples = list(dataset.examples)
    if len(found) != len(examples):
        raise DatasetError(
            f"predictions must be one for each of the {len(examples)} examples, got {len(found)}"
        )
    return [
        Judgment(
            query=example.query,
            response=prediction.response,
            contexts=list(prediction.contexts) if prediction.contexts else None,
            reference=example.reference_answer or None,
        )
        for example, prediction in zip(examples, found, strict=True)
    ]


def reference_answers(dataset: Any, source: str | None) -> list[Judgment]:
    """A `LabelledRagDataset`'s reference answers, all passing."""
    return [
        replace(sample, passing=True, source=source if source is not None else _author(example))
        for example, sample in _answers(dataset)
    ]


def _answers(dataset: Any) -> Iterator[tuple[Any, Judgment]]:
    examples = getattr(dataset, "examples", None)
    if not examples:
        raise DatasetError("a LabelledRagDataset with examples is needed, it has none")
    for number, example in enumerate(examples):
        if not example.reference_answer:
            raise DatasetError(f"example {number} has no reference_answer")
        yield (
            example,
            Judgment(
                query=example.query,
                response=example.reference_answer,
                contexts=list(example.reference_contexts) if example.reference_contexts else None,
            ),
        )


def _author(example: Any) -> str:
    by = getattr(example, "reference_answer_by", None)
    if by is None:
        return ""
    model = getattr(by, "model_name", None)
    kind = getattr(by, "type", "")
    return str(model or getattr(kind, "value", kind))


def drawn_groups(judgments: Sequence[Judgment], test_size: float, seed: int) -> list[bool]:
    """For each judgment whether it is in the second part; one query's are together."""
    if isinstance(test_size, bool) or not 0 < test_size < 1:
        raise ValueError(f"test_size must be between 0 and 1, got {test_size!r}")
    groups = [query_key(judgment) for judgment in judgments]
    names = sorted(set(groups))
    if len(names) < 2:
        raise DatasetError(f"a split needs at least 2 queries, the dataset has {len(names)}")
    random.Random(seed).shuffle(names)
    size = min(len(names) - 1, max(1, round(test_size * len(names))))
    chosen = set(names[:size])
    return [group in chosen for group in groups]


def query_key(judgment: Judgment) -> tuple[str, ...]:
    """What keeps verdicts together: the query; without one the contexts, else the answers."""
    if judgment.query and judgment.query.strip():
        return ("query", normalise(judgment.query))
    if judgment.contexts:
        return ("contexts", *map(normalise, judgment.contexts))
    answers = (judgment.response or "", judgment.second_response or "")
    return ("answers", *sorted(map(normalise, answers)))


Item = tuple[Hashable, ...]
Verdict = str | float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two series of verdicts on the same items.

    Attributes:
        n: items with a verdict in both.
        equal: share of equal verdicts.
        kappa: Cohen's, scikit-learn's; `None` where both always say the same one thing.
        undecided: items left out, because one side's verdicts on them are tied.
    """

    n: int
    equal: float
    kappa: float | None
    undecided: int = 0

    @property
    def flip_rate(self) -> float:
        """Share of different verdicts: of two orders, how many turned with the order."""
        return 1.0 - self.equal

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        kappa = "undefined" if self.kappa is None else f"{self.kappa:.3f}"
        text = f"equal {self.equal:.3f}, kappa {kappa}, n={self.n}"
        return f"{text}, {self.undecided} undecided" if self.undecided else text


def agreement_of_sources(dataset: JudgmentDataset, first: str, second: str) -> Agreement:
    """See `JudgmentDataset.agreement`."""
    if first == second:
        raise ValueError(f"two sources are needed, got {first!r} twice")
    sides = [_votes(dataset.by_source(name).judgments) for name in (first, second)]
    both = [item for item in sides[0] if item in sides[1]]
    if not both:
        raise DatasetError(f"no item has verdicts of both {first!r} and {second!r}")
    pairs = [(_majority(sides[0][item]), _majority(sides[1][item])) for item in both]
    decided = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not decided:
        raise DatasetError("every item that both judged has tied verdicts on one side")
    return _agreement(decided, undecided=len(pairs) - len(decided))


def agreement_of_orders(dataset: JudgmentDataset) -> Agreement:
    """See `JudgmentDataset.agreement_of_orders`."""
    both = _both_orders(dataset)
    if not both:
        raise DatasetError("no pair was judged in both orders by one source")
    pairs = [(_majority(a), _majority(b)) for a, b in both]
    decided = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not decided:
        raise DatasetError("every pair's verdicts are tied within one order")
    return _agreement(decided, undecided=len(pairs) - len(decided))


def sources_in_common(dataset: JudgmentDataset) -> list[tuple[str, str]]:
    """Pairs of sources that judged at least one item both."""
    items = {name: set(_votes(dataset.by_source(name).judgments)) for name in dataset.sources()}
    return [(a, b) for a, b in combinations(items, 2) if items[a] & items[b]]


def sources_in_both_orders(dataset: JudgmentDataset) -> list[str]:
    """Sources that judged at least one pair in both orders."""
    return [name for name in dataset.sources() if _both_orders(dataset.by_source(name))]


def item_of(judgment: Judgment) -> Item:
    """What is judged; a pair is the same in either order."""
    answers: Sequence[str] = (judgment.response or "",)
    if judgment.second_response is not None:
        answers = sorted((judgment.response or "", judgment.second_response))
    return (judgment.query, tuple(judgment.contexts or ()), *answers)


def verdict_of(judgment: Judgment) -> Verdict:
    """A pair's better answer by its place in `item_of`, else yes or no, else the score.

    No verdict at all is equal to nobody's.
    """
    if judgment.invalid:
        return f"no verdict of {judgment.source}"
    if judgment.second_response is not None:
        first = _share_of_first(judgment)
        if first == 0.5:
            return "tie"
        better_first = (first > 0.5) != _turned(judgment)
        return "first" if better_first else "second"
    if judgment.passing is not None:
        return "pass" if judgment.passing else "fail"
    assert judgment.score is not None
    return float(judgment.score)


def _both_orders(dataset: JudgmentDataset) -> list[tuple[list[Verdict], list[Verdict]]]:
    """Of each pair that one source judged in both orders: verdicts in the one, in the other."""
    orders: dict[Item, tuple[list[Verdict], list[Verdict]]] = defaultdict(lambda: ([], []))
    for judgment in dataset.judgments:
        if judgment.invalid or judgment.second_response is None:
            continue
        if judgment.response != judgment.second_response:
            item = (judgment.source, *item_of(judgment))
            side = orders[item][_turned(judgment)]
            side.append(verdict_of(judgment))
    return [sides for sides in orders.values() if all(sides)]


def _share_of_first(judgment: Judgment) -> float:
    if judgment.score is not None:
        return judgment.score
    return float(bool(judgment.passing))


def _turned(judgment: Judgment) -> bool:
    return (judgment.response or "") > (judgment.second_response or "")


def _votes(judgments: Sequence[Judgment]) -> Mapping[Item, list[Verdict]]:
    found: dict[Item, list[Verdict]] = defaultdict(list)
    for judgment in judgments:
        found[item_of(judgment)].append(verdict_of(judgment))
    return found


def _majority(verdicts: Sequence[Verdict]) -> Verdict | None:
    ranked = Counter(verdicts).most_common(2)
    if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
        return None
    return ranked[0][0]


def _agreement(pairs: Sequence[tuple[Verdict, Verdict]], *, undecided: int) -> Agreement:
    first, second = ([str(pair[side]) for pair in pairs] for side in (0, 1))
    return Agreement(
        n=len(pairs),
        equal=sum(a == b for a, b in zip(first, second, strict=True)) / len(pairs),
        kappa=_kappa(first, second),
        undecided=undecided,
    )


def _kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    if len({*first, *second}) < 2:
        return None
    from sklearn.metrics import cohen_kappa_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few distinct labels: fine for scores
        return float(cohen_kappa_score(first, second))
