"""What can be wrong with a dataset, each fault a sentence that names the id."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from llama_index.tuning._checks import metadata_mode as checked_mode
from llama_index.tuning.datasets.records import Judgment, RoutingExample
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.text.words import normalise

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode, MetadataMode


logger = logging.getLogger(__name__)

R = TypeVar("R")

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


def value_fault(value: Any) -> str | None:
    """What keeps a plain value, such as a node's metadata, from being written as JSON."""
    waiting = [(value, 0)]
    while waiting:
        each, depth = waiting.pop()
        inside: Iterable[Any] = ()
        if isinstance(each, Mapping):
            inside = [*each, *each.values()]
        elif isinstance(each, (list, tuple)):
            inside = each
        elif isinstance(each, (float, np.floating)) and not math.isfinite(each):
            return f"a number in it is {each}, which JSON cannot hold"
        elif not is_utf8(each):
            return HALF
        if depth > _DEEPEST:
            return "it is nested too deep"
        waiting += [(item, depth + 1) for item in inside]
    return None


_DEEPEST = 100


def listed_records(name: str, records: Any, kind: type[R]) -> list[R]:
    """The records of a dataset as a list.

    Raises:
        DatasetError: it is no list, or tuple, of them.
    """
    if not isinstance(records, (list, tuple)):
        got = type(records).__name__
        raise DatasetError(f"{name} must be a list of {kind.__name__}, got {got}")
    one = name.removesuffix("s")
    faults = [
        f"{one} {place} must be a {kind.__name__}, got {type(record).__name__}"
        for place, record in enumerate(records)
        if not isinstance(record, kind)
    ]
    if faults:
        raise DatasetError(f"{name} hold something else:", faults)
    return records if isinstance(records, list) else list(records)


def objects_of(name: str, rows: Any) -> list[Mapping[str, Any]]:
    """Plain objects out of any iterable.

    Raises:
        TypeError: it is something else.
        DatasetError: it holds something else.
    """
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        raise TypeError(f"{name} must be a list of objects, got {type(rows).__name__}")
    found = list(rows)
    for place, row in enumerate(found):
        if not isinstance(row, Mapping):
            one = name.removesuffix("s")
            raise DatasetError(f"{one} {place} must be an object, got {type(row).__name__}")
    return found


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
            f"the retriever's nodes are not those of the dataset: it found {len(set(ids))}, such "
            f"as {ids[0]!r}, and the corpus has none of them, by id or by text, but "
            f"{next(iter(corpus))!r}; the dataset must be made of the nodes that are "
            f"indexed{hint}"
        )


def check_nodes(nodes: Any) -> None:
    """They must be LlamaIndex nodes.

    Raises:
        TypeError: naming the first that is none.
    """
    from llama_index.core.schema import BaseNode

    if isinstance(nodes, (BaseNode, str, Mapping)) or not isinstance(nodes, Iterable):
        raise TypeError(f"nodes must be a list of nodes, got {type(nodes).__name__}")
    for place, node in enumerate(nodes):
        if not isinstance(node, BaseNode):
            raise TypeError(f"nodes[{place}] must be a node, got {type(node).__name__}")


def listed_nodes(nodes: Any) -> list[BaseNode]:
    """Nodes of any iterable, checked by `check_nodes`."""
    from llama_index.core.schema import BaseNode

    one = isinstance(nodes, (BaseNode, str, Mapping)) or not isinstance(nodes, Iterable)
    found = nodes if one else list(nodes)
    check_nodes(found)
    return found


def corpus_of(nodes: Iterable[BaseNode]) -> dict[str, str]:
    """Node id → the text that an index embeds, of nodes that have one."""
    from llama_index.core.schema import MetadataMode

    corpus = {node.node_id: node.get_content(MetadataMode.EMBED) for node in nodes}
    return {id_: text for id_, text in corpus.items() if text.strip()}


def nodes_with_text(
    nodes: Sequence[BaseNode], mode: MetadataMode | str = "embed"
) -> list[BaseNode]:
    """The nodes that have a text in this mode; others, such as images, are counted in the log.

    A node that is there twice, with the same text, comes once.

    Raises:
        TypeError: naming the first that is no node.
        DatasetError: there are nodes, and none has a text.
    """
    check_nodes(nodes)
    mode = checked_mode(mode)
    read = [(node, node.get_content(mode)) for node in nodes]
    kept = [(node, text) for node, text in read if text.strip()]
    if len(kept) < len(read):
        example = next(node.node_id for node, text in read if not text.strip())
        if not kept:
            raise DatasetError(f"none of the {len(nodes)} nodes has a text, such as {example!r}")
        logger.warning(
            "%d of %d nodes have no text, such as %r, and are left out",
            len(read) - len(kept),
            len(read),
            example,
        )
    first: dict[tuple[str, str], BaseNode] = {}
    for node, text in kept:
        first.setdefault((node.node_id, text), node)
    return list(first.values())


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


def judgment_faults(judgment: Judgment) -> Iterable[str]:
    """What is wrong with one judgment."""
    yield from answer_faults(judgment)
    if judgment.invalid not in (True, False):
        yield f"invalid must be true or false, got {judgment.invalid!r}"
    silent = judgment.score is None and judgment.passing is None
    if judgment.invalid and not silent:
        yield "it is invalid, so it must have neither score nor passing"
    if silent and not judgment.invalid:
        yield "it has neither score nor passing: there is no verdict"
    if judgment.score is not None and not is_number(judgment.score):
        yield f"score must be a number, got {judgment.score!r}"
    if judgment.passing not in (None, True, False):
        yield f"passing must be true or false, got {judgment.passing!r}"
    if not is_number(judgment.weight) or judgment.weight <= 0:
        rule = "finite" if judgment.weight in (math.inf, -math.inf) else "above 0"
        yield f"weight must be {rule}, got {judgment.weight!r}"


def answer_faults(judgment: Judgment) -> Iterable[str]:
    """What is wrong with the texts of one judgment, its verdict aside."""
    if not isinstance(judgment.response, str):
        yield f"response must be a text, got {judgment.response!r}"
    elif not is_utf8(judgment.response):
        yield f"response: {HALF}"
    for name in ("query", "reference", "second_response", "feedback"):
        value = getattr(judgment, name)
        if value is not None and not isinstance(value, str):
            yield f"{name} must be a text, got {type(value).__name__}"
        elif not is_utf8(value):
            yield f"{name}: {HALF}"
    for name in ("source", "judge"):
        value = getattr(judgment, name)
        if not isinstance(value, str) and not (name == "judge" and value is None):
            yield f"{name} must be a text, got {value!r:.100}"
        elif not is_utf8(value):
            yield f"{name}: {HALF}"
    contexts = judgment.contexts
    if contexts is not None and (
        not isinstance(contexts, (list, tuple))
        or not all(isinstance(text, str) for text in contexts)
    ):
        yield "contexts must be a list of texts"
    elif contexts is not None and not all(map(is_utf8, contexts)):
        yield f"contexts: {HALF}"


def choice_faults(choices: Any) -> list[str]:
    """Every fault of a `{name: description}` dictionary."""
    if not isinstance(choices, dict):
        return [f"choices must be a dictionary of name → description, got {type(choices).__name__}"]
    faults = []
    seen: dict[str, str] = {}
    for name, description in choices.items():
        if not isinstance(name, str) or not name.strip():
            faults.append(f"choice name {name!r} must be a non-empty string")
            continue
        if not isinstance(description, str):
            kind = type(description).__name__
            faults.append(f"choice {name!r}: the description must be a string, got {kind}")
        elif not is_utf8(name) or not is_utf8(description):
            faults.append(f"choice {name!r}: {HALF}")
        twin = seen.setdefault(normalise(name), name)
        if twin != name:
            faults.append(f"choices {twin!r} and {name!r} differ only in case or space")
    return faults


def route_faults(examples: Sequence[RoutingExample], choices: dict[str, str]) -> Iterator[str]:
    """Every fault of the examples, by their position."""
    for number, example in enumerate(examples):
        place = f"example {number}"
        query: Any = example.query
        names: Any = example.choices
        weight: Any = example.weight
        if not isinstance(query, str):
            yield f"{place}: the query must be a string, got {type(query).__name__}"
        elif not query.strip():
            yield f"{place}: the query is empty"
        elif not is_utf8(query):
            yield f"{place}: {HALF}"
        if not isinstance(names, tuple):
            yield f"{place}: choices must be a tuple of names, got {type(names).__name__}"
            continue
        for name in names:
            if not isinstance(name, str) or name not in choices:
                yield f"{place} ({str(query)[:40]!r}): {name!r} is not one of the choices"
        if len(set(map(str, names))) < len(names):
            yield f"{place} ({str(query)[:40]!r}): a choice is named twice"
        if not is_number(weight) or weight <= 0:
            yield f"{place}: weight must be a number above 0, got {weight!r}"


def list_faults(lists: Any) -> list[str]:
    """Every fault of a relevance dataset's lists; an empty list means that they are sound."""
    if not lists:
        return ["there are no queries"]
    faults: list[str] = []
    seen: set[str] = set()
    for item in lists:
        if not isinstance(item.query_id, str) or not item.query_id or not is_utf8(item.query_id):
            faults.append(f"query id {item.query_id!r} must be a non-empty string")
            continue
        elif item.query_id in seen:
            faults.append(f"query id {item.query_id!r} occurs twice")
        seen.add(item.query_id)
        faults.extend(_faults_of(item))
    if not faults and not any(c.score > 0 for item in lists for c in item.candidates):
        faults.append("no candidate of any query is relevant (every score is 0)")
    return faults


def _faults_of(item: Any) -> Iterator[str]:
    where = f"query {item.query_id!r}"
    if not isinstance(item.query, str) or not item.query.strip():
        yield f"{where}: the text is empty"
    elif not is_utf8(item.query):
        yield f"{where}: {HALF}"
    if not item.candidates and not item.missed:
        yield f"{where} has no candidates"
    ids: set[Any] = set()
    for candidate in item.candidates:
        node = candidate.node_id
        if not isinstance(node, str) or not node or not is_utf8(node):
            yield f"{where}: node id {node!r} must be a non-empty string"
            continue
        if node in ids:
            yield f"{where}: node {node!r} occurs twice"
        ids.add(node)
        yield from _candidate_faults(candidate, f"{where}, node {node!r}")
    for node, grade in item.missed.items():
        if not is_number(grade) or grade <= 0:
            yield f"{where}: the grade of missed node {node!r} must be above 0, got {grade!r}"
        if not isinstance(node, str) or not node or not is_utf8(node):
            yield f"{where}: missed node id {node!r} must be a non-empty string"
        elif node in ids:
            yield f"{where}: node {node!r} is both a candidate and missed"


def _candidate_faults(candidate: Any, where: str) -> Iterator[str]:
    if not isinstance(candidate.text, str) or not candidate.text.strip():
        yield f"{where}: the text is empty"
    elif not is_utf8(candidate.text):
        yield f"{where}: {HALF}"
    if not is_number(candidate.score) or candidate.score < 0:
        yield f"{where}: the score must be a finite number >= 0, got {candidate.score!r}"
    if candidate.retrieval_score is not None and not is_number(candidate.retrieval_score):
        yield f"{where}: retrieval_score must be finite, got {candidate.retrieval_score!r}"
    if not isinstance(candidate.metadata, Mapping):
        yield f"{where}: metadata must be a mapping, got {type(candidate.metadata).__name__}"
    elif candidate.metadata and (fault := value_fault(candidate.metadata)):
        yield f"{where}: metadata: {fault}"


def hint_of_missing(missing: Sequence[str]) -> str:
    """What to do about parts that a retrieval dataset's file lacks."""
    if "queries" in missing and "relevant_docs" in missing:
        return (
            ": it must hold queries {id: text}, corpus {id: text} and relevant_docs "
            "{query id: [document ids]}; RetrievalDataset.from_nodes() makes it of nodes"
        )
    return "; pass corpus= where it is in a file of its own" if "corpus" in missing else ""
