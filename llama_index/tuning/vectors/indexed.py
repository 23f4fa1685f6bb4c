"""Which nodes an index has.

A docstore is no scope: several indices, parents of chunks and whole documents share one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.tuning.errors import StoreError
from llama_index.tuning.vectors.stores import open_store

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

REMEDY = "pass nodes=, the nodes that it may find"
_PAGE = 1000


def index_node_ids(index: Any) -> list[str]:
    """Ids of an index' own nodes, whatever else lies in its docstore.

    Raises:
        StoreError: it does not say which they are.
    """
    struct = index.index_struct
    if hasattr(index, "vector_store") and hasattr(struct, "nodes_dict"):
        return _vector_index_ids(index, struct.nodes_dict)
    if hasattr(struct, "node_id_to_summary_id"):
        return list(struct.node_id_to_summary_id)
    if hasattr(struct, "all_nodes"):  # of a tree the leaves: the others are an LLM's summaries
        above = struct.node_id_to_children_ids
        return [id_ for id_ in struct.all_nodes.values() if not above.get(id_)]
    if hasattr(struct, "table"):
        return list(dict.fromkeys(id_ for ids in struct.table.values() for id_ in sorted(ids)))
    if hasattr(struct, "nodes"):
        return list(struct.nodes)
    if type(struct).__name__ == "EmptyIndexStruct":
        return []
    raise StoreError(
        f"a {type(index).__name__} does not say which nodes of its docstore are its own: {REMEDY}"
    )


def _vector_index_ids(index: Any, nodes_dict: Mapping[str, str]) -> list[str]:
    if keeps_texts(index):
        return list(dict.fromkeys([*open_store(index).ids(), *nodes_dict.values()]))
    rows = getattr(getattr(index.vector_store, "data", None), "embedding_dict", None)
    # delete_nodes() of an index leaves its own list as it was.
    return [node_id for id_, node_id in nodes_dict.items() if rows is None or id_ in rows]


def keeps_texts(index: Any) -> bool:
    """Whether the nodes of a vector index are in its vector store, not in its docstore."""
    store = getattr(index, "vector_store", None)
    elsewhere = getattr(index, "_store_nodes_override", True)
    return bool(getattr(store, "stores_text", False)) and not elsewhere


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
    store = open_store(index.vector_store)  # what it has beside the index' own list is told
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
