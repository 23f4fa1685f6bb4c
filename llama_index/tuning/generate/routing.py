"""Routing examples where there are none: from tools' documents or descriptions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.tuning._running import own_work, progress
from llama_index.tuning.asking.parsing import parse_questions
from llama_index.tuning.datasets.records import RoutingExample
from llama_index.tuning.datasets.routing import RoutingDataset
from llama_index.tuning.errors import DatasetError, ReplyError
from llama_index.tuning.generate.sentences import generate_sentence_queries
from llama_index.tuning.text.words import normalise

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

logger = logging.getLogger(__name__)

PROMPT = """\
A tool named "{name}" is for: {description}
{passage}
Write {count} different questions that a user would ask and that this tool, rather than the \
others, should answer. The other tools: {others}.
One question a line, no numbering, nothing else."""


@own_work
def generate_routing_examples(
    choices: Mapping[str, str] | RoutingDataset | Iterable[Any],
    *,
    documents: Mapping[str, Any] | None = None,
    llm: LLM | None = None,
    per_choice: int = 20,
    seed: int = 0,
    show_progress: bool = False,
) -> RoutingDataset:
    """Questions for each choice, by an LLM or, without one, the sentences of its own documents.

    Args:
        choices: name → description, a dataset, tools, or `ToolMetadata`.
        documents: name → what the choice answers from: texts, nodes, or an index. By default, of
            a tool over an index, that index's nodes.
        llm: writes questions from description and documents; without one, the documents' (or
            else the description's) sentences are the queries, and nothing is asked of anybody.
        per_choice: at most so many examples of each choice.
        seed: of the draws.
        show_progress: show a bar.

    Returns:
        A dataset; a query that came up for several choices is left out.

    Example:
        >>> found = generate_routing_examples(
        ...     {"fees": "Answers about fees. Covers card fees and transfer fees.", "loans": ""},
        ...     documents={"loans": ["A loan is repaid in monthly parts over several years."]},
        ... )
        >>> found.class_counts()
        {'fees': 1, 'loans': 1}
    """
    if isinstance(per_choice, bool) or not isinstance(per_choice, int) or per_choice < 1:
        raise ValueError(f"per_choice must be a whole number >= 1, got {per_choice!r}")
    described, tools = _choices(choices)
    unknown = sorted(set(documents or {}) - set(described))
    if unknown:
        raise ValueError(f"documents names unknown choices: {', '.join(unknown)}")
    found: dict[str, list[str]] = {}
    for name in progress(described, show_progress, "Generating", len(described)):
        given = (documents or {}).get(name, tools.get(name))
        texts = _texts(given)
        if llm is None:
            found[name] = _sentences(texts or [described[name]], per_choice, seed)
        else:
            found[name] = _asked(llm, name, described, texts, per_choice)
    return _dataset(described, found)


def _choices(given: Any) -> tuple[dict[str, str], dict[str, Any]]:
    if isinstance(given, RoutingDataset):
        return dict(given.choices), {}
    if isinstance(given, Mapping):
        return dict(RoutingDataset(dict(given)).choices), {}
    items = list(given)
    described = RoutingDataset.from_metadata(items).choices
    return described, dict(zip(described, items, strict=True))


def _texts(source: Any) -> list[str]:
    """Texts of a tool's or index's nodes, of nodes, or as they are."""
    if source is None:
        return []
    if isinstance(source, str):
        return [source]
    if not isinstance(source, Sequence):  # a list has an `index` of its own
        for part in ("query_engine", "retriever", "_index", "index"):
            source = getattr(source, part, source)
        docstore = getattr(source, "docstore", None)
        source = [] if docstore is None else list(docstore.docs.values())
    return [item if isinstance(item, str) else item.get_content() for item in source]


def _sentences(texts: Sequence[str], count: int, seed: int) -> list[str]:
    documents = {str(number): text for number, text in enumerate(texts) if text.strip()}
    each = -(-count // max(1, len(documents)))
    try:
        made = generate_sentence_queries(documents, per_document=each, min_words=4, seed=seed)
    except DatasetError:
        return []
    return list(made.queries.values())[:count]


def _asked(
    llm: LLM, name: str, described: Mapping[str, str], texts: Sequence[str], count: int
) -> list[str]:
    passages = [text[:2000] for text in texts[:count]] or [""]
    each = -(-count // len(passages))
    questions: dict[str, str] = {}
    others = ", ".join(other for other in described if other != name)[:2000]
    for passage in passages:
        prompt = PROMPT.format(
            name=name,
            description=described[name] or "(no description)",
            passage=f"It answers from texts such as:\n{passage}\n" if passage else "",
            count=each,
            others=others,
        )
        try:
            found = parse_questions(llm.complete(prompt).text or "", each)
        except ReplyError as exc:
            logger.warning("no questions for %r from one of its passages: %s", name, exc)
            continue
        for question in found:
            questions.setdefault(normalise(question), question)
    if not questions:
        logger.warning("the LLM wrote no question for %r", name)
    return list(questions.values())[:count]


def _dataset(described: dict[str, str], found: Mapping[str, Sequence[str]]) -> RoutingDataset:
    owners: dict[str, set[str]] = {}
    for name, queries in found.items():
        for query in queries:
            owners.setdefault(normalise(query), set()).add(name)
    examples = [
        RoutingExample(query, (name,))
        for name, queries in found.items()
        for query in queries
        if len(owners[normalise(query)]) == 1
    ]
    return RoutingDataset(described, examples)
