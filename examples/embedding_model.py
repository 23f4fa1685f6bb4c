"""Tune a Sentence Transformer itself and use it in an index: no key, no GPU, about two minutes.

The questions are Python beginners' and the documents Python's own language reference; put your
own nodes and questions in their place. Documents must be embedded again by the tuned model.
"""

import tempfile

from llama_index.core import VectorStoreIndex

from llama_index.tuning import SentenceTransformersFinetuneEngine, evaluate_retriever
from llama_index.tuning.demo import minilm_folder, questions_about, reference_nodes
from llama_index.tuning.embeddings import SentenceTransformersOptions

nodes = reference_nodes()[::3]  # a part of them keeps the example short
train, test = questions_about(nodes, "train"), questions_about(nodes, "held_out")

with tempfile.TemporaryDirectory() as folder:
    engine = SentenceTransformersFinetuneEngine(
        train,
        model_id=str(minilm_folder()),  # or "BAAI/bge-small-en-v1.5"
        model_output_path=f"{folder}/tuned",
        batch_size=16,
        epochs=1,
        # So do short texts and few steps; leave both out for more gain.
        options=SentenceTransformersOptions(max_length=64, max_steps=20),
    )
    print(engine.finetune())
    tuned = engine.get_finetuned_model()  # the base, where no gain is shown
    index = VectorStoreIndex(nodes, embed_model=tuned)
    print(evaluate_retriever(index.as_retriever(similarity_top_k=10), test, ks=[10]))
