"""What an app has: its index, its retriever, its nodes, what comes after; and what is not seen."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.indices.base import BaseIndex
from llama_index.core.indices.vector_store.retrievers import VectorIndexRetriever
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine, RouterQueryEngine
from llama_index.core.retrievers import AutoMergingRetriever
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores import FilterCondition, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import VectorStoreQueryMode

from llama_index.tuning._arrays import Float32
from llama_index.tuning._checks import of_type
from llama_index.tuning.datasets.tuned_parts import walk
from llama_index.tuning.errors import DatasetError, StoreError
from llama_index.tuning.rerankers.retriever.retriever import TunedRetriever
from llama_index.tuning.rerankers.scope import Scope, chosen_ids
from llama_index.tuning.text.bm25 import BM25Index
from llama_index.tuning.text.words import ENGLISH, STOP_WORDS, Analyzer
from llama_index.tuning.vectors.indexed import index_node_ids, keeps_texts, own_nodes
from llama_index.tuning.vectors.stores import SimpleVectors, open_store

WIDE = 100
"""Nodes that the retriever hands to the fusion."""


DEPTH = 30
"""Nodes that are re-ranked; as many as the app hands on, if those are more."""
TOP_K = 10
"""Nodes that are handed on where the retriever does not say."""


@dataclass(frozen=True, eq=False)
class SeenApp:
    """An app as far as it can be seen.

    Attributes:
        retriever: the app's, as it is today.
        nodes: id → node, of all that it may find: in its index, and past its filters.
        stored: the same, whatever the filters are.
        top_k: nodes that it hands on for a question.
        index: whose nodes they are; of several the first.
        indices: all of them; none if the documents have other vectors than in the app.
        embed_model: that questions are embedded with; `None` if the retriever has none.
        engine: the query engine around it, if one was given.
        postprocessors: of the engine, that stay behind whatever retriever is served.
        notes: what was seen that a reader of the report should know.
    """

    retriever: BaseRetriever
    nodes: dict[str, BaseNode]
    stored: dict[str, BaseNode]
    top_k: int
    index: BaseIndex[Any]
    indices: Sequence[BaseIndex[Any]] = ()
    embed_model: BaseEmbedding | None = None
    engine: RetrieverQueryEngine | None = None
    postprocessors: list[BaseNodePostprocessor] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def texts(self) -> dict[str, str]:
        """Node id → the text that an index embeds."""
        return {id_: node.get_content(MetadataMode.EMBED) for id_, node in self.nodes.items()}

    @property
    def exact(self) -> bool:
        """Whether the retriever's search is an exact one by cosine, which a matrix does as well."""
        store = getattr(self.retriever, "_vector_store", None)
        mode = getattr(self.retriever, "_vector_store_query_mode", None)
        plain = mode == VectorStoreQueryMode.DEFAULT and not getattr(self.retriever, "_kwargs", {})
        return (
            self.embed_model is not None
            and plain
            and type(store).__name__ == "SimpleVectorStore"
            and isinstance(open_store(store), SimpleVectors)
        )

    def fused_retriever(
        self,
        embed_model: BaseEmbedding | None = None,
        *,
        reranker: BaseNodePostprocessor | None = None,
        language: str | None = None,
        index: BM25Index | None = None,
    ) -> TunedRetriever:
        """What is served: the app's retriever, fused with BM25, and a re-ranker over both.

        Args:
            embed_model: that questions are embedded with; the app's by default.
            reranker: none by default.
            language: whose stemmer and stop words.
            index: BM25 over the app's nodes, if there is one already.
        """
        docstore = self.index.docstore
        if self._in_docstore():
            where: dict[str, Any] = {"docstore": docstore}
        else:
            where = {"nodes": list(self.stored.values())}
        made = TunedRetriever(
            self.wide_retriever(embed_model),
            **where,
            reranker=reranker,
            top_k=self.top_k,
            depth=max(DEPTH, self.top_k),
            language=language,
            index=index,
        )
        if self.indices:
            whole = chosen_ids(self.retriever) is None
            made.follow(self.indices, partial(self._retriever_today, embed_model, whole=whole))
        return made

    def _retriever_today(self, embed_model: BaseEmbedding | None, *, whole: bool) -> BaseRetriever:
        """`wide_retriever`; if it searches the whole index, over the nodes that this has now."""
        other = self.wide_retriever(embed_model)
        # LlamaIndex's retriever knows the nodes that its index had when it was made.
        if whole and isinstance(other, VectorIndexRetriever):
            other._node_ids = list(self.index.index_struct.nodes_dict.values())
        return other

    def with_vectors(self, vectors: Float32, embed_model: BaseEmbedding) -> SeenApp:
        """The same nodes with other vectors, in an index in memory; the app's own stays as it is.

        Args:
            vectors: the nodes', shape `(len(nodes), dim)`.
            embed_model: that questions are embedded with.
        """
        nodes = []
        for node, vector in zip(self.nodes.values(), vectors.tolist(), strict=True):
            other = node.model_copy()
            other.embedding = vector
            nodes.append(other)
        index = VectorStoreIndex(nodes, embed_model=embed_model)
        retriever = index.as_retriever(similarity_top_k=self.top_k)
        own = {node.node_id: node for node in nodes}
        return replace(
            self,
            retriever=retriever,
            nodes=own,
            stored=own,
            index=index,
            indices=(),
            embed_model=embed_model,
        )

    def _in_docstore(self) -> bool:
        if not self.indices or keeps_texts(self.index):
            return False
        docstore = self.index.docstore
        return all(docstore.document_exists(id_) for id_ in self.stored)

    def wide_retriever(self, embed_model: BaseEmbedding | None = None) -> BaseRetriever:
        """The app's retriever with a longer list, and another embedding model if one is given."""
        mode = getattr(self.retriever, "_vector_store_query_mode", None)
        # Maximal marginal relevance compares each node with each: as many as are re-ranked will do.
        most = DEPTH if mode == VectorStoreQueryMode.MMR else WIDE
        return self.copied_retriever(max(most, self.top_k), embed_model)

    def copied_retriever(
        self, top_k: int, embed_model: BaseEmbedding | None = None
    ) -> BaseRetriever:
        """The app's retriever, filters and all, with another length and embedding model."""
        if not isinstance(self.retriever, VectorIndexRetriever):
            return self.retriever
        other = copy.copy(self.retriever)
        other.similarity_top_k = top_k
        if embed_model is not None:
            other._embed_model = embed_model
        return other


def narrowed(retriever: BaseRetriever, filters: MetadataFilters) -> BaseRetriever:
    """A copy of a vector index's retriever that keeps to filters beside its own."""
    of_type("filters", filters, MetadataFilters)
    if not isinstance(retriever, VectorIndexRetriever):
        raise ValueError(
            f"filters are for a retriever of a vector index, not for a {type(retriever).__name__}"
        )
    other = copy.copy(retriever)
    own = retriever._filters
    if own is None:
        other._filters = filters
    else:
        other._filters = MetadataFilters(filters=[*_all_of(own), *_all_of(filters)])
    return other


def _all_of(filters: MetadataFilters) -> Sequence[MetadataFilter | MetadataFilters]:
    """Filters that must all pass: single ones if possible, as some stores take no nested ones."""
    plain = filters.condition in (None, FilterCondition.AND)
    return filters.filters if plain else [filters]


def look_at(app: Any) -> SeenApp:
    """What can be seen of an index, a retriever, or a query engine with one retriever.

    Raises:
        TypeError: it is none of them, or has no retriever that is known.
        DatasetError: there are no nodes to find.
    """
    if app is None:
        raise TypeError("app must be an index, a retriever or a query engine, got None")
    if isinstance(app, BaseIndex):
        return _of_retriever(app.as_retriever())
    if isinstance(app, BaseRetriever):
        return _of_retriever(app)
    if isinstance(app, RouterQueryEngine):
        raise TypeError(
            "app is a RouterQueryEngine: llama_index.tuning.app.tune_router tunes its tools and "
            "its selector"
        )
    inner = getattr(app, "_retriever", None)
    if isinstance(inner, BaseRetriever):
        seen = _of_retriever(inner)
        given = list(getattr(app, "_node_postprocessors", None) or [])
        kept, notes = _postprocessors(given)
        engine = app if isinstance(app, RetrieverQueryEngine) else None
        if engine is None:
            notes.append(
                f"of the {type(app).__name__} only its retriever is seen: set app.retriever there"
            )
        return replace(seen, engine=engine, postprocessors=kept, notes=[*seen.notes, *notes])
    hint = ""
    if isinstance(app, BaseQueryEngine):
        hint = (
            ", which has none of its own: hand over the query engine that it asks, or that one's "
            "index, and put one around app.as_query_engine()"
        )
    raise TypeError(
        "app must be an index, a retriever or a query engine with a retriever, got "
        f"{type(app).__name__}{hint}"
    )


def _of_retriever(retriever: BaseRetriever) -> SeenApp:
    if isinstance(retriever, AutoMergingRetriever):
        seen = _of_retriever(retriever._vector_retriever)
        note = "the AutoMergingRetriever's leaves are tuned: put one around app.retriever to merge"
        return replace(seen, notes=[*seen.notes, note])
    if isinstance(retriever, TunedRetriever):
        raise TypeError(
            "app is a TunedRetriever: hand over the app as it was before, such as its index or "
            "the retriever's .retriever"
        )
    indices: dict[int, BaseIndex[Any]] = {}
    for part in walk(retriever):
        index = getattr(part, "_index", None)
        if isinstance(index, BaseIndex):
            indices[id(index)] = index
    if not indices:
        raise TypeError(
            f"app: a {type(retriever).__name__} does not name an index, so its nodes cannot be "
            "seen; hand over an index of nodes, such as a VectorStoreIndex, or a retriever of it"
        )
    try:
        stored, nodes = _findable(retriever, list(indices.values()))
    except StoreError as exc:
        reason = re.split("[:;] pass nodes=", str(exc))[0]  # which tune_app has not
        raise StoreError(
            f"app: {reason}; a TunedRetriever takes nodes= that no store hands out"
        ) from exc
    if not nodes:
        raise DatasetError(
            "the app's index has no node with text"
            + (f" that passes its filters, of {len(stored)}" if stored else ": it is empty")
        )
    vector = isinstance(retriever, VectorIndexRetriever)
    model = getattr(retriever, "_embed_model", None) if vector else None
    notes = []
    if not vector:
        notes.append(
            f"the app's retriever, {type(retriever).__name__}, searches as before: an adapter is "
            "not tried"
        )
    top_k = getattr(retriever, "similarity_top_k", None)
    if not isinstance(top_k, int) or top_k < 1:
        top_k = TOP_K
        notes.append(
            f"it does not say how many nodes it hands on: {TOP_K} are now; as_retriever(top_k) "
            "hands on others"
        )
    if len(nodes) < 2:
        raise DatasetError("the app's index has one node; there is nothing to rank")
    return SeenApp(
        retriever,
        nodes,
        stored,
        top_k,
        next(iter(indices.values())),
        list(indices.values()),
        embed_model=model if isinstance(model, BaseEmbedding) else None,
        notes=notes,
    )


def _findable(
    retriever: BaseRetriever, indices: Sequence[BaseIndex[Any]]
) -> tuple[dict[str, BaseNode], dict[str, BaseNode]]:
    """The indices' nodes that have text, and those of them that pass the filters."""
    scope = Scope(retriever)
    try:
        allowed = set(scope.node_ids())
    except StoreError:
        raise
    except ValueError as exc:
        reason = str(exc).partition("; ")[0]
        raise ValueError(
            f"app: {reason}; hand over the index, or a retriever of it, which filters= may narrow"
        ) from exc
    passes = scope.passes()
    stored: dict[str, BaseNode] = {}
    for index in indices:
        own = [id_ for id_ in index_node_ids(index) if id_ in allowed]
        for node in own_nodes(index, own):
            if node.get_content(MetadataMode.EMBED).strip():
                stored[node.node_id] = node
    if passes is None:
        return stored, stored
    return stored, {id_: node for id_, node in stored.items() if passes(node)}


def _postprocessors(
    given: list[BaseNodePostprocessor],
) -> tuple[list[BaseNodePostprocessor], list[str]]:
    """Those that can stay, and what to say of them."""
    kept = [item for item in given if not isinstance(item, SimilarityPostprocessor)]
    notes = []
    if kept:
        names = ", ".join(type(item).__name__ for item in kept)
        verb = "stays" if len(kept) == 1 else "stay"
        notes.append(f"{names} of the query engine {verb} behind the retriever, unmeasured")
    if len(kept) < len(given):
        notes.append(
            "SimilarityPostprocessor is left out: its cut-off was for other scores; "
            "a re-ranker's min_score does its work"
        )
    return kept, notes


_PROSE = 0.2
"""Share of function words from which on a text is prose of that language; code has a tenth."""
_TEXTS = 200
_WORDS = 300


def language_of(texts: Mapping[str, str] | Iterable[str]) -> tuple[str, bool]:
    """The language whose stemmer and stop words fit, and whether the texts are prose of it.

    Example:
        >>> language_of(["The fee is due at the end of the month, and it is paid by the tenant."])
        ('english', True)
        >>> language_of(["def area(radius): return math.pi * radius ** 2"])[1]
        False
    """
    given = list(texts.values()) if isinstance(texts, Mapping) else list(texts)
    step = max(1, len(given) // _TEXTS)
    plain = Analyzer("none")
    words = [word for text in given[::step] for word in plain.words(text[:20_000])[:_WORDS]]
    shares = {
        language: sum(word in set_ for word in words) / max(1, len(words))
        for language, listed in STOP_WORDS.items()
        if (set_ := frozenset(listed.split()))
    }
    best = max(shares, key=lambda language: shares[language])
    return (best, True) if shares[best] >= _PROSE else (ENGLISH, False)
