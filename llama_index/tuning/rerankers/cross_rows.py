"""Training rows for a cross-encoder, in the shape that its loss wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from llama_index.tuning.datasets.relevance import RelevanceList
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.rerankers.cross_options import CrossEncoderOptions

Graded = tuple[str, list[str], list[float]]


def graded_lists(lists: Sequence[RelevanceList], options: CrossEncoderOptions) -> list[Graded]:
    """(query, texts, scores): what is relevant, hard negatives, random negatives.

    A list with several grades (a teacher's) keeps all its candidates.
    """
    rng = np.random.default_rng(options.seed)
    # What a teacher would give a text that it was never shown is not known, but hardly more than
    # the least it gave to any that was found. Where its scale does not begin at 0 (cosines,
    # grades from 1), a 0 would be a margin that it never showed. One grade alone is no scale.
    grades = {c.score for item in lists for c in item.candidates}
    least = min(grades) if len(grades) > 1 else 0.0
    # No set: its order, and with it the draw, would change from process to process.
    everything = list(dict.fromkeys(c.text for item in lists for c in item.candidates))
    found = []
    for item in lists:
        scores = {c.text: c.score for c in item.candidates}
        kept = [text for text, score in scores.items() if score > 0]
        if not kept:
            continue
        hard = [text for text, score in scores.items() if score == 0]
        teacher = len(set(scores.values())) > 2
        kept += hard if teacher else hard[: options.hard_negatives]
        for place in rng.choice(len(everything), options.random_negatives):
            if everything[place] not in scores:
                kept.append(everything[place])
        texts = list(dict.fromkeys(kept))
        found.append((item.query, texts, [float(scores.get(text, least)) for text in texts]))
    if not any(len(set(scores)) > 1 for _, _, scores in found):
        raise DatasetError("there is nothing to learn: no query has a negative beside its answer")
    return found


def training_rows(lists: Sequence[Graded], loss: str) -> dict[str, list[Any]]:
    """Columns of a training set; the last one is the label."""
    if loss == "bce":
        # As calibrated: scores up to 1 as they are, grades beyond as shares of the highest.
        top = max(1.0, *(score for _, _, scores in lists for score in scores))
        return {
            "query": [query for query, texts, _ in lists for _ in texts],
            "text": [text for _, texts, _ in lists for text in texts],
            "label": [s / top for _, _, scores in lists for s in scores],
        }
    if loss == "margin_mse":
        triplets = [
            (query, one, other, a - b)
            for query, texts, scores in lists
            for one, a in zip(texts, scores, strict=True)
            for other, b in zip(texts, scores, strict=True)
            if a > b
        ]
        names = ("query", "one", "other", "label")
        return dict(zip(names, map(list, zip(*triplets, strict=True)), strict=True))
    return {
        "query": [query for query, _, _ in lists],
        "texts": [texts for _, texts, _ in lists],
        "label": [scores for _, _, scores in lists],
    }


def positive_weight(labels: Sequence[float]) -> float:
    """Negatives per positive."""
    positives = sum(labels)
    return max(1.0, (len(labels) - positives) / max(positives, 1e-9))
