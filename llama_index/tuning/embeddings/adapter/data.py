"""What an adapter engine learns from: checked data first, then its vectors."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from llama_index.core.indices.base import BaseIndex

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets.checks import check_held_out
from llama_index.tuning.datasets.moved import over_nodes
from llama_index.tuning.embeddings.adapter.measure import positive_rows
from llama_index.tuning.errors import DatasetError, StoreError, VectorError
from llama_index.tuning.generate.sentences import generate_sentence_queries
from llama_index.tuning.text.passages import same_text
from llama_index.tuning.text.words import normalise
from llama_index.tuning.vectors.embedder import Embedder, document_vectors
from llama_index.tuning.vectors.indexed import index_node_ids, own_nodes
from llama_index.tuning.vectors.search import unit_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Pairs:
    """What an adapter learns from.

    Attributes:
        vectors: unit query (or sentence) vectors, shape `(n, dim)`, float32.
        positives: for each query the rows of its relevant documents, at least one.
        weights: weight of each query in the loss, shape `(n,)`; all 1 by default.
    """

    vectors: Float32
    positives: Sequence[Ints]
    weights: Float32 | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: Ints) -> Pairs:
        """Some of the pairs, by position."""
        weights = None if self.weights is None else self.weights[rows]
        return Pairs(self.vectors[rows], [self.positives[row] for row in rows], weights)

    def renumbered(self, documents: Ints) -> Pairs:
        """The same pairs over some of the documents: sorted rows that hold all positives."""
        positives = [np.searchsorted(documents, rows) for rows in self.positives]
        return Pairs(self.vectors, positives, self.weights)

    def flat(self) -> tuple[Ints, Ints]:
        """Query number and document row of each single pair, both of shape `(pairs,)`."""
        counts = [len(rows) for rows in self.positives]
        if not counts:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        owners = np.repeat(np.arange(len(self)), counts)
        return owners, np.concatenate(self.positives).astype(np.int64)

    def mean_positive(self, documents: Float32) -> Float32:
        """Mean of each query's relevant documents, shape `(n, dim)`."""
        owners, rows = self.flat()
        total = np.zeros((len(self), documents.shape[1]), dtype=np.float32)
        np.add.at(total, owners, np.asarray(documents[rows], dtype=np.float32))
        counts = np.bincount(owners, minlength=len(self)).astype(np.float32)
        mean: Float32 = total / counts[:, None]
        return mean

    def weight_column(self) -> Float32:
        """*Shape:* `(n, 1)`."""
        weights = np.ones(len(self), np.float32) if self.weights is None else self.weights
        return weights[:, None]


MIN_QUERIES = 10
SAME = 0.5
"""Cosine below which a stored vector and the model's own of that text are not of one model. The
text that was embedded may have had metadata around it, which moves it, though not so far."""
PARTS = 25
"""Clusters of the documents whose sentences alone are learnt from."""
STAND_INS = "sentences of the documents, which stand in for questions"


@dataclass(frozen=True, eq=False)
class Data:
    """The texts: labelled queries, sentences of unlabelled documents, and both of their corpora.

    Attributes:
        labelled: queries with relevant documents; `None` if there are none.
        sentences: sentence queries over the unlabelled documents, if any.
        validation: queries to measure on, over the corpus of their own; `None` cross-fits.
        notes: what was done to them.
    """

    labelled: RetrievalDataset | None
    sentences: RetrievalDataset | None
    validation: RetrievalDataset | None
    notes: Sequence[str] = ()

    @property
    def measured(self) -> RetrievalDataset:
        """The queries that the report is about."""
        found = self.validation or self.labelled or self.sentences
        assert found is not None
        return found

    @property
    def measured_on(self) -> str:
        """What these are, if they are no questions."""
        return STAND_INS if self.measured is self.sentences else ""

    def corpus(self) -> dict[str, str]:
        """All documents, the labelled queries' first."""
        parts = [part for part in (self.labelled, self.sentences, self.validation) if part]
        if all(part.corpus is parts[0].corpus for part in parts):
            return parts[0].corpus  # one corpus, maybe a large one: not copied
        merged: dict[str, str] = {}
        for part in parts:
            merged.update(part.corpus)
        return merged


@dataclass(frozen=True, eq=False)
class EmbeddedDataset:
    """The same as vectors.

    Attributes:
        documents: vectors of all documents, shape `(N, dim)`.
        labelled: labelled queries, or the sentences if there are none.
        sentences: sentence pairs beside labelled queries.
        validation: queries to measure on.
        groups: for each labelled query the key that keeps equal texts in one fold.
        searched: sorted rows of `documents` that the measured queries search; `None` means all.
    """

    documents: Float32
    labelled: Pairs
    sentences: Pairs | None
    validation: Pairs | None
    groups: list[str]
    searched: Ints | None

    @property
    def dim(self) -> int:
        return int(self.documents.shape[1])

    @property
    def measured(self) -> Pairs:
        """The queries that the report is about."""
        return self.validation or self.labelled

    def measured_documents(self) -> tuple[Float32, list[Ints]]:
        """The documents that those search, and their positives by row of them."""
        if self.searched is None:
            return self.documents, list(self.measured.positives)
        kept = self.measured.renumbered(self.searched)
        return self.documents[self.searched], list(kept.positives)


class SentenceOptions(Protocol):
    """What of an engine's options concerns `unlabelled`."""

    @property
    def max_unlabelled(self) -> int: ...

    @property
    def seed(self) -> int: ...


def check_data(
    dataset: Any, unlabelled: Any, validation: Any, options: SentenceOptions, vectors: Any = None
) -> Data:
    """Everything that can be wrong with the data, before any text is embedded.

    Labels that `vectors`, an index, has under other ids are tied to its nodes.
    """
    if dataset is None and unlabelled is None:
        raise ValueError("dataset and unlabelled are both None; there is nothing to learn from")
    labelled = None if dataset is None else RetrievalDataset.coerce(dataset)
    held_out = None if validation is None else RetrievalDataset.coerce(validation, "val_dataset")
    sentences: RetrievalDataset | None = None
    if unlabelled is not None:
        sentences = generate_sentence_queries(documents_of(unlabelled))
        if len(sentences) > options.max_unlabelled:  # the others are not even embedded
            drawn = random.Random(options.seed).sample(
                list(sentences.queries), options.max_unlabelled
            )
            sentences = sentences.subset(drawn)
    if labelled is not None:
        _check_learnable(labelled, "dataset", MIN_QUERIES)
    elif sentences is not None:
        _check_learnable(sentences, "unlabelled, by its sentences,", MIN_QUERIES)
    if held_out is not None:
        if not len(held_out):
            raise DatasetError("val_dataset has no queries")
        check_held_out(labelled.queries if labelled else {}, held_out.queries)
    labelled, notes = of_index(labelled, vectors, "dataset")
    held_out, more = of_index(held_out, vectors, "val_dataset")
    data = Data(labelled, sentences, held_out, [*notes, *more])
    _check_same_documents(data)
    return data


def of_index(
    dataset: RetrievalDataset | None, vectors: Any, name: str
) -> tuple[RetrievalDataset | None, list[str]]:
    """Labels that an index has under other ids, tied to its nodes; and what to say of it.

    Args:
        dataset: whose documents may be those of an earlier ingestion.
        vectors: where document vectors are; only an index has texts too.
        name: of the dataset.

    Raises:
        DatasetError: the index has not one of the documents, by id or by text.
    """
    if dataset is None or not isinstance(vectors, BaseIndex):
        return dataset, []
    try:
        ids = index_node_ids(vectors)
        return over_nodes(dataset, set(ids), partial(own_nodes, vectors), name, keep=True)
    except StoreError:  # it hands out no ids or no texts: what it lacks is embedded
        return dataset, []


def documents_of(given: Any, name: str = "unlabelled") -> dict[str, str]:
    """Document id → text, from a dictionary, a dataset, LlamaIndex nodes, or plain texts.

    Args:
        given: the documents.
        name: of the argument that they came in.
    """
    if isinstance(given, RetrievalDataset):
        return given.corpus
    if isinstance(given, Mapping):
        texts = dict(given)
    elif isinstance(given, Sequence) and not isinstance(given, (str, bytes)):
        pairs = dict.fromkeys(_id_and_text(item, name, i) for i, item in enumerate(given))
        texts = dict(list(pairs))  # a node that is there twice counts once
        if len(texts) < len(pairs):
            raise DatasetError(f"{name} holds two nodes with one id and different texts")
    else:
        raise TypeError(
            f"{name} must be a dictionary id → text, or a list of nodes or texts; "
            f"got {type(given).__name__}"
        )
    faults = [
        f"document {id_!r} of {name} must be a text"
        for id_, text in texts.items()
        if not isinstance(text, str)
    ]
    kept = {} if faults else {id_: text for id_, text in texts.items() if text.strip()}
    if faults or not kept:
        raise DatasetError(f"{name} has faults:", faults or ["it holds no text"])
    if len(kept) < len(texts):  # chunks of nothing, and images
        blank = next(id_ for id_ in texts if id_ not in kept)
        left_out = len(texts) - len(kept)
        logger.warning(
            "%d of %d documents of %s have no text, such as %r, and are left out",
            left_out, len(texts), name, blank,
        )  # fmt: skip
    return kept


def embed_problem(data: Data, vectors: Any, embedder: Embedder, dim: int | None) -> EmbeddedDataset:
    """The data as vectors: documents from where they are, each other text embedded once."""
    corpus = data.corpus()
    own = data.labelled or data.measured
    documents = document_vectors(own.corpus, vectors, embedder)
    if dim is not None and documents.shape[1] != dim:
        raise VectorError(f"dim is {dim}, but the documents' vectors have {documents.shape[1]}")
    if len(corpus) > len(own.corpus):
        extra = {id_: text for id_, text in corpus.items() if id_ not in own.corpus}
        elsewhere = None if isinstance(vectors, np.ndarray) else vectors
        more = document_vectors(extra, elsewhere, embedder)
        if more.shape[1] != documents.shape[1]:
            raise VectorError(
                f"the unlabelled documents' vectors have {more.shape[1]} dimensions, "
                f"the dataset's {documents.shape[1]}"
            )
        documents = np.concatenate([documents, more])
    parts = [p for p in (data.labelled, data.sentences, data.validation) if p is not None]
    texts = [list(part.queries.values()) for part in parts]
    stacked = unit_rows(embedder.queries([text for part in texts for text in part]))
    if stacked.shape[1] != documents.shape[1]:
        raise VectorError(
            f"the embedding model gives {stacked.shape[1]} dimensions, the documents' vectors "
            f"have {documents.shape[1]}; were they made by another model?"
        )
    rows = {id_: row for row, id_ in enumerate(corpus)}
    found = iter(np.split(stacked, np.cumsum([len(part) for part in texts])[:-1]))
    pairs = {id(part): Pairs(next(found), positive_rows(part, rows)) for part in parts}
    labelled, sentences = data.labelled, data.sentences
    taught = labelled if labelled is not None else sentences
    assert taught is not None
    return EmbeddedDataset(
        documents=documents,
        labelled=pairs[id(taught)],
        sentences=pairs[id(sentences)] if sentences is not None and taught is labelled else None,
        validation=pairs[id(data.validation)] if data.validation is not None else None,
        groups=parts_of(pairs[id(taught)], documents) if labelled is None else _groups(taught),
        searched=_searched(data.measured.corpus, rows),
    )


def likeness(corpus: Mapping[str, str], documents: Float32, embedder: Embedder) -> Float32:
    """Cosines of a few documents' stored vectors with those that the model gives, shape `(≤ 3,)`.

    Args:
        corpus: document id → text.
        documents: vectors of the corpus in its order, further ones may follow.
        embedder: of the model.

    Raises:
        VectorError: they have another length.
    """
    rows = np.unique(np.linspace(0, len(corpus) - 1, 3).astype(np.int64))
    texts = list(corpus.values())
    own = unit_rows(embedder.documents([texts[row] for row in rows]))
    stored = unit_rows(np.asarray(documents[rows], dtype=np.float32))
    if own.shape[1] != stored.shape[1]:
        raise VectorError(
            f"the model gives {own.shape[1]} dimensions, the stored vectors have "
            f"{stored.shape[1]}; were they made by another model?"
        )
    return np.asarray(np.einsum("ij,ij->i", own, stored), dtype=np.float32)


def _searched(corpus: Mapping[str, str], rows: Mapping[str, int]) -> Ints | None:
    if len(corpus) == len(rows):
        return None
    return np.sort(np.array([rows[id_] for id_ in corpus], dtype=np.int64))


def _groups(dataset: RetrievalDataset) -> list[str]:
    """Equal questions share a fold."""
    return [normalise(text) for text in dataset.queries.values()]


def parts_of(sentences: Pairs, documents: Float32) -> list[str]:
    """Sentences of documents about the same share a fold.

    How far the sentences of one part of the documents help to find those of another is nearest to
    how far they help questions: within a document sentences help each other too much.
    """
    from scipy.cluster.vq import kmeans2

    first = np.array([rows[0] for rows in sentences.positives])
    used, number = np.unique(first, return_inverse=True)
    if len(used) < 2 * PARTS:
        return [str(row) for row in first]
    vectors = np.asarray(documents[used], dtype=np.float64)
    _, part = kmeans2(vectors, PARTS, minit="++", rng=0, missing="warn")
    return [str(part[row]) for row in number]


def _id_and_text(item: Any, name: str, number: int) -> tuple[str, str]:
    if isinstance(item, str):
        return f"{name}-{number}", item
    try:
        from llama_index.core.schema import MetadataMode

        return item.node_id, item.get_content(MetadataMode.EMBED)
    except AttributeError:
        raise TypeError(
            f"{name}[{number}] must be a node or a text, got {type(item).__name__}"
        ) from None


def _check_learnable(dataset: RetrievalDataset, name: str, least: int) -> None:
    texts = {normalise(text) for text in dataset.queries.values()}
    if len(texts) < least:
        raise DatasetError(
            f"{name} has {len(texts)} different queries; at least {least} are needed to train "
            "and to measure"
        )
    if len(dataset.corpus) < 2:
        raise DatasetError(f"{name} has one document; there is nothing to rank")
    answers = {frozenset(docs) for docs in dataset.relevant_docs.values()}
    if len(answers) == 1:
        [only] = answers
        raise DatasetError(
            f"all {len(dataset)} queries of {name} have the same relevant documents "
            f"({', '.join(sorted(only)[:3])}); a model would learn to always return them"
        )


def _check_same_documents(data: Data) -> None:
    seen: dict[str, str] = {}
    faults = []
    for part in (data.labelled, data.sentences, data.validation):
        for id_, text in part.corpus.items() if part is not None else ():
            if not same_text(seen.setdefault(id_, text), text):
                faults.append(f"document {id_!r} has different texts in two of them")
    if faults:
        raise DatasetError("dataset, unlabelled and val_dataset disagree:", faults)
