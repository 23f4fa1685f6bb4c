"""Tune a re-ranker from what users opened, and cut its answers at a wanted precision.

    python examples/reranker_from_feedback.py

A running app is recorded; here a script asks this project's questions about Python's language
reference, and "opens" the passage that answers.
"""

import tempfile
from pathlib import Path

from llama_index.core import VectorStoreIndex

from llama_index.tuning import FinetuningRecorder, LightRerankerFinetuneEngine
from llama_index.tuning.demo import minilm, questions_about, reference_nodes

nodes = reference_nodes()[::2]  # a part, to keep it short
questions = questions_about(nodes, "held_out")
index = VectorStoreIndex(nodes, embed_model=minilm())
retriever = index.as_retriever(similarity_top_k=20)

with (
    tempfile.TemporaryDirectory() as folder,
    FinetuningRecorder(Path(folder) / "traffic.jsonl") as recorder,
):
    for id_, question in questions.queries.items():
        with recorder.trace(id_):
            shown = [item.node.node_id for item in retriever.retrieve(question)]
        opened = [node_id for node_id in questions.relevant_docs[id_] if node_id in shown]
        recorder.feedback(id_, 1 if opened else -1, relevant=opened)
    traffic = recorder.relevance_dataset(source="users")

engine = LightRerankerFinetuneEngine(traffic)
print(engine.finetune())

reranker = engine.get_finetuned_model().with_nodes(nodes)
limit = reranker.min_score_for(0.3)
print(f"\nto be relevant in 30 % of all cases, a passage needs a score of {limit:.2f}:")
question = "how do i write a string over several lines"
for item in reranker.postprocess_nodes(retriever.retrieve(question), query_str=question)[:5]:
    mark = "kept" if item.score >= limit else "left out"
    print(f"{item.score:.2f}  {mark:8}  {' '.join(item.node.get_content().split())[:70]} …")
