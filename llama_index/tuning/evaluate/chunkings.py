"""Several ingestions of the same documents, scored by the same questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index.tuning._checks import path_or_none, share, whole_number
from llama_index.tuning._running import own_work, progress
from llama_index.tuning.datasets.checks import corpus_of, listed_nodes
from llama_index.tuning.datasets.retrieval import Remapped, RetrievalDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.evaluate.retrieval import RetrievalScores, score_rankings
from llama_index.tuning.report import Gain
from llama_index.tuning.text.passages import Place
from llama_index.tuning.vectors.embedder import Embedder
from llama_index.tuning.vectors.search import top_k

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode

Splitter = Callable[[Sequence["BaseNode"]], Sequence["BaseNode"]]
PRIMARY = "ndcg@10"
DEPTH = 10


@dataclass(frozen=True)
class Chunking:
    """One ingestion, measured.

    Attributes:
        name: of its splitter.
        nodes: how many it makes.
        words: mean number of words that the first ten nodes of a question have together: what an
            LLM would read.
        seconds: that embedding the nodes took; less where `vector_cache` had some.
        scores: of each question.
        gain: of nDCG@10 over the first ingestion; `None` for that one.
        found: how the labelled passages were found among the nodes → how many.
    """

    name: str
    nodes: int
    words: float
    seconds: float
    scores: RetrievalScores
    gain: Gain | None
    found: dict[str, int]


@dataclass(frozen=True)
class ChunkingComparison:
    """Ingestions side by side, on the questions whose answers all of them have.

    Attributes:
        chunkings: in the order given; the first is what the others are compared with.
        queries: how many questions they were measured on.
        left_out: ids of questions whose passages some ingestion lacks.
    """

    chunkings: list[Chunking]
    queries: int
    left_out: list[str]

    @property
    def best(self) -> str:
        """The name of the one with the largest gain that is shown; the first if none is."""
        shown = [c for c in self.chunkings if c.gain is not None and c.gain.low > 0]
        return max(shown, key=lambda c: c.scores.mean()[PRIMARY], default=self.chunkings[0]).name

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; of the scores the means."""
        rows = [
            {
                **{name: getattr(one, name) for name in ("name", "nodes", "words", "seconds")},
                "scores": one.scores.mean(),
                "gain": None if one.gain is None else asdict(one.gain),
                "found": one.found,
            }
            for one in self.chunkings
        ]
        return {"chunkings": rows, "queries": self.queries, "left_out": self.left_out}

    def __str__(self) -> str:
        width = max(len(one.name) for one in self.chunkings)
        confidence = next((c.gain.confidence for c in self.chunkings if c.gain), 0.9)
        title = f"gain ({confidence:.1%} interval)"
        lines = [
            f"{'chunks':<{width}}  nodes  words@10  nDCG@10  hit@5  {title:<28}  embed s",
        ]
        for one in self.chunkings:
            means, gain = one.scores.mean(), "–"
            if one.gain is not None:
                gain = f"{one.gain.mean:+.3f} ({one.gain.low:+.3f} to {one.gain.high:+.3f})"
            lines.append(
                f"{one.name:<{width}}  {one.nodes:>5}  {one.words:>8.0f}  {means[PRIMARY]:>7.3f}  "
                f"{means['hit_rate@5']:>5.3f}  {gain:<28}  {one.seconds:>7.1f}"
            )
        lost = f"; {len(self.left_out)} left out, whose passages some lack" if self.left_out else ""
        return "\n".join([*lines, f"{self.queries} questions{lost}; best shown: {self.best}"])


@own_work
def compare_chunkings(
    documents: Sequence[BaseNode],
    splitters: Mapping[str, Splitter] | Sequence[Splitter],
    questions: RetrievalDataset | Any,
    *,
    embed_model: BaseEmbedding | None = None,
    vector_cache: str | PathLike[str] | None = None,
    confidence: float = 0.9,
    num_workers: int = 1,
    seed: int = 0,
    show_progress: bool = False,
) -> ChunkingComparison:
    """Which way to cut documents finds the answers best: the same questions over each.

    Labels are tied to the passages' texts, so those of one ingestion measure any other. A passage
    that lies whole in several nodes is found with the first of them; one that is spread over
    several, with each of them in part. Search is exact, by cosine. Larger chunks find more easily
    and give an LLM more to read: the table says how many words.

    Args:
        documents: LlamaIndex's.
        splitters: name → a node parser, or any function from documents to nodes; without names
            they go by their class and chunk size. The first is what the others are compared with.
        questions: a `RetrievalDataset` over any ingestion of the documents, or a table with the
            columns `question` and `passage`; see `RetrievalDataset.from_table`.
        embed_model: `Settings.embed_model` by default.
        vector_cache: a file that keeps vectors between runs.
        confidence: of all intervals together: with more than two splitters each is wider.
        num_workers: concurrent calls, for models behind an API.
        seed: of the intervals.
        show_progress: show bars.

    Raises:
        DatasetError: a splitter makes no node, or no question has its passages in all of them.

    Example:
        >>> from llama_index.core import Document, MockEmbedding
        >>> from llama_index.core.node_parser import SentenceSplitter
        >>> documents = [Document(text="The fee is 5 euros. " * 30 + "Cards are free. " * 30)]
        >>> splitters = [SentenceSplitter(chunk_size=n, chunk_overlap=0) for n in (128, 64)]
        >>> asked = [{"question": "Is a card free?", "passage": "Cards are free. Cards are free."}]
        >>> found = compare_chunkings(documents, splitters, asked, embed_model=MockEmbedding(4))
        >>> [(one.name, one.nodes) for one in found.chunkings]
        [('SentenceSplitter 128/0', 4), ('SentenceSplitter 64/0', 7)]
    """
    given = listed_nodes(documents)
    named = _named(splitters)
    share("confidence", confidence)
    num_workers = whole_number("num_workers", num_workers, 1)
    if not hasattr(questions, "relevant_docs"):
        questions = RetrievalDataset.from_table(questions)
    dataset = RetrievalDataset.coerce(questions)
    embedder = Embedder(
        _model(embed_model),
        known={},
        cache=path_or_none("vector_cache", vector_cache),
        num_workers=num_workers,
        show_progress=show_progress,
    )
    tied = {name: _tied(name, split, given, dataset) for name, split in named.items()}
    gone = {id_ for found in tied.values() for id_ in found.gone}
    kept = dataset.subset([id_ for id_ in dataset.queries if id_ not in gone])
    if not len(kept):
        raise DatasetError(
            f"none of {len(dataset)} questions has its passages in every one of "
            f"{len(named)} ingestions"
        )
    queries = embedder.queries(list(kept.queries.values()))
    rows: list[Chunking] = []
    for name, found in progress(list(tied.items()), show_progress, "Chunkings"):
        base = rows[0].scores if rows else None
        level = 1 - (1 - confidence) / max(1, len(named) - 1)
        rows.append(_measured(name, found, kept, queries, embedder, base, level, seed))
    return ChunkingComparison(rows, len(kept), sorted(gone))


def _named(splitters: Any) -> dict[str, Splitter]:
    if isinstance(splitters, Mapping):
        named = dict(splitters)
    elif isinstance(splitters, Sequence) and not isinstance(splitters, (str, bytes)):
        named = {_name(splitter): splitter for splitter in splitters}
        if len(named) < len(splitters):
            raise ValueError(
                "splitters has two of one class and size; pass a dictionary name → splitter"
            )
    else:
        raise TypeError(
            "splitters must be a list of node parsers, or a dictionary name → node parser, "
            f"got {type(splitters).__name__}"
        )
    if len(named) < 2:
        raise ValueError(f"splitters must hold at least 2 to compare, got {len(named)}")
    for name, splitter in named.items():
        if not callable(splitter):
            raise TypeError(
                f"splitters[{name!r}] must be a node parser or a function from documents to "
                f"nodes, got {type(splitter).__name__}"
            )
    return named


def _name(splitter: Any) -> str:
    name = getattr(splitter, "__name__", type(splitter).__name__)
    sizes = [getattr(splitter, part, None) for part in ("chunk_size", "chunk_overlap")]
    return " ".join([name, "/".join(str(size) for size in sizes if size is not None)]).strip()


def _model(embed_model: BaseEmbedding | None) -> BaseEmbedding:
    if embed_model is not None:
        return embed_model
    from llama_index.core import Settings

    return Settings.embed_model


def _tied(
    name: str, split: Splitter, documents: Sequence[BaseNode], dataset: RetrievalDataset
) -> Remapped:
    nodes = listed_nodes(split(documents))
    if len(corpus_of(nodes)) < 2:
        raise DatasetError(f"splitter {name!r} makes {len(nodes)} nodes; there is nothing to rank")
    try:
        return dataset.remap(nodes)
    except DatasetError as exc:
        raise DatasetError(f"splitter {name!r}: {exc}") from None


def _measured(
    name: str,
    found: Remapped,
    kept: RetrievalDataset,
    queries: Any,
    embedder: Embedder,
    base: RetrievalScores | None,
    confidence: float,
    seed: int,
) -> Chunking:
    corpus = found.dataset.corpus
    ids, texts = list(corpus), list(corpus.values())
    begun = time.perf_counter()
    vectors = embedder.documents(texts)
    seconds = time.perf_counter() - begun
    ranked, _ = top_k(queries, vectors, DEPTH)
    rankings, relevant = [], []
    for row, labels in zip(ranked.tolist(), kept.relevant_docs.values(), strict=True):
        wanted = _wanted(labels, found.places)
        rankings.append(_first_named(([ids[place] for place in row]), wanted))
        relevant.append({name for names in wanted.values() for name in names})
    scores = score_rankings(list(kept.queries), rankings, relevant)
    lengths = np.array([len(text.split()) for text in texts])
    gain = None
    if base is not None:
        before, after = base.values[PRIMARY], scores.values[PRIMARY]
        gain = paired_gain(before, after, confidence=confidence, seed=seed)
    words = float(lengths[ranked].sum(axis=1).mean())
    return Chunking(name, len(ids), words, seconds, scores, gain, found.counts)


def _wanted(labels: Iterable[str], places: Mapping[str, Place]) -> dict[str, list[str]]:
    """Node id → what of the labelled passages it holds: a whole one, or its part."""
    wanted: dict[str, list[str]] = {}
    for label in labels:
        place = places[label]
        for id_ in place.ids:
            part = f"{label} in {id_}" if place.how == "split" else label
            wanted.setdefault(id_, []).append(part)
    return wanted


def _first_named(ranking: Sequence[str], wanted: Mapping[str, Sequence[str]]) -> list[str]:
    """The ranking by what its nodes hold, each passage where it is first found."""
    named: dict[str, None] = {}
    for id_ in ranking:
        new = [name for name in wanted.get(id_, ()) if name not in named]
        named.update(dict.fromkeys(new or [f"node {id_}"]))
    return list(named)
