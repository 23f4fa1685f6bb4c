"""What an engine learns from: checked before any work, then as lists of candidates, then split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index.tuning.datasets._validation import check_held_out
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.datasets.retrieval import RetrievalDataset
from llama_index.tuning.errors import DatasetError

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever

Given = RelevanceDataset | RetrievalDataset


def checked_data(
    dataset: Any, val_dataset: Any, retriever: BaseRetriever | None
) -> tuple[Given, Given | None]:
    """Both datasets in a class of this package, before the retriever is asked anything.

    Raises:
        TypeError: one is none of the kinds that engines take.
        ValueError: one needs a retriever, and there is none.
        DatasetError: one is faulty, or they share queries.
    """
    train = _checked("dataset", dataset, retriever)
    if val_dataset is None:
        return train, None
    val = _checked("val_dataset", val_dataset, retriever)
    check_held_out(_query_texts(train), _query_texts(val))
    return train, val


def candidate_lists(
    data: Given,
    retriever: BaseRetriever | None,
    *,
    num_workers: int = 1,
    show_progress: bool = False,
) -> RelevanceDataset:
    """The lists as they are, or what the retriever finds for the queries."""
    if isinstance(data, RelevanceDataset):
        return data
    assert retriever is not None  # by checked_data
    return RelevanceDataset.from_retriever(
        data, retriever, num_workers=num_workers, show_progress=show_progress
    )


def split_lists(
    dataset: RelevanceDataset, share: float, seed: int
) -> tuple[RelevanceDataset, RelevanceDataset]:
    """Two parts without a shared query text or relevant node; `share` goes to the second."""
    groups = dataset.groups()
    check_separable(dataset, groups)
    np.random.default_rng(seed).shuffle(groups)
    held: set[int] = set()
    for group in groups[:-1]:
        if len(held) >= share * len(dataset):
            break
        held |= set(group)
    ids = [item.query_id for item in dataset.lists]
    rest = [id_ for row, id_ in enumerate(ids) if row not in held]
    return dataset.subset(rest), dataset.subset([ids[row] for row in sorted(held)])


def check_separable(dataset: RelevanceDataset, groups: list[list[int]]) -> None:
    """Something must be left to measure on."""
    if len(groups) < 2:
        raise DatasetError(
            f"all {len(dataset)} queries hang together through shared texts or relevant nodes; "
            "add queries about other nodes, so that some can be held out"
        )


def _checked(name: str, data: Any, retriever: BaseRetriever | None) -> Given:
    if isinstance(data, (RelevanceDataset, list, tuple)):
        return RelevanceDataset.coerce(data)
    if not all(hasattr(data, part) for part in ("queries", "corpus", "relevant_docs")):
        raise TypeError(
            f"{name} must be a RelevanceDataset, a RetrievalDataset (with a retriever) or "
            f"a list of samples with query, context and score; got {type(data).__name__}"
        )
    if retriever is None:
        raise ValueError(
            f"{name} is a RetrievalDataset: pass retriever=, whose candidates are re-ranked"
        )
    return RetrievalDataset.coerce(data)


def _query_texts(data: Given) -> dict[str, str]:
    if isinstance(data, RetrievalDataset):
        return data.queries
    return {item.query_id: item.query for item in data.lists}
