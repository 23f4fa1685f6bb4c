"""What other people's traces are worth: an app without our recorder, its export, `tune_app`.

    python benchmarks/app_from_traces.py [--cache vectors.sqlite]

An app over Python's language reference is instrumented by OpenInference alone. Its users ask the
425 training questions and look at ten passages each: if one answers, the request gets a thumbs up
and the passage a mark, as annotations of people in Phoenix' form; if none does, a thumbs down. The
spans and annotations go to a file as they are exported; of that file alone the app is tuned, and
measured on the 212 held-out questions. Then the documents are ingested again, by another splitter
and with other node ids, and the same file tunes the new app.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from uuid import uuid4

from _data import arguments
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import MockLLM
from llama_index.core.schema import BaseNode
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from llama_index.tuning import tune_app
from llama_index.tuning.collect import Traffic
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.demo import minilm, questions_about, reference_nodes
from llama_index.tuning.vectors.embedder import Embedder

SHOWN = 10
DOCUMENT = "retrieval.documents.{}.document.id"


def ingest(
    chunk_size: int, model: BaseEmbedding, cache: Path
) -> tuple[list[BaseNode], VectorStoreIndex]:
    """The documents in chunks, under ids that no other ingestion has, and an index of them."""
    nodes = reference_nodes(chunk_size)
    texts = [node.get_content() for node in nodes]
    for node, vector in zip(nodes, Embedder(model, cache=cache).documents(texts), strict=True):
        node.id_, node.embedding = str(uuid4()), vector.tolist()
    return nodes, VectorStoreIndex(nodes, embed_model=model)


def asked(index: VectorStoreIndex, questions: RetrievalDataset) -> list[ReadableSpan]:
    """What OpenInference saw of the app while its users asked."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = LlamaIndexInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        engine = index.as_query_engine(llm=MockLLM(max_tokens=8), similarity_top_k=SHOWN)
        for question in questions.queries.values():
            engine.query(question)
    finally:
        instrumentor.uninstrument()
    return list(exporter.get_finished_spans())


def annotated(spans: list[ReadableSpan], questions: RetrievalDataset) -> list[dict[str, object]]:
    """What the users said of what they were shown."""
    answers = {text: set(ids) for text, ids in questions.query_docid_pairs}
    notes: list[dict[str, object]] = []
    for span in spans:
        given = span.attributes or {}
        if given.get("openinference.span.kind") != "RETRIEVER" or DOCUMENT.format(0) not in given:
            continue
        wanted = answers[str(given["input.value"])]
        right = [n for n in range(SHOWN) if given.get(DOCUMENT.format(n)) in wanted]
        human = {"annotator_kind": "HUMAN", "span_id": f"{span.context.span_id:016x}"}
        notes.append({**human, "name": "thumbs", "result": {"score": 1 if right else -1}})
        for place in right:
            mark = {"name": "answers", "document_position": place, "result": {"score": 1}}
            notes.append({**human, **mark})
    return notes


def export(path: Path, spans: list[ReadableSpan], notes: list[dict[str, object]]) -> None:
    """One JSON Lines file: spans as the SDK writes them, annotations among them."""
    lines = [span.to_json(indent=None) for span in spans] + [json.dumps(note) for note in notes]
    path.write_text("\n".join(lines), encoding="utf-8")


def tuned(name: str, index: VectorStoreIndex, path: Path, held_out: RetrievalDataset) -> None:
    """Tune the app of the file, and print what held-out questions say."""
    app = tune_app(
        index.as_retriever(similarity_top_k=SHOWN),
        traffic=Traffic.from_spans(path),
        run_folder=None,
    )
    print(f"\n{name}\n{app.report}\nheld out: {app.check(held_out)}", flush=True)


def main() -> None:
    """Ask, export, tune; ingest anew, tune again."""
    parser = arguments(__doc__)
    parser.add_argument("--chunk-sizes", type=int, nargs=2, default=[256, 128])
    given = parser.parse_args()
    given.cache.parent.mkdir(parents=True, exist_ok=True)
    model = minilm()
    first, other = given.chunk_sizes
    nodes, index = ingest(first, model, given.cache)
    questions = questions_about(nodes, "train")
    spans = asked(index, questions)
    notes = annotated(spans, questions)
    liked = sum(note.get("name") == "thumbs" and note["result"]["score"] > 0 for note in notes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export.jsonl"
        export(path, spans, notes)
        print(
            f"{len(nodes)} chunks of up to {first} tokens; {len(questions)} questions asked, "
            f"{liked} with a thumbs up; {len(spans)} spans and {len(notes)} annotations"
        )
        tuned("the app of the traces", index, path, questions_about(nodes, "held_out"))
        nodes, index = ingest(other, model, given.cache)
        held_out = questions_about(nodes, "held_out")
        tuned(f"ingested anew: {len(nodes)} chunks of up to {other}", index, path, held_out)


if __name__ == "__main__":
    main()
