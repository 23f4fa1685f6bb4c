"""Tune a re-ranker from what users clicked, as a postprocessor with a wanted precision.

python examples/reranker_from_feedback.py
"""

import random

from llama_index.core.schema import NodeWithScore, TextNode

from llama_index.tuning import LightRerankerFinetuneEngine, RelevanceDataset

TOPICS = ["refund", "invoice", "password", "shipping", "warranty", "voucher", "address", "tax"]
random.seed(0)
records = []
for number in range(200):
    one, two = random.sample(TOPICS, 2)
    shown = [f"All about {a} and {b}." for a in TOPICS for b in TOPICS if a < b]
    random.shuffle(shown)
    nodes = [{"node_id": text, "text": text, "score": random.random()} for text in shown[:12]]
    clicked = [n["node_id"] for n in nodes if one in n["text"] and two in n["text"]]
    question = f"What about the {one} and its {two}, case {number}?"
    records.append({"query": question, "nodes": nodes, "relevant": clicked})

engine = LightRerankerFinetuneEngine(RelevanceDataset.from_feedback(records))
print(engine.finetune())
reranker = engine.get_finetuned_model()
limit = reranker.min_score_for(0.9)
print(f"min_score for a precision of 90 %: {limit:.2f}")

nodes = [NodeWithScore(node=TextNode(text=f"All about {t} and tax."), score=0.5) for t in TOPICS]
for item in reranker.postprocess_nodes(nodes, query_str="Is there tax on a voucher?")[:3]:
    print(f"{item.score:.2f}  {item.node.get_content()}")
