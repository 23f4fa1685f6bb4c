"""The app's retriever and BM25, fused into one ranking, then a re-ranker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.indices.base import BaseIndex
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle, QueryType
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.storage.docstore.types import BaseDocumentStore

from llama_index.tuning import artifacts
from llama_index.tuning._checks import items_of, of_type, plain_arguments, whole_number
from llama_index.tuning._running import ThreadLock
from llama_index.tuning.artifacts import PathLike
from llama_index.tuning.datasets.checks import check_nodes
from llama_index.tuning.rerankers.light.features import RRF_K
from llama_index.tuning.rerankers.light.model import LightReranker
from llama_index.tuning.rerankers.retriever import saved as files
from llama_index.tuning.rerankers.scope import Scope
from llama_index.tuning.rerankers.serving import (
    CalibratedReranker,
    check_words,
    embedding_model,
    embedding_name,
    reciprocal_rank_fusion,
    similar_first,
)
from llama_index.tuning.text.bm25 import BM25Index, search_within
from llama_index.tuning.text.words import ENGLISH, Analyzer
from llama_index.tuning.vectors.identity import check_signature, model_signature
from llama_index.tuning.vectors.indexed import (
    index_node_ids,
    keeps_texts,
    own_nodes,
    stored_nodes,
)

logger = logging.getLogger(__name__)

_Again = Callable[[], BaseRetriever]


class TunedRetriever(BaseRetriever):
    """The app's retriever and BM25 fused by reciprocal rank, then a re-ranker.

    A re-ranker alone can only order what was retrieved; here candidates are widened by those
    that share words with the query. Goes wherever a retriever goes, such as
    `RetrieverQueryEngine.from_args(retriever)`. Nodes come back as they are indexed;
    `candidates()` tells the app's retriever's scores.

    Args:
        retriever: the app's; let its top k be some times `depth`, such as 100, so that it has a
            score for most of what BM25 finds. Its `filters`, `doc_ids` and `node_ids`, and those
            of retrievers inside it, hold for BM25 too.
        nodes: the nodes that it searches, for BM25; or give `docstore`.
        docstore: where the nodes are, such as `index.docstore`. Of its nodes only those of the
            retriever's indices are searched; a retriever that does not tell them is refused, and
            needs `nodes`. It is written only by `insert_nodes` and `delete_nodes`.
        reranker: orders the fused candidates; the untuned `LightReranker` by default, `None`
            for fusion alone.
        top_k: nodes to return.
        depth: candidates to re-rank.
        pool: BM25's candidates for the fusion.
        rrf_k: constant of the fusion; the larger, the less the first places count.
        language: whose stemmer and stop words BM25 and the untuned re-ranker use, such as
            `"german"`, or `"none"`; by default those of `index` or the re-ranker, else English.
        index: BM25 over the nodes, if it was built before.
        callback_manager: for LlamaIndex's callbacks.

    Example:
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> nodes = [TextNode(id_=str(i), text=t) for i, t in enumerate(["Fees", "Refunds"])]
        >>> index = VectorStoreIndex(nodes, embed_model=MockEmbedding(embed_dim=4))
        >>> retriever = TunedRetriever.from_index(index, top_k=1)
        >>> retriever.retrieve("When is a refund paid?")[0].text
        'Refunds'
    """

    _source: tuple[BaseRetriever, Sequence[BaseIndex[Any]], _Again] | None = None
    """The retriever that was made of which indices, and how to make it again; see `follow`."""

    @plain_arguments
    def __init__(
        self,
        retriever: BaseRetriever,
        nodes: Sequence[BaseNode] | None = None,
        *,
        docstore: BaseDocumentStore | None = None,
        reranker: BaseNodePostprocessor | str | None = "default",
        top_k: int = 10,
        depth: int = 30,
        pool: int = 100,
        rrf_k: int = RRF_K,
        language: str | None = None,
        index: BM25Index | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        if (nodes is None) == (docstore is None):
            raise ValueError("pass nodes or docstore, one of the two")
        if docstore is not None and not isinstance(docstore, BaseDocumentStore):
            raise TypeError(f"docstore must be a document store, got {type(docstore).__name__}")
        if index is not None and not isinstance(index, BM25Index):
            raise TypeError(f"index must be a BM25Index, got {type(index).__name__}")
        objects = getattr(retriever, "object_map", None)  # what index nodes stand for
        super().__init__(callback_manager=callback_manager, object_map=objects)
        self.retriever = retriever
        self.top_k = whole_number("top_k", top_k, 1)
        self.depth = whole_number("depth", depth, 1)
        self.pool = whole_number("pool", pool, 1)
        self.rrf_k = whole_number("rrf_k", rrf_k, 1)
        if index is not None and language is None:
            analyzer = index.analyzer
        else:
            analyzer = Analyzer(language or ENGLISH)
        self.reranker = self._traced(_reranker(reranker, analyzer))
        self._writing = ThreadLock()
        self._owns_nodes = docstore is None
        self.docstore: BaseDocumentStore = docstore or SimpleDocumentStore()
        if nodes is not None:
            self.docstore.add_documents(_plain(_checked(nodes)))
        own = None if nodes is not None else self._scope.node_ids()
        if index is not None and own is not None:
            _check_within(index, own)
        self.index = index if index is not None else self._built(analyzer, own)
        check_words(self.reranker, self.index.analyzer)
        if language is not None and self.index.analyzer.language != language:
            theirs = self.index.analyzer.language
            raise ValueError(f"language is {language!r}, but the words are split as {theirs!r}")

    def __repr__(self) -> str:
        kind = "no re-ranker" if self.reranker is None else type(self.reranker).__name__
        ours = isinstance(self.reranker, CalibratedReranker)  # another's repr may hold a key
        reranker = repr(self.reranker) if ours else kind
        return (
            f"TunedRetriever({type(self.retriever).__name__} and BM25 over {len(self.index)} "
            f"nodes, {reranker}, depth={self.depth}, top_k={self.top_k})"
        )

    @classmethod
    @plain_arguments
    def from_index(
        cls, index: BaseIndex[Any], *, similarity_top_k: int = 100, **arguments: Any
    ) -> TunedRetriever:
        """Over an index, whose nodes are in its docstore or, texts and all, in its vector store.

        Args:
            index: LlamaIndex's, such as a `VectorStoreIndex`.
            similarity_top_k: nodes to take from its vectors.
            **arguments: the constructor's after `docstore`.

        Raises:
            StoreError: nodes are neither here nor there; give them to the constructor.
        """
        if not isinstance(index, BaseIndex):
            raise TypeError(
                f"index must be an index of LlamaIndex, got {type(index).__name__}; a retriever "
                "goes to the constructor, with nodes= or docstore="
            )
        similarity_top_k = whole_number("similarity_top_k", similarity_top_k, 1)
        again = partial(index.as_retriever, similarity_top_k=similarity_top_k)
        ids = index_node_ids(index)
        if not ids and not index.docstore.docs:
            made = cls(again(), stored_nodes(index), **arguments)
        elif keeps_texts(index):
            made = cls(again(), own_nodes(index, ids), **arguments)
        else:
            made = cls(again(), docstore=index.docstore, **arguments)
        made.follow([index], again)
        return made

    def follow(self, indices: Sequence[BaseIndex[Any]], again: _Again) -> None:
        """Let `refresh` take over what becomes of `indices`; `again` makes their retriever anew."""
        self._source = self.retriever, indices, again

    @property
    def retriever(self) -> BaseRetriever:
        """The app's retriever."""
        return self._scope.retriever

    @retriever.setter
    def retriever(self, retriever: BaseRetriever) -> None:
        self._scope = Scope(retriever)

    def _built(self, analyzer: Analyzer, own: list[str] | None) -> BM25Index:
        theirs = self.reranker.analyzer if isinstance(self.reranker, CalibratedReranker) else None
        index = BM25Index(theirs or analyzer)
        nodes = self._present(own)
        index.add({id_: _text(node) for id_, node in nodes.items()})
        if own and not nodes and self.docstore.docs:
            raise ValueError(
                f"docstore has none of the {len(own)} nodes that the retriever may find, such as "
                f"{own[0]!r}: pass nodes=, or use from_index()"
            )
        if not nodes and not self._owns_nodes and not self.docstore.docs:
            logger.warning(
                "the docstore is empty, so BM25 finds nothing until insert_nodes(): an index over "
                "a vector store that keeps the texts fills no docstore; from_index() "
                "reads the nodes from there, or pass nodes="
            )
        return index

    def _present(self, own: list[str] | None) -> dict[str, BaseNode]:
        """Nodes of the docstore by id: those that may be found, or all if they were given."""
        if own is None:
            return self.docstore.docs
        return {n.node_id: n for n in self.docstore.get_nodes(own, raise_error=False)}

    def _traced(self, reranker: BaseNodePostprocessor | None) -> BaseNodePostprocessor | None:
        # As a query engine does with its postprocessors.
        if reranker is not None and self.callback_manager.handlers:
            reranker.callback_manager = self.callback_manager
        return reranker

    def with_reranker(self, reranker: BaseNodePostprocessor | None) -> TunedRetriever:
        """The same retriever, sharing nodes and index, with another re-ranker."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.reranker = self._traced(_reranker(reranker, self.index.analyzer))
        check_words(other.reranker, self.index.analyzer)
        return other

    def insert_nodes(self, nodes: Sequence[BaseNode]) -> None:
        """Add nodes to the docstore and to BM25, without a rebuild; known ids are replaced.

        The app's own retriever is not touched: insert there too, then `refresh()`.
        """
        nodes = _checked(nodes)
        with self._writing:  # the two change together, as one save sees them
            self.docstore.add_documents(_plain(nodes), allow_update=True)
            self.index.add({node.node_id: _text(node) for node in nodes})

    @plain_arguments
    def delete_nodes(self, node_ids: Iterable[str]) -> None:
        """Remove nodes from the docstore and from BM25, without a rebuild."""
        ids = list(node_ids)
        with self._writing:
            for id_ in ids:
                self.docstore.delete_document(id_, raise_error=False)
            self.index.delete(ids)

    def refresh(self) -> tuple[int, int]:
        """Take over what came to the app's index, left it, or has another text there.

        Where a vector store keeps the texts, they are read once: `insert_nodes` takes one that
        changed under its old id.
        LlamaIndex's retrievers know the nodes that their index had when they were made: the one
        of `from_index` is made anew; if you gave one, set `retriever.retriever` again.

        Returns:
            How many nodes came or changed, and how many went.

        Raises:
            ValueError: the nodes were given as `nodes`: which index they are of is not known.
        """
        if self._owns_nodes and self._source is None:
            raise ValueError(
                "refresh() does not know which index the nodes= are of: insert_nodes() and "
                "delete_nodes() take over what changed, or use from_index()"
            )
        with self._writing:
            if self._source is not None and self.retriever is self._source[0]:
                _, indices, again = self._source
                self.retriever = again()
                self.follow(indices, again)
                if self._owns_nodes:
                    self._copy_nodes(indices)
            there = self._present(None if self._owns_nodes else self._scope.node_ids())
            gone = [id_ for id_ in self.index.ids if id_ not in there]
            texts = {id_: _text(node) for id_, node in there.items()}
            changed = set(self.index.changed(texts))
            new = {id_: texts[id_] for id_ in texts if id_ in changed or id_ not in self.index}
            self.index.delete(gone)
            self.index.add(new)
        return len(new), len(gone)

    def _copy_nodes(self, indices: Sequence[BaseIndex[Any]]) -> None:
        """Take the nodes of indices whose vector stores keep the texts."""
        own = [(index, index_node_ids(index)) for index in indices]
        for id_ in set(self.docstore.docs).difference(*[ids for _, ids in own]):
            self.docstore.delete_document(id_)
        for index, ids in own:
            new = [id_ for id_ in ids if id_ not in self.docstore.docs]
            self.docstore.add_documents(_plain(own_nodes(index, new)))

    def candidates(self, query: QueryType) -> list[NodeWithScore]:
        """What is re-ranked: fused nodes, best first, with the app's retriever's scores.

        The score is `None` where only BM25 found the node; a distance has its sign turned.
        """
        bundle = _bundle(query)
        found = self.retriever.retrieve(bundle)
        return self._fuse(found, self._search(bundle.query_str))

    async def acandidates(self, query: QueryType) -> list[NodeWithScore]:
        """`candidates`, with BM25's search in a thread beside the app's retriever."""
        bundle = _bundle(query)
        found, words = await asyncio.gather(
            self.retriever.aretrieve(bundle),
            asyncio.to_thread(self._search, bundle.query_str),
        )
        return await asyncio.to_thread(self._fuse, found, words)

    def _search(self, query: str) -> list[tuple[str, float]]:
        return search_within(self.index, query, self.pool, self.docstore, self._scope.passes())

    def _fuse(
        self, found: Sequence[NodeWithScore], words: Sequence[tuple[str, float]]
    ) -> list[NodeWithScore]:
        ours: dict[str, NodeWithScore] = {}
        for item in similar_first(found):
            ours.setdefault(item.node.node_id, item)
        order = reciprocal_rank_fusion([list(ours), [id_ for id_, _ in words]], k=self.rrf_k)
        order = order[: self.depth]
        fetched = self.docstore.get_nodes(
            [id_ for id_ in order if id_ not in ours], raise_error=False
        )
        others = {node.node_id: NodeWithScore(node=node) for node in fetched}
        both = {**others, **ours}
        return [both[id_] for id_ in order if id_ in both]

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        reranker, nodes = self._prepared(self.candidates(query_bundle))
        found = nodes if reranker is None else reranker.postprocess_nodes(nodes, query_bundle)
        return found[: self.top_k]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        reranker, nodes = self._prepared(await self.acandidates(query_bundle))
        if reranker is not None:
            nodes = await reranker.apostprocess_nodes(nodes, query_bundle)
        return nodes[: self.top_k]

    def _prepared(
        self, nodes: list[NodeWithScore]
    ) -> tuple[BaseNodePostprocessor | None, list[NodeWithScore]]:
        if isinstance(self.reranker, CalibratedReranker):
            return self.reranker.with_index(self.index), nodes
        return self.reranker, self._fusion_scores(nodes)

    def _fusion_scores(self, nodes: Sequence[NodeWithScore]) -> list[NodeWithScore]:
        # Scores fall with the fused rank, so that what follows sees this order.
        return [
            NodeWithScore(node=item.node, score=1 / (self.rrf_k + rank))
            for rank, item in enumerate(nodes, start=1)
        ]

    def save(self, path: PathLike) -> None:
        """Save settings, the BM25 index and the re-ranker to a folder.

        Nodes are saved if they were given as `nodes`; a docstore of the app's is not.

        Raises:
            TypeError: the re-ranker is neither of this package nor `None`; save it by itself.
        """
        reranker = files.saveable(self.reranker)
        model = embedding_model(self.retriever)
        head = {
            "settings": {name: getattr(self, name) for name in files.SETTINGS},
            "base_model": embedding_name(self.retriever),
            "signature": None if model is None else model_signature(model),
            "nodes": self._owns_nodes,
        }
        with artifacts.replacing_folder(path) as folder:
            with self._writing:  # nodes and index of one moment
                ids, arrays = self.index.parts()
                if self._owns_nodes:
                    self.docstore.persist(str(folder / files.NODES))
            files.write(folder, head, self.index.analyzer, ids, arrays, reranker)

    @classmethod
    @plain_arguments
    def load(
        cls,
        path: PathLike,
        retriever: BaseRetriever,
        *,
        docstore: BaseDocumentStore | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> TunedRetriever:
        """Load what `save` wrote.

        Args:
            path: the folder.
            retriever: the app's, with the embedding model that it had.
            docstore: holds the nodes, unless they were saved too.
            callback_manager: for LlamaIndex's callbacks.

        Raises:
            ArtifactError: no tuned retriever, a damaged one, or another embedding model.
        """
        saved = files.read(path, embedding_name(retriever), docstore)
        if (model := embedding_model(retriever)) is not None:
            check_signature(model, saved.signature, f"the retriever {path}")
        if docstore is not None and isinstance(retriever, BaseRetriever):
            own = set(Scope(retriever).node_ids())  # since it was saved, nodes may have gone
            saved.index.delete([id_ for id_ in saved.index.ids if id_ not in own])
        loaded = cls(
            retriever,
            list(saved.docstore.docs.values()) if docstore is None else None,
            docstore=docstore,
            reranker=saved.reranker,
            index=saved.index,
            callback_manager=callback_manager,
            **saved.settings,
        )
        return loaded


def _reranker(
    given: BaseNodePostprocessor | str | None, analyzer: Analyzer
) -> BaseNodePostprocessor | None:
    if isinstance(given, str) and given == "default":
        return LightReranker(analyzer=analyzer)
    if given is not None and not isinstance(given, BaseNodePostprocessor):
        raise TypeError(f"reranker must be a node postprocessor, 'default' or None, got {given!r}")
    return given


def _bundle(query: QueryType) -> QueryBundle:
    bundle = QueryBundle(query) if isinstance(query, str) else query
    return of_type("query", bundle, QueryBundle, "a text or a QueryBundle")


def _check_within(index: BM25Index, own: Iterable[str]) -> None:
    if outside := set(index.ids).difference(own):
        raise ValueError(
            f"index holds {len(outside)} nodes that the retriever may not find, such as "
            f"{min(outside)!r}: leave index= out, or pass nodes="
        )


def _checked(nodes: Iterable[BaseNode]) -> list[BaseNode]:
    given: object = nodes
    if isinstance(given, BaseNode):
        raise TypeError(f"nodes must be a list of nodes, got one {type(given).__name__}")
    found = list(items_of("nodes", nodes, "nodes"))
    check_nodes(found)
    return found


def _plain(nodes: Sequence[BaseNode]) -> list[BaseNode]:
    # Without their vectors, as an index keeps nodes too: saved as text, those would be most of it.
    return [
        node if node.embedding is None else node.model_copy(update={"embedding": None})
        for node in nodes
    ]


def _text(node: BaseNode) -> str:
    return node.get_content(MetadataMode.EMBED)
