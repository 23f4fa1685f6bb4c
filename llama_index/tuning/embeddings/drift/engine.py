"""The engine that serves a new embedding model on vectors that an old one has stored."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding

from llama_index.tuning import artifacts
from llama_index.tuning._arrays import Float32
from llama_index.tuning.base import BaseEmbeddingFinetuneEngine
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.embeddings.adapter.data import documents_of
from llama_index.tuning.embeddings.adapter.maps import VectorMap
from llama_index.tuning.embeddings.adapter.measure import gains, positive_rows
from llama_index.tuning.embeddings.adapter.model import AdapterEmbeddingModel
from llama_index.tuning.embeddings.adapter.saved import Adapter, identity_adapter
from llama_index.tuning.embeddings.drift.fit import (
    DriftChoice,
    DriftKind,
    Probes,
    Texts,
    agreement,
    choose,
    fit_document_map,
    fit_map,
)
from llama_index.tuning.errors import DatasetError, NotFinetunedError, TuningError, VectorError
from llama_index.tuning.evaluate.bootstrap import paired_gain
from llama_index.tuning.evaluate.retrieval import evaluate_vectors
from llama_index.tuning.gate import Accept, check_accept, decide
from llama_index.tuning.generate.sentences import generate_sentence_queries
from llama_index.tuning.report import FinetuneReport, Gains, installed_versions
from llama_index.tuning.vectors.embedder import Embedder, document_vectors, known_vectors
from llama_index.tuning.vectors.search import unit_rows
from llama_index.tuning.vectors.stores import base_name, model_signature

if TYPE_CHECKING:
    from llama_index.core.schema import BaseNode

logger = logging.getLogger(__name__)

K = 10
MIN_TEXTS = 60
AGREEMENT = f"new_model_recall@{K}"


@dataclass(frozen=True, kw_only=True)
class DriftOptions:
    """How the map is learnt."""

    kind: DriftKind | Literal["auto"] = "auto"
    """`"procrustes"`, `"low_rank"`, `"linear"`, `"residual"` (a small network on top of the linear
    map), or the best of the first three on texts not fitted to."""
    rank: int = 64
    """Rank of the correction of `"low_rank"`."""
    max_texts: int = 2000
    """At most so many texts are embedded by the new model, drawn at random."""
    held_out: float = 0.25
    """Share of them, above 0 and at most 0.5, that the report is measured on."""
    seed: int = 0
    """The same seed gives the same map."""

    def __post_init__(self) -> None:
        kinds = ("auto", *get_args(DriftKind))
        if self.kind not in kinds:
            raise ValueError(f"unknown kind {self.kind!r}; choose one of: {', '.join(kinds)}")
        for name, least in (("rank", 1), ("max_texts", MIN_TEXTS), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
        if not 0 < self.held_out <= 0.5:
            raise ValueError(f"held_out must be above 0 and at most 0.5, got {self.held_out}")


class DriftAdapterFinetuneEngine(BaseEmbeddingFinetuneEngine):
    """Serves a new embedding model on an index that an old one filled, without re-embedding it.

    Learns a map from the new model's vectors into the old model's space from a sample of texts
    that both have embedded, in seconds; the dimensions may differ. The tuned component is the new
    model with that map: its query vectors search the old index, and its text vectors may be added
    to it. Re-embedding can then wait (Drift-Adapter, arXiv 2509.23471; `drift_fit.py` says where
    this departs from it).

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
        model_output_path: folder for the map, replaced when the run succeeds.
        vector_cache: a file that keeps vectors between runs.
        accept: `"gain"` returns the new model only where searching the old vectors with it is
            shown to be better than keeping the old model; `"always"` does so whatever was measured.
        num_workers: concurrent calls, for models behind an API.
        show_progress: show progress bars.

    Raises:
        DatasetError, VectorError, ValueError, TypeError: at `finetune()`, before anything is
            embedded wherever that can be known.

    Example:
        >>> engine = DriftAdapterFinetuneEngine(
        ...     nodes, new_model, old_model, vectors=index
        ... )  # doctest: +SKIP
        >>> print(engine.finetune())  # doctest: +SKIP
        >>> retriever = index.as_retriever(
        ...     embed_model=engine.get_finetuned_model()
        ... )  # doctest: +SKIP
    """

    def __init__(
        self,
        texts: Mapping[str, str] | Sequence[BaseNode] | Sequence[str],
        new_model: BaseEmbedding,
        old_model: BaseEmbedding | None = None,
        *,
        vectors: Any = None,
        val_dataset: RetrievalDataset | Any | None = None,
        options: DriftOptions | None = None,
        model_output_path: str | PathLike[str] = "model_output",
        vector_cache: str | PathLike[str] | None = None,
        accept: Accept = "gain",
        num_workers: int = 1,
        show_progress: bool = False,
    ) -> None:
        self.texts = texts
        self.new_model = new_model
        self.old_model = old_model
        self.vectors = vectors
        self.val_dataset = val_dataset
        self.options = options or DriftOptions()
        self.model_output_path = Path(model_output_path)
        self.vector_cache = vector_cache
        self.accept: Accept = accept
        self.num_workers = num_workers
        self.show_progress = show_progress
        self.report: FinetuneReport | None = None
        self._adapter: Adapter | None = None

    def finetune(self) -> FinetuneReport:
        """Embed the sample, choose and fit the map, measure, decide, save."""
        corpus, questions = self._check()
        started = time.perf_counter()
        names, texts = self._sample(corpus)
        probes = self._probes(names, corpus, texts)
        embedded = time.perf_counter()
        fitted, held = self._split(len(texts))
        choice = choose(
            self.options.kind,
            self.options.rank,
            texts.take(fitted),
            probes.of(fitted),
            K,
            self.options.seed,
        )
        # The maps that are served learn from the held-out texts as well.
        adapter = self._made(texts, choice)
        tried = fit_map(texts.take(fitted), choice, self.options.seed)
        learnt = time.perf_counter()
        measured = self._agreement(tried, texts.take(held), probes.of(held))
        labelled = self._labelled(tried, questions) if questions is not None else {}
        seconds = {
            "embed": round(embedded - started, 3),
            "learn": round(learnt - embedded, 3),
            "measure": round(time.perf_counter() - learnt, 3),
        }
        notes = _notes(texts, fitted, held, bool(labelled))
        self.report = self._report(
            choice, measured, labelled, seconds, notes, texts, _fingerprint(names, corpus)
        )
        self._adapter = self._save(adapter, self.report)
        logger.info("%s", self.report.reason)
        return self.report

    def get_finetuned_model(self, **model_kwargs: Any) -> BaseEmbedding:
        """The new model for the old index, or the old model where the gate kept it.

        Args:
            **model_kwargs: arguments of `AdapterEmbeddingModel`.

        Raises:
            NotFinetunedError: `finetune()` has not run.
            TuningError: the gate refused the map, and there is no `old_model` to keep.
        """
        if self.report is None or self._adapter is None:
            raise NotFinetunedError("call finetune() before get_finetuned_model()")
        if not self.report.accepted:
            told = f'{self.report.reason}; accept="always" would override'
            if self.old_model is None:
                raise TuningError(f"no old_model was given that could be kept: {told}")
            logger.warning("the old model is returned: %s", told)
            return self.old_model
        model = AdapterEmbeddingModel(self.new_model, self._adapter, **model_kwargs)
        model.adapter_path = str(self.model_output_path)
        return model

    def _check(self) -> tuple[dict[str, str], RetrievalDataset | None]:
        """All that can be wrong before any work or cost."""
        for name in ("new_model", "old_model"):
            model = getattr(self, name)
            optional = name == "old_model" and model is None
            if not optional and not isinstance(model, BaseEmbedding):
                raise TypeError(f"{name} must be a BaseEmbedding, got {type(model).__name__}")
        if not isinstance(self.options, DriftOptions):
            raise TypeError(f"options must be a DriftOptions, got {type(self.options).__name__}")
        check_accept(self.accept)
        if isinstance(self.num_workers, bool) or self.num_workers < 1:
            raise ValueError(f"num_workers must be >= 1, got {self.num_workers}")
        if isinstance(self.vectors, (np.ndarray, str, Path)):
            raise TypeError(
                "vectors must be an index, a vector store or a dictionary id → vector: an array "
                "does not say which text a row is of"
            )
        if self.old_model is None and self.vectors is None:
            raise ValueError("old_model and vectors are both None; where are the old vectors?")
        if self.old_model is None and self.val_dataset is not None:
            raise ValueError("val_dataset needs old_model, whose answers it compares with")
        artifacts.check_writable(self.model_output_path)
        corpus = documents_of(self.texts)
        if len(corpus) < MIN_TEXTS:
            raise DatasetError(f"{len(corpus)} texts are too few; at least {MIN_TEXTS} are needed")
        given = self.val_dataset
        return corpus, None if given is None else RetrievalDataset.coerce(given)

    def _embedder(self, model: BaseEmbedding) -> Embedder:
        return Embedder(
            model,
            cache=self.vector_cache,
            num_workers=self.num_workers,
            show_progress=self.show_progress,
        )

    def _sample(self, corpus: dict[str, str]) -> tuple[list[str], Texts]:
        """Ids of the sampled texts, and their vectors in both spaces."""
        ids = list(corpus)
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
        texts = {id_: corpus[id_] for id_ in ids}
        new = self._embedder(self.new_model).documents(list(texts.values()))
        old = self._old_documents(texts)
        return ids, Texts(unit_rows(new), unit_rows(old))

    def _old_documents(self, texts: dict[str, str]) -> Float32:
        if self.old_model is not None:
            return document_vectors(texts, self.vectors, self._embedder(self.old_model))
        known = known_vectors(list(texts), self.vectors)
        return np.stack([known[id_] for id_ in texts])

    def _probes(self, ids: list[str], corpus: dict[str, str], texts: Texts) -> Probes:
        """What is asked to see how well the map does: a sentence of each text."""
        if self.old_model is None:
            return Probes(texts, np.arange(len(texts)), themselves=True)
        chosen = {id_: corpus[id_] for id_ in ids}
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

    def _split(self, n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        order = np.random.default_rng(self.options.seed).permutation(n)
        held = max(K + 5, round(self.options.held_out * n))
        return np.sort(order[held:]), np.sort(order[:held])

    def _made(self, texts: Texts, choice: DriftChoice) -> Adapter:
        return Adapter(
            fit_map(texts, choice, self.options.seed),
            base_model=base_name(self.new_model),
            document_map=fit_document_map(texts),
        )

    def _agreement(self, tried: VectorMap, texts: Texts, probes: Probes) -> Gains:
        before = agreement(None, texts, probes, K)
        after = agreement(tried, texts, probes, K)
        return {AGREEMENT: paired_gain(before, after, seed=self.options.seed)}

    def _labelled(self, tried: VectorMap, questions: RetrievalDataset) -> Gains:
        """Labelled questions on the old vectors: the old model against the new one's map."""
        assert self.old_model is not None
        documents = document_vectors(questions.corpus, self.vectors, self._embedder(self.old_model))
        asked = list(questions.queries.values())
        rows = positive_rows(questions)
        before = self._embedder(self.old_model).queries(asked)
        after = tried(unit_rows(self._embedder(self.new_model).queries(asked)))
        wanted = (f"recall@{K}", f"ndcg@{K}", f"hit_rate@{K}")
        base = evaluate_vectors(before, documents, rows).only(wanted)
        mapped = evaluate_vectors(after, documents, rows).only(wanted)
        return gains(base, mapped, seed=self.options.seed)

    def _report(
        self,
        choice: DriftChoice,
        measured: Gains,
        labelled: Gains,
        seconds: dict[str, float],
        notes: list[str],
        texts: Texts,
        fingerprint: str,
    ) -> FinetuneReport:
        primary = f"recall@{K}" if labelled else AGREEMENT
        verdict = decide(primary, (labelled or measured)[primary], accept=self.accept)
        return FinetuneReport(
            title=f"drift adapter ({choice.kind}, {texts.new.shape[1]} → {texts.old.shape[1]})",
            method="old model against new model, both on the old vectors",
            primary=primary,
            gains=labelled or measured,
            slices={"sentences of held-out texts": measured} if labelled else {},
            accepted=verdict.accepted,
            reason=verdict.reason,
            data={
                "texts": len(texts),
                "fingerprint": fingerprint,
                "new_model": base_name(self.new_model),
                "old_model": base_name(self.old_model) if self.old_model else "",
            },
            options={**asdict(self.options), "chosen": asdict(choice)},
            seed=self.options.seed,
            seconds=seconds,
            notes=notes,
            versions=installed_versions("numpy"),
        )

    def _save(self, adapter: Adapter, report: FinetuneReport) -> Adapter:
        """Write what the gate chose; a refused map lies in `candidate/`."""
        details = {
            "accepted": report.accepted,
            "reason": report.reason,
            "options": report.options,
            "data": report.data,
        }
        adapter.details.update(details, signature=model_signature(self.new_model))
        with artifacts.replacing_folder(self.model_output_path) as folder:
            if report.accepted:
                adapter.write(folder)
            else:
                dim = adapter.map.config()["out_features"]
                # For the old model's vectors: the new model is refused by its name.
                kept = report.data["old_model"] or "the old model"
                identity_adapter(dim, kept, **details).write(folder)
                (folder / "candidate").mkdir()
                adapter.write(folder / "candidate")
            report.save_json(folder / "report.json")
        return adapter


def _fingerprint(ids: Sequence[str], corpus: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for id_ in ids:
        digest.update(f"{id_}\0{corpus[id_]}\0".encode())
    return digest.hexdigest()[:16]


def _notes(texts: Texts, fitted: Any, held: Any, labelled: bool) -> list[str]:
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
