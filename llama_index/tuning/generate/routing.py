"""Routing examples from the documents or descriptions of tools."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from llama_index.tuning._checks import check_counts, of_type, plain_arguments
from llama_index.tuning._files import PathLike
from llama_index.tuning._running import own_work
from llama_index.tuning.asking import parsing as schemas
from llama_index.tuning.asking.calls import Calls, Question
from llama_index.tuning.asking.options import RunOptions
from llama_index.tuning.asking.parsing import parse_questions
from llama_index.tuning.asking.run import run_file_of, run_items, run_options
from llama_index.tuning.datasets.records import RoutingExample
from llama_index.tuning.datasets.routing import RoutingDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.generate.sentences import generate_sentence_queries
from llama_index.tuning.text.words import normalise

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

logger = logging.getLogger(__name__)

_LONGEST = 2000
"""Characters of a passage, or of the other tools' names, in a prompt."""

PROMPT = """\
A tool named "{name}" is for: {description}
{passage}
Write {count} different questions that a user would ask and that this tool, rather than the \
others, should answer. The other tools: {others}.
One question a line, no numbering, nothing else."""


@own_work
@plain_arguments
def generate_routing_examples(
    choices: Mapping[str, str] | RoutingDataset | Iterable[Any],
    *,
    documents: Mapping[str, Any] | None = None,
    llm: LLM | None = None,
    per_choice: int = 20,
    seed: int = 0,
    output_path: PathLike | None = None,
    run: RunOptions | None = None,
) -> RoutingDataset:
    """Questions for each choice, by an LLM or, without one, the sentences of its own documents.

    Args:
        choices: name → description, a dataset, tools, or `ToolMetadata`.
        documents: name → what the choice answers from: texts, nodes, or an index. By default, of
            a tool over an index, that index's nodes.
        llm: writes questions from description and documents; without one, the documents' (or
            else the description's) sentences are the queries, and nothing is asked of anybody.
        per_choice: the most examples of each choice.
        seed: of the draws.
        output_path: where the dataset is written as JSON, with the run file beside it.
        run: how the LLM is asked, see `RunOptions`. A choice keeps what its other passages gave if
            one of them fails.

    Returns:
        A dataset; a query that came up for several choices is left out.

    Raises:
        GenerationError: no call can succeed, or the first failure with `on_failure="fail"`.

    Example:
        >>> found = generate_routing_examples(
        ...     {"fees": "Answers about fees. Covers card fees and transfer fees.", "loans": ""},
        ...     documents={"loans": ["A loan is repaid in monthly parts over several years."]},
        ... )
        >>> found.class_counts()
        {'fees': 1, 'loans': 1}
    """
    check_counts(per_choice=per_choice)
    run = run_options(run)
    described, tools = _choices(choices)
    if documents is not None:
        of_type("documents", documents, Mapping, "a dictionary of name → texts")
    unknown = sorted(set(documents or {}) - set(described))
    if unknown:
        raise ValueError(f"documents names unknown choices: {', '.join(unknown)}")
    texts = {name: _texts((documents or {}).get(name, tools.get(name))) for name in described}
    if llm is None:
        run_file_of(output_path)
        found = {
            name: _sentences(texts[name] or [text], per_choice, seed)
            for name, text in described.items()
        }
    else:
        found = _asked(llm, described, texts, per_choice, output_path, run)
    dataset = _dataset(described, found)
    if output_path is not None:
        dataset.save_json(output_path)
    return dataset


def _choices(given: Any) -> tuple[dict[str, str], dict[str, Any]]:
    if isinstance(given, RoutingDataset):
        return dict(given.choices), {}
    if isinstance(given, Mapping):
        return dict(RoutingDataset(dict(given)).choices), {}
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(
            "choices must be a dictionary of name → description, a RoutingDataset, tools or "
            f"ToolMetadata, got {type(given).__name__}"
        )
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


@dataclass(frozen=True)
class _Item:
    """A choice with one of its passages, to write questions for."""

    id: str
    name: str
    prompt: str
    count: int


def _items(
    described: Mapping[str, str], texts: Mapping[str, Sequence[str]], per_choice: int
) -> list[_Item]:
    items = []
    for name, description in described.items():
        passages = [text[:_LONGEST] for text in texts[name][:per_choice]] or [""]
        each = -(-per_choice // len(passages))
        others = ", ".join(other for other in described if other != name)[:_LONGEST]
        for number, passage in enumerate(passages):
            prompt = PROMPT.format(
                name=name,
                description=description or "(no description)",
                passage=f"It answers from texts such as:\n{passage}\n" if passage else "",
                count=each,
                others=others,
            )
            items.append(_Item(f"{name}/{number}", name, prompt, each))
    return items


def _asked(
    llm: LLM,
    described: Mapping[str, str],
    texts: Mapping[str, Sequence[str]],
    per_choice: int,
    output_path: PathLike | None,
    run: RunOptions,
) -> dict[str, list[str]]:
    """Each choice's questions by an LLM, one request for each of its passages."""

    async def ask(calls: Calls, item: _Item) -> list[str]:
        parse = partial(parse_questions, limit=item.count)
        found: list[str] = await calls.ask(
            Question("routing", item.id, item.prompt, parse, schemas.question_list)
        )
        return found

    items = _items(described, texts, per_choice)
    outcomes = run_items(
        llm,
        items,
        ask,
        id_of=lambda item: item.id,
        header={"task": "routing", "prompt": PROMPT},
        output_path=output_path,
        description="Generating routing examples",
        run=run,
    )
    questions: dict[str, dict[str, str]] = {name: {} for name in described}
    for item in items:
        for question in outcomes.results.get(item.id, []):
            questions[item.name].setdefault(normalise(question), question)
    for name, found in questions.items():
        if not found:
            logger.warning("the LLM wrote no question for %r", name)
    return {name: list(found.values())[:per_choice] for name, found in questions.items()}


def _dataset(described: dict[str, str], found: Mapping[str, Sequence[str]]) -> RoutingDataset:
    owners: dict[str, set[str]] = {}
    for name, queries in found.items():
        for query in queries:
            owners.setdefault(normalise(query), set()).add(name)
    shared = sum(len(names) > 1 for names in owners.values())
    if shared:
        logger.warning(
            "%d of %d questions came up for several choices and are left out", shared, len(owners)
        )
    examples = [
        RoutingExample(query, (name,))
        for name, queries in found.items()
        for query in queries
        if len(owners[normalise(query)]) == 1
    ]
    return RoutingDataset(described, examples)
