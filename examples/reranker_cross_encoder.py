"""Tune a cross-encoder on the app's own candidates, and take it only if it beats a light re-ranker.

    python examples/reranker_cross_encoder.py

It starts from all-MiniLM-L6-v2, which never compared a question with a text, and takes a few steps
on a CPU, so that the gate keeps the light re-ranker. For a real one name a model that was trained
to re-rank (BAAI/bge-reranker-base, cross-encoder/ms-marco-MiniLM-L-12-v2), all your questions and
two epochs, on a GPU.
"""

import tempfile
from pathlib import Path

from llama_index.core import VectorStoreIndex

from llama_index.tuning import CrossEncoderFinetuneEngine, TunedRetriever, load_reranker
from llama_index.tuning.demo import minilm, minilm_folder, questions_about, reference_nodes
from llama_index.tuning.rerankers import CrossEncoderOptions

nodes = reference_nodes()[::2]  # a part, to keep it short
questions = questions_about(nodes, "held_out")
questions = questions.subset(list(questions.queries)[:60])
index = VectorStoreIndex(nodes, embed_model=minilm())
retriever = TunedRetriever(
    index.as_retriever(similarity_top_k=100), docstore=index.docstore, depth=10, top_k=5
)

with tempfile.TemporaryDirectory() as folder:
    engine = CrossEncoderFinetuneEngine(
        questions,
        str(minilm_folder()),
        str(Path(folder) / "cross_encoder"),
        retriever=retriever,
        evaluation_steps=10,
        options=CrossEncoderOptions(depth=10, max_length=128, max_steps=20),
    )
    report = engine.finetune()
    print(report)
    # Whichever the gate kept; a refused cross-encoder lies in candidate/ there.
    tuned = retriever.with_reranker(load_reranker(Path(folder) / "cross_encoder"))

question = "how do i write a string over several lines"
for item in tuned.retrieve(question):
    print(f"{item.score:.2f}  {' '.join(item.node.get_content().split())[:70]} …")
