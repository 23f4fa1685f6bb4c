"""The tuned app: ready objects of LlamaIndex, and what is known about them."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.vector_stores import MetadataFilters

from llama_index.tuning._arrays import Float32
from llama_index.tuning._checks import plain_arguments, whole_number
from llama_index.tuning.app import saved
from llama_index.tuning.app.check import (
    DEPTH,
    CheckResult,
    check,
    embedded,
    measured,
    read,
)
from llama_index.tuning.app.ladder.choose import BEFORE, Stack
from llama_index.tuning.app.parts.served import ServedPart
from llama_index.tuning.app.report import AppReport
from llama_index.tuning.app.see import SeenApp, narrowed
from llama_index.tuning.artifacts import PathLike
from llama_index.tuning.datasets.retrieval import RetrievalDataset
from llama_index.tuning.embeddings.adapter.model import AdapterEmbeddingModel
from llama_index.tuning.embeddings.adapter.saved import Adapter
from llama_index.tuning.evaluate.retrieval import RetrievalScores
from llama_index.tuning.rerankers.light.features import LinearRanker
from llama_index.tuning.rerankers.light.model import LightReranker
from llama_index.tuning.rerankers.retriever.retriever import TunedRetriever
from llama_index.tuning.text.bm25 import BM25Index
from llama_index.tuning.text.words import Analyzer

if TYPE_CHECKING:
    from llama_index.tuning.judges.judge import TunedJudge


class TunedApp:
    """An app as it is served after `tune_app`, or loaded by `load_app`.

    Attributes:
        report: what was measured, and why this is served.
        retriever: LlamaIndex's, with the app's own top k; the app's own one if nothing is better.
        embed_model: that questions are embedded with; the app's own one without an adapter.
        reranker: the one in the retriever; `None` without one.
        evaluator: the judge of answers; `None` if no verdicts could teach one.
        written: the questions that an LLM wrote for it, if it did; saved with it.
    """

    @plain_arguments
    def __init__(
        self,
        seen: SeenApp,
        stack: Stack,
        report: AppReport,
        *,
        language: str,
        adapter: Adapter | None = None,
        ranker: LinearRanker | None = None,
        index: BM25Index | None = None,
        written: RetrievalDataset | None = None,
        given: BaseNodePostprocessor | None = None,
        evaluator: TunedJudge | None = None,
        part: ServedPart | None = None,
    ) -> None:
        self.written, self.evaluator, self.part = written, evaluator, part
        self.seen, self.stack, self.report, self.language = seen, stack, report, language
        self.adapter = adapter if stack.vectors == "adapted" else None
        self.ranker = ranker if stack.order == "tuned" else None
        self.embed_model: BaseEmbedding | None = seen.embed_model
        if self.adapter is not None and seen.embed_model is not None:
            self.embed_model = AdapterEmbeddingModel(seen.embed_model, self.adapter)
        self._base = seen
        if part is not None and isinstance(part.component, BaseEmbedding):
            self.embed_model = part.component
            if part.documents is not None:
                self._base = seen.with_vectors(part.documents, part.component)
        self.reranker: BaseNodePostprocessor | None = given if stack.given else None
        if part is not None and isinstance(part.component, BaseNodePostprocessor):
            self.reranker = part.component
        if stack.order in ("untuned", "tuned"):
            self.reranker = LightReranker(self.ranker, Analyzer(language))
        self.retriever = self._retriever(index)

    def _retriever(self, index: BM25Index | None) -> BaseRetriever:
        if self.stack.order == "retriever":
            if self.stack == BEFORE:
                return self.seen.retriever
            return self._base.copied_retriever(self.seen.top_k, self.embed_model)
        return self._base.fused_retriever(
            self.embed_model, reranker=self.reranker, language=self.language, index=index
        )

    def __repr__(self) -> str:
        return f"TunedApp({self.stack}; {len(self.seen.nodes)} nodes)"

    def _repr_html_(self) -> str:
        return self.report._repr_html_()

    @property
    def engine(self) -> RetrieverQueryEngine | None:
        """The query engine that was handed over."""
        return self.seen.engine

    def as_retriever(
        self, top_k: int | None = None, *, filters: MetadataFilters | None = None
    ) -> BaseRetriever:
        """The served retriever with another number of nodes, or narrowed for one request.

        Args:
            top_k: nodes to hand on; as many as the app by default.
            filters: hold beside the app's own, for BM25 too.

        Raises:
            ValueError: the app's retriever is not one that takes filters.
        """
        if top_k is None and filters is None:
            return self.retriever
        top_k = self.seen.top_k if top_k is None else whole_number("top_k", top_k, 1)
        if not isinstance(self.retriever, TunedRetriever):
            found = self._base.copied_retriever(top_k, self.embed_model)
            return found if filters is None else narrowed(found, filters)
        other = self.retriever.with_reranker(self.retriever.reranker)
        other.top_k, other.depth = top_k, max(other.depth, top_k)
        if filters is not None:
            other.retriever = narrowed(other.retriever, filters)
        return other

    def as_query_engine(
        self,
        *,
        similarity_top_k: int | None = None,
        filters: MetadataFilters | None = None,
        **arguments: Any,
    ) -> RetrieverQueryEngine:
        """A query engine over the served retriever.

        Args:
            similarity_top_k: as `top_k` of `as_retriever`.
            filters: as of `as_retriever`.
            **arguments: those of `RetrieverQueryEngine.from_args`, such as `llm` and `streaming`.
                Without any, what the app's own `RetrieverQueryEngine` answers with is kept.
        """
        retriever = self.as_retriever(similarity_top_k, filters=filters)
        kept = self.seen.postprocessors
        if not arguments and self.engine is not None:
            return RetrieverQueryEngine(
                retriever,
                self.engine._response_synthesizer,
                kept,
                callback_manager=self.engine.callback_manager,
            )
        # LlamaIndex drops what it does not know, such as a misspelt filter.
        for name in set(arguments).difference(signature(RetrieverQueryEngine.from_args).parameters):
            raise TypeError(f"as_query_engine() got an unexpected keyword argument {name!r}")
        arguments = {"node_postprocessors": kept, **arguments}
        return RetrieverQueryEngine.from_args(retriever, **arguments)

    def save(self, path: PathLike) -> None:
        """Write settings, parts and report to one folder, for `load_app`."""
        saved.save(
            path,
            self.seen,
            self.stack,
            self.report,
            language=self.language,
            adapter=self.adapter,
            ranker=self.ranker,
            written=self.written,
            evaluator=self.evaluator,
            part=self.part,
        )

    def check(self, questions: Any, *, max_loss: float = 0.01) -> CheckResult:
        """What the app that is served is worth on new questions, against what was promised.

        Args:
            questions: as in `tune_app`.
            max_loss: of nDCG@10, below the app before, that is no regression yet.
        """
        served = self.as_retriever(DEPTH)
        return check(self.seen, served, self.report, questions, max_loss, self._vectors)

    def scores(self, questions: Any) -> RetrievalScores:
        """What is served on questions, one number for each by metric, for `compare`.

        Args:
            questions: as in `tune_app`.
        """
        dataset, _ = read(self.seen, questions)
        vectors = self._vectors(dataset, embedded(self.seen.embed_model, dataset))
        return measured(self.as_retriever(DEPTH), dataset, vectors)

    def _vectors(self, dataset: RetrievalDataset, own: Float32 | None) -> Float32 | None:
        """Questions' vectors as they go to the store that is served, from the app's own."""
        if self.part is not None and isinstance(self.part.component, BaseEmbedding):
            return embedded(self.part.component, dataset)
        return own if own is None or self.adapter is None else self.adapter.map_queries(own)
