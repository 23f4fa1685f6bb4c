"""Cohere's file format for re-ranker training; the service itself has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import numpy as np
from llama_index.core.bridge.pydantic import BaseModel, Field

from llama_index.tuning._checks import folder_path, plain_arguments, whole_number
from llama_index.tuning._files import PathLike, write_text_atomic
from llama_index.tuning.datasets import RelevanceDataset, RetrievalDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.predecessor.ended import (
    CohereRerankerFinetuneEngine as CohereRerankerFinetuneEngine,
)
from llama_index.tuning.vectors.search import unit_rows

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

Method = Literal["random", "cosine_similarity"]


class CohereRerankerFinetuneDataset(BaseModel):
    """One line of the format: a query, its passages, and hard negatives."""

    query: Annotated[str, Field(strict=True)]
    relevant_passages: list[str]
    hard_negatives: list[str]

    def to_jsonl(self) -> str:
        """The line, with its end."""
        return self.model_dump_json() + "\n"


@plain_arguments
def generate_hard_negatives(
    queries: Sequence[str],
    relevant_contexts: Sequence[str],
    embed_model: BaseEmbedding | None = None,
    num_negatives: int = 5,
    method: Method = "random",
    *,
    seed: int = 0,
) -> list[list[str]]:
    """Negatives of each query from the passages of the other queries.

    `mine_hard_negatives` searches the whole corpus, and leaves out what may be relevant unseen.

    Args:
        queries: the queries.
        relevant_contexts: the passage of each.
        embed_model: for `"cosine_similarity"`.
        num_negatives: how many for each query; fewer, if there are not so many other passages.
        method: `"random"`, or `"cosine_similarity"`: the nearest to the query.
        seed: of the random ones.

    Raises:
        ValueError: of an argument.

    Example:
        >>> generate_hard_negatives(["fees?", "cats?"], ["Fees", "Cats"])
        [['Cats'], ['Fees']]
    """
    if len(queries) != len(relevant_contexts):
        raise ValueError(
            f"each query needs its passage: {len(queries)} queries, "
            f"{len(relevant_contexts)} relevant_contexts"
        )
    wanted = whole_number("num_negatives", num_negatives, 0)
    _check_method(method, "method")
    own = [[passage] for passage in relevant_contexts]
    return _negatives(queries, own, embed_model, wanted, method, seed)


@plain_arguments
def generate_cohere_reranker_finetuning_dataset(
    query_context_pairs: RetrievalDataset | RelevanceDataset | Any,
    num_negatives: int | None = None,
    *,
    hard_negatives_gen_method: Method = "random",
    finetune_dataset_file_name: PathLike = "train.jsonl",
    embed_model: BaseEmbedding | None = None,
    seed: int = 0,
) -> int:
    """Write Cohere's lines: `query`, `relevant_passages`, `hard_negatives`.

    Args:
        query_context_pairs: a retrieval dataset, also the old package's, of which each query's
            passages are written; or a `RelevanceDataset`, of which each list with a relevant
            candidate is. The format knows no degrees: every score above 0 is relevant.
        num_negatives: hard negatives a line. Of a retrieval dataset, none by default; of a
            `RelevanceDataset` the first of each list, all by default.
        hard_negatives_gen_method: for a retrieval dataset, see `generate_hard_negatives`.
        finetune_dataset_file_name: the JSON Lines file.
        embed_model: for `"cosine_similarity"`.
        seed: of random negatives.

    Returns:
        The number of lines.

    Raises:
        DatasetError: no list has a relevant candidate.
        ValueError: of an argument.

    Example:
        >>> import tempfile
        >>> data = RelevanceDataset.from_labels(
        ...     {"q": "fees?"}, {"a": "Fees", "b": "Cats"}, {"q": {"a": 1, "b": 0}}
        ... )
        >>> generate_cohere_reranker_finetuning_dataset(
        ...     data, finetune_dataset_file_name=tempfile.mktemp()
        ... )
        1
    """
    file = folder_path("finetune_dataset_file_name", finetune_dataset_file_name)
    if file.is_dir():
        raise IsADirectoryError(f"finetune_dataset_file_name: {file} is a folder")
    _check_method(hard_negatives_gen_method, "hard_negatives_gen_method")
    if num_negatives is not None:
        num_negatives = whole_number("num_negatives", num_negatives, 0)
    if isinstance(query_context_pairs, RelevanceDataset):
        lines = _of_lists(query_context_pairs, num_negatives)
    else:
        data = RetrievalDataset.coerce(query_context_pairs, "query_context_pairs")
        passages = [[data.corpus[id_] for id_ in ids] for _, ids in data.query_docid_pairs]
        queries = list(data.queries.values())
        negatives = _negatives(
            queries, passages, embed_model, num_negatives or 0, hard_negatives_gen_method, seed
        )
        lines = [
            CohereRerankerFinetuneDataset(query=q, relevant_passages=own, hard_negatives=others)
            for q, own, others in zip(queries, passages, negatives, strict=True)
        ]
    if not lines:
        raise DatasetError("there is nothing to write: no query has a relevant candidate")
    text = "".join(line.to_jsonl() for line in lines)
    write_text_atomic(file, text)
    return len(lines)


def _check_method(method: str, name: str) -> None:
    if method not in get_args(Method):
        known = ", ".join(get_args(Method))
        raise ValueError(f"unknown {name} {method!r} of hard negatives; choose one of: {known}")


def _of_lists(
    data: RelevanceDataset, num_negatives: int | None
) -> list[CohereRerankerFinetuneDataset]:
    return [
        CohereRerankerFinetuneDataset(
            query=item.query,
            relevant_passages=relevant,
            hard_negatives=[c.text for c in item.candidates if c.score == 0][:num_negatives],
        )
        for item in data.lists
        if (relevant := [c.text for c in item.candidates if c.score > 0])
    ]


def _negatives(
    queries: Sequence[str],
    own: list[list[str]],
    embed_model: BaseEmbedding | None,
    wanted: int,
    method: str,
    seed: int,
) -> list[list[str]]:
    """For each query, passages of the others that are none of its own."""
    if not wanted:
        return [[] for _ in queries]
    passages = list(dict.fromkeys(passage for texts in own for passage in texts))
    looked_at = min(len(passages), wanted + max(map(len, own)))
    if method == "random":
        rng = np.random.default_rng(seed)
        orders = [rng.choice(len(passages), looked_at, replace=False) for _ in queries]
    else:
        if embed_model is None:
            raise ValueError("hard negatives by cosine_similarity need embed_model")
        documents = unit_rows(np.asarray(embed_model.get_text_embedding_batch(passages)))
        asked = [embed_model.get_query_embedding(query) for query in queries]
        orders = [np.argsort(-(documents @ np.asarray(vector)), kind="stable") for vector in asked]
    return [
        [passages[i] for i in order[:looked_at] if passages[i] not in texts][:wanted]
        for order, texts in zip(orders, own, strict=True)
    ]
