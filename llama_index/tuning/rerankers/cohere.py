"""Cohere's file format for re-ranker training; the service itself has ended (see `ended`)."""

from __future__ import annotations

import json
from pathlib import Path

from llama_index.tuning._checks import whole_number
from llama_index.tuning._files import PathLike, write_text_atomic
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.errors import DatasetError


def generate_cohere_reranker_finetuning_dataset(
    dataset: RelevanceDataset,
    finetune_dataset_file_path: PathLike,
    *,
    num_negatives: int | None = None,
) -> int:
    """Write Cohere's lines: `query`, `relevant_passages`, `hard_negatives`.

    Args:
        dataset: lists with a relevant candidate each; those without one are left out. The format
            knows no degrees: every score above 0 is relevant.
        finetune_dataset_file_path: the JSON Lines file.
        num_negatives: hard negatives a line, the first of each list; all by default.

    Returns:
        The number of lines.

    Raises:
        DatasetError: no list has a relevant candidate.

    Example:
        >>> import tempfile
        >>> data = RelevanceDataset.from_labels(
        ...     {"q": "fees?"}, {"a": "Fees", "b": "Cats"}, {"q": {"a": 1, "b": 0}}
        ... )
        >>> generate_cohere_reranker_finetuning_dataset(data, tempfile.mktemp())
        1
    """
    if num_negatives is not None:
        num_negatives = whole_number("num_negatives", num_negatives, 0)
    data = RelevanceDataset.coerce(dataset)
    lines = []
    for item in data.lists:
        relevant = [c.text for c in item.candidates if c.score > 0]
        negatives = [c.text for c in item.candidates if c.score == 0]
        if relevant:
            row = {
                "query": item.query,
                "relevant_passages": relevant,
                "hard_negatives": negatives[:num_negatives],
            }
            lines.append(json.dumps(row, ensure_ascii=False))
    if not lines:
        raise DatasetError("there is nothing to write: no query has a relevant candidate")
    write_text_atomic(Path(finetune_dataset_file_path), "".join(f"{line}\n" for line in lines))
    return len(lines)
