"""What a light judge looks at: lengths, support by the contexts, overlaps, cosines.

What a query and a response are about: their vectors' main directions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llama_index.tuning._arrays import Float32, Float64, Ints
from llama_index.tuning._running import cached_property
from llama_index.tuning.text.segmentation import sentences
from llama_index.tuning.text.statistics import Codes, WordStatistics
from llama_index.tuning.text.words import Analyzer, is_number
from llama_index.tuning.vectors.search import unit_rows

if TYPE_CHECKING:
    from llama_index.tuning.vectors.embedder import Embedder


DIRECTIONS = 32
ITEMS_A_DIRECTION = 10
"""Fewer items give fewer directions."""


@dataclass(frozen=True, eq=False)
class Topics:
    """Principal directions of the vectors that a judge was trained on; no label was looked at.

    For single responses; between two to one query they made cross-fitted judges worse.

    Attributes:
        queries: shape `(a, dim)`; `a` is 0 if there are no queries.
        responses: shape `(b, dim)`.
    """

    queries: Float32
    responses: Float32

    @property
    def columns(self) -> list[str]:
        """A feature's name for each direction."""
        return [f"topic: query {i}" for i in range(len(self.queries))] + [
            f"topic: response {i}" for i in range(len(self.responses))
        ]

    def of(self, query: Float32 | None, response: Float32) -> list[float]:
        """Where one query and one response lie along each, shape `(a + b,)`."""
        asked = np.zeros(len(self.queries)) if query is None else self.queries @ query
        return [*asked.tolist(), *(self.responses @ response).tolist()]


def main_directions(vectors: Float32) -> Float32:
    """The principal directions of distinct vectors (Pearson 1901), shape `(k, dim)`."""
    count = min(DIRECTIONS, len(vectors) // ITEMS_A_DIRECTION)
    centred = vectors - vectors.mean(axis=0)
    directions: Float32 = np.linalg.svd(centred, full_matrices=False)[2][:count]
    return directions.astype(np.float32)


Known = dict[str, NDArray[np.float32]]

_LENGTH = ("length: words", "length: sentences", "length: letters a word")
_STYLE = (
    "style: numbers",
    "style: capitals",
    "style: lines",
    "style: question marks",
    "style: distinct words",
    "style: rarity",
)
_QUERY = ("overlap: with the query", "overlap: of the query", "query: words")
_CONTEXTS = (
    "overlap: words in the contexts",
    "overlap: pairs of words in the contexts",
    "support: verbatim",
    "support: words of neither",
    "support: numbers of neither",
    "support: in the contexts alone",
    "support: weakest sentence",
    "contexts: words",
)
_REFERENCE = (
    "overlap: with the reference",
    "overlap: of the reference",
    "reference: numbers missing",
)
_COSINE_QUERY = ("cosine: query",)
_COSINE_CONTEXTS = (
    "cosine: nearest context sentence, lowest",
    "cosine: nearest context sentence, mean",
    "cosine: query to the nearest context sentence",
)
_COSINE_REFERENCE = ("cosine: reference",)


@dataclass(frozen=True)
class Vectors:
    """Unit vectors by text; a model may embed queries in another way than documents."""

    queries: Known
    texts: Known


@dataclass(frozen=True)
class FeatureMaker:
    """Turns a query, its contexts and a response into numbers.

    Attributes:
        analyzer: splits texts into words.
        statistics: how common each word is; words weigh by their inverse document frequency.
        contexts: whether answers come with contexts.
        reference: whether they come with a right answer.
        embedded: whether vectors of the texts are there.
        style: whether to look at numbers, capitals, lines and the like. Between two responses
            they made cross-fitted judges worse.
        topics: directions along which queries and responses are placed, if any.

    Example:
        >>> maker = FeatureMaker(Analyzer(), WordStatistics(), contexts=True)
        >>> text = maker.text("The fee is 5 euros.")
        >>> maker.support(text, maker.joined(["Fee: 7 euros"])).round(2).tolist()
        [0.67, 0.0]
    """

    analyzer: Analyzer
    statistics: WordStatistics
    contexts: bool = False
    reference: bool = False
    embedded: bool = False
    style: bool = True
    topics: Topics | None = None

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The features' names, in the order of the table; before `": "` their kind."""
        names = [*_LENGTH, *(_STYLE if self.style else ()), *_QUERY]
        names += _CONTEXTS if self.contexts else ()
        names += _REFERENCE if self.reference else ()
        if self.embedded:
            names += _COSINE_QUERY
            names += _COSINE_CONTEXTS if self.contexts else ()
            names += _COSINE_REFERENCE if self.reference else ()
        if self.topics is not None:
            names += self.topics.columns
        return tuple(names)

    def table(self, items: Sequence[Any], vectors: Vectors | None = None) -> Float64:
        """Features of each item's response, shape `(n, columns)`; of a pair, the difference.

        Args:
            items: judgments, or objects with the same fields.
            vectors: for the texts of `texts_to_embed(items)`.
        """
        rows = np.zeros((len(items), len(self.columns)))
        for row, item in enumerate(items):
            rows[row] = self.row(item, item.response, vectors)
            if item.second_response is not None:
                rows[row] -= self.row(item, item.second_response, vectors)
        return rows

    def row(self, item: Any, response: str, vectors: Vectors | None) -> Float64:
        """Features of one response to the item's query, shape `(columns,)`."""
        text, query = self.text(response), self.text(item.query or "")
        values = [*_lengths(text), *(self._style(text) if self.style else ())]
        values += [*self.support(text, query)[:1], *self.support(query, text)[:1]]
        values.append(np.log1p(len(query.words)))
        if self.contexts:
            values += self._supported(text, query, self.joined(item.contexts))
        if self.reference:
            reference = self.text(item.reference)
            missing = reference.numbers - text.numbers
            values += [self.support(text, reference)[0], self.support(reference, text)[0]]
            values.append(np.log1p(len(missing)))
        if self.embedded:
            assert vectors is not None
            values += self._cosines(item, response, vectors)
        return np.array(values, dtype=np.float64)

    def text(self, raw: str) -> Text:
        """A text, taken apart."""
        return Text(raw, self.analyzer)

    def joined(self, texts: Iterable[str]) -> Text:
        """Several texts as one."""
        return self.text("\n".join(texts))

    def support(self, text: Text, source: Text) -> Float64:
        """Share of the text's content words, by rarity, and of its pairs of words, in the source.

        Shape `(2,)`, each from 0 to 1; 1 if the text has none.
        """
        rarity = self.statistics.idf(text.content)
        found = np.isin(text.content, source.codes)
        words = float(rarity[found].sum() / rarity.sum()) if len(rarity) else 1.0
        pairs = float(np.isin(text.pairs, source.pairs).mean()) if len(text.pairs) else words
        return np.array([words, pairs])

    def sentence_support(self, response: str, contexts: Sequence[str]) -> list[tuple[str, float]]:
        """Each sentence of the response with its support by the contexts, from 0 to 1."""
        source = self.joined(contexts)
        return [
            (part, float(self.support(self.text(part), source)[0])) for part in sentences(response)
        ]

    def _style(self, text: Text) -> list[float]:
        count = max(1, len(text.words))
        letters = sum(map(str.isalpha, text.raw))
        rarity = self.statistics.idf(text.content)
        return [
            sum(map(is_number, text.words)) / count,
            sum(map(str.isupper, text.raw)) / max(1, letters),
            np.log1p(text.raw.count("\n")),
            np.log1p(text.raw.count("?") + text.raw.count("？")),
            len(set(text.words)) / count,
            float(rarity.mean()) if len(rarity) else 0.0,
        ]

    def _supported(self, text: Text, query: Text, source: Text) -> list[float]:
        both = np.concatenate([source.codes, query.codes])
        words, pairs = self.support(text, source)
        alone = np.isin(text.content, source.codes) & ~np.isin(text.content, query.codes)
        each = [self.support(self.text(part), source)[0] for part in sentences(text.raw)]
        plain, whole = " ".join(text.words), " ".join(source.words)
        return [
            words,
            pairs,
            float(f" {plain} " in f" {whole} "),
            np.log1p((~np.isin(text.content, both)).sum()),
            np.log1p(len(text.numbers - source.numbers - query.numbers)),
            float(alone.mean()) if len(alone) else 0.0,
            min(each, default=1.0),
            np.log1p(len(source.words)),
        ]

    def _cosines(self, item: Any, response: str, vectors: Vectors) -> list[float]:
        answer, query = vectors.texts.get(response), vectors.queries.get(item.query or "")
        if answer is None:  # blank: no model embeds it
            return [0.0] * sum(name.startswith(("cosine: ", "topic: ")) for name in self.columns)
        values = [0.0 if query is None else float(query @ answer)]
        if self.contexts:
            sources = np.stack([vectors.texts[s] for s in context_sentences(item.contexts)])
            parts = np.stack([vectors.texts[s] for s in sentences(response)])
            nearest = (parts @ sources.T).max(axis=1)
            asked = 0.0 if query is None else float((sources @ query).max())
            values += [float(nearest.min()), float(nearest.mean()), asked]
        if self.reference:
            values.append(float(vectors.texts[item.reference] @ answer))
        if self.topics is not None:
            values += self.topics.of(query, answer)
        return values

    def texts_to_embed(self, items: Sequence[Any]) -> tuple[list[str], list[str]]:
        """The distinct queries and the distinct other texts whose vectors `table` needs."""
        queries = dict.fromkeys(item.query for item in items if (item.query or "").strip())
        texts: dict[str, None] = {}
        for item in items:
            wanted = [r for r in (item.response, item.second_response) if r and r.strip()]
            if self.contexts:
                wanted += [part for response in wanted for part in sentences(response)]
                wanted += context_sentences(item.contexts)
            if self.reference:
                wanted.append(item.reference)
            texts.update(dict.fromkeys(wanted))
        return list(queries), list(texts)


def vectors_for(maker: FeatureMaker, items: Sequence[Any], embedder: Embedder) -> Vectors:
    """Unit vectors of what the features need, each text embedded once."""
    queries, texts = maker.texts_to_embed(items)
    found = []
    for wanted, embed in ((queries, embedder.queries), (texts, embedder.documents)):
        found.append(dict(zip(wanted, unit_rows(embed(wanted)), strict=True)) if wanted else {})
    return Vectors(*found)


class Text:
    """A text, taken apart once: what is not asked for is not computed."""

    def __init__(self, raw: str, analyzer: Analyzer) -> None:
        self.raw = raw
        self._analyzer = analyzer

    @cached_property
    def words(self) -> list[str]:
        """The stemmed words, in order."""
        return self._analyzer.words(self.raw)

    @cached_property
    def codes(self) -> Codes:
        """The words' codes, shape `(words,)`."""
        return self._analyzer.codes([self.raw])[0]

    @cached_property
    def content(self) -> Codes:
        """Codes of the distinct words that are no stop words, shape `(m,)`."""
        stops = self._analyzer.query(self.raw)
        return np.unique(self._analyzer.codes([" ".join(stops)])[0]) if stops else self.codes[:0]

    @cached_property
    def pairs(self) -> NDArray[np.uint64]:
        """Codes of neighbouring words, shape `(words - 1,)`."""
        wide = self.codes.astype(np.uint64)
        both: NDArray[np.uint64] = (wide[:-1] << np.uint64(32)) | wide[1:]
        return both

    @cached_property
    def numbers(self) -> set[str]:
        """The words that begin with a digit."""
        return set(filter(is_number, self.words))


def context_sentences(contexts: Sequence[str]) -> list[str]:
    """The distinct sentences of all contexts, in order."""
    return list(dict.fromkeys(part for text in contexts for part in sentences(text)))


def statistics_of(items: Sequence[Any], analyzer: Analyzer) -> WordStatistics:
    """Word statistics over the distinct contexts, queries and responses of the items."""
    texts = list(dict.fromkeys(text for item in items for text in _texts_of(item)))
    # What is rare is left out, so that a judge's folder stays small.
    return WordStatistics.of(analyzer.codes(texts)).common()


def table_as_new(
    maker: FeatureMaker, items: Sequence[Any], vectors: Vectors | None, fold: Ints
) -> Float64:
    """The features of items whose own words, like an answer's to come, are not counted yet.

    Each fold's by the statistics of the others' texts; shape `(n, columns)`.
    """
    numbers: dict[str, int] = {}
    own = [[numbers.setdefault(t, len(numbers)) for t in _texts_of(item)] for item in items]
    codes = maker.analyzer.codes(list(numbers))
    table = np.zeros((len(items), len(maker.columns)))
    for part in np.unique(fold):
        others = {text for row in np.flatnonzero(fold != part) for text in own[row]}
        statistics = WordStatistics.of([codes[text] for text in sorted(others)]).common()
        rows = np.flatnonzero(fold == part).tolist()
        unseen = replace(maker, statistics=statistics)
        table[rows] = unseen.table([items[row] for row in rows], vectors)
    return table


def _texts_of(item: Any) -> Iterator[str]:
    return filter(None, [*(item.contexts or ()), item.query, item.response, item.second_response])


def _lengths(text: Text) -> list[float]:
    count = len(text.words)
    return [
        np.log1p(count),
        np.log1p(len(sentences(text.raw))),
        sum(map(str.isalnum, text.raw)) / max(1, count),
    ]
