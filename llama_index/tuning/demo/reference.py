"""Python's own language reference, on every machine, and questions written for it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from llama_index.tuning._files import read_json_lines
from llama_index.tuning.datasets import RetrievalDataset

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

QUESTIONS = "python_questions.jsonl"


def reference_nodes(chunk_size: int = 256) -> list[BaseNode]:
    """The 79 topics of `help()`, cut into chunks by a LlamaIndex splitter."""
    from pydoc_data.topics import topics

    from llama_index.core import Document
    from llama_index.core.node_parser import SentenceSplitter

    documents = [Document(id_=name, text=text) for name, text in sorted(topics.items())]
    splitter = SentenceSplitter(
        chunk_size=chunk_size, chunk_overlap=40, id_func=lambda i, doc: f"{doc.node_id}-{i}"
    )
    return splitter.get_nodes_from_documents(documents)


def questions_about(nodes: Sequence[BaseNode], split: str) -> RetrievalDataset:
    """The written questions of one split; a chunk that holds a question's quote answers it.

    Args:
        nodes: the chunks.
        split: `"train"` or `"held_out"`.
    """
    from llama_index.core.schema import MetadataMode

    texts = {node.node_id: " ".join(node.get_content().split()) for node in nodes}
    queries, relevant = {}, {}
    with_path = files(__package__).joinpath(QUESTIONS)
    for _, row in read_json_lines(str(with_path)):
        quote = " ".join(row["quote"].split())
        answers = [id_ for id_, text in texts.items() if quote in text]
        if row["split"] == split and answers:  # a quote cut in two by a chunk's end is left out
            queries[row["id"]], relevant[row["id"]] = row["question"], answers
    corpus = {node.node_id: node.get_content(MetadataMode.EMBED) for node in nodes}
    return RetrievalDataset(queries, corpus, relevant)
