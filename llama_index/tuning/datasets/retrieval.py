"""Questions, documents, and which documents answer which question."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from llama_index.tuning._checks import folder_path, items_of, plain_arguments, share, warn
from llama_index.tuning._files import PathLike, read_json, write_text_atomic
from llama_index.tuning.datasets.checks import (
    conflicting_queries,
    corpus_of,
    hint_of_missing,
    listed_nodes,
    retrieval_faults,
)
from llama_index.tuning.datasets.folds import tied_groups
from llama_index.tuning.datasets.formats.beir import read_beir
from llama_index.tuning.datasets.formats.shapes import (
    labelled_nodes,
    rows_of_pairs,
    rows_of_rag_dataset,
    rows_of_ragas,
)
from llama_index.tuning.datasets.formats.tables import retrieval_of_table
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.text.passages import Place, find_passages
from llama_index.tuning.text.words import normalise

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode, MetadataMode, TextNode

    from llama_index.tuning.datasets.formats.tables import Table


@dataclass(repr=False)
class RetrievalDataset:
    """Queries, a corpus, and the documents of it that are relevant to each query.

    The old package's `EmbeddingQAFinetuneDataset` under its new name (the old one is kept as
    an alias); its JSON files load unchanged.

    Args:
        queries: query id → text.
        corpus: document id → text. A document is what the app retrieves: a chunk, a node.
        relevant_docs: query id → ids of the documents that answer it, at least one.
        mode: always `"text"`; kept from the old format.

    Raises:
        DatasetError: naming every fault with the id concerned. Queries with the same text but
            different answers are real in generated data, so they only warn: all rows of one
            text stay on the same side of every split; `merge_duplicates()` makes them one.

    Example:
        >>> dataset = RetrievalDataset(
        ...     queries={"q1": "How do I reset my password?"},
        ...     corpus={"d1": "Click 'Forgot password' on the sign-in page.", "d2": "Fees."},
        ...     relevant_docs={"q1": ["d1"]},
        ... )
        >>> len(dataset), len(dataset.corpus)
        (1, 2)
    """

    queries: dict[str, str]
    corpus: dict[str, str]
    relevant_docs: dict[str, list[str]]
    mode: str = "text"

    def __post_init__(self) -> None:
        faults = retrieval_faults(self.queries, self.corpus, self.relevant_docs, self.mode)
        if faults:
            raise DatasetError("the retrieval dataset has faults:", faults)
        conflicts = self.conflicts()
        if conflicts:
            shown = "; ".join(", ".join(map(repr, ids)) for ids in conflicts[:3])
            warn(
                f"{len(conflicts)} query texts occur more than once with different relevant "
                f"documents (ids {shown}{'; …' if len(conflicts) > 3 else ''}); "
                f"merge_duplicates() would make each one query"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} queries, {len(self.corpus)} documents)"

    def _repr_html_(self) -> str:
        from llama_index.tuning.pages.dataset import dataset_html

        rows = ((q, self.corpus[ids[0]]) for q, ids in self.query_docid_pairs)
        return dataset_html(self, ("query", "answered by"), rows)

    def __len__(self) -> int:
        """The number of queries."""
        return len(self.queries)

    @property
    def query_docid_pairs(self) -> list[tuple[str, list[str]]]:
        """(query text, relevant document ids) in the order of `queries`."""
        return [(text, self.relevant_docs[id_]) for id_, text in self.queries.items()]

    def conflicts(self) -> list[list[str]]:
        """Groups of query ids that share a text but not the relevant documents."""
        return conflicting_queries(self.queries, self.relevant_docs)

    def merge_duplicates(self) -> RetrievalDataset:
        """One query for each text (case and space aside), relevant to all of their documents."""
        first: dict[str, str] = {}
        relevant: dict[str, dict[str, None]] = {}
        for id_, text in self.queries.items():
            kept = first.setdefault(normalise(text), id_)
            relevant.setdefault(kept, {}).update(dict.fromkeys(self.relevant_docs[id_]))
        return RetrievalDataset(
            {id_: self.queries[id_] for id_ in relevant},
            self.corpus,
            {id_: list(docs) for id_, docs in relevant.items()},
            self.mode,
        )

    def subset(self, query_ids: Iterable[str]) -> RetrievalDataset:
        """The same corpus with these queries only."""
        ids = list(items_of("query_ids", query_ids, "ids"))
        unknown = [f"unknown query id {id_!r}" for id_ in ids if id_ not in self.queries]
        if unknown:
            raise DatasetError("cannot take a subset:", unknown)
        return _unchecked(
            {id_: self.queries[id_] for id_ in ids},
            self.corpus,
            {id_: self.relevant_docs[id_] for id_ in ids},
            self.mode,
        )

    @plain_arguments
    def split(
        self,
        test_size: float = 0.2,
        *,
        by: Literal["query", "document"] = "query",
        seed: int = 0,
    ) -> tuple[RetrievalDataset, RetrievalDataset]:
        """Two datasets over the same corpus, with no query text on both sides.

        Args:
            test_size: share of the queries that go to the second one, between 0 and 1.
            by: `"query"` splits at random; `"document"` also keeps every relevant document on
                one side, so that the second one measures documents without training queries.
            seed: the same seed gives the same split.
        """
        share("test_size", test_size)
        if by not in ("query", "document"):
            raise ValueError(f"unknown by {by!r}; choose one of: query, document")
        groups = self.groups(by=by)
        if len(groups) < 2:
            raise DatasetError(
                f"cannot split by {by}: all {len(self)} queries hang together "
                f"({'one text' if by == 'query' else 'through shared relevant documents'})"
            )
        random.Random(int(seed)).shuffle(groups)
        test: set[str] = set()
        for group in groups[:-1]:
            if len(test) >= test_size * len(self):
                break
            test.update(group)
        train = [id_ for id_ in self.queries if id_ not in test]
        return self.subset(train), self.subset([id_ for id_ in self.queries if id_ in test])

    def groups(self, *, by: Literal["query", "document"] = "query") -> list[list[str]]:
        """Query ids that must stay together: the same text, or linked by shared documents."""
        if by not in ("query", "document"):
            raise ValueError(f"unknown by {by!r}; choose one of: query, document")
        holders: dict[tuple[str, str], list[str]] = defaultdict(list)
        for id_, text in self.queries.items():
            holders["text", normalise(text)].append(id_)
            for doc in self.relevant_docs[id_] if by == "document" else ():
                holders["document", doc].append(id_)
        return tied_groups(self.queries, holders.values())

    def fingerprint(self) -> str:
        """A short hash of the content, written into reports and artifacts."""
        digest = hashlib.sha256()
        for part in (self.queries, self.corpus, self.relevant_docs):
            for key in sorted(part):
                digest.update(json.dumps([key, part[key]], ensure_ascii=False).encode())
            digest.update(b"\n")
        return digest.hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The old package's JSON object."""
        return {
            "queries": self.queries,
            "corpus": self.corpus,
            "relevant_docs": self.relevant_docs,
            "mode": self.mode,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, source: str = "the data") -> RetrievalDataset:
        """From the object that `to_dict` gives; `source` is what error messages call it."""
        if not isinstance(data, Mapping):
            raise DatasetError(f"{source} must be a JSON object, got {type(data).__name__}")
        missing = [key for key in ("queries", "corpus", "relevant_docs") if key not in data]
        if missing:
            raise DatasetError(f"{source} lacks {', '.join(missing)}{hint_of_missing(missing)}")
        unknown = sorted(map(str, set(data) - {"queries", "corpus", "relevant_docs", "mode"}))
        if unknown:
            raise DatasetError(f"{source} has unknown keys: {', '.join(unknown)}")
        return cls(**data)

    def save_json(self, path: PathLike) -> None:
        """Write the whole dataset to one JSON file, atomically."""
        write_text_atomic(path, json.dumps(self.to_dict(), ensure_ascii=False, indent=2))

    @classmethod
    @plain_arguments
    def from_json(
        cls, path: PathLike, *, corpus: PathLike | Mapping[str, str] | None = None
    ) -> RetrievalDataset:
        """Load a JSON file, of this package or the old one.

        Args:
            path: the file with `queries`, `relevant_docs` and, without `corpus=`, `corpus`.
            corpus: where several splits share one corpus: its file (`{document id: text}`), or
                the loaded dictionary.
        """
        data = read_json(path)
        if corpus is not None and isinstance(data, dict):
            if "corpus" in data:
                raise DatasetError(f"{path} has a corpus of its own; leave corpus= out")
            data["corpus"] = corpus if isinstance(corpus, Mapping) else read_json(corpus)
        return cls.from_dict(data, source=str(path))

    @classmethod
    @plain_arguments
    def from_beir(cls, folder: PathLike, *, split: str = "test") -> RetrievalDataset:
        """Load a BEIR folder: corpus.jsonl, queries.jsonl, qrels/<split>.tsv (score > 0).

        Thakur et al., BEIR (2021). A document's text is its title, a newline, its text.
        """
        return cls(*read_beir(folder_path("folder", folder), split))

    @classmethod
    @plain_arguments
    def load(
        cls,
        path: PathLike,
        *,
        corpus: PathLike | Mapping[str, str] | None = None,
        split: str = "test",
    ) -> RetrievalDataset:
        """Load whatever `path` is: a BEIR folder (of which `split` is read) or a JSON file."""
        if folder_path("path", path).is_dir():
            return cls.from_beir(path, split=split)
        return cls.from_json(path, corpus=corpus)

    @classmethod
    @plain_arguments
    def from_nodes(
        cls,
        nodes: Sequence[BaseNode],
        queries: Mapping[str, str],
        relevant_docs: Mapping[str, Sequence[str]],
        *,
        metadata_mode: MetadataMode | str = "embed",
    ) -> RetrievalDataset:
        """A dataset whose corpus is LlamaIndex nodes, with the text that an index embeds.

        Nodes without text, such as images, are left out, and so are labels that name them, and
        queries that have no other label; the log says how many. `metadata_mode="none"` leaves out
        the metadata that an index embeds, which may be file paths.
        """
        return cls(*labelled_nodes(nodes, queries, relevant_docs, metadata_mode))

    @classmethod
    @plain_arguments
    def from_table(
        cls,
        table: Table,
        *,
        question: str = "question",
        passage: str | None = None,
        answer: str | None = None,
        node_id: str | None = None,
        page: str | None = None,
        file: str | None = None,
        nodes: Iterable[BaseNode] | None = None,
    ) -> RetrievalDataset:
        """From a table of questions: CSV, TSV, JSON Lines, JSON, Excel, Parquet, a DataFrame, rows.

        One of `passage`, `answer`, `node_id` and `page` names the column that says what is
        relevant; without any, the first of these names that the table has. Several rows of one
        question are one query. Rows that cannot be used are left out, with a warning that counts
        them.

        Args:
            table: the file, or its rows.
            question: column of the questions.
            passage: column of the texts that answer them; without `nodes` these are the corpus.
            answer: column of answers as the documents word them: the nodes that hold one.
            node_id: column of node ids.
            page: column of page numbers, as in the nodes' metadata (`page_label`).
            file: column of file names, where pages are of several files.
            nodes: those of the index.

        Example:
            >>> rows = [{"question": "How high is the fee?", "passage": "The fee is 5 euros."}]
            >>> RetrievalDataset.from_table(rows)
            RetrievalDataset(1 queries, 1 documents)
        """
        by = {"node_id": node_id, "passage": passage, "page": page, "answer": answer}
        return cls(*retrieval_of_table(table, question, by, nodes, file))

    @classmethod
    @plain_arguments
    def from_rag_dataset(
        cls, dataset: Any, *, nodes: Iterable[BaseNode] | None = None
    ) -> RetrievalDataset:
        """From LlamaIndex's `LabelledRagDataset`: its queries and reference contexts.

        Args:
            dataset: the dataset, or its JSON file.
            nodes: those of the index, in which the contexts are found; else they are the corpus.
        """
        return cls.from_table(rows_of_rag_dataset(dataset), passage="passage", nodes=nodes)

    @classmethod
    @plain_arguments
    def from_ragas(
        cls, testset: Table, *, nodes: Iterable[BaseNode] | None = None
    ) -> RetrievalDataset:
        """From a ragas test set: `user_input` and `reference_contexts`, or the older names.

        Args:
            testset: the test set, its DataFrame, or its CSV or JSON Lines file.
            nodes: those of the index, in which the contexts are found; else they are the corpus.
        """
        return cls.from_table(rows_of_ragas(testset), passage="passage", nodes=nodes)

    @classmethod
    @plain_arguments
    def from_pairs(
        cls, pairs: Iterable[Any], *, nodes: Iterable[BaseNode] | None = None
    ) -> RetrievalDataset:
        """From (question, passage) pairs, or sentence-transformers' `InputExample`s.

        Args:
            pairs: an `InputExample` with a label of 0 says that the passage does not answer.
            nodes: those of the index, in which the passages are found; else they are the corpus.
        """
        return cls.from_table(rows_of_pairs(pairs), passage="passage", nodes=nodes)

    def remap(self, nodes: Iterable[BaseNode]) -> Remapped:
        """The same labels over the nodes of a later ingestion, found by the documents' texts.

        Ids change at each ingestion, and so may the chunks: a document is looked for with the
        same words, within a longer node, with a few words changed, and over several nodes.

        Args:
            nodes: all nodes of the index now.

        Returns:
            The new dataset, and for each labelled document where it is and how it was found.

        Raises:
            DatasetError: not one labelled document is found.

        Example:
            >>> from llama_index.core.schema import TextNode
            >>> old = RetrievalDataset({"q": "Fee?"}, {"d": "The fee is 5 euros."}, {"q": ["d"]})
            >>> found = old.remap([TextNode(id_="n", text="Prices. The fee is 5 euros. Bye.")])
            >>> found.dataset.relevant_docs, found.counts
            ({'q': ['n']}, {'contained': 1})
        """
        labelled = dict.fromkeys(id_ for ids in self.relevant_docs.values() for id_ in ids)
        found = listed_nodes(nodes)
        corpus = corpus_of(found)
        known = {id_ for id_ in labelled if corpus.get(id_) == self.corpus[id_]}
        wanted = {id_: self.corpus[id_] for id_ in labelled if id_ not in known}
        places = {id_: Place([id_], "exact") for id_ in known} | find_passages(wanted, found)
        relevant = {
            query: list(dict.fromkeys(new for id_ in ids for new in places[id_].ids))
            for query, ids in self.relevant_docs.items()
        }
        gone = [query for query, ids in relevant.items() if not ids]
        if len(gone) == len(relevant):
            raise DatasetError(
                f"none of {len(labelled)} labelled documents is found in the {len(found)} nodes: "
                "are they of the same texts?"
            )
        kept = {query: text for query, text in self.queries.items() if relevant[query]}
        return Remapped(
            RetrievalDataset(kept, corpus, {query: relevant[query] for query in kept}),
            {id_: places[id_] for id_ in labelled},
            gone,
        )

    def to_nodes(self) -> list[TextNode]:
        """The corpus as LlamaIndex nodes with the same ids, ready for `VectorStoreIndex`."""
        from llama_index.core.schema import TextNode

        return [TextNode(id_=id_, text=text) for id_, text in self.corpus.items()]

    @classmethod
    @plain_arguments
    def coerce(cls, data: Any, name: str = "dataset") -> RetrievalDataset:
        """Take this class, or anything of the same shape (the old package's dataset)."""
        if isinstance(data, cls):
            return data
        try:
            parts = (data.queries, data.corpus, data.relevant_docs)
        except AttributeError:
            raise TypeError(
                f"{name} must be a RetrievalDataset, or have its queries, corpus and "
                f"relevant_docs; got {type(data).__name__}"
            ) from None
        return cls(*parts, mode=getattr(data, "mode", "text"))


def _unchecked(
    queries: dict[str, str],
    corpus: dict[str, str],
    relevant_docs: dict[str, list[str]],
    mode: str,
) -> RetrievalDataset:
    # Part of a dataset that was validated already: a large corpus is not read again.
    dataset = object.__new__(RetrievalDataset)
    dataset.queries, dataset.corpus = queries, corpus
    dataset.relevant_docs, dataset.mode = relevant_docs, mode
    return dataset


EmbeddingQAFinetuneDataset = RetrievalDataset
"""The old package's name."""


@dataclass(frozen=True)
class Remapped:
    """A dataset over new nodes, and how its labels were found.

    Attributes:
        dataset: queries with the new nodes' ids; the corpus is the new nodes.
        places: old document id → where its text is now; of labelled documents only.
        gone: ids of queries that lost all their documents, and are not in the dataset.
    """

    dataset: RetrievalDataset
    places: dict[str, Place]
    gone: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """How many labelled documents were found in which way."""
        return dict(Counter(place.how for place in self.places.values()))

    def __str__(self) -> str:
        found = ", ".join(f"{number} {how}" for how, number in self.counts.items())
        lost = f"; {len(self.gone)} queries lost all of theirs" if self.gone else ""
        return f"{len(self.places)} labelled documents: {found}{lost}"
