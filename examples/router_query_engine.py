"""A RouterQueryEngine over three indexes whose selector is tuned: no key, no network, no LLM call.

python examples/router_query_engine.py
"""

from __future__ import annotations

from llama_index.core import Document, MockEmbedding, Settings, SummaryIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.tools import QueryEngineTool

from llama_index.tuning import RouterFinetuneEngine, RoutingDataset
from llama_index.tuning.generate import generate_routing_examples

TEXTS = {
    "billing": "Invoices are sent on the first of the month. Cards and transfers are accepted for "
    "every invoice. Refunds take five working days to reach your card. Late payment of an invoice "
    "costs a small fee.",
    "shipping": "Parcels leave the warehouse within two days. Delivery of a parcel takes three "
    "days in the country. You can track every parcel by its number. A lost parcel is sent again.",
    "accounts": "Passwords are reset from the sign in page. You can delete your account in the "
    "settings. Two step sign in protects your account. Your user name can be changed once a year.",
}
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


def tools() -> list[QueryEngineTool]:
    return [
        QueryEngineTool.from_defaults(
            SummaryIndex.from_documents([Document(text=text)]).as_query_engine(),
            name=name,
            description=f"Answers questions about {name}",
        )
        for name, text in TEXTS.items()
    ]


def main(embed_model: BaseEmbedding | None = None) -> str:
    """Tune, route one question, and say which index answered."""
    model = embed_model or _minilm()
    Settings.llm, Settings.embed_model = MockLLM(), model
    engines = tools()
    sentences = generate_routing_examples(engines)  # from each tool's own documents
    data = sentences.extend(RoutingDataset.from_metadata(engines, QUESTIONS))
    tuning = RouterFinetuneEngine(data, model, accept="always")
    print(tuning.finetune())
    router = RouterQueryEngine(
        selector=tuning.get_finetuned_model(), query_engine_tools=engines, llm=MockLLM()
    )
    answer = router.query("has my parcel left yet")
    selected = answer.metadata["selector_result"]
    print(selected.reason)
    return str(engines[selected.ind].metadata.name)


def _minilm() -> BaseEmbedding:
    try:
        from llama_index.tuning.demo import minilm

        return minilm()
    except ImportError:
        return MockEmbedding(embed_dim=32)


if __name__ == "__main__":
    main()
