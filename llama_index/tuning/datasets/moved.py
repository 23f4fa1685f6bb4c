"""Labels of an earlier ingestion: ids that name nothing now are found by their texts."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from llama_index.tuning.datasets.checks import corpus_of
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.text.passages import Place, find_passages, same_text

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

    from llama_index.tuning.datasets.retrieval import RetrievalDataset


def over_nodes(
    dataset: RetrievalDataset,
    ids: Collection[str],
    fetch: Callable[[Sequence[str]], Iterable[BaseNode]],
    name: str = "dataset",
    *,
    keep: bool = False,
) -> tuple[RetrievalDataset, list[str]]:
    """A dataset whose labels name nodes of today: those that do not are found by their texts.

    An id that has another text now is not trusted, unless that text is nowhere else.

    Args:
        dataset: with ids of an earlier ingestion, or only some of today's.
        ids: of all nodes that may be found.
        fetch: some of these nodes, by id.
        name: of the dataset, for an error.
        keep: whether documents that are not among the nodes stay, with their ids and texts.

    Returns:
        The dataset itself if nothing has moved, else one over all nodes, without the queries whose
        documents are gone; and what a report should say of it.

    Raises:
        DatasetError: more than half of the queries (with `keep`: all of them) have no document
            among the nodes.
    """
    answers = dataset.relevant_docs
    labelled = {id_: dataset.corpus[id_] for found in answers.values() for id_ in found}
    here = corpus_of(fetch([id_ for id_ in labelled if id_ in ids]))
    strange = {id_: text for id_, text in labelled.items() if not same_text(here.get(id_), text)}
    if not strange:
        return dataset, []
    nodes = list(fetch(list(ids)))
    places = find_passages(strange, nodes)
    moved = {id_: place for id_, place in places.items() if place.ids and id_ not in place.ids}
    gone = {id_: place for id_, place in places.items() if not place.ids and id_ not in here}
    lost = [query for query, found in answers.items() if gone.keys() >= set(found)]
    if len(lost) == len(dataset) or (2 * len(lost) > len(dataset) and not keep):
        raise DatasetError(
            f"{len(gone)} of {len(labelled)} labelled documents of {name} are not among the "
            f"{len(ids)} nodes that may be found, neither by id nor by text: {len(lost)} of "
            f"{len(dataset)} queries have no answer there"
        )
    if not moved and (keep or not gone):
        return dataset, []
    corpus = corpus_of(nodes)
    if keep:
        corpus |= {id_: labelled[id_] for id_ in gone}
        gone, lost = {}, []
    now = {id_: [id_] for id_ in labelled} | {i: place.ids for i, place in (moved | gone).items()}
    return _renamed(dataset, corpus, now), [
        moved_note(name, moved | gone, len(labelled), len(lost))
    ]


def _renamed(
    dataset: RetrievalDataset, corpus: dict[str, str], now: Mapping[str, Sequence[str]]
) -> RetrievalDataset:
    """The queries that have documents left, over another corpus."""
    relevant = {
        query: list(dict.fromkeys(new for id_ in found for new in now[id_]))
        for query, found in dataset.relevant_docs.items()
    }
    queries = {id_: text for id_, text in dataset.queries.items() if relevant[id_]}
    with warnings.catch_warnings():  # of texts that come twice: the dataset has said so itself
        warnings.simplefilter("ignore", UserWarning)
        return type(dataset)(queries, corpus, {id_: relevant[id_] for id_ in queries})


def moved_note(name: str, moved: Mapping[str, Place], labelled: int, lost: int = 0) -> str:
    """What is said of labels that were found under other ids."""
    how = Counter(place.how for place in moved.values())
    found = ", ".join(f"{number} {way}" for way, number in how.most_common())
    left_out = f"; {lost} queries have no answer left and are left out" if lost else ""
    return (
        f"{len(moved)} of {labelled} labelled documents of {name} have other ids now and were "
        f"looked for by their texts: {found}{left_out}"
    )


def retrieved_places(
    dataset: RetrievalDataset, found: Iterable[BaseNode]
) -> tuple[dict[str, list[str]], dict[str, Place]]:
    """Which labelled documents lie in retrieved nodes that the dataset does not know by id.

    If it knows some of them, only whole passages count: what is searched may just be larger than
    the dataset, and hold texts that are merely similar.

    Returns:
        New id → ids of the labelled documents that it holds; and where each of these was found.
    """
    nodes = {node.node_id: node for node in found}
    strange = [node for id_, node in nodes.items() if id_ not in dataset.corpus]
    labelled = dict.fromkeys(id_ for ids in dataset.relevant_docs.values() for id_ in ids)
    wanted = {id_: dataset.corpus[id_] for id_ in labelled if id_ not in nodes}
    if not strange or not wanted:
        return {}, {}
    whole_only = not dataset.corpus.keys().isdisjoint(nodes)
    places = {
        id_: place
        for id_, place in find_passages(wanted, strange).items()
        if place.ids and (place.how in ("exact", "contained") or not whole_only)
    }
    holds: dict[str, list[str]] = defaultdict(list)
    for id_, place in places.items():
        for new in place.ids:
            holds[new].append(id_)
    return dict(holds), places
