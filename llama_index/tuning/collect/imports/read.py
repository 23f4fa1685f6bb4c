"""Exports of traces, read one span after the other: OTLP, Phoenix, Langfuse, MLflow."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePath
from typing import Any

from llama_index.tuning._files import PathLike, ordinary_file
from llama_index.tuning.collect.imports.nested import at, listed, loaded, nested
from llama_index.tuning.datasets.checks import is_number
from llama_index.tuning.errors import DatasetError, MissingExtraError

Spans = PathLike | Iterable[Mapping[str, Any]] | Any
Faults = Counter[str]

BROKEN = (LookupError, AttributeError, TypeError, ValueError, ArithmeticError, RecursionError)
"""What a span whose fields are not what they should be may raise."""


@dataclass(slots=True)
class Span:
    """One span; `attributes` nested, the events' too."""

    trace: str
    id: str
    parent: str | None
    name: str
    time: float
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    failed: bool = False


@dataclass(slots=True)
class Note:
    """What somebody, or a judge, said of a request, a span or one document that a span found."""

    trace: str | None
    span: str | None
    name: str
    by_person: bool
    score: float | None
    comment: str | None
    answer: str | None = None
    document: int | None = None
    time: float = 0.0


def read(source: Spans, faults: Faults) -> Iterator[Span | Note]:
    """Spans and annotations, in the order of the file; what is broken is counted by its fault."""
    for thing in _things(source, faults):
        try:
            yield from _read(thing, faults)
        except (
            LookupError,
            AttributeError,
            TypeError,
            ValueError,
            ArithmeticError,
            RecursionError,
        ) as error:
            faults[f"that cannot be read ({type(error).__name__})"] += 1


def _things(source: Spans, faults: Faults) -> Iterator[Any]:
    if isinstance(source, str | PurePath):
        path = ordinary_file(source)
        yield from _rows_of_parquet(path) if path.suffix == ".parquet" else _json(path, faults)
    elif hasattr(source, "to_dict") and hasattr(source, "columns"):
        frame: Any = source
        yield from (frame.reset_index() if frame.index.name else frame).to_dict("records")
    elif isinstance(source, Mapping):
        yield source
    elif isinstance(source, Iterable):
        for thing in source:  # a finished span of OpenTelemetry's SDK writes itself
            yield json.loads(thing.to_json()) if hasattr(thing, "to_json") else thing
    else:
        raise TypeError(f"spans must be a file, a DataFrame or spans, got {type(source).__name__}")


def _rows_of_parquet(path: Path) -> Iterator[Any]:
    try:
        from pyarrow import parquet
    except ImportError as exc:
        raise MissingExtraError(f"reading {path.name}", "pyarrow", "tables") from exc
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=256):
            yield from batch.to_pylist()


def _json(path: Path, faults: Faults) -> Iterator[Any]:
    """The documents of a file: one a line, or laid out over many lines."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = next((line for line in file if line.strip()), "")
        if not first:
            raise DatasetError(f"{path} is empty")
        if _is_json(first):
            file.seek(0)
            for line in file:
                if not line.strip():
                    continue
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError):
                    faults["on a line that is no JSON"] += 1
            return
        file.seek(0)
        text = file.read()
    decoder, place, found = json.JSONDecoder(), 0, 0
    while (place := _next(text, place)) < len(text):
        try:
            thing, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            if not found:  # a first line that is broken, of many that are not
                for line in filter(str.strip, text.splitlines()):
                    if _is_json(line):
                        found += 1
                        yield json.loads(line)
                    else:
                        faults["on a line that is no JSON"] += 1
                if not found:
                    raise DatasetError(f"{path} is neither JSON nor JSON Lines") from None
            else:
                faults["after a place that is no JSON"] += 1
            return
        found += 1
        yield thing


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _next(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n,":
        place += 1
    return place


def _read(thing: Any, faults: Faults) -> Iterator[Span | Note]:
    if isinstance(thing, list):
        for part in thing:
            yield from read([part], faults)
    elif not isinstance(thing, Mapping):
        faults["that is no object"] += 1
    elif "resourceSpans" in thing or "resource_spans" in thing:
        for resource in thing.get("resourceSpans") or thing.get("resource_spans") or ():
            for scope in resource.get("scopeSpans") or resource.get("scope_spans") or ():
                yield from _read(list(scope.get("spans") or ()), faults)
    elif isinstance(thing.get("info"), Mapping) and "data" in thing:  # a trace of MLflow
        data = loaded(thing["data"])
        yield from _read(list(data.get("spans") or ()), faults)
        yield from _read(list(thing["info"].get("assessments") or ()), faults)
    elif "spans" in thing and ("trace_id" in thing or "request_id" in thing):  # MLflow's table
        yield from _read(listed(thing["spans"]), faults)
        yield from _read(listed(thing.get("assessments")), faults)
    elif isinstance(thing.get("observations"), list):  # a trace of Langfuse
        yield from _read(thing["observations"], faults)
        yield from _read(list(thing.get("scores") or ()), faults)
    elif isinstance(thing.get("data"), list):  # a page of an API
        yield from _read(thing["data"], faults)
    else:
        found = _note(thing) or _span(thing, faults)
        if found is not None:
            yield found


_TRACE = ("trace_id", "traceId", "context.trace_id", "context_trace_id")
_SPAN = ("span_id", "spanId", "context.span_id", "context_span_id", "id")
_PARENT = (
    "parent_id", "parentSpanId", "parent_span_id", "parent_observation_id", "parentObservationId",
)  # fmt: skip
_END = (
    "end_time", "endTimeUnixNano", "end_time_unix_nano", "end_time_ns", "endTime", "time",
    "start_time", "startTimeUnixNano", "start_time_unix_nano", "start_time_ns", "startTime",
)  # fmt: skip


def _span(thing: Mapping[str, Any], faults: Faults) -> Span | None:
    context = thing.get("context")
    row = {**thing, **context} if isinstance(context, Mapping) else thing
    trace, id_ = _of(row, _TRACE), _of(row, _SPAN)
    if trace is None or id_ is None:
        faults["without a trace or a span id"] += 1
        return None
    time = next((t for t in (moment(row.get(name)) for name in _END) if t is not None), None)
    if time is None:
        faults["without a time"] += 1
        return None
    status = row.get("status")
    code = at(status, "code") or at(status, "status_code") or row.get("status_code") or status
    attributes = nested(_attributes(row))
    events = [
        (str(event.get("name")), nested(_pairs(event.get("attributes"))))
        for event in listed(row.get("events"))
        if isinstance(event, Mapping)
    ]
    failed = code == 2 or row.get("level") == "ERROR" or "ERROR" in str(code).upper()
    parent = _of(row, _PARENT)
    name = str(row.get("name") or "")
    mlflow = at(attributes, "mlflow.traceRequestId")  # by which its assessments name the request
    trace = mlflow if isinstance(mlflow, str) else _hex(trace)
    return Span(trace, _hex(id_), parent and _hex(parent), name, time, attributes, events,
                failed)  # fmt: skip


def _attributes(row: Mapping[str, Any]) -> dict[str, Any]:
    found = _pairs(row.get("attributes"))
    found |= {key[11:]: value for key, value in row.items() if key.startswith("attributes.")}
    kind = row.get("span_kind")
    if isinstance(kind, str) and "openinference.span.kind" not in found:
        found["openinference.span.kind"] = kind
    if "mlflow.spanType" in found or "mlflow.spanInputs" in found:
        # MLflow writes each attribute as JSON.
        found = {key: _once(value) for key, value in found.items()}
        plain = ("type", "spanType"), ("input", "spanInputs"), ("output", "spanOutputs")
        found |= {f"plain.{ours}": found.get(f"mlflow.{theirs}") for ours, theirs in plain}
        found["plain.model"] = found.get("mlflow.llm.model") or found.get("model_name")
    elif isinstance(row.get("type"), str) and ("input" in row or "output" in row):  # Langfuse
        metadata = loaded(row.get("metadata"))
        found |= _pairs(loaded(at(metadata, "attributes")))
        model = row.get("model") or row.get("provided_model_name") or row.get("providedModelName")
        kinds = {"type": row["type"], "input": row.get("input"), "output": row.get("output")}
        found |= {f"plain.{key}": loaded(value) for key, value in kinds.items()}
        found["plain.model"] = model
    return found


def _once(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _pairs(given: Any) -> dict[str, Any]:
    """Attributes as an object; OTLP's JSON has a list of keys and typed values."""
    given = loaded(given)
    if isinstance(given, Mapping):
        return dict(given)
    return {item["key"]: _typed(item.get("value")) for item in given or () if item.get("key")}


def _typed(value: Any) -> Any:
    if not isinstance(value, Mapping) or not value:
        return None
    kind, held = next(iter(value.items()))
    if kind in ("intValue", "int_value"):
        return int(held)
    if kind in ("arrayValue", "array_value"):
        return [_typed(item) for item in held.get("values") or ()]
    if kind in ("kvlistValue", "kvlist_value"):
        return _pairs(held.get("values"))
    return held


def _of(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((str(row[n]) for n in names if isinstance(row.get(n), str) and row[n]), None)


def _hex(id_: str) -> str:
    return id_.removeprefix("0x")


def moment(value: Any) -> float | None:
    """Seconds since 1970, of a time in ISO format, a datetime, or nano-, milli- or seconds."""
    if isinstance(value, str):
        if not value.isdigit():
            try:
                value = datetime.fromisoformat(value.replace("Z", "+00:00"))
            except ValueError:
                return None
        else:
            value = int(value)
    if hasattr(value, "timestamp"):
        if getattr(value, "tzinfo", None) is None:
            value = value.replace(tzinfo=timezone.utc)
        value = float(value.timestamp())
    if not is_number(value):
        return None
    for limit, unit in ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3)):
        if value > limit:
            return float(value / unit)
    return float(value)


_GOOD = {"good", "up", "thumbsup", "positive", "correct", "yes", "true", "relevant", "helpful",
         "like", "liked", "pass", "👍"}  # fmt: skip
_BAD = {"bad", "down", "thumbsdown", "negative", "incorrect", "no", "false", "irrelevant",
        "unhelpful", "dislike", "disliked", "fail", "unrelated", "👎"}  # fmt: skip


_SAID_AT = ("updated_at", "timestamp", "created_at", "create_time", "end_time")


def _note(row: Mapping[str, Any]) -> Note | None:
    """An annotation of Phoenix, a score of Langfuse, an assessment of MLflow; or `None`."""
    trace, answer = _of(row, _TRACE), None
    span = _of(row, ("span_id", "spanId", "observation_id", "observationId"))
    times = (moment(row[name]) for name in _SAID_AT if row.get(name))
    when = next((time for time in times if time is not None), None)
    name = row.get("name") or row.get("annotation_name") or row.get("assessment_name") or ""
    comment = row.get("explanation") or row.get("comment") or row.get("rationale")
    if "annotator_kind" in row:
        value = at(row, "result.score")
        value = row.get("score", row.get("result.score")) if value is None else value
        label = at(row, "result.label") or row.get("label") or row.get("result.label")
        comment = at(row, "result.explanation") or row.get("result.explanation") or comment
        by_person = str(row["annotator_kind"]).upper() == "HUMAN"
    elif "assessment_id" in row or "assessment_name" in row:
        value = label = at(row, "feedback.value")
        expected = loaded(at(row, "expectation.value"))
        answer = expected if isinstance(expected, str) else at(expected, "expected_response")
        kind = at(row, "source.source_type") or at(row, "source.type") or ""
        by_person = str(kind).upper() == "HUMAN"
    elif "source" in row and ("dataType" in row or "data_type" in row) and "value" in row:
        value, label = row["value"], row.get("stringValue") or row.get("string_value")
        kind = row.get("dataType") or row.get("data_type")
        if str(kind).upper() == "BOOLEAN" and is_number(value):
            value = value > 0
        by_person = str(row["source"]).upper() != "EVAL"
    else:
        return None
    place: Any = row.get("document_position")
    score = _score(value)
    return Note(
        None if trace is None else _hex(trace),
        None if span is None else _hex(span),
        str(name),
        by_person,
        _score(label) if score is None else score,
        comment if isinstance(comment, str) else None,
        answer if isinstance(answer, str) else None,
        int(place) if is_number(place) else None,
        when or 0.0,
    )


def _score(value: Any) -> float | None:
    """A number as it is; thumbs and words for them as 1 and -1."""
    if isinstance(value, bool):
        return 1.0 if value else -1.0
    if is_number(value):
        return float(value)
    word = "".join(c for c in str(value).casefold() if c.isalnum() or c in "👍👎")
    return 1.0 if word in _GOOD else -1.0 if word in _BAD else None
