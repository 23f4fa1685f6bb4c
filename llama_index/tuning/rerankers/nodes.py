"""The nodes of an index, from its docstore or from a vector store that keeps the texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import BaseNode

from llama_index.tuning.embeddings.stores import open_store
from llama_index.tuning.errors import StoreError

_PAGE = 1000


def own_nodes(index: Any, ids: Sequence[str]) -> list[BaseNode]:
    """An index' nodes with these ids, in their order: from its docstore, else its vector store.

    Raises:
        StoreError: nodes are neither here nor there.
    """
    found = {node.node_id: node for node in index.docstore.get_nodes(ids, raise_error=False)}
    if missing := [id_ for id_ in ids if id_ not in found]:
        found |= {node.node_id: node for node in stored_nodes(index, missing)}
    return [found[id_] for id_ in ids]


def stored_nodes(index: Any, ids: Sequence[str] | None = None) -> list[BaseNode]:
    """The nodes that an index' vector store holds; Chroma, Qdrant and their like.

    Args:
        index: LlamaIndex's.
        ids: those of the nodes; all by default, in the store's order.

    Raises:
        StoreError: the store does not list its ids, or gives no nodes for them.
    """
    store = open_store(index)
    ids = store.ids() if ids is None else ids
    nodes: list[BaseNode] = []
    for start in range(0, len(ids), _PAGE):
        page = ids[start : start + _PAGE]
        try:
            found = index.vector_store.get_nodes(node_ids=page)
        except NotImplementedError as exc:
            raise StoreError(f"{store.name} does not hand out its nodes: pass nodes=") from exc
        by_id = {node.node_id: node for node in found}
        if missing := [id_ for id_ in page if id_ not in by_id]:
            raise StoreError(
                f"{store.name} gave no node for {len(missing)} of its ids, such as {missing[0]!r}: "
                "pass nodes="
            )
        nodes += [by_id[id_] for id_ in page]
    return nodes
