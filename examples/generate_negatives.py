"""Hard negatives from the app's own retriever, and labels of relevance within a budget."""

from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode

from llama_index.tuning import RetrievalDataset, label_relevance, mine_hard_negatives
from llama_index.tuning.asking import RunOptions
from llama_index.tuning.demo import minilm

TEXTS = {
    "gold": "The gold card costs fifty euros a year and insures your travels.",
    "gold-copy": "The gold card costs fifty euros a year and insures your travels!",
    "basic": "The basic card costs five euros a year.",
    "student": "Students get a card free of charge until they are 27.",
    "hours": "Our branches open at nine in the morning.",
}
nodes = [TextNode(id_=id_, text=text) for id_, text in TEXTS.items()]
dataset = RetrievalDataset.from_nodes(
    nodes,
    {"q1": "How much is the gold card?", "q2": "When can I come to a branch?"},
    {"q1": ["gold"], "q2": ["hours"]},
)
retriever = VectorStoreIndex(nodes, embed_model=minilm()).as_retriever(similarity_top_k=5)

mined = mine_hard_negatives(dataset, retriever, num_negatives=2)
for id_, negatives in mined.negatives.items():
    print(f"{mined.queries[id_]}  not: {negatives}")
print(mined.counts)  # the copy of the answer is no negative

plan = label_relevance(
    dataset.queries, retriever, MockLLM(), run=RunOptions(max_calls=8), dry_run=True
)
print(f"labels of relevance would take {plan.estimate}")
