"""Optional parts as they are served and saved: another embedding model, or a cross-encoder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.postprocessor.types import BaseNodePostprocessor

from llama_index.tuning._arrays import Float32
from llama_index.tuning.app.see import SeenApp
from llama_index.tuning.artifacts import read_arrays, read_config
from llama_index.tuning.embeddings.adapter.model import AdapterEmbeddingModel
from llama_index.tuning.embeddings.adapter.saved import Adapter
from llama_index.tuning.embeddings.full.model import KIND
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.vectors.embedder import Embedder, document_vectors

CORPUS_SIDE, EMBEDDING_MODEL = "corpus_side", "embedding_model"
QUERY_ENCODER, CROSS_ENCODER = "query_encoder", "cross_encoder"
NAMES = (CORPUS_SIDE, QUERY_ENCODER, EMBEDDING_MODEL, CROSS_ENCODER)
"""The optional parts, in the order of what they cost."""
REINDEXED = (CORPUS_SIDE, EMBEDDING_MODEL)
"""Those that give the documents other vectors."""
_VECTORS, _MODEL = "vectors.safetensors", "model"


@dataclass(frozen=True, eq=False)
class ServedPart:
    """A part that was tuned by name.

    Attributes:
        name: one of `NAMES`.
        component: an embedding model, or a re-ranker.
        write: puts it into a folder that does not exist yet.
        documents: the nodes' vectors, where they are other ones than the index has; unit rows, in
            the order of `SeenApp.nodes`.
        place: what holds the folder that it was trained in.
    """

    name: str
    component: BaseEmbedding | BaseNodePostprocessor
    write: Callable[[Path], None]
    documents: Float32 | None = None
    place: object = None


def load_part(name: str, folder: Path, seen: SeenApp) -> ServedPart:
    """What `ServedPart.write` wrote.

    Args:
        name: of the part.
        folder: that it lies in.
        seen: the app that it is served in.

    Raises:
        ArtifactError: it is damaged, or of another model.
    """
    assert seen.embed_model is not None
    if name == CORPUS_SIDE:
        adapter = Adapter.load(folder)
        return corpus_side(seen, adapter, stored_vectors(seen, Embedder(seen.embed_model)))
    if name == EMBEDDING_MODEL:
        return embedding_model(seen, folder / _MODEL, _kept_vectors(folder))
    return trained(name, folder, seen)


def stored_vectors(seen: SeenApp, embedder: Embedder) -> Float32:
    """The nodes' vectors, from where they are."""
    source = seen.index if hasattr(seen.index, "vector_store") else None
    return document_vectors(seen.texts, source, embedder)


def corpus_side(seen: SeenApp, adapter: Adapter, stored: Float32) -> ServedPart:
    """An adapter that maps questions and documents."""
    assert seen.embed_model is not None
    model = AdapterEmbeddingModel(seen.embed_model, adapter)
    return ServedPart(CORPUS_SIDE, model, adapter.save, adapter.map_documents(stored))


def embedding_model(
    seen: SeenApp, folder: Path, kept: dict[str, Float32] | None = None
) -> ServedPart:
    """A tuned model, and what it makes of the nodes; those that are `kept` are not embedded."""
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    config = read_config(folder, KIND)
    model = HuggingFaceEmbedding(
        str(folder),
        query_instruction=config["query_prompt"] or None,
        text_instruction=config["document_prompt"] or None,
    )
    hashes = {id_: _hash(text) for id_, text in seen.texts.items()}
    known = {id_: (kept or {})[h] for id_, h in hashes.items() if h in (kept or {})}
    vectors = document_vectors(seen.texts, known, Embedder(model))

    def write(target: Path) -> None:
        from safetensors.numpy import save_file

        shutil.copytree(folder, target / _MODEL)
        codes = np.array([list(bytes.fromhex(h)) for h in hashes.values()], np.uint8)
        save_file({"vectors": np.asarray(vectors), "codes": codes}, target / _VECTORS)

    return ServedPart(EMBEDDING_MODEL, model, write, vectors)


def trained(name: str, folder: Path, seen: SeenApp) -> ServedPart:
    """A query encoder or a cross-encoder."""
    component: Any
    if name == QUERY_ENCODER:
        from llama_index.tuning.embeddings.query.model import QueryEncoderEmbeddingModel

        assert seen.embed_model is not None
        component = QueryEncoderEmbeddingModel(seen.embed_model, folder)
    elif name == CROSS_ENCODER:
        from llama_index.tuning.rerankers.cross.model import TunedReranker

        component = TunedReranker.load(folder)
    else:
        raise ArtifactError(f"{folder} holds a part that this version does not know: {name!r}")
    return ServedPart(name, component, lambda target: _copied(folder, target))


def _copied(folder: Path, target: Path) -> None:
    shutil.copytree(folder, target)


def _kept_vectors(folder: Path) -> dict[str, Float32]:
    arrays = read_arrays(folder, _VECTORS)
    codes: Sequence[Any] = [bytes(row.tolist()).hex() for row in arrays["codes"]]
    return dict(zip(codes, arrays["vectors"], strict=True))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
