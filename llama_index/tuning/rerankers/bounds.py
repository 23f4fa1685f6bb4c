"""BM25 finds only what the app's retriever may find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import BaseNode
from llama_index.core.storage.docstore.types import BaseDocumentStore
from llama_index.core.vector_stores import simple

from llama_index.tuning.rerankers.bm25 import BM25Index

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
    filters, doc_ids = (getattr(retriever, name, None) for name in ("_filters", "_doc_ids"))
    if not (filters and filters.filters) and not doc_ids:
        return index.search(query, k)
    wanted = k
    while True:
        found = index.search(query, k)
        nodes = docstore.get_nodes([id_ for id_, _ in found], raise_error=False)
        by_id = {node.node_id: node for node in nodes}
        passes = _metadata_filter(by_id, filters)
        kept = [
            (id_, score)
            for id_, score in found
            if id_ in by_id and passes(id_) and (not doc_ids or by_id[id_].ref_doc_id in doc_ids)
        ]
        if len(kept) >= wanted or len(found) < k:
            return kept[:wanted]
        k *= _GROWTH


def _metadata_filter(nodes: Mapping[str, BaseNode], filters: Any) -> Callable[[str], bool]:
    build: Any = getattr(simple, "build_metadata_filter_fn", None)  # its name in newer versions
    build = build or getattr(simple, "_build_metadata_filter_fn")  # noqa: B009
    passes: Callable[[str], bool] = build(lambda node_id: nodes[node_id].metadata, filters)
    return passes
