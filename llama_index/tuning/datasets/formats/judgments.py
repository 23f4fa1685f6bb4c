"""Judgments out of other shapes: rows of a file, a `LabelledRagDataset`, samples to judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from llama_index.tuning.datasets.checks import answer_faults, judgment_faults, objects_of
from llama_index.tuning.datasets.records import Judgment
from llama_index.tuning.errors import DatasetError

_FIELDS = tuple(field.name for field in fields(Judgment))
_TEXTS = ("query", "response", "reference", "second_response", "feedback", "source", "judge")
_NUMBERS = ("score", "weight")
_VERDICTS: Mapping[str, bool | float] = {
    **dict.fromkeys(("yes", "true", "pass", "passing"), True),
    **dict.fromkeys(("no", "false", "fail", "failing"), False),
    **{"a": 1.0, "b": 0.0, "tie": 0.5},
}


def load_rows(
    rows: Iterable[Mapping[str, Any]],
    columns: Mapping[str, str | None],
    verdicts: Mapping[str, bool | float] | None,
    source: str,
    coerce: bool,
) -> tuple[list[Judgment], dict[str, int]]:
    """The judgments, and what became of the rows; see `JudgmentDataset.from_rows`."""
    rows = objects_of("rows", rows)
    for name, given in {"columns": columns, "verdicts": verdicts}.items():
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f"{name} must be a dictionary, got {type(given).__name__}")
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
    return judgments, dict(counts)


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
    for fault in judgment_faults(judgment):
        raise _LeftOut(fault)
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


def samples_of(given: Any, predictions: Any = None) -> list[Judgment]:
    """Answers to judge, without verdicts.

    Args:
        given: judgments, plain objects with their fields, a `JudgmentDataset`, or a
            `LabelledRagDataset`.
        predictions: of a `LabelledRagDataset`, a `RagPredictionDataset`: the answers to judge, in
            the examples' order. Without, its reference answers are.

    Raises:
        DatasetError: naming every fault by its number.
    """
    if hasattr(given, "examples"):
        return rag_samples(given, predictions)
    if predictions is not None:
        raise ValueError("predictions belong to a LabelledRagDataset; samples is none")
    given = getattr(given, "judgments", given)
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise TypeError(
            "samples must be judgments, plain objects or a LabelledRagDataset, got "
            f"{type(given).__name__}"
        )
    samples = [without_verdict(number, row) for number, row in enumerate(given)]
    faults = [
        f"sample {number}: {fault}"
        for number, sample in enumerate(samples)
        for fault in answer_faults(sample)
    ]
    if faults:
        raise DatasetError("the samples have faults:", faults)
    return samples
