"""Tune the selector of a router

A `RouterQueryEngine` asks an LLM which of its query engines a question is for. A tuned selector
decides by the question's vector, in a millisecond, and asks nobody.
"""

from llama_index.core import Document, Settings, SummaryIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.tools import QueryEngineTool

from llama_index.tuning import RouterFinetuneEngine, RoutingDataset
from llama_index.tuning.demo import minilm
from llama_index.tuning.generate import generate_routing_examples

# The app: three query engines, each over documents of its own.

TEXTS = {
    "billing": "Invoices are sent on the first of the month. Cards and transfers are accepted for "
    "every invoice. Refunds take five working days to reach your card. Late payment of an invoice "
    "costs a small fee.",
    "shipping": "Parcels leave the warehouse within two days. Delivery of a parcel takes three "
    "days in the country. You can track every parcel by its number. A lost parcel is sent again.",
    "accounts": "Passwords are reset from the sign in page. You can delete your account in the "
    "settings. Two step sign in protects your account. Your user name can be changed once a year.",
}
Settings.llm, Settings.embed_model = MockLLM(), minilm()
engines = [
    QueryEngineTool.from_defaults(
        SummaryIndex.from_documents([Document(text=text)]).as_query_engine(),
        name=name,
        description=f"Answers questions about {name}",
    )
    for name, text in TEXTS.items()
]

# What it learns from: sentences of each engine's documents, which cost nothing, and questions of
# users, where there are some. The recorder collects them (`examples/collect_traffic.py`).

QUESTIONS = [
    ("when is my invoice sent", "billing"),
    ("which cards do you accept", "billing"),
    ("how long do refunds take", "billing"),
    ("where is my parcel", "shipping"),
    ("how long does delivery take", "shipping"),
    ("my parcel is lost", "shipping"),
    ("I forgot my password", "accounts"),
    ("how do I delete my account", "accounts"),
    ("can I change my user name", "accounts"),
]
sentences = generate_routing_examples(engines)
data = sentences.extend(RoutingDataset.from_metadata(engines, QUESTIONS))
print(data.class_counts())

# Tuning, cross-fitted. So few questions show no gain over the choices' descriptions, and the gate
# would keep those; this takes the tuned selector all the same.

tuning = RouterFinetuneEngine(data, Settings.embed_model, accept="always")
print(tuning.finetune())

# The selector in its place.

router = RouterQueryEngine(
    selector=tuning.get_finetuned_model(), query_engine_tools=engines, llm=MockLLM()
)
answer = router.query("has my parcel left yet")
selected = answer.metadata["selector_result"]
print(engines[selected.ind].metadata.name, "–", selected.reason)
