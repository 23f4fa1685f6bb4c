"""Questions that take several passages to answer."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from llama_index.tuning._checks import check_counts, items_of, plain_arguments, whole_number
from llama_index.tuning._files import PathLike
from llama_index.tuning._running import own_work
from llama_index.tuning.asking import parsing as schemas
from llama_index.tuning.asking.calls import Calls, Question
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.asking.parsing import parse_questions
from llama_index.tuning.asking.results import GeneratedDataset, Outcomes, query_id
from llama_index.tuning.asking.run import default_llm, run_items, run_options
from llama_index.tuning.asking.verdicts import parse_yes_no
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets.checks import nodes_with_text
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.generate.questions import MULTI_HOP_PROMPT, VERIFY_PROMPT
from llama_index.tuning.text.sentences import question_key
from llama_index.tuning.vectors.search import top_k

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM
    from llama_index.core.schema import BaseNode, MetadataMode

Group = tuple[str, ...]

_NEIGHBOURS = 20
_TOO_CLOSE = 0.95
"""Passages with this cosine say the same: there is no second hop between them."""


@own_work
@plain_arguments
def generate_multi_hop_queries(
    nodes: Sequence[BaseNode],
    llm: LLM | None = None,
    *,
    num_groups: int = 100,
    nodes_per_group: int = 2,
    num_questions_per_group: int = 1,
    groups: Sequence[Sequence[str]] | None = None,
    embed_model: BaseEmbedding | None = None,
    verify: bool = False,
    seed: int = 0,
    metadata_mode: MetadataMode | str = "embed",
    output_path: PathLike | None = None,
    run: RunOptions | None = None,
) -> GeneratedDataset:
    """Questions on several passages at once, with all of them relevant.

    Args:
        nodes: the passages.
        llm: `Settings.llm` by default.
        num_groups: how many groups of passages to draw, at most.
        nodes_per_group: passages in each, at least 2.
        num_questions_per_group: how many to ask for.
        groups: node ids of the groups, if the caller chooses them.
        embed_model: draws passages on related subjects (a passage and near ones, no copies);
            without it, passages of one source document, or any if documents are short.
        verify: ask the LLM whether the passages together answer the question and none of them
            does alone; drop it if not.
        seed: of the draw.
        metadata_mode: which metadata the corpus' texts have: by default what an index embeds;
            `"none"` for the text alone.
        output_path: where the dataset is written as JSON, with the run file beside it.
        run: see `RunOptions`.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> from llama_index.core.schema import TextNode
        >>> nodes = [TextNode(text="The fee is 5.", id_="a"), TextNode(text="VAT: 20 %", id_="b")]
        >>> dataset = generate_multi_hop_queries(nodes, MockLLM())
        >>> {tuple(sorted(docs)) for docs in dataset.relevant_docs.values()}
        {('a', 'b')}
    """
    check_counts(num_groups=num_groups, num_questions_per_group=num_questions_per_group)
    nodes_per_group = whole_number("nodes_per_group", nodes_per_group, 2)
    nodes = nodes_with_text(nodes, metadata_mode)
    corpus = RetrievalDataset.from_nodes(nodes, {}, {}, metadata_mode=metadata_mode).corpus
    if groups is None:
        chosen = _draw(nodes, num_groups, nodes_per_group, embed_model, random.Random(int(seed)))
    else:
        chosen = _checked(groups, corpus)
    writer = _Writer({node.node_id: node for node in nodes}, num_questions_per_group, verify)
    outcomes = run_items(
        default_llm(llm),
        chosen,
        writer.write,
        id_of=" + ".join,
        header={
            "task": "multi-hop",
            "prompt": MULTI_HOP_PROMPT,
            "num_questions_per_group": num_questions_per_group,
            "verify": verify,
        },
        output_path=output_path,
        description="Generating multi-hop questions",
        run=run_options(run),
    )
    made = _assemble(corpus, outcomes)
    if output_path is not None:
        made.save_json(output_path)
    return made


@dataclass(frozen=True)
class _Found:
    group: Group
    questions: list[str]
    dropped: int = 0


@dataclass(frozen=True)
class _Writer:
    nodes: dict[str, BaseNode]
    count: int
    verify: bool

    async def write(self, calls: Calls, group: Group) -> _Found:
        from llama_index.core.schema import MetadataMode

        texts = [self.nodes[id_].get_content(MetadataMode.NONE) for id_ in group]
        context = "\n\n".join(f"[{number}] {text}" for number, text in enumerate(texts, start=1))
        name = " + ".join(group)
        prompt = MULTI_HOP_PROMPT.format(
            passages=len(group),
            context=context,
            count=self.count,
            plural="" if self.count == 1 else "s",
            style="",
        )
        parse = partial(parse_questions, limit=self.count)
        questions: list[str] = await calls.ask(
            Question("multi-hop", name, prompt, parse, schemas.question_list, any_id=True)
        )
        if not self.verify:
            return _Found(group, questions)
        kept = [q for q in questions if await self._needs_all(calls, name, q, context, texts)]
        return _Found(group, kept, len(questions) - len(kept))

    async def _needs_all(
        self, calls: Calls, name: str, question: str, context: str, texts: list[str]
    ) -> bool:
        for number, passage in enumerate([context, *texts]):
            prompt = VERIFY_PROMPT.format(context=passage, question=question)
            check = Question("verify", f"{name}#{number}", prompt, parse_yes_no, any_id=True)
            enough = await calls.ask(check)
            if enough != (number == 0):
                return False
        return True


def _assemble(corpus: dict[str, str], outcomes: Outcomes[_Found]) -> GeneratedDataset:
    made = GeneratedDataset({}, corpus, {}, failures=outcomes.failures)
    seen: set[str] = set()
    dropped = duplicates = 0
    for found in outcomes.results.values():
        dropped += found.dropped
        for question in found.questions:
            duplicates += question_key(question) in seen
            if question_key(question) not in seen:
                seen.add(question_key(question))
                id_ = query_id(*found.group, question)
                made.queries[id_], made.relevant_docs[id_] = question, list(found.group)
    made.counts = {
        "groups": len(outcomes.results) + len(outcomes.failures),
        "failed": len(outcomes.failures),
        "questions": len(made),
        "duplicates": duplicates,
        "unverified": dropped,
    }
    return made


def _draw(
    nodes: Sequence[BaseNode],
    count: int,
    size: int,
    embed_model: BaseEmbedding | None,
    draw: random.Random,
) -> list[Group]:
    """Distinct groups of related nodes; a node starts at most one."""
    if len(nodes) < size:
        raise DatasetError(f"{len(nodes)} nodes are too few for groups of {size}")
    starts = list(range(len(nodes)))
    draw.shuffle(starts)
    near = _near_by_vector if embed_model is not None else _near_by_document
    groups: dict[frozenset[str], Group] = {}
    for start, others in near(nodes, starts, embed_model):
        if len(groups) == count:
            break
        if len(others) >= size - 1:
            rows = [start, *draw.sample(others, size - 1)]
            group = tuple(nodes[row].node_id for row in rows)
            groups.setdefault(frozenset(group), group)
    return list(groups.values())


def _near_by_vector(
    nodes: Sequence[BaseNode], starts: list[int], embed_model: BaseEmbedding | None
) -> Iterator[tuple[int, list[int]]]:
    from llama_index.core.schema import MetadataMode

    from llama_index.tuning.vectors.embedder import Embedder

    assert embed_model is not None
    texts = [node.get_content(MetadataMode.EMBED) for node in nodes]
    vectors = Embedder(embed_model).documents(texts)
    indices, scores = top_k(vectors[starts], vectors, _NEIGHBOURS + 1)
    for start, near, cosines in zip(starts, indices.tolist(), scores.tolist(), strict=True):
        pairs = zip(near, cosines, strict=True)
        yield start, [row for row, score in pairs if row != start and score < _TOO_CLOSE]


def _near_by_document(
    nodes: Sequence[BaseNode], starts: list[int], embed_model: BaseEmbedding | None
) -> Iterator[tuple[int, list[int]]]:
    del embed_model
    members: dict[str | None, list[int]] = defaultdict(list)
    for row, node in enumerate(nodes):
        members[node.ref_doc_id].append(row)
    whole = all(len(rows) == 1 for rows in members.values())
    for start in starts:
        rows = range(len(nodes)) if whole else members[nodes[start].ref_doc_id]
        yield start, [row for row in rows if row != start]


def _checked(groups: Sequence[Sequence[str]], corpus: dict[str, str]) -> list[Group]:
    for group in items_of("groups", groups, "lists of node ids"):
        items_of("groups", group, "lists of node ids")
    faults = [
        f"group {list(group)} must have at least 2 different nodes"
        for group in groups
        if len(set(group)) < 2
    ]
    faults += [f"unknown node id {id_!r}" for group in groups for id_ in group if id_ not in corpus]
    if faults:
        raise DatasetError("the groups have faults:", faults)
    return list(dict.fromkeys(tuple(dict.fromkeys(group)) for group in groups))
