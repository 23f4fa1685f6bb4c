"""What can be wrong with a dataset, each fault a sentence that names the id.

Rows of candidates out of labels, feedback and the old package's samples.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index.tuning.errors import DatasetError
from llama_index.tuning.text.words import normalise

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

logger = logging.getLogger(__name__)

HALF = "the text holds half a character (a lone surrogate), which no file can hold"


def is_utf8(text: Any) -> bool:
    """Whether a text can be written: lone surrogates cannot."""
    try:
        return not isinstance(text, str) or bool(text.isascii() or text.encode() or True)
    except UnicodeEncodeError:
        return False


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; a text such as "4" is none, nor is true."""
    plain = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return plain and math.isfinite(value)


def check_held_out(trained: Mapping[str, str], held_out: Mapping[str, str]) -> None:
    """No query is measured on that was trained on.

    Args:
        trained: ids and texts of the queries of `dataset`.
        held_out: those of `val_dataset`.

    Raises:
        DatasetError: naming every query that is in both.
    """
    known = {normalise(text): id_ for id_, text in trained.items()}
    both = [
        f"query {id_!r} of val_dataset is query {known[normalise(text)]!r} of dataset"
        for id_, text in held_out.items()
        if normalise(text) in known
    ]
    if both:
        raise DatasetError("val_dataset overlaps dataset; it would be scored on what it saw:", both)


def check_node_ids(
    found: Iterable[Sequence[str]], corpus: Mapping[str, str], hint: str = ""
) -> None:
    """A retriever must know a dataset's documents by the dataset's ids.

    Args:
        found: for each query the ids that were retrieved.
        corpus: the dataset's.
        hint: what else might help.

    Raises:
        DatasetError: not one of the ids is in the corpus.
    """
    ids = [id_ for ranking in found for id_ in ranking]
    if ids and corpus.keys().isdisjoint(ids):
        raise DatasetError(
            f"the retriever's nodes are not those of the dataset: it found {ids[0]!r}, the corpus "
            f"has {next(iter(corpus))!r}; the dataset must be made of the nodes that are indexed, "
            f"with their ids{hint}"
        )


def check_nodes(nodes: Any) -> None:
    """They must be LlamaIndex nodes.

    Raises:
        TypeError: naming the first that is none.
    """
    from llama_index.core.schema import BaseNode

    if isinstance(nodes, (BaseNode, str)) or not isinstance(nodes, Iterable):
        raise TypeError(f"nodes must be a list of nodes, got {type(nodes).__name__}")
    for place, node in enumerate(nodes):
        if not isinstance(node, BaseNode):
            raise TypeError(f"nodes[{place}] must be a node, got {type(node).__name__}")


def nodes_with_text(nodes: Sequence[BaseNode]) -> list[BaseNode]:
    """The nodes that an index embeds a text of; others, such as images, are counted in the log.

    Raises:
        TypeError: naming the first that is no node.
        DatasetError: there are nodes, and none has a text.
    """
    from llama_index.core.schema import MetadataMode

    check_nodes(nodes)
    kept = [node for node in nodes if node.get_content(MetadataMode.EMBED).strip()]
    if len(kept) < len(nodes):
        texts = set(map(id, kept))
        example = next(node.node_id for node in nodes if id(node) not in texts)
        if not kept:
            raise DatasetError(f"none of the {len(nodes)} nodes has a text, such as {example!r}")
        logger.warning(
            "%d of %d nodes have no text, such as %r, and are left out",
            len(nodes) - len(kept),
            len(nodes),
            example,
        )
    return kept


def retrieval_faults(queries: Any, corpus: Any, relevant_docs: Any, mode: Any) -> list[str]:
    """Every fault of a retrieval dataset; an empty list means that it is sound."""
    parts = {"queries": queries, "corpus": corpus, "relevant_docs": relevant_docs}
    faults = [
        f"{name} must be a dictionary, got {type(part).__name__}"
        for name, part in parts.items()
        if not isinstance(part, dict)
    ]
    if mode != "text":
        faults.append(f"mode must be 'text', got {mode!r}")
    if faults:
        return faults
    return [
        *_text_faults("query", queries),
        *_text_faults("document", corpus),
        *_relevance_faults(queries, corpus, relevant_docs),
    ]


def _text_faults(what: str, texts: dict[Any, Any]) -> Iterator[str]:
    for id_, text in texts.items():
        if not isinstance(id_, str) or not id_ or not is_utf8(id_):
            yield f"{what} id {id_!r} must be a non-empty string of whole characters"
        if not isinstance(text, str):
            yield f"{what} {id_!r}: the text must be a string, got {type(text).__name__}"
        elif not text or text.isspace():
            yield f"{what} {id_!r}: the text is empty"
        elif not is_utf8(text):
            yield f"{what} {id_!r}: {HALF}"


def _relevance_faults(
    queries: dict[Any, Any], corpus: dict[Any, Any], relevant_docs: dict[Any, Any]
) -> Iterator[str]:
    for query_id in queries:
        docs = relevant_docs.get(query_id)
        if docs is None:
            yield f"query {query_id!r} has no entry in relevant_docs"
        elif not isinstance(docs, list):
            yield (
                f"relevant_docs[{query_id!r}] must be a list of document ids, "
                f"got {type(docs).__name__}"
            )
        elif not docs:
            yield f"query {query_id!r} has no relevant documents"
        else:
            for doc_id in docs:
                if not isinstance(doc_id, str):
                    kind = type(doc_id).__name__
                    yield f"relevant_docs[{query_id!r}] must hold strings, got {kind}"
                elif doc_id not in corpus:
                    yield f"query {query_id!r}: relevant document {doc_id!r} is not in the corpus"
    for query_id in relevant_docs:
        if query_id not in queries:
            yield f"relevant_docs names query {query_id!r}, which is not in queries"


def conflicting_queries(
    queries: dict[str, str], relevant_docs: dict[str, list[str]]
) -> list[list[str]]:
    """Groups of query ids that share a text (case and space aside) but not the answers."""
    same: dict[str, list[str]] = defaultdict(list)
    for id_, text in queries.items():
        same[normalise(text)].append(id_)
    return [
        ids
        for ids in same.values()
        if len(ids) > 1 and len({frozenset(relevant_docs[id_]) for id_ in ids}) > 1
    ]


Row = dict[str, Any]


def from_labels(
    queries: Mapping[str, str],
    corpus: Mapping[str, str],
    labels: Mapping[str, Mapping[str, float]],
) -> list[Row]:
    """One row for each labelled query."""
    faults = [f"labels name query {id_!r}, not in queries" for id_ in labels if id_ not in queries]
    faults += [
        f"query {id_!r}: labelled node {node!r} is not in the corpus"
        for id_, grades in labels.items()
        for node in grades
        if node not in corpus
    ]
    if faults:
        raise DatasetError("the labels have faults:", faults)
    return [
        {
            "query_id": id_,
            "query": queries[id_],
            "candidates": [
                {"node_id": node, "text": corpus[node], "score": grade}
                for node, grade in grades.items()
            ],
        }
        for id_, grades in labels.items()
    ]


def from_feedback(records: Iterable[Mapping[str, Any]], corpus: Mapping[str, str]) -> list[Row]:
    """One row for each record with a node that helped."""
    rows = []
    for number, record in enumerate(records):
        where = f"record {number}"
        missing = [key for key in ("query", "nodes") if key not in record]
        if missing:
            raise DatasetError(f"{where} lacks {', '.join(missing)}")
        helped = {*(record.get("relevant") or ())}
        if not helped:
            continue
        judged = helped | {*(record.get("irrelevant") or ())} if record.get("irrelevant") else None
        candidates = [
            _feedback_candidate(node, helped, corpus, where)
            for node in record["nodes"]
            if judged is None or node.get("node_id") in judged
        ]
        shown = {candidate["node_id"] for candidate in candidates}
        rows.append(
            {
                "query_id": str(record.get("id", f"f{number}")),
                "query": record["query"],
                "candidates": candidates,
                "missed": sorted(helped - shown),
            }
        )
    return rows


def from_samples(samples: Iterable[Any]) -> list[Row]:
    """One row for each distinct query; a context's id is a hash of it."""
    rows: dict[str, Row] = {}
    for number, sample in enumerate(samples):
        try:
            query, context, score = (_field(sample, key) for key in ("query", "context", "score"))
        except (KeyError, AttributeError) as exc:
            raise DatasetError(f"sample {number} lacks query, context or score") from exc
        row = rows.setdefault(
            query, {"query_id": f"q{len(rows)}", "query": query, "candidates": []}
        )
        node_id = hashlib.sha256(str(context).encode()).hexdigest()[:16]
        known = [c for c in row["candidates"] if c["node_id"] == node_id]
        if known:  # the old generator repeats contexts; a yes outweighs a no
            known[0]["score"] = max(known[0]["score"], score)
        else:
            row["candidates"].append({"node_id": node_id, "text": context, "score": score})
    return list(rows.values())


def _feedback_candidate(
    node: Mapping[str, Any], helped: set[Any], corpus: Mapping[str, str], where: str
) -> Row:
    node_id = node.get("node_id")
    text = node.get("text") or corpus.get(str(node_id))
    if text is None:
        raise DatasetError(f"{where}: node {node_id!r} has no text, and is not in corpus")
    return {
        "node_id": node_id,
        "text": text,
        "score": float(node_id in helped),
        "retrieval_score": node.get("score"),
        "metadata": node.get("metadata"),
    }


def _field(sample: Any, key: str) -> Any:
    return sample[key] if isinstance(sample, Mapping) else getattr(sample, key)
