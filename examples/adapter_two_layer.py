"""Tune an adapter of two layers

A network of two layers can bend what a linear map can only turn and stretch. It wants more
questions for it: the report says whether it pays, and the gate keeps the base where it does not.
"""

import tempfile

from llama_index.core import VectorStoreIndex
from llama_index.embeddings.adapter.utils import TwoLayerNN

from llama_index.tuning import AdapterEmbeddingModel, EmbeddingAdapterFinetuneEngine
from llama_index.tuning.demo import minilm, questions_about, reference_nodes

# The app and its questions; every fourth passage keeps the example short.

nodes = reference_nodes()[::4]
base = minilm()
index = VectorStoreIndex(nodes, embed_model=base)
train = questions_about(nodes, "train")

# The network is LlamaIndex's own: 384 numbers in and out, 128 in between, added to the vector.

network = TwoLayerNN(384, 128, 384, bias=True, add_residual=True)
folder = tempfile.mkdtemp()
engine = EmbeddingAdapterFinetuneEngine(
    train,
    base,
    vectors=index,
    adapter_model=network,
    model_output_path=f"{folder}/adapter",
    accept="always",  # to show loading; the gate would keep the base where no gain is shown
)
print(engine.finetune())

# Back from the folder, and in a retriever over the same index:

tuned = AdapterEmbeddingModel(base, f"{folder}/adapter", TwoLayerNN)
retriever = index.as_retriever(similarity_top_k=1, embed_model=tuned)
found = retriever.retrieve("how do I sort a dictionary by value")[0]
print(" ".join(found.node.get_content().split())[:100], "…")
