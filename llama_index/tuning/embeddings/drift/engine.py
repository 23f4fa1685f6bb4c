"""The engine that serves a new embedding model on vectors that an old one has stored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index.tuning._arrays import Ints
from llama_index.tuning._checks import (
    check_options,
    of_type,
    output_path,
    path_or_none,
    plain_arguments,
    whole_number,
)
from llama_index.tuning.base import OVERRIDE, BaseEmbeddingFinetuneEngine, Clock, FinetuneEngine
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets.tuned_parts import refuse_learnt
from llama_index.tuning.embeddings.adapter.data import documents_of, of_index
from llama_index.tuning.embeddings.adapter.maps import LinearMap
from llama_index.tuning.embeddings.adapter.measure import gains, positive_rows
from llama_index.tuning.embeddings.adapter.model import AdapterEmbeddingModel
from llama_index.tuning.embeddings.adapter.saved import Adapter, run_details
from llama_index.tuning.embeddings.drift.fit import (
    KEPT,
    KEPT_OF_OTHERS,
    Asked,
    Probes,
    Texts,
    agreement,
    choose,
    fit_document_map,
    fit_query_map,
    kept_of,
)
from llama_index.tuning.embeddings.drift.options import MIN_TEXTS, DriftOptions
from llama_index.tuning.errors import DatasetError, TuningError, VectorError
from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.evaluate.retrieval import evaluate_vectors
from llama_index.tuning.gate import Accept, check_accept
from llama_index.tuning.generate.sentences import generate_sentence_queries
from llama_index.tuning.report import FinetuneReport, Gain, Gains, QueryGain
from llama_index.tuning.vectors.embedder import Embedder, document_vectors, known_vectors
from llama_index.tuning.vectors.identity import base_name, model_signature
from llama_index.tuning.vectors.memory import Known
from llama_index.tuning.vectors.search import unit_rows

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

K = 10
AGREEMENT = f"new_model_recall@{K}"
ENOUGH = 0.97
"""Share of what re-indexing would find; below it the report advises to re-index."""
HELD_OUT = 0.25
"""Share of the texts that the report is measured on."""


class DriftAdapterFinetuneEngine(FinetuneEngine, BaseEmbeddingFinetuneEngine):
    """Serves a new embedding model on an index that an old one filled, without re-embedding it.

    Learns a map from the new model's vectors into the old model's space from a sample of texts
    that both have embedded, in seconds; the dimensions may differ. The tuned component is the new
    model with that map: its query vectors search the old index, and its text vectors may be added
    to it. Re-embedding can then wait (Drift-Adapter, arXiv 2509.23471; `fit.py` says how this
    differs from it).

    Args:
        texts: a sample of what the index holds: nodes, a dictionary id → text, or texts. A few
            times as many as the old vectors have dimensions are enough.
        new_model: the model to serve.
        old_model: the model that made the stored vectors. Without it `vectors` must hold the
            sample's, and the comparison uses the texts themselves as queries.
        vectors: where the old vectors are: an index, a vector store, or a dictionary id →
            vector. Only the rest is embedded by `old_model`.
        val_dataset: labelled questions over the old index, to measure on; needs `old_model`.
            Without them the report says how much of what the new model finds is found.
        options: how to learn; see `DriftOptions`.
        model_output_path: folder for the map and its report, replaced when the run succeeds;
            `None` writes nothing.
        vector_cache: a file that keeps vectors between runs.
        accept: `"gain"` takes the new model only if searching the old vectors with it is shown
            to be better than keeping the old model; `"always"` does so whatever was measured.
        num_workers: concurrent calls, for models behind an API.
        show_progress: show bars.

    Example:
        >>> engine = DriftAdapterFinetuneEngine(
        ...     nodes, new_model, old_model, vectors=index
        ... )  # doctest: +SKIP
        >>> print(engine.finetune())  # doctest: +SKIP
        >>> retriever = index.as_retriever(
        ...     embed_model=engine.get_finetuned_model()
        ... )  # doctest: +SKIP
    """

    kept = "old model"
    libraries = ("numpy",)
    reopens = True

    @plain_arguments
    def __init__(
        self,
        texts: Mapping[str, str] | Sequence[BaseNode] | Sequence[str],
        new_model: BaseEmbedding,
        old_model: BaseEmbedding | None = None,
        *,
        vectors: Any = None,
        val_dataset: RetrievalDataset | Any | None = None,
        options: DriftOptions | None = None,
        model_output_path: str | PathLike[str] | None = "tuned_drift_adapter",
        vector_cache: str | PathLike[str] | None = None,
        accept: Accept = "gain",
        num_workers: int = 1,
        show_progress: bool = False,
    ) -> None:
        check_accept(accept)
        of_type("new_model", new_model, BaseEmbedding, "a BaseEmbedding")
        if old_model is not None:
            of_type("old_model", old_model, BaseEmbedding, "a BaseEmbedding")
        if isinstance(vectors, (np.ndarray, str, Path)):
            raise TypeError(
                "vectors must be an index, a vector store or a dictionary id → vector: an array "
                "does not say which text a row is of"
            )
        self.texts = texts
        self.new_model = new_model
        self.old_model = old_model
        self.vectors = vectors
        self.val_dataset = val_dataset
        self.options = check_options(options, DriftOptions)
        self.model_output_path = output_path(model_output_path)
        self.vector_cache = path_or_none("vector_cache", vector_cache)
        self.accept = accept
        self.num_workers = whole_number("num_workers", num_workers, 1)
        self.show_progress = show_progress

    def _check(self) -> None:
        if self.old_model is None and self.vectors is None:
            raise ValueError("old_model and vectors are both None; where are the old vectors?")
        if self.old_model is None and self.val_dataset is not None:
            raise ValueError("val_dataset needs old_model, whose answers it compares with")
        self._known: dict[int, Known] = {}
        self._corpus = documents_of(self.texts, "texts")
        if len(self._corpus) < MIN_TEXTS:
            raise DatasetError(
                f"{len(self._corpus)} texts are too few; at least {MIN_TEXTS} are needed"
            )
        given = self.val_dataset
        asked = None if given is None else RetrievalDataset.coerce(given, "val_dataset")
        self._questions, self._moved = of_index(asked, self.vectors, "val_dataset")
        for model in (self.new_model, self.old_model):
            refuse_learnt(model, self._questions.queries.values() if self._questions else ())

    def _tune(self, clock: Clock) -> FinetuneReport:
        seed = self.options.seed
        with clock.step("embed"):
            ids, texts = self._sample()
            probes = self._probes(ids, texts)
            self._signature = model_signature(self.new_model)
        fitted, held = _split(len(texts), seed)
        with clock.step("learn"):
            choice = choose(self.options.kind, texts.take(fitted), probes.of(fitted), K, seed)
            tried = fit_query_map(texts.take(fitted), choice)
            # The maps that are served learn from the held-out texts as well.
            self._adapter = Adapter(
                fit_query_map(texts, choice),
                base_model=base_name(self.new_model),
                document_map=fit_document_map(texts),
            )
        with clock.step("measure"):
            measured = _agreement(tried, texts.take(held), probes.of(held), seed)
            labelled, changed = self._labelled(tried, self._questions)
            slices = {"sentences of held-out texts": measured} if labelled else {}
            notes = [*self._moved, *_notes(texts, fitted, held, bool(labelled))]
            if not probes.themselves:
                asked = self._asked(ids, probes)
                kept = kept_of(tried, texts, asked, held, K, seed)
                slices |= {name: {f"recall@{K}": gain} for name, gain in kept.items()}
                notes = [_kept_note(kept, len(texts), asked.what), *notes]
        return FinetuneReport(
            title=f"drift adapter ({choice.kind}, {texts.new.shape[1]} → {texts.old.shape[1]})",
            method="old model against new model, both on the old vectors",
            primary=f"recall@{K}" if labelled else AGREEMENT,
            gains=labelled or measured,
            slices=slices,
            data={
                "texts": len(texts),
                "fingerprint": _fingerprint(ids, self._corpus),
                "new_model": base_name(self.new_model),
                "old_model": base_name(self.old_model) if self.old_model else "",
            },
            options={**asdict(self.options), "chosen": asdict(choice)},
            seed=seed,
            notes=notes,
            model=base_name(self.new_model),
            queries=changed,
        )

    def _tuned(self, **model_kwargs: Any) -> AdapterEmbeddingModel:
        """Takes arguments of `AdapterEmbeddingModel`."""
        if not self._in_memory:
            assert self.model_output_path is not None
            return AdapterEmbeddingModel(self.new_model, self.model_output_path, **model_kwargs)
        adapter = replace(self._adapter, details=run_details(self._finished(), self._signature))
        model = AdapterEmbeddingModel(self.new_model, adapter, **model_kwargs)
        model.adapter_path = str(self.model_output_path or "")
        return model

    def _base(self, **model_kwargs: Any) -> BaseEmbedding:
        """`old_model` as it was given; there is nothing to set."""
        if self.old_model is None:
            reason = self._finished().reason
            raise TuningError(f"no old_model was given that could be kept: {reason}; {OVERRIDE}")
        return self.old_model

    def _write(self, folder: Path, report: FinetuneReport) -> None:
        replace(self._adapter, details=run_details(report, self._signature)).write(folder)

    def _embedder(self, model: BaseEmbedding | None) -> Embedder:
        return Embedder(
            model,
            known=self._known.setdefault(id(model), {}),  # each text once a run
            cache=self.vector_cache,
            num_workers=self.num_workers,
            show_progress=self.show_progress,
        )

    def _sample(self) -> tuple[list[str], Texts]:
        """Ids of the sampled texts, and their vectors in both spaces."""
        ids = list(self._corpus)
        if self.old_model is None:
            ids = list(known_vectors(ids, self.vectors))
            if len(ids) < MIN_TEXTS:
                raise VectorError(
                    f"vectors holds {len(ids)} of the texts, and there is no old_model for the "
                    f"others; at least {MIN_TEXTS} are needed"
                )
        if len(ids) > self.options.max_texts:
            rng = np.random.default_rng(self.options.seed)
            rows = np.sort(rng.choice(len(ids), self.options.max_texts, replace=False))
            ids = [ids[row] for row in rows]
        texts = {id_: self._corpus[id_] for id_ in ids}
        new = self._embedder(self.new_model).documents(list(texts.values()))
        old = document_vectors(texts, self.vectors, self._embedder(self.old_model))
        return ids, Texts(unit_rows(new), unit_rows(old))

    def _probes(self, ids: list[str], texts: Texts) -> Probes:
        """What is asked to see how well the map does: a sentence of each text."""
        if self.old_model is None:
            return Probes(texts, np.arange(len(texts)), themselves=True)
        chosen = {id_: self._corpus[id_] for id_ in ids}
        wordy = any(len(text.split()) >= 5 for text in chosen.values())
        found = generate_sentence_queries(
            chosen, per_document=1, min_words=5 if wordy else 1, seed=self.options.seed
        )
        asked = list(found.queries.values())
        if len(asked) < MIN_TEXTS // 2:
            raise DatasetError(
                f"the {len(ids)} texts have {len(asked)} different sentences between them; at "
                f"least {MIN_TEXTS // 2} are needed to measure on"
            )
        rows = {id_: row for row, id_ in enumerate(ids)}
        source = np.array([rows[found.relevant_docs[q][0]] for q in found.queries], np.int64)
        new = self._embedder(self.new_model).queries(asked)
        old = self._embedder(self.old_model).queries(asked)
        if old.shape[1] != texts.old.shape[1]:
            raise VectorError(
                f"old_model gives {old.shape[1]} dimensions, the stored vectors have "
                f"{texts.old.shape[1]}; were they made by another model?"
            )
        return Probes(Texts(unit_rows(new), unit_rows(old)), source, themselves=False)

    def _asked(self, ids: list[str], probes: Probes) -> Asked:
        """Labelled questions that texts of the sample answer; else a sentence of each text."""
        questions = self._questions
        if questions is not None:
            rows = {id_: row for row, id_ in enumerate(ids)}
            wanted = {
                id_: np.array([rows[doc] for doc in docs if doc in rows], np.int64)
                for id_, docs in questions.relevant_docs.items()
            }
            answered = [id_ for id_ in questions.queries if len(wanted[id_])]
            if len(answered) >= MIN_TEXTS // 2:
                texts = [questions.queries[id_] for id_ in answered]
                vectors = self._embedder(self.new_model).queries(texts)
                relevant = [wanted[id_] for id_ in answered]
                return Asked(unit_rows(vectors), relevant, "labelled questions")
        return Asked(probes.queries.new, list(probes.source[:, None]), "sentences")

    def _labelled(
        self, tried: LinearMap, questions: RetrievalDataset | None
    ) -> tuple[Gains, list[QueryGain]]:
        """Labelled questions on the old vectors: the old model against the new one's map."""
        if questions is None:
            return {}, []
        documents = document_vectors(questions.corpus, self.vectors, self._embedder(self.old_model))
        asked = list(questions.queries.values())
        rows = positive_rows(questions)
        before = self._embedder(self.old_model).queries(asked)
        after = tried(unit_rows(self._embedder(self.new_model).queries(asked)))
        wanted = (f"recall@{K}", f"ndcg@{K}", f"hit_rate@{K}")
        ids = list(questions.queries)
        base, mapped = (
            evaluate_vectors(vectors, documents, rows, query_ids=ids).only(wanted)
            for vectors in (before, after)
        )
        changed = base.changed(mapped, f"recall@{K}", questions)
        return gains(base, mapped, questions, self.options.seed), changed


def _split(n: int, seed: int) -> tuple[Ints, Ints]:
    """Rows to fit on, and rows to measure on."""
    order = np.random.default_rng(seed).permutation(n)
    held = max(K + 5, round(HELD_OUT * n))
    return np.sort(order[held:]), np.sort(order[:held])


def _agreement(tried: LinearMap, texts: Texts, probes: Probes, seed: int) -> Gains:
    before, after = (agreement(used, texts, probes, K) for used in (None, tried))
    return {AGREEMENT: paired_gain(before, after, seed=seed)}


def _kept_note(kept: Mapping[str, Gain], texts: int, what: str) -> str:
    """How much of what re-indexing would find is found now, before anything is deployed."""
    every = kept[KEPT]
    shares = {name: gain.tuned / gain.base if gain.base else 1.0 for name, gain in kept.items()}
    low = 1 + every.low / every.base if every.base else 1.0
    told = [
        f"kept of what re-indexing would give: {shares[KEPT]:.1%} (at least {low:.1%}, by its "
        f"interval). Recall@{K} on {every.n} {what} over the {texts} sampled texts: "
        f"{every.base:.3f} by the new model on vectors of its own, {every.tuned:.3f} on the old "
        "ones through the map"
    ]
    if KEPT_OF_OTHERS in kept:
        told.append(
            f"Of texts that the map was not fitted to {shares[KEPT_OF_OTHERS]:.1%} "
            f"(n={kept[KEPT_OF_OTHERS].n}): expect that of an index much larger than the sample"
        )
    if shares[KEPT] < ENOUGH:
        told.append(f"More than {1 - ENOUGH:.0%} is lost: re-index soon")
    elif min(shares.values()) < ENOUGH:
        told.append(
            f"There more than {1 - ENOUGH:.0%} would be lost: give more texts, or re-index soon"
        )
    return ". ".join(told)


def _fingerprint(ids: Sequence[str], corpus: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for id_ in ids:
        digest.update(f"{id_}\0{corpus[id_]}\0".encode())
    return digest.hexdigest()[:16]


def _notes(texts: Texts, fitted: Ints, held: Ints, labelled: bool) -> list[str]:
    """How well a text that only the new model has embedded lands among the old vectors."""
    others = texts.take(held)
    placed = unit_rows(fit_document_map(texts.take(fitted))(others.new))
    cosines = np.einsum("ij,ij->i", placed, others.old)
    told = [
        f"texts added through the new model land at cosine {cosines.mean():.3f} to the old "
        f"model's vectors of them ({len(held)} held-out texts)"
    ]
    if len(fitted) < 2 * texts.old.shape[1]:
        told.append(
            f"{len(texts)} texts for {texts.old.shape[1]} dimensions; more of them would help"
        )
    if not labelled:
        told.append(
            f"{AGREEMENT} is the share of the new model's ten nearest texts that are found, not "
            "their relevance: pass labelled questions as val_dataset to know that"
        )
    return told
