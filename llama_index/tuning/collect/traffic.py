"""Recorded traffic, read back: records, and the views that turn them into datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from llama_index.tuning.collect.log import PathLike, read_log

if TYPE_CHECKING:
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

    Attributes:
        records: all but feedback, in the order of their time.
        texts: node id → text.
        feedback: trace id → its feedback, oldest first.
    """

    records: list[Record] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    feedback: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: PathLike) -> Traffic:
        """Read a recorder's log, all its files.

        Raises:
            FileNotFoundError: nothing was recorded at this path.
            DatasetError: the file is something else.
        """
        traffic = cls()
        rows = []
        for row in read_log(path):
            if row["kind"] == "node":
                traffic.texts[row["id"]] = row["text"]
            elif row["kind"] == "feedback":
                traffic.feedback.setdefault(row["trace"], []).append(row)
            else:
                rows.append(row)
        rows.sort(key=lambda row: float(row["time"]))
        for given in traffic.feedback.values():
            given.sort(key=lambda row: float(row["time"]))
        scores = {
            row["trace"]: row["score"]
            for row in rows
            if row["kind"] == "evaluation" and row["score"] is not None
        }
        traffic.records = [
            _record(row, traffic.last_feedback(row["trace"]), scores.get(row["trace"]))
            for row in rows
        ]
        return traffic

    def last_feedback(self, trace: str) -> dict[str, Any] | None:
        """The last feedback on a request: score, comment, choice, answer, and nodes if any."""
        return self.feedback.get(trace, [None])[-1]

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
        """Counts of records, requests, models and feedback, and the time they span."""
        counts = Counter(record.kind for record in self.records)
        models = Counter(record.model for record in self.records if record.kind == "llm")
        times = [record.time for record in self.records]
        feedback = sum(map(len, self.feedback.values()))
        shown = {kind: counts[kind] for kind in KINDS if counts[kind]}
        return {
            "requests": len({record.trace for record in self.records}),
            "records": {**shown, "feedback": feedback} if feedback else shown,
            "nodes": len(self.texts),
            "models": dict(models.most_common()),
            "liked": sum(given[-1]["score"] > 0 for given in self.feedback.values()),
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
        from llama_index.tuning.collect.chats import chat_dataset

        return chat_dataset(self, where, teacher)

    def preference_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None
    ) -> ChatDataset:
        """Pairs of answers to one prompt, the better one chosen.

        Better is the answer that a user gave with `feedback(answer=…)`, or the one with the
        larger feedback (else judge's) score where the same prompt was answered differently.
        """
        from llama_index.tuning.collect.chats import preference_dataset

        return preference_dataset(self, where, teacher)

    def retrieval_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None, top_n: int = 1
    ) -> RetrievalDataset:
        """Queries with the passages that served them.

        Relevant are the nodes that `feedback(relevant=…)` names; else the `top_n` first of the
        request's last re-ranking; without one, of what the answer was made from. A retriever's
        own first hits teach it nothing: give a `teacher=` re-ranker, or
        `where=Only(min_feedback=…)`.
        """
        from llama_index.tuning.collect.views import retrieval_dataset

        return retrieval_dataset(self, where, teacher, top_n)

    def routing_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None
    ) -> RoutingDataset:
        """Queries with the choices that a router made, corrected by users' feedback.

        `feedback(choice=…)` replaces the choice; a request with a score of 0 or less and no
        choice is left out.
        """
        from llama_index.tuning.collect.views import routing_dataset

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
        from llama_index.tuning.collect.views import relevance_dataset, users_relevance_dataset

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
        from llama_index.tuning.collect.views import judgment_dataset

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
