"""An app that another tool has traced is tuned from its export: no recorder, no key, seconds.

OpenInference (what Phoenix and Langfuse have LlamaIndex users install) traces a retriever; people
mark passages that helped. The file of both is all that `tune_app` gets, and it still fits after the
documents were ingested again, by another splitter.
"""

import json
import tempfile
from pathlib import Path

from llama_index.core import VectorStoreIndex
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from llama_index.tuning import tune_app
from llama_index.tuning.collect import Traffic
from llama_index.tuning.demo import minilm, questions_about, reference_nodes

TOPICS = ("assignment", "class", "for", "import", "lambda", "try", "with", "yield")


def index_of(chunk_size: int) -> VectorStoreIndex:
    """Some topics of Python's language reference."""
    nodes = [n for n in reference_nodes(chunk_size) if n.ref_doc_id in TOPICS]
    return VectorStoreIndex(nodes, embed_model=minilm())


index = index_of(128)
questions = questions_about(list(index.docstore.docs.values()), "train")

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))  # Phoenix' or Langfuse's in your app
LlamaIndexInstrumentor().instrument(tracer_provider=provider)
retriever = index.as_retriever(similarity_top_k=10)
for question in questions.queries.values():
    retriever.retrieve(question)
LlamaIndexInstrumentor().uninstrument()

answers = {text: set(ids) for text, ids in questions.query_docid_pairs}
lines = []
for span in exporter.get_finished_spans():
    lines.append(span.to_json(indent=None))
    found = [span.attributes.get(f"retrieval.documents.{place}.document.id") for place in range(10)]
    if found[0] is None:  # no retriever's span
        continue
    wanted = answers[span.attributes["input.value"]]
    marks = [place for place, id_ in enumerate(found) if id_ in wanted]
    said = [{"document_position": place, "result": {"score": 1}} for place in marks]
    for note in said or [{"result": {"score": -1}}]:  # nothing helped: a thumbs down
        human = {
            "annotator_kind": "HUMAN",
            "name": "helped",
            "span_id": f"{span.context.span_id:016x}",
        }
        lines.append(json.dumps({**human, **note}))
export = Path(tempfile.mkdtemp()) / "spans.jsonl"
export.write_text("\n".join(lines))

for name, app in (("as traced", index), ("ingested again", index_of(256))):
    tuned = tune_app(app, traffic=Traffic.from_spans(export), run_folder=None)
    gain = tuned.report.gains["ndcg@10"]
    print(f"{name}: {tuned.report.counts['questions']} questions, nDCG@10 {gain.base:.3f} → "
          f"{gain.tuned:.3f}, served: {tuned.stack}")  # fmt: skip
