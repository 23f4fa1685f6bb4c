"""Training queries from documents alone: no LLM, no labels."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets._validation import normalise
from llama_index.tuning.errors import DatasetError

# A sentence ends at a mark before a space, at a CJK mark, or at a blank line or line break.
_ENDS = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|\s*\n\s*")
# Text taken from PDF and HTML loses the space: "… each year.The company". Only sentences that
# are too long are cut there, since "collections.OrderedDict" looks the same.
_GLUED = re.compile(r"(?<=[a-z0-9)\]\"”][.!?])(?=[A-Z“•])")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")


def generate_sentence_queries(
    documents: Mapping[str, str],
    *,
    per_document: int | None = None,
    min_words: int = 5,
    max_words: int = 40,
    seed: int = 0,
) -> RetrievalDataset:
    """Each sentence of a document is a query for it: the inverse cloze task (Lee et al. 2019).

    Args:
        documents: document id → text.
        per_document: at most so many sentences of each document, drawn at random; all by
            default.
        min_words: shorter sentences are left out.
        max_words: longer ones too; in scripts without spaces three characters are a word.
        seed: of the draw.

    Returns:
        A dataset over the given documents. A sentence that occurs in several is relevant to all.

    Example:
        >>> found = generate_sentence_queries({"d": "Refunds take five working days. Yes."})
        >>> list(found.queries.values())
        ['Refunds take five working days.']
    """
    if not isinstance(documents, Mapping):
        raise TypeError(
            f"documents must be a mapping of id → text, got {type(documents).__name__}; of nodes: "
            "{node.node_id: node.get_content() for node in nodes}"
        )
    if per_document is not None and per_document < 1:
        raise ValueError(f"per_document must be >= 1, got {per_document}")
    if not 1 <= min_words <= max_words:
        raise ValueError(
            f"min_words and max_words must be 1 <= min <= max, got {min_words} and {max_words}"
        )
    draw = random.Random(seed)
    texts: dict[str, str] = {}
    sources: dict[str, dict[str, None]] = {}
    for id_, document in documents.items():
        chosen = [s for s in sentences(document, max_words) if min_words <= _words(s) <= max_words]
        if per_document is not None and len(chosen) > per_document:
            chosen = draw.sample(chosen, per_document)
        for sentence in chosen:
            texts.setdefault(normalise(sentence), sentence)
            sources.setdefault(normalise(sentence), {})[id_] = None
    if not texts:
        raise DatasetError(
            f"no sentence of {min_words} to {max_words} words in {len(documents)} documents"
        )
    ids = {key: f"sentence-{number}" for number, key in enumerate(texts)}
    return RetrievalDataset(
        {ids[key]: text for key, text in texts.items()},
        dict(documents),
        {ids[key]: list(found) for key, found in sources.items()},
    )


def sentences(text: str, max_words: int = 40) -> list[str]:
    """The sentences and headings of a text, in order; glued ones apart where they are too long."""
    found: list[str] = []
    for part in _ENDS.split(text):
        found += _GLUED.split(part) if _words(part) > max_words else [part]
    return [" ".join(part.split()) for part in found if part.strip()]


def _words(sentence: str) -> int:
    wide = len(_CJK.findall(sentence))
    return len(sentence.split()) if wide < len(sentence) / 3 else wide // 3
