"""Serve a new embedding model on the index that the old one filled, without re-embedding it.

The "new" model here is the embedded one with its vectors turned and cut to 256 dimensions, so
that one model on disk is enough: its space has nothing in common with the index's any more.
"""

import tempfile

import numpy as np
from llama_index.core import VectorStoreIndex

from llama_index.tuning import AdapterEmbeddingModel, DriftAdapterFinetuneEngine
from llama_index.tuning.demo import minilm, reference_nodes
from llama_index.tuning.embeddings import Adapter, LinearMap

nodes = reference_nodes()[:120]
old_model = minilm()
index = VectorStoreIndex(nodes, embed_model=old_model)

turn = np.linalg.qr(np.random.default_rng(0).standard_normal((384, 384)))[0][:256]
new_model = AdapterEmbeddingModel(
    old_model, Adapter(LinearMap(turn.astype(np.float32)), side="both")
)
new_model.model_name = "minilm, turned and cut to 256"

with tempfile.TemporaryDirectory() as folder:
    engine = DriftAdapterFinetuneEngine(
        nodes,
        new_model,
        old_model,
        vectors=index,
        model_output_path=f"{folder}/drift",
        accept="always",
    )
    print(engine.finetune())
    retriever = index.as_retriever(similarity_top_k=1, embed_model=engine.get_finetuned_model())
    print(retriever.retrieve("how are two numbers compared")[0].node.get_content()[:200])
