"""Trains and measures a light re-ranker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor

from llama_index.tuning.base import BaseRerankerFinetuneEngine
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.datasets.retrieval import RetrievalDataset
from llama_index.tuning.errors import DatasetError, NotFinetunedError
from llama_index.tuning.gate import Accept, check_accept, decide
from llama_index.tuning.report import FinetuneReport, installed_versions
from llama_index.tuning.rerankers.baselines import Baseline, base_lines
from llama_index.tuning.rerankers.candidates import (
    FeatureMaker,
    analyzer_for,
    counted_words,
    deployed_statistics,
    word_index,
)
from llama_index.tuning.rerankers.checks import whole_number
from llama_index.tuning.rerankers.crossfit import fit_freely, fold_numbers, fold_rankers
from llama_index.tuning.rerankers.data import (
    Given,
    candidate_lists,
    check_separable,
    checked_data,
)
from llama_index.tuning.rerankers.features import FloatArray
from llama_index.tuning.rerankers.fitting import (
    FeatureList,
    IntArray,
    Loss,
    calibrate,
    standardised,
    usual_loss,
)
from llama_index.tuning.rerankers.light import LightReranker, default_ranker
from llama_index.tuning.rerankers.measuring import PRIMARY, Comparison, compare
from llama_index.tuning.rerankers.options import LightRerankerOptions
from llama_index.tuning.rerankers.ranker import LightRanker

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever


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
        self._base: Baseline | None = None

    def finetune(self) -> FinetuneReport:
        """Collect candidates, train, measure and decide."""
        clock = _Clock()
        dataset, val_dataset = checked_data(self.dataset, self.val_dataset, self.retriever)
        analyzer = analyzer_for(self.retriever, self.options.language, self.options.stop_words)
        train = check_learnable(self._candidates(dataset))
        val = None if val_dataset is None else self._candidates(val_dataset)
        clock.done("candidates")
        counted = counted_words(dataset, train, analyzer)
        deployed = deployed_statistics(self.retriever, counted)
        maker = FeatureMaker(analyzer, deployed, self.options.metadata_keys)
        lists = maker.lists(train, self.options.depth)
        clock.done("features")
        fitted = self._fitted(train, lists)
        clock.done("training")
        comparison = compare(
            val or train,
            maker,
            fitted.out_of_fold if val is None else fitted.scores,
            base_lines(self.base_reranker, word_index(self.retriever)),
            self.options,
            lists=lists if val is None else None,
        )
        clock.done("measuring")
        report = self._described(train, val, fitted, comparison, clock.seconds)
        self._ranker = replace(fitted.ranker, details=_details(report))
        self._words = analyzer, counted
        self._base, self._report = comparison.base, report
        return report

    def get_finetuned_model(self, **model_kwargs: Any) -> BaseNodePostprocessor:
        """The tuned re-ranker, or the best base where no gain was shown.

        Args:
            **model_kwargs: arguments of `LightReranker` after `statistics`, such as `top_n`; not
                for `base_reranker`, which is given back as it came.

        Raises:
            NotFinetunedError: `finetune()` did not run.
        """
        if self._report is None or self._base is None:
            raise NotFinetunedError("call finetune() first; there is no tuned re-ranker yet")
        if self._report.accepted:
            return LightReranker(self._ranker, *self._words, **model_kwargs)
        return self._base.kept(self._report.reason, *self._words, **model_kwargs)

    def _candidates(self, data: Given) -> RelevanceDataset:
        return candidate_lists(
            data,
            self.retriever,
            num_workers=self.num_workers,
            show_progress=self.show_progress,
        )

    def _fitted(self, train: RelevanceDataset, lists: Sequence[FeatureList]) -> _Fitted:
        options = self.options
        start = default_ranker() if options.start == "default" else LightRanker.fixed("zero")
        prior = standardised(lists, start.with_metadata(options.metadata_keys))
        fold = fold_numbers(train.groups(), options.folds, options.seed)
        loss = options.loss or usual_loss(lists)
        ranker, freedom = fit_freely(lists, fold, prior, loss)
        fitted = _Fitted(ranker, loss, freedom, fold, fold_rankers(lists, fold, prior, loss))
        relevance = [item.relevance for item in lists]
        scored = list(zip(fitted.out_of_fold(train, lists), relevance, strict=True))
        return replace(fitted, ranker=calibrate(ranker, scored, highest=train.highest_grade))

    def _described(
        self,
        train: RelevanceDataset,
        val: RelevanceDataset | None,
        fitted: _Fitted,
        comparison: Comparison,
        seconds: dict[str, float],
    ) -> FinetuneReport:
        verdict = decide(PRIMARY, comparison.gains[PRIMARY], accept=self.accept)
        data = {
            "queries": len(train),
            "fingerprint": train.fingerprint(),
            "freedom": fitted.freedom,
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
            options={**asdict(self.options), "loss": fitted.loss},
            seed=self.options.seed,
            seconds=seconds,
            notes=comparison.notes,
            versions=installed_versions("numpy", "scipy"),
        )


def check_learnable(dataset: RelevanceDataset) -> RelevanceDataset:
    """There must be something to learn, and something else to measure it on."""
    if not dataset.trainable():
        raise DatasetError(
            "there is nothing to learn: no query has both a relevant candidate and another one "
            "(negatives); let the retriever find more, or label some"
        )
    check_separable(dataset, dataset.groups())
    return dataset


@dataclass(frozen=True, eq=False)
class _Fitted:
    """The ranker of all queries, and those of the folds that tell how good it is.

    Attributes:
        ranker: calibrated by the out-of-fold scores.
        loss: that it was fitted by.
        freedom: how far its weights could move.
        fold: each training list's fold.
        rankers: one for each fold, which never saw it.
    """

    ranker: LightRanker
    loss: Loss
    freedom: float
    fold: IntArray
    rankers: Sequence[LightRanker]

    def scores(self, _: RelevanceDataset, lists: Sequence[FeatureList]) -> list[FloatArray]:
        """Of lists that are not trained on."""
        return [self.ranker.scores(item.features) for item in lists]

    def out_of_fold(self, _: RelevanceDataset, lists: Sequence[FeatureList]) -> list[FloatArray]:
        """Of the training lists, at any depth."""
        return [
            self.rankers[fold].scores(item.features)
            for fold, item in zip(self.fold.tolist(), lists, strict=True)
        ]


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def done(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step], self._last = round(now - self._last, 3), now


def _details(report: FinetuneReport) -> dict[str, Any]:
    return {
        "name": "tuned light re-ranker",
        "accepted": report.accepted,
        "reason": report.reason,
        "queries": report.data["queries"],
        "fingerprint": report.data["fingerprint"],
        "gains": {name: asdict(gain) for name, gain in report.gains.items()},
        "options": report.options,
        "versions": report.versions,
    }
