"""What a recorder wrote, read back record by record: one bad record must not cost the others."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from llama_index.tuning._checks import metadata_mode as checked_mode, text_or_none
from llama_index.tuning.collect.log import PathLike, read_log
from llama_index.tuning.datasets.checks import is_number, listed_nodes

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode, MetadataMode
    from typing_extensions import Self


logger = logging.getLogger(__name__)

Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _number_or_none(value: Any) -> bool:
    # A component may give NaN; what needs a finite score asks for it.
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _positions(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
    )


def _message(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("role"), str)


def _messages(value: Any) -> bool:
    return isinstance(value, list) and all(map(_message, value))


def _nodes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(node, Mapping)
        and isinstance(node.get("id"), str)
        and node["id"]
        and _number_or_none(node.get("score"))
        for node in value
    )


def _choices(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(choice, Mapping) and isinstance(choice.get("name"), str) for choice in value
    )


def _ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(id_, str) for id_ in value)


_NEEDED: dict[str, dict[str, Check]] = {
    "node": {"id": _text, "text": _text},
    "llm": {"messages": _messages, "response": _message},
    "retrieval": {"query": _text, "nodes": _nodes},
    "rerank": {"query": _text, "nodes": _nodes, "ranked": _nodes},
    "selection": {"query": _text, "choices": _choices, "selected": _positions},
    "evaluation": {"query": _text_or_none, "response": _text_or_none, "score": _number_or_none},
    "query": {"query": _text, "response": _text_or_none, "nodes": _nodes},
    "answer": {"span": _text, "response": _text},
    "feedback": {"score": lambda value: value is None or is_number(value)},
}
_IF_THERE: dict[str, dict[str, Check]] = {
    "feedback": {"relevant": _ids, "irrelevant": _ids, "choice": _text_or_none},
}


def record_fault(row: Mapping[str, Any]) -> str | None:
    """What makes a line of the log unusable, or `None`."""
    kind = row.get("kind")
    if not isinstance(kind, str):
        return "without a kind"
    if kind != "node":
        if not isinstance(row.get("trace"), str):
            return f"{kind} without a trace"
        if not is_number(row.get("time")):
            return f"{kind} without a time"
    for name, check in _NEEDED.get(kind, {}).items():
        if name not in row:
            return f"{kind} without {name}"
        if not check(row[name]):
            return f"{kind} with a wrong {name}"
    for name, check in _IF_THERE.get(kind, {}).items():
        if name in row and not check(row[name]):
            return f"{kind} with a wrong {name}"
    return None


def say_left_out(what: str, left_out: Counter[str]) -> None:
    """Log what was left out of a view or a log, and why."""
    if left_out:
        reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.most_common())
        logger.warning("%d records are left out of %s: %s", left_out.total(), what, reasons)


_TOOL = re.compile(r"Tool name: .*\nTool description: ")  # as LlamaIndex's `ObjectIndex` writes it

KINDS = ("llm", "retrieval", "rerank", "selection", "evaluation", "query")


@dataclass(frozen=True)
class Record:
    """One thing that a request did, with what is known of the request.

    Attributes:
        kind: `"llm"`, `"retrieval"`, `"rerank"`, `"selection"`, `"evaluation"` or `"query"`.
        trace: the request's trace id.
        time: when it ended, in seconds since 1970.
        model: the LLM's name; of a selection, re-ranking or verdict, of the LLM that made it.
        by: the component's class, where it is not an LLM.
        feedback: the last feedback's score on the request.
        score: the last verdict of a judge in the request.
        data: the record's own fields.
    """

    kind: str
    trace: str
    time: float
    model: str
    by: str
    feedback: float | None
    score: float | None
    data: dict[str, Any]


Where = Callable[[Record], bool]


Teacher = str


RelevanceSource = Literal["rerankers", "users"]


@dataclass(frozen=True, kw_only=True)
class Only:
    """A `where=` filter: records that pass every limit given.

    Example:
        >>> liked = Only(min_feedback=1, model="gpt-4.1")
    """

    min_feedback: float | None = None
    """Least feedback score; requests without feedback don't pass."""

    max_feedback: float | None = None
    """Largest feedback score; requests without feedback don't pass."""

    min_score: float | None = None
    """Least score by a judge; requests that were not judged don't pass."""

    since: datetime | None = None
    """Not earlier; without a time zone, local time."""

    until: datetime | None = None
    """Earlier than this."""

    model: str | None = None
    """The LLM's name."""

    def __post_init__(self) -> None:
        for name in ("min_feedback", "max_feedback", "min_score"):
            limit = getattr(self, name)
            if limit is not None and not is_number(limit):
                raise ValueError(f"{name} must be a number, got {limit!r:.100}")
        for name in ("since", "until"):
            moment = getattr(self, name)
            if moment is not None and not isinstance(moment, datetime):
                raise TypeError(f"{name} must be a datetime, got {moment!r:.100}")
        text_or_none("model", self.model)

    def __call__(self, record: Record) -> bool:
        """Whether the record passes."""
        return (
            _at_least(record.feedback, self.min_feedback)
            and (
                self.max_feedback is None
                or (record.feedback is not None and record.feedback <= self.max_feedback)
            )
            and _at_least(record.score, self.min_score)
            and (self.since is None or record.time >= self.since.timestamp())
            and (self.until is None or record.time < self.until.timestamp())
            and self.model in (None, record.model)
        )


def _at_least(value: float | None, limit: float | None) -> bool:
    return limit is None or (value is not None and value >= limit)


@dataclass
class Recorded:
    """The records of a log, with the feedback on their requests; see `Traffic`."""

    records: list[Record] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    feedback: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Read a recorder's log, all its files.

        Raises:
            FileNotFoundError: nothing was recorded at this path.
            DatasetError: the file is something else.
        """
        return cls.from_rows(read_log(path, mend=True))

    @classmethod
    def from_rows(cls, rows: Iterable[dict[str, Any]]) -> Self:
        """From the lines of a log, as plain objects."""
        traffic = cls()
        left_out: Counter[str] = Counter()
        found, answers = [], {}
        first: dict[tuple[str, ...], dict[str, Any]] = {}
        for row in rows:
            fault = record_fault(row)
            if fault is None and _is_copy(row, first):
                continue
            if fault is not None:
                left_out[fault] += 1
            elif row["kind"] == "node":
                traffic.texts[row["id"]] = row["text"]
            elif row["kind"] == "feedback":
                traffic.feedback.setdefault(row["trace"], []).append(row)
            elif row["kind"] == "answer":  # of a query that was streamed, once it was read
                answers[row["trace"], row["span"]] = row["response"]
            else:
                found.append(row)
        tools = {id_ for id_, text in traffic.texts.items() if _TOOL.match(text)}
        found = [row for row in found if not _finds_only(tools, row)]
        for id_ in tools:
            del traffic.texts[id_]
        found.sort(key=lambda row: float(row["time"]))
        for given in traffic.feedback.values():
            given.sort(key=lambda row: float(row["time"]))
        scores = {
            row["trace"]: row["score"]
            for row in found
            if row["kind"] == "evaluation" and row["score"] is not None
        }
        for row in found:
            if row["kind"] == "query" and row["response"] is None:
                row["response"] = answers.get((row["trace"], row.get("span")))
            feedback = traffic.last_feedback(row["trace"])
            traffic.records.append(_record(row, feedback, scores.get(row["trace"])))
        traffic.left_out.update(left_out)
        say_left_out("the log", left_out)
        return traffic

    def add_nodes(
        self, nodes: Iterable[BaseNode], *, metadata_mode: MetadataMode | str = "embed"
    ) -> None:
        """The texts of the app's nodes: feedback may name some that no request found.

        Args:
            nodes: those of the index, such as `index.docstore.docs.values()`.
            metadata_mode: as of the recorder; what an index embeds by default.
        """
        nodes = listed_nodes(nodes)
        mode = checked_mode(metadata_mode)
        self.texts.update({node.node_id: node.get_content(mode) for node in nodes})

    def last_feedback(self, trace: str) -> dict[str, Any] | None:
        """What was last said of a request: score, comment, choice, answer, and nodes if any.

        Feedback without a score adds to what was said before.
        """
        last: dict[str, Any] | None = None
        for given in self.feedback.get(trace, ()):
            if last is None or given["score"] is not None:
                last = {"comment": None, "choice": None, "answer": None, **given}
            else:
                last |= {key: value for key, value in given.items() if value is not None}
        return last

    def select(
        self, kind: str, where: Where | None = None, teacher: Teacher | None = None
    ) -> Iterator[Record]:
        """The records of one kind that pass."""
        for record in self.records:
            if record.kind != kind or teacher not in (None, record.model, record.by):
                continue
            if where is None or where(record):
                yield record

    def stats(self) -> dict[str, Any]:
        """Counts of records, requests, models and feedback, and the time they span.

        Feedback on a request that the log does not hold is `unmatched_feedback`, and not liked.
        """
        counts = Counter(record.kind for record in self.records)
        models = Counter(record.model for record in self.records if record.kind == "llm")
        times = [record.time for record in self.records]
        feedback = sum(map(len, self.feedback.values()))
        requests = dict.fromkeys(record.trace for record in self.records)
        last = [self.last_feedback(trace) for trace in requests]
        matched = sum(len(self.feedback.get(trace, ())) for trace in requests)
        shown = {kind: counts[kind] for kind in KINDS if counts[kind]}
        return {
            "requests": len(requests),
            "records": {**shown, "feedback": feedback} if feedback else shown,
            "nodes": len(self.texts),
            "models": dict(models.most_common()),
            "liked": sum((given.get("score") or 0) > 0 for given in last if given is not None),
            "unmatched_feedback": feedback - matched,
            "left_out": sum(number for what, number in self.left_out.items() if ": " not in what),
            "first": _moment(min(times)) if times else None,
            "last": _moment(max(times)) if times else None,
        }


def _is_copy(row: dict[str, Any], first: dict[tuple[str, ...], dict[str, Any]]) -> bool:
    """Whether a record is there already, but for its clocks: of two recorders with one log."""
    if not isinstance(row.get("span"), str):
        return False
    before = first.setdefault((row["kind"], row["trace"], row["span"]), row)
    clocks = {"time": 0, "seconds": 0}
    return before is not row and {**before, **clocks} == {**row, **clocks}


def _finds_only(tools: set[str], row: dict[str, Any]) -> bool:
    """Whether a retrieval found an agent's tools (of an `ObjectIndex`), which are no passages."""
    nodes = row["nodes"] if row["kind"] in ("retrieval", "rerank") else ()
    return bool(nodes) and all(node["id"] in tools for node in nodes)


def _record(row: dict[str, Any], feedback: dict[str, Any] | None, score: float | None) -> Record:
    head = {"kind", "trace", "time", "model", "by"}
    return Record(
        kind=row["kind"],
        trace=row["trace"],
        time=row["time"],
        model=row.get("model", ""),
        by=row.get("by", ""),
        feedback=None if feedback is None else feedback["score"],
        score=score,
        data={key: value for key, value in row.items() if key not in head},
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
