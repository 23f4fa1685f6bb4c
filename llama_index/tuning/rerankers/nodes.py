"""The nodes of an index whose vector store keeps the texts."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import BaseNode

from llama_index.tuning.embeddings.stores import open_store
from llama_index.tuning.errors import StoreError

_PAGE = 1000


def stored_nodes(index: Any) -> list[BaseNode]:
    """The nodes that an index' vector store holds, in its order; Chroma, Qdrant and their like.

    Raises:
        StoreError: the store does not list its ids, or gives no nodes for them.
    """
    store = open_store(index)
    ids = store.ids()
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
