"""Tune an embedding model with the engine

`SentenceTransformersFinetuneEngine` tunes all weights of a sentence-transformers model in one
call: batches without false negatives, the checkpoint that held-out questions like best, base
against tuned in the report.
"""

import tempfile

from llama_index.core import VectorStoreIndex

from llama_index.tuning import SentenceTransformersFinetuneEngine, evaluate_retriever
from llama_index.tuning.demo import minilm_folder, questions_about, reference_nodes
from llama_index.tuning.embeddings import SentenceTransformersOptions

# The data: beginners' questions about Python, and the passages of its language reference that
# answer them. Every fourth passage keeps the example short. Put your own nodes and questions in
# their place.

nodes = reference_nodes()[::4]
train, test = questions_about(nodes, "train"), questions_about(nodes, "held_out")

# The engine. Short texts and few steps keep it quick; leave both out for more gain.

folder = tempfile.mkdtemp()
engine = SentenceTransformersFinetuneEngine(
    train,
    model_id=str(minilm_folder()),  # or "BAAI/bge-small-en-v1.5"
    model_output_path=f"{folder}/tuned",
    batch_size=16,
    epochs=1,
    options=SentenceTransformersOptions(max_length=64, max_steps=10),
)
print(engine.finetune())

# The tuned model as LlamaIndex's `HuggingFaceEmbedding`; the base, where no gain was shown.
# Documents must be embedded again by the tuned model.

tuned = engine.get_finetuned_model()
index = VectorStoreIndex(nodes, embed_model=tuned)
print(evaluate_retriever(index.as_retriever(similarity_top_k=10), test, ks=[10]))
