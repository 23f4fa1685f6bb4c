"""Trains and measures a light re-ranker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor

from llama_index.tuning.base import BaseRerankerFinetuneEngine
from llama_index.tuning.datasets._validation import check_held_out
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.datasets.retrieval import RetrievalDataset
from llama_index.tuning.errors import DatasetError, NotFinetunedError
from llama_index.tuning.gate import Accept, Verdict, check_accept, decide
from llama_index.tuning.report import FinetuneReport, installed_versions
from llama_index.tuning.rerankers.baselines import Baseline, base_lines
from llama_index.tuning.rerankers.candidates import (
    FeatureMaker,
    analyzer_for,
    counted_words,
    deployed_statistics,
    has_distances,
    query_texts,
)
from llama_index.tuning.rerankers.checks import whole_number
from llama_index.tuning.rerankers.crossfit import (
    fit_freely,
    fold_numbers,
    fold_rankers,
)
from llama_index.tuning.rerankers.distances import TURNED
from llama_index.tuning.rerankers.features import FloatArray
from llama_index.tuning.rerankers.fitting import FeatureList, calibrate, standardised, usual_loss
from llama_index.tuning.rerankers.light import LightReranker, default_ranker
from llama_index.tuning.rerankers.measuring import PRIMARY, Comparison, compare
from llama_index.tuning.rerankers.options import LightRerankerOptions
from llama_index.tuning.rerankers.ranker import LightRanker

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever

logger = logging.getLogger(__name__)

Scorer = Callable[[Sequence[FeatureList]], list[FloatArray]]


class LightRerankerFinetuneEngine(BaseRerankerFinetuneEngine):
    """Tunes a re-ranker without a transformer, in about a second, from as few as ten queries.

    It learns from the app's own candidates how far to trust the retriever's score, BM25, shared
    words, pairs and numbers. Measured by cross-fitting, with queries of one relevant document
    kept together, or on `val_dataset`; compared with the best of: no re-ranker, fusion with
    BM25, the package's default weights, and `base_reranker`.

    Args:
        dataset: a `RelevanceDataset`; or a `RetrievalDataset`, with the retriever.
        retriever: finds the candidates, as deployed; a `TunedRetriever` gives those it fuses.
        val_dataset: measured on instead of cross-fitting; of the same kind as `dataset`, with
            none of its queries.
        options: how to train.
        base_reranker: what the app re-ranks with today.
        accept: `"gain"`, or `"always"` to take the tuned one whatever was measured.
        num_workers: queries under way at once while candidates are collected.
        show_progress: show bars.

    Example:
        >>> labels = {f"q{i}": {f"d{i}": 1, f"d{(i + 1) % 12}": 0} for i in range(12)}
        >>> queries = {f"q{i}": f"how does part{i} work" for i in range(12)}
        >>> corpus = {f"d{i}": f"All about part{i}." for i in range(12)}
        >>> dataset = RelevanceDataset.from_labels(queries, corpus, labels)
        >>> engine = LightRerankerFinetuneEngine(dataset)
        >>> report = engine.finetune()
        >>> reranker = engine.get_finetuned_model(top_n=5)
    """

    def __init__(
        self,
        dataset: RelevanceDataset | RetrievalDataset,
        retriever: BaseRetriever | None = None,
        *,
        val_dataset: RelevanceDataset | RetrievalDataset | None = None,
        options: LightRerankerOptions | None = None,
        base_reranker: BaseNodePostprocessor | None = None,
        accept: Accept = "gain",
        num_workers: int = 1,
        show_progress: bool = False,
    ) -> None:
        check_accept(accept)
        if options is not None and not isinstance(options, LightRerankerOptions):
            raise TypeError(f"options must be LightRerankerOptions, got {options!r}")
        if base_reranker is not None and not isinstance(base_reranker, BaseNodePostprocessor):
            raise TypeError(f"base_reranker must be a node postprocessor, got {base_reranker!r}")
        self.dataset = dataset
        self.retriever = retriever
        self.val_dataset = val_dataset
        self.options = options or LightRerankerOptions()
        self.base_reranker = base_reranker
        self.accept = accept
        self.num_workers = whole_number("num_workers", num_workers, 1)
        self.show_progress = show_progress
        self._report: FinetuneReport | None = None
        self._tuned: LightReranker | None = None
        self._base: Baseline | None = None

    def finetune(self) -> FinetuneReport:
        """Collect candidates, train, measure and decide."""
        clock = _Clock()
        self._check_data()
        analyzer = analyzer_for(self.retriever, self.options.language, self.options.stop_words)
        train = check_learnable(self._candidates(self.dataset))
        val = None if self.val_dataset is None else self._candidates(self.val_dataset)
        clock.done("candidates")
        self._statistics = counted_words(self.dataset, train, analyzer)
        deployed = deployed_statistics(self.retriever, self._statistics)
        maker = FeatureMaker(analyzer, deployed, self.options.metadata_keys)
        lists = maker.lists(train, self.options.depth)
        clock.done("features")
        ranker, fold = self._train(train, lists)
        clock.done("training")
        comparison = self._measure(maker, train, val, ranker, fold, lists)
        clock.done("measuring")
        verdict = decide(PRIMARY, comparison.gains[PRIMARY], accept=self.accept)
        report = self._described(train, val, comparison, verdict, clock.seconds)
        self._keep(replace(comparison.tuned, details=_details(report, train)), maker, comparison)
        self._report = report
        return report

    def get_finetuned_model(self, **model_kwargs: Any) -> BaseNodePostprocessor:
        """The tuned re-ranker, or the best base where no gain was shown.

        Args:
            **model_kwargs: arguments of `LightReranker` after `statistics`, such as `top_n`; not
                for `base_reranker`, which is given back as it came.

        Raises:
            NotFinetunedError: `finetune()` did not run.
        """
        if self._report is None or self._tuned is None or self._base is None:
            raise NotFinetunedError("call finetune() first; there is no tuned re-ranker yet")
        if self._report.accepted:
            return self._with(self._tuned.ranker, model_kwargs)
        logger.warning(
            'the base is kept (%s): %s; accept="always" would override it',
            self._base.name,
            self._report.reason,
        )
        if self._base.reranker is not None:
            return self._base.reranker
        details = {"name": self._base.name, "accepted": False, "reason": self._report.reason}
        return self._with(replace(self._base.ranker, details=details), model_kwargs)

    def _with(self, ranker: LightRanker, arguments: dict[str, Any]) -> LightReranker:
        assert self._tuned is not None
        return LightReranker(ranker, self._tuned.analyzer, self._statistics, **arguments)

    def _check_data(self) -> None:
        """Both datasets, before the retriever is asked anything."""
        given = {"dataset": self.dataset}
        if self.val_dataset is not None:
            given["val_dataset"] = self.val_dataset
        for name, data in given.items():
            if isinstance(data, (RelevanceDataset, list, tuple)):
                continue
            if not all(hasattr(data, part) for part in ("queries", "corpus", "relevant_docs")):
                raise TypeError(
                    f"{name} must be a RelevanceDataset, a RetrievalDataset (with a retriever) or "
                    f"a list of samples with query, context and score; got {type(data).__name__}"
                )
            if self.retriever is None:
                raise ValueError(
                    f"{name} is a RetrievalDataset: pass retriever=, whose candidates are re-ranked"
                )

        if self.val_dataset is not None:
            check_held_out(query_texts(self.dataset), query_texts(self.val_dataset))

    def _candidates(self, data: Any) -> RelevanceDataset:
        if isinstance(data, (RelevanceDataset, list, tuple)):
            return RelevanceDataset.coerce(data)
        assert self.retriever is not None
        return RelevanceDataset.from_retriever(
            RetrievalDataset.coerce(data),
            self.retriever,
            num_workers=self.num_workers,
            show_progress=self.show_progress,
        )

    def _train(
        self, train: RelevanceDataset, lists: Sequence[FeatureList]
    ) -> tuple[LightRanker, Any]:
        options = self.options
        start = default_ranker() if options.start == "default" else LightRanker.fixed("zero")
        self._prior = standardised(lists, start.with_metadata(options.metadata_keys))
        fold = fold_numbers(train.groups(), options.folds, options.seed)
        self._loss = options.loss or usual_loss(lists)
        ranker, self._freedom = fit_freely(lists, fold, self._prior, self._loss)
        return ranker, fold

    def _measure(
        self,
        maker: FeatureMaker,
        train: RelevanceDataset,
        val: RelevanceDataset | None,
        ranker: LightRanker,
        fold: Any,
        lists: Sequence[FeatureList],
    ) -> Comparison:
        rankers = fold_rankers(lists, fold, self._prior, self._loss)

        def out_of_fold(given: Sequence[FeatureList]) -> list[FloatArray]:
            return [rankers[fold[i]].scores(item.features) for i, item in enumerate(given)]

        def by_ranker(given: Sequence[FeatureList]) -> list[FloatArray]:
            return [ranker.scores(item.features) for item in given]

        relevance = [item.relevance for item in lists]
        scored = list(zip(out_of_fold(lists), relevance, strict=True))
        tuned = calibrate(ranker, scored, highest=train.highest_grade)
        return compare(
            val or train,
            maker,
            by_ranker if val else out_of_fold,
            base_lines(default_ranker(), self.base_reranker),
            self.options,
            tuned=tuned,
        )

    def _keep(self, ranker: LightRanker, maker: FeatureMaker, comparison: Comparison) -> None:
        self._tuned = LightReranker(ranker, maker.analyzer, self._statistics)
        self._base = comparison.base

    def _described(
        self,
        train: RelevanceDataset,
        val: RelevanceDataset | None,
        comparison: Comparison,
        verdict: Verdict,
        seconds: dict[str, float],
    ) -> FinetuneReport:
        data = {
            "queries": len(train),
            "fingerprint": train.fingerprint(),
            "freedom": self._freedom,
        }
        if val is not None:
            data |= {"val_queries": len(val), "val_fingerprint": val.fingerprint()}
        return FinetuneReport(
            title="light re-ranker",
            method=f"{self.options.folds}-fold cross-fitting" if val is None else "validation set",
            primary=PRIMARY,
            gains=comparison.gains,
            slices=comparison.slices,
            accepted=verdict.accepted,
            reason=f"{verdict.reason}; base: {comparison.base.name}",
            data=data,
            options={**asdict(self.options), "loss": self._loss},
            seed=self.options.seed,
            seconds=seconds,
            notes=[*comparison.notes, *([TURNED] if has_distances(train) else [])],
            versions=installed_versions("numpy", "scipy"),
        )


def check_learnable(dataset: RelevanceDataset) -> RelevanceDataset:
    """There must be something to learn, and something else to measure it on."""
    if not dataset.trainable():
        raise DatasetError(
            "there is nothing to learn: no query has both a relevant candidate and another one "
            "(negatives); let the retriever find more, or label some"
        )
    if len(dataset.groups()) < 2:
        raise DatasetError(
            f"all {len(dataset)} queries hang together through shared texts or relevant nodes; "
            "add queries about other nodes, so that some can be held out"
        )
    return dataset


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def done(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step], self._last = round(now - self._last, 3), now


def _details(report: FinetuneReport, train: RelevanceDataset) -> dict[str, Any]:
    return {
        "name": "tuned light re-ranker",
        "accepted": report.accepted,
        "reason": report.reason,
        "queries": len(train),
        "fingerprint": train.fingerprint(),
        "gains": {name: asdict(gain) for name, gain in report.gains.items()},
        "options": report.options,
        "versions": report.versions,
    }
