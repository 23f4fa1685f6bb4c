"""Optional parts, learnt: each question is measured by a part that had not seen it.

An adapter of both sides is cross-fitted like any adapter. What is trained by gradient takes minutes
rather than seconds: it is trained on each half of the questions and measured on the other, and
trained once more on all of them if it is served.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.postprocessor.types import BaseNodePostprocessor

from llama_index.tuning._arrays import Float32, Ints
from llama_index.tuning.app.ladder.adapters import Adapters
from llama_index.tuning.app.ladder.search import Search
from llama_index.tuning.app.parts.served import (
    CORPUS_SIDE,
    EMBEDDING_MODEL,
    ServedPart,
    corpus_side,
    embedding_model,
    trained,
)
from llama_index.tuning.app.questions import Questions
from llama_index.tuning.app.see import SeenApp
from llama_index.tuning.artifacts import CONFIG
from llama_index.tuning.datasets.retrieval import RetrievalDataset
from llama_index.tuning.embeddings.adapter.saved import Adapter
from llama_index.tuning.vectors.embedder import Embedder
from llama_index.tuning.vectors.identity import base_name, model_signature
from llama_index.tuning.vectors.search import unit_rows

CROSS_ENCODER_BASE = "cross-encoder/ms-marco-MiniLM-L6-v2"
"""What a cross-encoder is tuned from, if no other is named."""
BATCH = 32
"""Pairs in a step of an embedding model's training, of few questions a quarter of them."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Some questions as a part that had not seen them embeds them.

    Attributes:
        rows: of the questions.
        queries: their vectors, shape `(len(rows), dim)`.
        documents: the nodes' vectors by the same part, unit rows; `None` if they are the index's.
    """

    rows: Ints
    queries: Float32
    documents: Float32 | None = None


class CorpusSide:
    """An adapter of both sides."""

    name = CORPUS_SIDE

    def __init__(self, seen: SeenApp, adapters: Adapters, questions: Questions) -> None:
        self.seen, self.adapters, self.questions = seen, adapters, questions
        self._found: Any = None

    def held_out(self) -> Iterator[HeldOut]:
        """Fold by fold."""
        from llama_index.tuning.embeddings.adapter.cross_fit import cross_fit
        from llama_index.tuning.embeddings.adapter.fit import make_adapter, map_vectors

        given, fold = self.adapters, self.questions.fold
        options = replace(given.options, side="both", folds=len(np.unique(fold)))
        found = cross_fit(
            lambda: make_adapter(given.documents.shape[1], options),
            given.pairs,
            given.documents,
            options,
            groups=fold.tolist(),
            unlabelled=given.sentences,
        )
        self._found = found
        for number, adapter in enumerate(found.adapters):
            rows = np.flatnonzero(found.fold == number)
            documents = unit_rows(map_vectors(adapter, given.documents))
            yield HeldOut(rows, unit_rows(found.queries[rows]), documents)

    def served(self) -> ServedPart:
        """The adapter of all questions."""
        from llama_index.tuning.embeddings.adapter.modules import map_of_module

        documents, model = self.adapters.documents, self.seen.embed_model
        assert model is not None
        adapter = Adapter(
            map_of_module(self._found.adapter, dim=documents.shape[1]),
            side="both",
            base_model=base_name(model),
            details={"accepted": True, "signature": model_signature(model)},
        )
        return corpus_side(self.seen, adapter, documents)


Train = Callable[[RetrievalDataset, RetrievalDataset | None, Path], None]
"""Trains on the first questions, decides nothing on the second, and writes a folder."""


@dataclass(eq=False)
class TrainedPart:
    """A part that is trained by gradient.

    Args:
        name: of the part.
        train: trains it.
        seen: the app.
        questions: that it learns from.
        folder: where finished trainings are kept for a run that was killed; `None` keeps nothing.
        search: finds what a cross-encoder orders.
        vectors: of the questions, by the app's model.
    """

    name: str
    train: Train
    seen: SeenApp
    questions: Questions
    folder: Path | None
    search: Search
    vectors: Float32 | None
    _place: Any = field(default_factory=lambda: tempfile.TemporaryDirectory(prefix="tuned_part."))

    def held_out(self) -> Iterator[HeldOut]:
        """Half by half, of an embedding model."""
        for rows, part in self._halves():
            model = cast(BaseEmbedding, part.component)
            queries = Embedder(model).queries([self.questions.texts[row] for row in rows.tolist()])
            documents = None if part.documents is None else unit_rows(part.documents)
            yield HeldOut(rows, queries, documents)

    def rankings(self) -> tuple[list[list[str]], float]:
        """Each question's nodes, as a cross-encoder that had not seen it orders them.

        Returns:
            The nodes' ids, and the milliseconds a question.
        """
        found: list[list[str]] = [[]] * len(self.questions)
        spent = 0.0
        for rows, part in self._halves():
            reranker = cast(BaseNodePostprocessor, part.component)
            texts = [self.questions.texts[row] for row in rows.tolist()]
            vectors = None if self.vectors is None else self.vectors[rows]
            started = time.perf_counter()
            ordered = self.search.ordered(reranker, texts, vectors)
            spent += time.perf_counter() - started
            for row, ids in zip(rows.tolist(), ordered, strict=True):
                found[row] = ids
        return found, round(1000 * spent / len(found), 2)

    def served(self) -> ServedPart:
        """Trained on all questions."""
        part = self._trained("all", self.questions.dataset, None, keep=True)
        return replace(part, place=self._place)

    def _halves(self) -> Iterator[tuple[Ints, ServedPart]]:
        half = self.questions.fold % 2
        for number in np.unique(half).tolist():
            taught, rows = np.flatnonzero(half != number), np.flatnonzero(half == number)
            yield rows, self._trained(f"half-{number}", self._of(taught), self._of(rows))

    def _of(self, rows: Ints) -> RetrievalDataset:
        ids = list(self.questions.dataset.queries)
        return self.questions.dataset.subset([ids[row] for row in rows.tolist()])

    def _trained(
        self,
        which: str,
        data: RetrievalDataset,
        held_out: RetrievalDataset | None,
        *,
        keep: bool = False,
    ) -> ServedPart:
        """A finished training of an earlier run, or a new one; `keep` it when the run is over."""
        within = Path(self._place.name) if self.folder is None or keep else self.folder / "parts"
        folder = within / f"{self.name}-{which}-{data.fingerprint()[:12]}"
        if not (folder / CONFIG).exists():
            self.train(data, held_out, folder)
        if self.name == EMBEDDING_MODEL:
            return embedding_model(self.seen, folder)
        return trained(self.name, folder, self.seen)


def prompts_in(model: Any) -> dict[str, Any]:
    """What the app's `HuggingFaceEmbedding` puts before texts, as options of its engines."""
    own = model._model.prompts
    return {
        "query_prompt": own.get("query") or "",
        "document_prompt": own.get("text") or "",
    }


def train_embedding_model(model: Any, *, show_progress: bool) -> Train:
    """All weights of the app's own sentence-transformers model."""
    from llama_index.tuning.embeddings.full.engine import SentenceTransformersFinetuneEngine
    from llama_index.tuning.embeddings.full.options import SentenceTransformersOptions

    def train(data: RetrievalDataset, held_out: RetrievalDataset | None, folder: Path) -> None:
        SentenceTransformersFinetuneEngine(
            data,
            model.model_name,
            folder,
            batch_size=max(2, min(BATCH, len(data) // 4)),
            val_dataset=held_out,
            options=SentenceTransformersOptions(**prompts_in(model)),
            accept="always",
            show_progress=show_progress,
        ).finetune()

    return train


def train_query_encoder(model: Any, seen: SeenApp, seed: int, *, show_progress: bool) -> Train:
    """The app's own sentence-transformers model, for questions alone, over the index's vectors."""
    from llama_index.tuning.embeddings.query.engine import QueryEncoderFinetuneEngine
    from llama_index.tuning.embeddings.query.options import QueryEncoderOptions

    def train(data: RetrievalDataset, held_out: RetrievalDataset | None, folder: Path) -> None:
        QueryEncoderFinetuneEngine(
            data,
            model.model_name,
            vectors=seen.index,
            model_output_path=folder,
            val_dataset=held_out,
            options=QueryEncoderOptions(folds=2, seed=seed, **prompts_in(model)),
            unlabelled=seen.texts,
            accept="always",
            show_progress=show_progress,
        ).finetune()

    return train


def train_cross_encoder(model_id: str, search: Search, seed: int, *, show_progress: bool) -> Train:
    """A cross-encoder, on what the app's retriever and BM25 find."""
    from llama_index.tuning.rerankers.cross.engine import CrossEncoderFinetuneEngine
    from llama_index.tuning.rerankers.cross.options import CrossEncoderOptions

    def train(data: RetrievalDataset, held_out: RetrievalDataset | None, folder: Path) -> None:
        CrossEncoderFinetuneEngine(
            data,
            model_id,
            folder,
            val_dataset=held_out,
            retriever=search.served,
            options=CrossEncoderOptions(held_out=0.1, language=search.analyzer.language, seed=seed),
            accept="always",
            show_progress=show_progress,
        ).finetune()

    return train
