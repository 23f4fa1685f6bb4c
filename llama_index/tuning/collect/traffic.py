"""Recorded traffic, read back: records, and the views that turn them into datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from llama_index.tuning.collect.log import PathLike, read_log
from llama_index.tuning.collect.record_checks import record_fault, say_left_out
from llama_index.tuning.datasets.checks import check_nodes

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode, MetadataMode

    from llama_index.tuning.datasets.chat import ChatDataset
    from llama_index.tuning.datasets.judgments import JudgmentDataset
    from llama_index.tuning.datasets.relevance import RelevanceDataset
    from llama_index.tuning.datasets.retrieval import RetrievalDataset
    from llama_index.tuning.datasets.routing import RoutingDataset

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
class Traffic:
    """What a recorder wrote, loaded: `Traffic.load("traffic.jsonl").chat_dataset()`.

    Every view takes `where=`, a function from a `Record` to whether it is wanted (`Only(…)`
    makes the usual ones), and `teacher=`, the name of the LLM, or of the component's class,
    whose outputs are to be learnt from.

    A record that cannot be used is left out, of the log or of a view, counted and logged.

    Attributes:
        records: all but feedback, in the order of their time.
        texts: node id → text.
        feedback: trace id → its feedback, oldest first.
        left_out: what was left out of the log and, as `"routing: …"`, of each view → how often.
    """

    records: list[Record] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    feedback: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, path: PathLike) -> Traffic:
        """Read a recorder's log, all its files.

        Raises:
            FileNotFoundError: nothing was recorded at this path.
            DatasetError: the file is something else.
        """
        return cls.from_rows(read_log(path, mend=True))

    @classmethod
    def from_rows(cls, rows: Iterable[dict[str, Any]]) -> Traffic:
        """From the lines of a log, as plain objects."""
        traffic = cls()
        left_out: Counter[str] = Counter()
        found, answers = [], {}
        for row in rows:
            fault = record_fault(row)
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

    @classmethod
    def from_spans(cls, spans: Any) -> Traffic:
        """From the traces that other tools recorded: no recorder is needed.

        Reads what Phoenix, Langfuse, MLflow and OpenTelemetry export, of apps that are
        instrumented by OpenInference, by `llama-index-observability-otel` or by OpenTelemetry's
        conventions for generative AI; scores and annotations become feedback, or verdicts if a
        model gave them. Spans may come in any order; what is broken is counted in `left_out`.

        Args:
            spans: a file (OTLP JSON, JSON Lines, Parquet), a DataFrame, finished spans of
                OpenTelemetry's SDK, or spans as objects; annotations among them.

        Raises:
            FileNotFoundError: the file is not there.
            DatasetError: it holds no span.

        Example:
            >>> found = {"gen_ai.retrieval.query.text": "fee?",
            ...          "gen_ai.retrieval.documents": '[{"id": "d", "score": 0.5}]'}
            >>> span = {"trace_id": "t", "span_id": "s", "end_time": 1.0, "attributes": found}
            >>> Traffic.from_spans([span]).stats()["records"]
            {'retrieval': 1}
        """
        from llama_index.tuning.collect.imports.rows import rows_of_spans

        faults: Counter[str] = Counter()
        traffic = cls.from_rows(rows_of_spans(spans, faults))
        traffic.left_out |= {f"span {fault}": number for fault, number in faults.items()}
        say_left_out("the spans", faults)
        return traffic

    def add_nodes(
        self, nodes: Iterable[BaseNode], *, metadata_mode: MetadataMode | None = None
    ) -> None:
        """The texts of the app's nodes: feedback may name some that no request found.

        Args:
            nodes: those of the index, such as `index.docstore.docs.values()`.
            metadata_mode: as of the recorder; what an index embeds by default.
        """
        from llama_index.core.schema import MetadataMode

        nodes = list(nodes)
        check_nodes(nodes)
        mode = MetadataMode.EMBED if metadata_mode is None else metadata_mode
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

    def chat_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None
    ) -> ChatDataset:
        """LLM exchanges as conversations to learn from.

        An exchange that a later one continues (an agent's second turn repeats the first) is
        part of the longer conversation, not a line of its own; an assistant's turn that is
        not itself a wanted exchange has weight 0.
        """
        from llama_index.tuning.collect.to_datasets import chat_dataset

        return chat_dataset(self, where, teacher)

    def preference_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None
    ) -> ChatDataset:
        """Pairs of answers to one prompt, the better one chosen.

        Better is the answer that a user gave with `feedback(answer=…)`, or the one with the
        larger feedback (else judge's) score where the same prompt was answered differently.
        """
        from llama_index.tuning.collect.to_datasets import preference_dataset

        return preference_dataset(self, where, teacher)

    def retrieval_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None, top_n: int = 1
    ) -> RetrievalDataset:
        """Queries with the passages that served them.

        Relevant are the nodes that `feedback(relevant=…)` names, found or not (a node that no
        request found needs its text: see `add_nodes`); else the `top_n` first of the
        request's last re-ranking; without one, of what the answer was made from. A retriever's
        own first hits teach it nothing: give a `teacher=` re-ranker, or
        `where=Only(min_feedback=…)`.
        """
        from llama_index.tuning.collect.to_datasets import retrieval_dataset

        return retrieval_dataset(self, where, teacher, top_n)

    def routing_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None
    ) -> RoutingDataset:
        """Queries with the choices that a router made, corrected by users' feedback.

        `feedback(choice=…)` replaces the choice; a request with a score of 0 or less and no
        choice is left out.
        """
        from llama_index.tuning.collect.to_datasets import routing_dataset

        return routing_dataset(self, where, teacher)

    def relevance_dataset(
        self,
        *,
        where: Where | None = None,
        teacher: Teacher | None = None,
        source: RelevanceSource = "rerankers",
    ) -> RelevanceDataset:
        """Queries with the passages that were found, and how relevant each one is.

        Args:
            where: see the class.
            teacher: see the class; of re-rankers only.
            source: `"rerankers"`: the scores of the app's re-rankers; what one left out scores
                lowest. `"users"`: 1 for the nodes that `feedback(relevant=…)` names, else 0.
        """
        from llama_index.tuning.collect.to_datasets import (
            relevance_dataset,
            users_relevance_dataset,
        )

        if source == "users":
            if teacher is not None:
                raise ValueError(f"teacher= names a re-ranker, and source is 'users': {teacher!r}")
            return users_relevance_dataset(self, where)
        if source != "rerankers":
            raise ValueError(f"unknown source {source!r}; choose one of: rerankers, users")
        return relevance_dataset(self, where, teacher)

    def judgment_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None
    ) -> JudgmentDataset:
        """Verdicts of judges, and users' feedback on answers as verdicts of people."""
        from llama_index.tuning.collect.to_datasets import judgment_dataset

        return judgment_dataset(self, where, teacher)


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
