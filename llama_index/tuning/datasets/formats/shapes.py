"""Questions and labels in other shapes: LlamaIndex's and ragas' test sets, pairs, routes, nodes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from llama_index.tuning._checks import items_of, metadata_mode, of_type
from llama_index.tuning._files import read_json
from llama_index.tuning.datasets.checks import nodes_with_text
from llama_index.tuning.datasets.formats.tables import (
    Row,
    Table,
    check_columns,
    read_table,
    texts_in,
    under_names,
    warn_of_left_out,
)
from llama_index.tuning.datasets.records import Parts
from llama_index.tuning.errors import DatasetError

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode, MetadataMode


logger = logging.getLogger(__name__)

_RAGAS = (("user_input", "reference_contexts"), ("question", "contexts"))
TEMPLATES = {
    "retrieval": "question,passage\n"
    '"How high is the monthly fee?","The fee of the basic account is 5 euros a month."\n',
    "routing": 'question,choice\n"Where is my parcel?",orders\n"What is the weather today?",none\n',
    "judgments": "question,answer,verdict\n"
    '"How high is the monthly fee?","5 euros.",pass\n'
    '"How high is the monthly fee?","It is free.",fail\n',
}
"""The head and an example of a table of each kind."""


def rows_of_rag_dataset(dataset: Any) -> list[Row]:
    """Query and reference contexts of a `LabelledRagDataset`, or of its JSON file."""
    if isinstance(dataset, str | PurePath):
        dataset = read_json(dataset)
    examples = (
        dataset.get("examples") if isinstance(dataset, dict) else getattr(dataset, "examples", None)
    )
    if not isinstance(examples, list) or not examples:
        raise DatasetError("a LabelledRagDataset with examples is needed, it has none")
    return [
        {"question": _of(example, "query"), "passage": _of(example, "reference_contexts")}
        for example in examples
    ]


def _of(example: Any, name: str) -> Any:
    return example.get(name) if isinstance(example, dict) else getattr(example, name, None)


def rows_of_ragas(testset: Table) -> list[Row]:
    """Question and contexts of a ragas test set, whichever names its version gives them."""
    to_frame = getattr(testset, "to_pandas", None)
    rows = read_table(testset if to_frame is None else to_frame(), "testset")
    there = {key for row in rows for key in row}
    for question, contexts in _RAGAS:
        if {question, contexts} <= there:
            return [{"question": row.get(question), "passage": row.get(contexts)} for row in rows]
    raise DatasetError(
        "a ragas test set has user_input and reference_contexts, or question and contexts; "
        f"this table has {', '.join(map(repr, sorted(there)))}"
    )


def rows_of_pairs(pairs: Iterable[Any]) -> list[Row]:
    """Question and passage of (question, passage) pairs or `InputExample`s that fit."""
    rows = []
    for number, pair in enumerate(items_of("pairs", pairs, "pairs")):
        texts = getattr(pair, "texts", pair)
        if isinstance(texts, str) or not isinstance(texts, Sequence) or len(texts) < 2:
            raise DatasetError(f"pair {number} must be a question and a passage, got {texts!r}")
        # An InputExample without a label has 0, as has one that does not fit; three texts are
        # question, passage and a passage that does not answer.
        fits = getattr(pair, "label", 1) > 0 or len(texts) > 2
        rows.append({"question": texts[0], "passage": texts[1], "fits": fits})
    fitting = [row for row in rows if row["fits"]]
    return fitting or rows


def routes_of_table(
    table: Table, question: str, choice: str, out_of_scope: str
) -> list[tuple[str, list[str]]]:
    """(question, choices) of each row that has both."""
    for name, given in {
        "question": question,
        "choice": choice,
        "out_of_scope": out_of_scope,
    }.items():
        of_type(name, given, str, "a text")
    rows = under_names(read_table(table), question, choice)
    check_columns(rows, question, choice)
    left_out: Counter[str] = Counter()
    pairs = []
    for row in rows:
        query, names = texts_in(row.get(question)), texts_in(row.get(choice))
        if not query or not names:
            left_out["no question" if not query else "no choice"] += 1
        else:
            none = [name.casefold() for name in names] == [out_of_scope.casefold()]
            pairs.append((query[0], [] if none else names))
    warn_of_left_out("the routing dataset", len(rows), left_out)
    return pairs


def labelled_nodes(
    nodes: Sequence[BaseNode],
    queries: Mapping[str, str],
    relevant_docs: Mapping[str, Sequence[str]],
    mode: MetadataMode | str = "embed",
) -> Parts:
    """(queries, corpus, relevant_docs) without nodes that have no text, and labels of them."""
    mode = metadata_mode(mode)
    for name, given in {"queries": queries, "relevant_docs": relevant_docs}.items():
        if not isinstance(given, Mapping):
            raise TypeError(f"{name} must be a dictionary, got {type(given).__name__}")
    kept = nodes_with_text(nodes, mode)
    counts = Counter(node.node_id for node in kept)
    twice = [f"node id {id_!r} has {n} different texts" for id_, n in counts.items() if n > 1]
    if twice:
        raise DatasetError("the nodes have faults:", twice)
    corpus = {node.node_id: node.get_content(mode) for node in kept}
    textless = {node.node_id for node in nodes}.difference(corpus)
    asked, relevant = dict(queries), dict[str, Any]()
    for id_, docs in relevant_docs.items():
        if isinstance(docs, str) or not isinstance(docs, Iterable):
            relevant[id_] = docs  # no list of ids: it is refused by name
        elif (left := [doc for doc in docs if doc not in textless]) or not docs:
            relevant[id_] = left
        else:
            asked.pop(id_, None)
    if len(asked) < len(queries):
        logger.warning(
            "%d of %d queries are left out: none of their documents has a text",
            len(queries) - len(asked),
            len(queries),
        )
    return asked, corpus, relevant
