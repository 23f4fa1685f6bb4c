"""Tune an embedding adapter and use it in a retriever: no key, no GPU, seconds on a laptop.

The questions are Python beginners' and the documents Python's own language reference; put your
own nodes and questions in their place.
"""

import tempfile

from llama_index.core import VectorStoreIndex

from llama_index.tuning import EmbeddingAdapterFinetuneEngine, evaluate_retriever
from llama_index.tuning.demo import minilm, questions_about, reference_nodes

nodes = reference_nodes()
train, test = questions_about(nodes, "train"), questions_about(nodes, "held_out")

base = minilm()
index = VectorStoreIndex(nodes, embed_model=base)  # the app's index, filled already

with tempfile.TemporaryDirectory() as folder:
    engine = EmbeddingAdapterFinetuneEngine(
        train, base, vectors=index, model_output_path=f"{folder}/adapter"
    )
    report = engine.finetune()
    print(report)
    tuned = engine.get_finetuned_model()

for name, model in (("base", base), ("tuned", tuned)):
    retriever = index.as_retriever(similarity_top_k=10, embed_model=model)
    print(f"{name:<6}", evaluate_retriever(retriever, test, ks=[10]))
