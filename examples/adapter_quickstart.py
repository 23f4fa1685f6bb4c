"""Tune a linear adapter for any embedding model

An adapter maps the question's vector, so that it points to the documents that answer it. The
embedding model stays as it is, be it local or behind an API, and so do the vectors in the index.
Seconds on a laptop, no key.
"""

import tempfile

from llama_index.core import VectorStoreIndex

from llama_index.tuning import (
    AdapterEmbeddingModel,
    EmbeddingAdapterFinetuneEngine,
    evaluate_retriever,
)
from llama_index.tuning.demo import minilm, questions_about, reference_nodes

# The app: an index over Python's language reference, of which every second passage will do here.
# Put your own index in its place.

nodes = reference_nodes()[::2]
base = minilm()
index = VectorStoreIndex(nodes, embed_model=base)

# Questions of beginners with the passages that answer them: some to learn from, some to look at
# later.

train, test = questions_about(nodes, "train"), questions_about(nodes, "held_out")

# `vectors=index` takes the documents' vectors from the index, so that only questions are embedded.
# Without a validation set the engine cross-fits: each question of the report was measured by an
# adapter that had not seen it.

folder = tempfile.mkdtemp()
engine = EmbeddingAdapterFinetuneEngine(
    train, base, vectors=index, model_output_path=f"{folder}/adapter"
)
report = engine.finetune()
print(report)

# The tuned model goes where the base was: here into a retriever over the same index.

tuned = engine.get_finetuned_model()
for name, model in (("base", base), ("tuned", tuned)):
    retriever = index.as_retriever(similarity_top_k=10, embed_model=model)
    print(f"{name:<6}", evaluate_retriever(retriever, test, ks=[10]))

# In another process, the folder loads without torch.

again = AdapterEmbeddingModel(base, f"{folder}/adapter")
