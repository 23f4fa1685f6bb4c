"""Real vector stores for tests: each kind, nodes to fill it with, and what it holds."""

import uuid

import chromadb
import numpy as np
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.vector_stores.chroma import ChromaVectorStore
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

KINDS = ["simple", "chroma", "chroma-path", "chroma-cosine", "qdrant", "qdrant-path"]


def unit(matrix):
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def new_store(kind, folder):
    """An empty store of one of the `KINDS`; those on disk lie in the folder."""
    if kind == "simple":
        return SimpleVectorStore()
    name = "docs" + uuid.uuid4().hex[:8]
    if kind.startswith("chroma"):
        client = (
            chromadb.PersistentClient(str(folder / "chroma"))
            if kind == "chroma-path"
            else chromadb.EphemeralClient()
        )
        space = {"hnsw": {"space": "cosine" if kind == "chroma-cosine" else "l2"}}
        return ChromaVectorStore(client.create_collection(name, configuration=space))
    path = {"path": str(folder / "qdrant")} if kind == "qdrant-path" else {"location": ":memory:"}
    return QdrantVectorStore(name, QdrantClient(**path))


def node_id(kind, number):
    """A node id that is not ASCII, where the store takes one: Qdrant wants a UUID."""
    if kind.startswith("qdrant"):
        return str(uuid.uuid5(uuid.NAMESPACE_URL, str(number)))
    return f"Knoten {number} – é漢"


def nodes_of(kind, vectors):
    return [
        TextNode(
            id_=node_id(kind, n), text=f"text {n} ü", metadata={"n": n}, embedding=row.tolist()
        )
        for n, row in enumerate(vectors)
    ]


def everything_but_vectors(store):
    """What a store holds beside its vectors, as it holds it."""
    if isinstance(store, SimpleVectorStore):
        return dict(store.data.metadata_dict), dict(store.data.text_id_to_ref_doc_id)
    if isinstance(store, ChromaVectorStore):
        held = store.client.get(include=["documents", "metadatas"])
        return held["ids"], held["documents"], held["metadatas"]
    records, _ = store.client.scroll(store.collection_name, limit=1000)
    return [(record.id, record.payload) for record in records]
