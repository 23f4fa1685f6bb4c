"""What a retriever finds for each query, as plain data."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from llama_index.tuning._checks import whole_number
from llama_index.tuning._running import own_work, progress, run_async
from llama_index.tuning.datasets.tuned_parts import unseen

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.schema import NodeWithScore


class Found(NamedTuple):
    """A node that was found, and the retriever's score where it gave one."""

    node_id: str
    text: str
    score: float | None
    metadata: Mapping[str, Any]


def check_retriever(retriever: Any) -> None:
    """It must be able to retrieve; an index, given in its place, is named as such."""
    if not hasattr(retriever, "retrieve"):
        kind = type(retriever).__name__
        hint = "; pass index.as_retriever(...)" if hasattr(retriever, "as_retriever") else ""
        raise TypeError(f"retriever must be a retriever of LlamaIndex, got {kind}{hint}")


@own_work
def find_nodes(
    queries: Sequence[str], retriever: BaseRetriever, num_workers: int, show_progress: bool
) -> list[list[NodeWithScore]]:
    """Each query's nodes, in the retriever's order: each with text, once.

    What was tuned on some of the queries answers them as if it had not learnt them; see `unseen`.
    """
    num_workers = whole_number("num_workers", num_workers, 1)
    check_retriever(retriever)
    # A retriever that re-ranks shows what it re-ranks through `candidates`.
    find = getattr(retriever, "candidates", retriever.retrieve)
    with unseen(retriever, queries):
        if num_workers > 1:
            afind = getattr(retriever, "acandidates", retriever.aretrieve)
            answers = run_async(_concurrently(queries, afind, num_workers))
        else:
            answers = [find(query) for query in progress(queries, show_progress, "Retrieving")]
    return [_distinct(nodes) for nodes in answers]


def as_found(item: NodeWithScore) -> Found:
    """As plain data: the text that an index embeds, and the score where it is a number."""
    known = item.score is not None and math.isfinite(item.score)
    text = _text(item)
    return Found(item.node.node_id, text, item.score if known else None, item.metadata)


async def _concurrently(queries: Sequence[str], find: Any, num_workers: int) -> list[Any]:
    slots = asyncio.Semaphore(num_workers)

    async def one(query: str) -> Any:
        async with slots:
            return await find(query)

    return list(await asyncio.gather(*map(one, queries)))


def _distinct(nodes: Sequence[NodeWithScore]) -> list[NodeWithScore]:
    first: dict[str, NodeWithScore] = {}
    for item in nodes:
        if _text(item).strip():  # a node without text (an image) is nothing to compare
            first.setdefault(item.node.node_id, item)
    return list(first.values())


def _text(item: NodeWithScore) -> str:
    from llama_index.core.schema import MetadataMode

    return item.node.get_content(MetadataMode.EMBED)
