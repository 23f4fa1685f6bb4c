"""BM25 finds only what the app's retriever may find."""

from __future__ import annotations

from collections.abc import Callable

from llama_index.core.schema import BaseNode
from llama_index.core.storage.docstore.types import BaseDocumentStore

from llama_index.tuning.rerankers.bm25 import BM25Index

_GROWTH = 4


def search_within(
    index: BM25Index,
    query: str,
    k: int,
    docstore: BaseDocumentStore,
    passes: Callable[[BaseNode], bool] | None,
) -> list[tuple[str, float]]:
    """The `k` best documents whose nodes pass; None: all do."""
    if passes is None:
        return index.search(query, k)
    wanted = k
    while True:
        found = index.search(query, k)
        nodes = docstore.get_nodes([id_ for id_, _ in found], raise_error=False)
        passing = {node.node_id for node in nodes if passes(node)}
        kept = [(id_, score) for id_, score in found if id_ in passing]
        if len(kept) >= wanted or len(found) < k:
            return kept[:wanted]
        k *= _GROWTH
