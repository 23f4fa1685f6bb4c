"""BM25 finds only what the app's retriever may find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import BaseNode
from llama_index.core.storage.docstore.types import BaseDocumentStore
from llama_index.core.vector_stores import simple

from llama_index.tuning.rerankers.bm25 import BM25Index

Bounds = Callable[[Mapping[str, BaseNode], str], bool]

_GROWTH = 4


def search_within(
    index: BM25Index, query: str, k: int, retriever: BaseRetriever, docstore: BaseDocumentStore
) -> list[tuple[str, float]]:
    """The `k` best documents that the retriever's own restrictions leave.

    Those of a vector retriever: `filters` and `doc_ids`. Its `node_ids` are, by default, the nodes
    that its index had when it was made, and say nothing.

    Raises:
        ValueError: filters within filters, which LlamaIndex does not evaluate in Python.
    """
    bounds = _bounds(retriever)
    wanted = k
    while True:
        found = index.search(query, k)
        if not bounds:
            return found
        nodes = docstore.get_nodes([id_ for id_, _ in found], raise_error=False)
        by_id = {node.node_id: node for node in nodes}
        kept = [(id_, score) for id_, score in found if all(fits(by_id, id_) for fits in bounds)]
        if len(kept) >= wanted or len(found) < k:
            return kept[:wanted]
        k *= _GROWTH


def _bounds(retriever: BaseRetriever) -> list[Bounds]:
    filters, doc_ids = (getattr(retriever, name, None) for name in ("_filters", "_doc_ids"))
    bounds: list[Bounds] = []
    if filters is not None and filters.filters:
        bounds.append(lambda nodes, id_: _passes(nodes, id_, filters))
    if doc_ids:
        bounds.append(lambda nodes, id_: id_ in nodes and nodes[id_].ref_doc_id in doc_ids)
    return bounds


def _passes(nodes: Mapping[str, BaseNode], id_: str, filters: Any) -> bool:
    if id_ not in nodes:
        return False
    build: Any = getattr(simple, "build_metadata_filter_fn", None)  # its name in newer versions
    build = build or getattr(simple, "_build_metadata_filter_fn")  # noqa: B009
    return bool(build(lambda node_id: nodes[node_id].metadata, filters)(id_))
