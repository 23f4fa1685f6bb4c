"""Queries that the documents do not answer: for refusals, routers and judges."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, cast

from llama_index.tuning._checks import check_counts, plain_arguments
from llama_index.tuning._files import PathLike, read_json_lines, write_text_atomic
from llama_index.tuning._running import own_work
from llama_index.tuning.asking import parsing as schemas
from llama_index.tuning.asking.calls import Calls, Question
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.asking.parsing import parse_questions
from llama_index.tuning.asking.results import Failure, Outcomes, query_id
from llama_index.tuning.asking.run import default_llm, run_items, run_options, turn
from llama_index.tuning.asking.verdicts import parse_yes_no
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets.checks import nodes_with_text
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.generate.questions import (
    OUT_OF_SCOPE_PROMPT,
    STYLE,
    UNANSWERABLE_PROMPT,
    VERIFY_PROMPT,
    styles_of,
)
from llama_index.tuning.text.sentences import question_key

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode

Kind = Literal["unanswerable", "out_of_scope"]

_PROMPTS: dict[str, str] = {
    "unanswerable": UNANSWERABLE_PROMPT,
    "out_of_scope": OUT_OF_SCOPE_PROMPT,
}


@dataclass
class UnansweredQueries:
    """Queries without a relevant document.

    Args:
        queries: query id → text.
        near: query id → id of the node that it was written beside.
        kind: `"unanswerable"` (on the documents' subject) or `"out_of_scope"`.
        failures: nodes that gave nothing, with their errors.
        counts: what was asked, kept and dropped.
    """

    queries: dict[str, str]
    near: dict[str, str]
    kind: Kind
    failures: list[Failure] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of queries."""
        return len(self.queries)

    def save_jsonl(self, path: PathLike) -> None:
        """`{"id", "query", "near", "kind"}` as JSON Lines."""
        rows = (
            {"id": id_, "query": text, "near": self.near[id_], "kind": self.kind}
            for id_, text in self.queries.items()
        )
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        write_text_atomic(path, "".join(f"{line}\n" for line in lines))

    @classmethod
    @plain_arguments
    def from_jsonl(cls, path: PathLike) -> UnansweredQueries:
        """Load what `save_jsonl` wrote."""
        rows = list(read_json_lines(path))
        faults = [
            f"line {number} must have id, query, near and kind"
            for number, row in rows
            if set(row) != {"id", "query", "near", "kind"} or row["kind"] not in _PROMPTS
        ]
        kinds = list({row.get("kind"): None for _, row in rows})
        if faults or len(kinds) != 1:
            raise DatasetError(f"{path} must hold queries of one kind:", faults)
        return cls(
            {row["id"]: row["query"] for _, row in rows},
            {row["id"]: row["near"] for _, row in rows},
            cast(Kind, kinds[0]),
        )


@own_work
@plain_arguments
def generate_unanswerable_queries(
    nodes: Sequence[BaseNode],
    llm: LLM | None = None,
    *,
    kind: Kind = "unanswerable",
    num_queries_per_chunk: int = 1,
    question_styles: Sequence[str] | Mapping[str, str] | None = None,
    verify: bool = False,
    retriever: BaseRetriever | None = None,
    output_path: PathLike | None = None,
    run: RunOptions | None = None,
) -> UnansweredQueries:
    """Queries that look like the users' and have no answer in the documents.

    Args:
        nodes: the passages beside which queries are written.
        llm: `Settings.llm` by default.
        kind: `"unanswerable"` asks on the passage's subject for what it does not say;
            `"out_of_scope"` has nothing to do with the collection.
        num_queries_per_chunk: how many to ask for, for each node.
        question_styles: see `generate_qa_embedding_pairs`; nodes take turns in them.
        verify: ask the LLM whether the passage answers the query after all, and drop it if so.
        retriever: with `verify`, its results for the query are checked too: another passage may
            hold the answer.
        output_path: where the queries are written (`save_jsonl`), with the run file beside it.
        run: see `RunOptions`.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> from llama_index.core.schema import TextNode
        >>> nodes = [TextNode(text="The fee is 5 euros.", id_="fee")]
        >>> list(generate_unanswerable_queries(nodes, MockLLM()).near.values())
        ['fee']
    """
    check_counts(num_queries_per_chunk=num_queries_per_chunk)
    nodes = nodes_with_text(nodes)
    if kind not in _PROMPTS:
        raise ValueError(f"unknown kind {kind!r}; choose one of: {', '.join(_PROMPTS)}")
    if retriever is not None and not verify:
        raise ValueError("retriever is only used with verify=True")
    RetrievalDataset.from_nodes(nodes, {}, {})
    writer = _Writer(kind, num_queries_per_chunk, styles_of(question_styles), verify, retriever)
    outcomes = run_items(
        default_llm(llm),
        nodes,
        writer.write,
        id_of=lambda node: node.node_id,
        header={
            "task": kind,
            "prompt": _PROMPTS[kind],
            "num_queries_per_chunk": num_queries_per_chunk,
            "question_styles": dict(writer.styles),
            "verify": verify,
        },
        output_path=output_path,
        description="Generating queries without an answer",
        run=run_options(run),
    )
    made = _assemble(kind, outcomes)
    if output_path is not None:
        made.save_jsonl(output_path)
    return made


def _assemble(kind: Kind, outcomes: Outcomes[tuple[list[str], int]]) -> UnansweredQueries:
    made = UnansweredQueries({}, {}, kind, outcomes.failures)
    seen: set[str] = set()
    asked = answered = 0
    for node_id, (kept, dropped) in outcomes.results.items():
        asked, answered = asked + len(kept) + dropped, answered + dropped
        for text in kept:
            if question_key(text) not in seen:
                seen.add(question_key(text))
                id_ = query_id(node_id, text)
                made.queries[id_], made.near[id_] = text, node_id
    made.counts = {
        "nodes": len(outcomes.results) + len(outcomes.failures),
        "failed": len(outcomes.failures),
        "queries": len(made),
        "duplicates": asked - answered - len(made),
        "answered": answered,
    }
    return made


@dataclass(frozen=True)
class _Writer:
    kind: str
    count: int
    styles: Mapping[str, str]
    verify: bool
    retriever: BaseRetriever | None

    async def write(self, calls: Calls, node: BaseNode) -> tuple[list[str], int]:
        """The queries kept, and how many were dropped."""
        from llama_index.core.schema import MetadataMode

        context = node.get_content(MetadataMode.NONE)
        style = turn(list(self.styles), context)
        prompt = _PROMPTS[self.kind].format(
            context=context,
            count=self.count,
            plural="" if self.count == 1 else "s",
            style=STYLE.format(instruction=self.styles[style]) if style else "",
        )
        parse = partial(parse_questions, limit=self.count)
        queries: list[str] = await calls.ask(
            Question(self.kind, node.node_id, prompt, parse, schemas.question_list)
        )
        if not self.verify:
            return queries, 0
        kept = [q for q in queries if not await self._answered(calls, node.node_id, q, context)]
        return kept, len(queries) - len(kept)

    async def _answered(self, calls: Calls, node_id: str, query: str, context: str) -> bool:
        from llama_index.core.schema import MetadataMode

        passages = [context]
        if self.retriever is not None:
            found = await self.retriever.aretrieve(query)
            passages += [one.node.get_content(MetadataMode.NONE) for one in found]
        for passage in dict.fromkeys(passages):
            prompt = VERIFY_PROMPT.format(context=passage, question=query)
            check = Question("verify", f"{node_id}#{query}", prompt, parse_yes_no)
            if await calls.ask(check):
                return True
        return False
