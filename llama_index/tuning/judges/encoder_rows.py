"""Training rows for an encoder judge."""

from __future__ import annotations

from typing import Any

import numpy as np

from llama_index.tuning.judges.features import FeatureMaker
from llama_index.tuning.judges.light import TIE
from llama_index.tuning.judges.material import Material
from llama_index.tuning.judges.windows import Reader, Reading

FAILING_WINDOWS = 4
"""So many windows of an answer that fails are trained on: those that look most like support."""


def training_rows(material: Material, maker: FeatureMaker, reader: Reader) -> dict[str, list[Any]]:
    """Columns `first`, `second` and `label`: the verdict, and how much the row counts (mean 1).

    Multiple instances (Andrews et al. 2002): where an answer fails, no window supports it; where
    it passes, some window does, and the one with most of its words is taken. A pair makes rows in
    both orders, each of half its weight. The rows of one item count together as much as the item.
    """
    rows: list[tuple[str, str, float, float]] = []
    for item, label, weight in zip(material.items, material.labels, material.weights, strict=True):
        if material.pairwise:
            for swapped, said in ((False, label), (True, 1 - label)):
                reading = reader.reading(item, swapped=swapped)
                rows += _rows(reading, float(said), float(weight) / 2, maker)
        else:
            rows += _rows(reader.reading(item), float(label), float(weight), maker)
    mean = float(np.mean([weight for *_, weight in rows])) or 1.0
    return {
        "first": [first for first, *_ in rows],
        "second": [second for _, second, *_ in rows],
        "label": [[label, weight / mean] for *_, label, weight in rows],
    }


def _rows(
    reading: Reading, label: float, weight: float, maker: FeatureMaker
) -> list[tuple[str, str, float, float]]:
    found = []
    for pairs, evidence in zip(reading.parts, reading.evidence, strict=True):
        kept = range(len(pairs))
        if len(pairs) > 1:
            response = maker.text(pairs[0][1])
            shares = [maker.support(response, maker.text(text))[0] for text in evidence]
            order = np.argsort(-np.array(shares), kind="stable").tolist()
            kept = order[: 1 if label >= TIE else FAILING_WINDOWS]
        each = weight / len(reading.parts) / len(kept)
        found += [(*pairs[number], label, each) for number in kept]
    return found
