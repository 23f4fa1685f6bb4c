"""Recorded traffic, read back, and the views that turn it into datasets."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index.tuning._checks import plain_arguments
from llama_index.tuning.collect import to_chats, to_datasets
from llama_index.tuning.collect.imports.rows import rows_of_spans
from llama_index.tuning.collect.recorded import (
    Recorded,
    RelevanceSource,
    Teacher,
    Where,
    say_left_out,
)

if TYPE_CHECKING:
    from llama_index.tuning.datasets.chat import ChatDataset
    from llama_index.tuning.datasets.judgments import JudgmentDataset
    from llama_index.tuning.datasets.relevance import RelevanceDataset
    from llama_index.tuning.datasets.retrieval import RetrievalDataset
    from llama_index.tuning.datasets.routing import RoutingDataset


@dataclass
class Traffic(Recorded):
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
        faults: Counter[str] = Counter()
        traffic = cls.from_rows(rows_of_spans(spans, faults))
        traffic.left_out |= {f"span {fault}": number for fault, number in faults.items()}
        say_left_out("the spans", faults)
        return traffic

    @plain_arguments
    def chat_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None
    ) -> ChatDataset:
        """LLM exchanges as conversations to learn from.

        An exchange that a later one continues (an agent's second turn repeats the first) is
        part of the longer conversation, not a line of its own; an assistant's turn that is
        not itself a wanted exchange has weight 0.
        """
        return to_chats.chat_dataset(self, where, teacher)

    @plain_arguments
    def preference_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None
    ) -> ChatDataset:
        """Pairs of answers to one prompt, the better one chosen.

        Better is the answer that a user gave with `feedback(answer=…)`, or the one with the
        larger feedback score where the same prompt was answered differently; with the larger
        score of a judge where users' tell nothing. One is never set against the other.
        """
        return to_chats.preference_dataset(self, where, teacher)

    @plain_arguments
    def retrieval_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None, top_n: int = 1
    ) -> RetrievalDataset:
        """Queries with the passages that served them.

        Relevant are the nodes that `feedback(relevant=…)` names, found or not (a node that no
        request found needs its text: see `add_nodes`); else the `top_n` first of the
        request's last re-ranking; without one, of what the answer was made from. A request with a
        score of 0 or less and no such nodes is left out. A retriever's
        own first hits teach it nothing: give a `teacher=` re-ranker, or
        `where=Only(min_feedback=…)`.
        """
        return to_datasets.retrieval_dataset(self, where, teacher, top_n)

    @plain_arguments
    def routing_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None
    ) -> RoutingDataset:
        """Queries with the choices that a router made, corrected by users' feedback.

        `feedback(choice=…)` replaces the choice; a request with a score of 0 or less and no
        choice is left out.
        """
        return to_datasets.routing_dataset(self, where, teacher)

    @plain_arguments
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
        if source == "users":
            if teacher is not None:
                raise ValueError(f"teacher= names a re-ranker, and source is 'users': {teacher!r}")
            return to_datasets.users_relevance_dataset(self, where)
        if source != "rerankers":
            raise ValueError(f"unknown source {source!r}; choose one of: rerankers, users")
        return to_datasets.relevance_dataset(self, where, teacher)

    @plain_arguments
    def judgment_dataset(
        self, *, where: Where | None = None, teacher: Teacher | None = None
    ) -> JudgmentDataset:
        """Verdicts of judges, and users' feedback on answers as verdicts of people."""
        return to_datasets.judgment_dataset(self, where, teacher)
