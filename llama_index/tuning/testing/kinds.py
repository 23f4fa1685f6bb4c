"""How each kind of component is asked, and what of its answer must be the same each time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.base_selector import BaseSelector, SelectorResult
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.evaluation import BaseEvaluator, EvaluationResult
from llama_index.core.llms import LLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import ToolMetadata

Answer = Any
QUESTIONS = ("How high is the fee?", "When is a refund paid?", "fee", "Ünïcödé?")
TEXTS = ("The fee is 5 euros.", "A refund is paid in five days.", "Cats sleep at noon.")


@dataclass(frozen=True)
class Probe:
    """What a component is asked.

    Attributes:
        questions: queries of users.
        texts: what a question goes with: documents to embed or re-rank, descriptions of choices,
            answers to judge.
        choices: names of a selector's choices; `texts` are their descriptions.
    """

    questions: Sequence[str] = QUESTIONS
    texts: Sequence[str] = TEXTS
    choices: Sequence[str] = ("fees", "refunds", "cats")

    def nodes(self) -> list[TextNode]:
        """The texts as nodes `n0`, `n1`, …"""
        return [TextNode(id_=f"n{i}", text=text) for i, text in enumerate(self.texts)]

    def found(self) -> list[NodeWithScore]:
        """The nodes as a retriever gives them, best first."""
        return [NodeWithScore(node=n, score=0.9 - 0.1 * i) for i, n in enumerate(self.nodes())]

    def tools(self) -> list[ToolMetadata]:
        """A selector's choices."""
        pairs = zip(self.choices, self.texts, strict=True)
        return [ToolMetadata(name=name, description=text) for name, text in pairs]


@dataclass(frozen=True)
class Kind:
    """One kind of component.

    Attributes:
        base: its class in LlamaIndex.
        ask: component, probe, question → the part of the answer that must stay.
        aask: the same, asynchronously.
    """

    base: type[Any]
    ask: Callable[[Any, Probe, str], Answer]
    aask: Callable[[Any, Probe, str], Awaitable[Answer]]


def kind_of(component: Any) -> Kind:
    """The component's kind.

    Raises:
        AssertionError: it derives from none of LlamaIndex's base classes.
    """
    for kind in KINDS:
        if isinstance(component, kind.base):
            return kind
    known = ", ".join(kind.base.__name__ for kind in KINDS)
    raise AssertionError(f"{type(component).__name__} derives from none of: {known}")


def _embed(model: BaseEmbedding, probe: Probe, question: str) -> Answer:
    return [model.get_query_embedding(question), model.get_text_embedding(probe.texts[0])]


async def _aembed(model: BaseEmbedding, probe: Probe, question: str) -> Answer:
    return [
        await model.aget_query_embedding(question),
        await model.aget_text_embedding(probe.texts[0]),
    ]


def _picked(result: SelectorResult) -> Answer:
    return [selection.index for selection in result.selections]


def _select(selector: BaseSelector, probe: Probe, question: str) -> Answer:
    return _picked(selector.select(probe.tools(), question))


async def _aselect(selector: BaseSelector, probe: Probe, question: str) -> Answer:
    return _picked(await selector.aselect(probe.tools(), question))


def _ranked(nodes: Sequence[NodeWithScore]) -> Answer:
    return [(node.node_id, node.score) for node in nodes]


def _rerank(reranker: BaseNodePostprocessor, probe: Probe, question: str) -> Answer:
    return _ranked(reranker.postprocess_nodes(probe.found(), query_str=question))


async def _arerank(reranker: BaseNodePostprocessor, probe: Probe, question: str) -> Answer:
    return _ranked(await reranker.apostprocess_nodes(probe.found(), query_str=question))


def _retrieve(retriever: BaseRetriever, probe: Probe, question: str) -> Answer:
    return _ranked(retriever.retrieve(question))


async def _aretrieve(retriever: BaseRetriever, probe: Probe, question: str) -> Answer:
    return _ranked(await retriever.aretrieve(question))


def verdict(result: EvaluationResult) -> Answer:
    """What of an evaluator's result must stay."""
    return [result.passing, result.score, result.invalid_result]


def _judge(judge: BaseEvaluator, probe: Probe, question: str) -> Answer:
    contexts = list(probe.texts)
    return verdict(judge.evaluate(question, response=probe.texts[0], contexts=contexts))


async def _ajudge(judge: BaseEvaluator, probe: Probe, question: str) -> Answer:
    contexts = list(probe.texts)
    return verdict(await judge.aevaluate(question, response=probe.texts[0], contexts=contexts))


def _complete(llm: LLM, probe: Probe, question: str) -> Answer:
    return llm.complete(question).text


async def _acomplete(llm: LLM, probe: Probe, question: str) -> Answer:
    return (await llm.acomplete(question)).text


KINDS = (
    Kind(BaseEmbedding, _embed, _aembed),
    Kind(BaseSelector, _select, _aselect),
    Kind(BaseNodePostprocessor, _rerank, _arerank),
    Kind(BaseRetriever, _retrieve, _aretrieve),
    Kind(BaseEvaluator, _judge, _ajudge),
    Kind(LLM, _complete, _acomplete),
)
