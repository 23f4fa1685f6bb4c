"""Training queries from documents alone: no LLM, no labels."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.tuning._checks import plain_arguments, whole_number
from llama_index.tuning.asking.results import GeneratedDataset
from llama_index.tuning.datasets.checks import check_nodes
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.text.segmentation import count_words, sentences
from llama_index.tuning.text.words import normalise

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

logger = logging.getLogger(__name__)

MAX_WORDS = 40
"""Longer sentences are no query that a user would type."""


@plain_arguments
def generate_sentence_queries(
    documents: Mapping[str, str] | Sequence[BaseNode],
    *,
    per_document: int | None = None,
    min_words: int = 5,
    seed: int = 0,
    language: str = "en",
) -> GeneratedDataset:
    """Each sentence of a document is a query for it: the inverse cloze task (Lee et al. 2019).

    Args:
        documents: document id → text, or nodes.
        per_document: the most sentences of each document, drawn at random; all by
            default.
        min_words: shorter sentences are left out, and those of more than 40 words; in scripts
            without spaces three characters are a word.
        seed: of the draw.
        language: code of the language whose abbreviations end no sentence; the marks that end
            one are those of all languages.

    Returns:
        A dataset over the given documents that have a text. A sentence that occurs in several is
        relevant to all. Its `counts` say of how many documents no sentence came, and a
        warning where it is half of them.

    Example:
        >>> found = generate_sentence_queries({"d": "Refunds take five working days. Yes."})
        >>> list(found.queries.values())
        ['Refunds take five working days.']
    """
    given = _texts_by_id(documents)
    if per_document is not None:
        per_document = whole_number("per_document", per_document, 1)
    if whole_number("min_words", min_words, 1) > MAX_WORDS:
        raise ValueError(f"min_words must be from 1 to {MAX_WORDS}, got {min_words}")
    draw = random.Random(int(seed))
    texts: dict[str, str] = {}
    sources: dict[str, dict[str, None]] = {}
    without: list[str] = []
    for id_, document in given.items():
        found = sentences(document, MAX_WORDS, language=language)
        chosen = [s for s in found if min_words <= count_words(s) <= MAX_WORDS]
        if not chosen:
            without.append(id_)
        if per_document is not None and len(chosen) > per_document:
            chosen = draw.sample(chosen, per_document)
        for sentence in chosen:
            texts.setdefault(normalise(sentence), sentence)
            sources.setdefault(normalise(sentence), {})[id_] = None
    if not texts:
        raise DatasetError(
            f"no sentence of {min_words} to {MAX_WORDS} words in {len(given)} documents"
        )
    corpus = {id_: text for id_, text in given.items() if text.strip()}
    if without:
        logger.log(
            logging.WARNING if 2 * len(without) >= len(given) else logging.INFO,
            "%d of %d documents gave no sentence of %d to %d words, %r for one",
            len(without),
            len(given),
            min_words,
            MAX_WORDS,
            without[0],
        )
    ids = {key: f"sentence-{number}" for number, key in enumerate(texts)}
    return GeneratedDataset(
        {ids[key]: text for key, text in texts.items()},
        corpus,
        {ids[key]: list(found) for key, found in sources.items()},
        counts={
            "documents": len(given),
            "documents_without_sentence": len(without),
            "sentences": len(texts),
        },
    )


def _texts_by_id(documents: Mapping[str, str] | Sequence[BaseNode]) -> dict[str, str]:
    if isinstance(documents, Mapping):
        for id_, text in documents.items():
            if not isinstance(text, str):
                raise TypeError(f"document {id_!r} must be a text, got {type(text).__name__}")
        return dict(documents)
    given: Any = documents
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise TypeError(
            f"documents must be a mapping of id → text, or nodes, got {type(documents).__name__}"
        )
    check_nodes(documents)
    return {node.node_id: node.get_content() for node in documents}
