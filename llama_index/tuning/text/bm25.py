"""A BM25 index that takes documents in and lets them go without being rebuilt.

Postings hold counts, not finished scores, so that document frequencies and the mean length are
right after every insert and delete. Inserts make small segments that are merged as they add up.
One thread at a time is inside: nodes may come and go while others search.

BM25 finds only what the app's retriever may find.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llama_index.core.schema import BaseNode
from llama_index.core.storage.docstore.types import BaseDocumentStore
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float32, Int32, Ints
from llama_index.tuning._checks import whole_number
from llama_index.tuning._running import ThreadLock
from llama_index.tuning.errors import ArtifactError
from llama_index.tuning.text.statistics import Codes, code, idf, look_up
from llama_index.tuning.text.words import Analyzer

K1, B = 1.2, 0.75
"""BM25's usual saturation and length normalisation."""


_BATCH = 50_000
_NOTHING: tuple[Codes, Ints] = (np.zeros(0, np.uint32), np.zeros(0, np.int64))


@dataclass(frozen=True, eq=False)
class Segment:
    """Postings of some documents.

    Attributes:
        codes: words, increasing, shape `(V,)`.
        starts: where each word's postings start, and the end, shape `(V + 1,)`.
        rows: documents, increasing within a word, shape `(P,)`.
        counts: how often the word occurs there, shape `(P,)`.
    """

    codes: Codes
    starts: Ints
    rows: Int32
    counts: NDArray[np.uint16]

    @classmethod
    def of(cls, first_row: int, documents: Sequence[Codes]) -> Segment:
        """From documents' words; rows are numbered from `first_row`."""
        lengths = [len(words) for words in documents]
        rows = np.repeat(np.arange(len(documents), dtype=np.uint64), lengths)
        words = np.concatenate([np.zeros(0, np.uint32), *documents]).astype(np.uint64)
        both, counts = np.unique((words << np.uint64(32)) | rows, return_counts=True)
        found = (both & np.uint64(0xFFFFFFFF)).astype(np.int32) + np.int32(first_row)
        return cls._grouped((both >> np.uint64(32)).astype(np.uint32), found, counts)

    @classmethod
    def merge(cls, segments: Sequence[Segment]) -> Segment:
        """One segment of several, whose rows follow each other."""
        words = np.concatenate([np.repeat(s.codes, np.diff(s.starts)) for s in segments])
        order = np.argsort(words, kind="stable")
        rows = np.concatenate([s.rows for s in segments])[order]
        counts = np.concatenate([s.counts for s in segments])[order]
        return cls._grouped(words[order], rows, counts)

    @classmethod
    def _grouped(cls, words: Codes, rows: Int32, counts: NDArray[Any]) -> Segment:
        codes, starts = np.unique(words, return_index=True)
        ends = np.append(starts, len(words)).astype(np.int64)
        return cls(codes, ends, rows, np.minimum(counts, 65_535).astype(np.uint16))

    def postings(self, word: int) -> slice:
        """Where a word's postings are."""
        place = int(np.searchsorted(self.codes, np.uint32(word)))
        if place == len(self.codes) or self.codes[place] != word:
            return slice(0, 0)
        return slice(int(self.starts[place]), int(self.starts[place + 1]))


class BM25Index:
    """Finds documents by their words (Robertson et al. 1994, with Lucene's idf).

    Args:
        analyzer: splits texts into words.

    Example:
        >>> index = BM25Index(Analyzer("english"))
        >>> index.add({"d1": "Refund of fees", "d2": "Closing an account"})
        >>> index.search("refunded fees", k=1)[0][0]
        'd1'
    """

    def __init__(self, analyzer: Analyzer) -> None:
        self.analyzer = analyzer
        self._lock = ThreadLock()
        self._ids: list[str] = []
        self._row_of: dict[str, int] = {}
        self._lengths = np.zeros(0, dtype=np.int64)
        self._marks = np.zeros(0, dtype=np.int64)
        self._alive = np.zeros(0, dtype=bool)
        self._segments: list[Segment] = []
        self._gone = _NOTHING
        self._refresh()

    def __len__(self) -> int:
        """The number of documents."""
        return len(self._row_of)

    def __contains__(self, doc_id: object) -> bool:
        return doc_id in self._row_of

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:  # what is changed in place is copied: others may write on meanwhile
            own: dict[str, Any] = {"_ids": list(self._ids), "_row_of": dict(self._row_of)}
            own |= {"_segments": list(self._segments), "_alive": self._alive.copy()}
            return self.__dict__ | own

    @property
    def ids(self) -> list[str]:
        """The documents' ids."""
        with self._lock:
            return list(self._row_of)

    @property
    def mean_length(self) -> float:
        """Mean number of words in a document."""
        return self._mean_length

    def idf(self, codes: Codes) -> NDArray[np.float64]:
        """The words' inverse document frequencies; largest for a word never seen."""
        counts = np.zeros(len(codes), dtype=np.int64)
        with self._lock:
            for segment in self._segments:
                counts += look_up(codes, segment.codes, np.diff(segment.starts))
            counts -= look_up(codes, *self._gone)
            return idf(counts, len(self))

    def add(self, texts: Mapping[str, str]) -> None:
        """Add documents; one that is there already is replaced."""
        with self._lock:
            for batch in _batches(list(texts), _BATCH):
                # Before anything is removed: a text that is none must not cost the old one.
                words = self.analyzer.codes([texts[id_] for id_ in batch])
                self.delete([id_ for id_ in batch if id_ in self._row_of])
                self._append(batch, words, [_mark(texts[id_]) for id_ in batch])
                self._merge()
            self._refresh()

    def changed(self, texts: Mapping[str, str]) -> list[str]:
        """Of these documents those that were added with another text, or that nobody marked."""
        with self._lock:
            rows = {id_: self._row_of[id_] for id_ in texts if id_ in self._row_of}
            return [id_ for id_, row in rows.items() if self._marks[row] != _mark(texts[id_])]

    def delete(self, doc_ids: Iterable[str]) -> None:
        """Remove documents; ids that are not there are passed over."""
        if isinstance(doc_ids, str):
            raise TypeError(f"doc_ids must be a list of ids, got {doc_ids!r}")
        with self._lock:
            rows = [self._row_of.pop(id_) for id_ in doc_ids if id_ in self._row_of]
            if rows:
                self._forget(rows)
                if 2 * len(self) < len(self._ids):
                    self._compact()
                self._refresh()

    def search(self, query: str, k: int) -> list[tuple[str, float]]:
        """The `k` best documents with a word of the query, best first, with their scores."""
        k = whole_number("k", k, 1)
        with self._lock:
            scores = self.scores(query)
            rows = np.flatnonzero(scores)
            if len(rows) > k:
                found = scores[rows]
                least = np.partition(found, len(found) - k)[len(found) - k]
                rows = rows[found >= least]
            best = rows[np.argsort(-scores[rows], kind="stable")][:k]
            return [(self._ids[row], float(scores[row])) for row in best]

    def scores(self, query: str) -> Float32:
        """Every row's score, 0 for removed ones and those without a word of the query."""
        codes = np.unique(np.array([code(w) for w in self.analyzer.query(query)], dtype=np.uint32))
        with self._lock:
            scores = np.zeros(len(self._ids), dtype=np.float32)
            for word, rarity in zip(codes, self.idf(codes).astype(np.float32), strict=True):
                for segment in self._segments:
                    postings = segment.postings(int(word))
                    rows, counts = segment.rows[postings], segment.counts[postings]
                    scores[rows] += rarity * counts / (counts + self._norms[rows])
            return scores

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays for a file, removed documents left out; `ids` go beside them."""
        return self.parts()[1]

    def parts(self) -> tuple[list[str], dict[str, NDArray[Any]]]:
        """Ids and arrays of one moment, while others may write."""
        with self._lock:
            self._compact()
            self._refresh()
            return list(self._ids), self._arrays()

    def _arrays(self) -> dict[str, NDArray[Any]]:
        whole = Segment.merge(self._segments) if self._segments else Segment.of(0, [])
        arrays = {name: getattr(whole, name) for name in ("codes", "starts", "rows", "counts")}
        return {**arrays, "lengths": self._lengths, "marks": self._marks}

    @classmethod
    def from_arrays(
        cls, analyzer: Analyzer, ids: Sequence[str], arrays: Mapping[str, NDArray[Any]]
    ) -> BM25Index:
        """From what `to_arrays` and `ids` gave, checked."""
        index = cls(analyzer)
        names = ("codes", "starts", "rows", "counts", "lengths")
        try:
            *parts, lengths = (arrays[name] for name in names)
        except KeyError as exc:
            raise ArtifactError(f"the BM25 index is damaged: {exc} is missing") from None
        marks = arrays.get("marks", np.full(len(ids), -1))  # an index of before has none
        segment = Segment(*parts)
        sound = (
            all(array.ndim == 1 and array.dtype.kind in "iu" for array in (*parts, lengths, marks))
            and len(ids) == len(lengths) == len(marks) == len(set(ids))
            and len(segment.starts) == len(segment.codes) + 1
            and len(segment.rows) == len(segment.counts) == segment.starts[-1]
            and (np.diff(segment.starts) > 0).all()
            and (np.diff(segment.codes.astype(np.int64)) > 0).all()
            and (segment.counts > 0).all()
            and (lengths >= 0).all()
            and (not len(segment.rows) or 0 <= segment.rows.min() <= segment.rows.max() < len(ids))
        )
        if not sound:
            raise ArtifactError("the BM25 index is damaged: its parts do not fit each other")
        index._segments = [segment] if len(ids) else []
        index._lengths, index._marks = lengths.astype(np.int64), marks.astype(np.int64)
        index._ids = list(ids)
        index._row_of = {id_: row for row, id_ in enumerate(ids)}
        index._alive = np.ones(len(ids), dtype=bool)
        index._refresh()
        return index

    def _append(self, ids: Sequence[str], words: Sequence[Codes], marks: Sequence[int]) -> None:
        first = len(self._ids)
        self._segments.append(Segment.of(first, words))
        self._ids.extend(ids)
        self._row_of.update(zip(ids, range(first, first + len(ids)), strict=True))
        self._lengths = np.append(self._lengths, [len(w) for w in words]).astype(np.int64)
        self._marks = np.append(self._marks, marks).astype(np.int64)
        self._alive = np.append(self._alive, np.ones(len(ids), dtype=bool))

    def _merge(self) -> None:
        # Sizes stay a falling geometric series: each posting is moved about log(n) times.
        while len(self._segments) > 1 and 2 * len(self._segments[-1].rows) >= len(
            self._segments[-2].rows
        ):
            last = self._segments.pop()
            self._segments[-1] = Segment.merge([self._segments[-1], last])

    def _compact(self) -> None:
        if self._alive.all() or not self._segments:
            return
        whole = Segment.merge(self._segments)
        new_row = np.cumsum(self._alive) - 1
        kept = self._alive[whole.rows]
        words = np.repeat(whole.codes, np.diff(whole.starts))[kept]
        rows = new_row[whole.rows[kept]].astype(np.int32)
        self._segments = [Segment._grouped(words, rows, whole.counts[kept])]
        self._ids = [id_ for id_, alive in zip(self._ids, self._alive, strict=True) if alive]
        self._row_of = {id_: row for row, id_ in enumerate(self._ids)}
        self._lengths, self._marks = self._lengths[self._alive], self._marks[self._alive]
        self._alive = np.ones(len(self._ids), dtype=bool)
        self._gone = _NOTHING

    def _refresh(self) -> None:
        """The mean length, and each document's length against it."""
        lengths = self._lengths[self._alive]
        self._mean_length = max(1.0, float(lengths.mean())) if len(lengths) else 1.0
        norms = K1 * (1 - B + B * self._lengths / self._mean_length)
        self._norms = np.where(self._alive, norms, np.inf).astype(np.float32)

    def _forget(self, rows: list[int]) -> None:
        """Mark rows as removed, and note which words went with them."""
        self._alive[rows] = False
        leaving = np.zeros(len(self._ids), dtype=bool)
        leaving[rows] = True
        words = [np.repeat(self._gone[0], self._gone[1])]
        words += [np.repeat(s.codes, np.diff(s.starts))[leaving[s.rows]] for s in self._segments]
        codes, counts = np.unique(np.concatenate(words), return_counts=True)
        self._gone = codes, counts.astype(np.int64)


def _mark(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def _batches(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


_GROWTH = 4


def search_within(
    index: BM25Index,
    query: str,
    k: int,
    docstore: BaseDocumentStore,
    passes: Callable[[BaseNode], bool] | None,
) -> list[tuple[str, float]]:
    """The `k` best documents whose nodes pass; None: all do."""
    if passes is None:
        return index.search(query, k)
    wanted = k
    while True:
        found = index.search(query, k)
        nodes = docstore.get_nodes([id_ for id_, _ in found], raise_error=False)
        passing = {node.node_id for node in nodes if passes(node)}
        kept = [(id_, score) for id_, score in found if id_ in passing]
        if len(kept) >= wanted or len(found) < k:
            return kept[:wanted]
        k *= _GROWTH
