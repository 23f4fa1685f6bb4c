"""Trains and measures a light re-ranker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor

from llama_index.tuning._arrays import Float64, Ints
from llama_index.tuning._checks import (
    check_options,
    of_type,
    output_path,
    plain_arguments,
    whole_number,
)
from llama_index.tuning.base import BaseRerankerFinetuneEngine, Clock, FinetuneEngine
from llama_index.tuning.datasets.folds import fold_numbers
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.datasets.retrieval import RetrievalDataset
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.gate import Accept, check_accept
from llama_index.tuning.report import FinetuneReport
from llama_index.tuning.rerankers.data import (
    FeatureMaker,
    Given,
    analyzer_for,
    candidate_lists,
    checked_data,
    counted_words,
    data_notes,
    deployed_statistics,
    learned_lists,
    separable_groups,
    tied_notes,
)
from llama_index.tuning.rerankers.light.features import LinearRanker
from llama_index.tuning.rerankers.light.fit import (
    FeatureList,
    Loss,
    calibrate,
    fit_freely,
    fold_rankers,
    standardised,
    usual_loss,
)
from llama_index.tuning.rerankers.light.model import LightReranker, default_ranker
from llama_index.tuning.rerankers.light.options import LightRerankerOptions
from llama_index.tuning.rerankers.measure import PRIMARY, Comparison, base_lines, compare
from llama_index.tuning.rerankers.serving import CalibratedReranker

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever


class LightRerankerFinetuneEngine(FinetuneEngine, BaseRerankerFinetuneEngine):
    """Tunes a re-ranker without a transformer, in about a second, from as few as ten queries.

    It learns from the app's own candidates how far to trust the retriever's score, BM25, shared
    words, pairs and numbers. Measured by cross-fitting, with queries of one relevant document
    kept together, or on `val_dataset`; compared with what the app has: `base_reranker`, or the
    re-ranker of a `TunedRetriever`, or none; or with the package's default weights or a fusion
    with BM25, where these show a gain over it without tuning.

    Args:
        dataset: a `RelevanceDataset`; or a `RetrievalDataset`, with the retriever.
        retriever: finds the candidates, as deployed; a `TunedRetriever` gives those it fuses.
        val_dataset: measured on instead of cross-fitting; of the same kind as `dataset`, with
            none of its queries.
        options: how to train.
        base_reranker: what the app re-ranks with today; that of a `TunedRetriever` by default.
        model_output_path: folder for the re-ranker and its report; nothing is written by default.
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

    kept = "base re-ranker"
    libraries = ("numpy", "scipy")

    @plain_arguments
    def __init__(
        self,
        dataset: RelevanceDataset | RetrievalDataset,
        retriever: BaseRetriever | None = None,
        *,
        val_dataset: RelevanceDataset | RetrievalDataset | None = None,
        options: LightRerankerOptions | None = None,
        base_reranker: BaseNodePostprocessor | None = None,
        model_output_path: str | PathLike[str] | None = None,
        accept: Accept = "gain",
        num_workers: int = 1,
        show_progress: bool = False,
    ) -> None:
        check_accept(accept)
        if base_reranker is not None:
            of_type("base_reranker", base_reranker, BaseNodePostprocessor, "a node postprocessor")
        self.dataset = dataset
        self.retriever = retriever
        self.val_dataset = val_dataset
        self.options = check_options(options, LightRerankerOptions)
        self.base_reranker = base_reranker
        self.model_output_path = output_path(model_output_path)
        self.accept = accept
        self.num_workers = whole_number("num_workers", num_workers, 1)
        self.show_progress = show_progress

    def _check(self) -> None:
        self._data, self._moved = checked_data(self.dataset, self.val_dataset, self.retriever)
        self._analyzer = analyzer_for(
            self.retriever, self.options.language, self.options.stop_words
        )

    def _tune(self, clock: Clock) -> FinetuneReport:
        dataset, val_dataset = self._data
        with clock.step("candidates"):
            train = check_learnable(self._candidates(dataset))
            val = None if val_dataset is None else self._candidates(val_dataset)
        with clock.step("features"):
            self._words = counted_words(dataset, train, self._analyzer)
            deployed = deployed_statistics(self.retriever, self._words)
            maker = FeatureMaker(self._analyzer, deployed, self.options.metadata_keys)
            lists = maker.lists(train, self.options.depth)
        with clock.step("training"):
            fitted = self._fitted(train, lists)
        with clock.step("measuring"):
            comparison = compare(
                val or train,
                maker,
                fitted.out_of_fold if val is None else fitted.scores,
                base_lines(self.base_reranker, self.retriever),
                self.options,
                lists=lists if val is None else None,
            )
        self._ranker, self._best = fitted.ranker, comparison.base
        self._learnt = learned_lists(train)
        return self._described(train, val, fitted, comparison)

    def _tuned(self, **model_kwargs: Any) -> LightReranker:
        """Takes arguments of `LightReranker` after `statistics`, such as `top_n`."""
        ranker = replace(self._ranker, details=self._details(self._finished()))
        return LightReranker(ranker, self._analyzer, self._words, **model_kwargs)

    def _base(self, **model_kwargs: Any) -> BaseNodePostprocessor:
        """Takes the same; `base_reranker` comes back as it was given."""
        return self._best.component(
            self._finished().reason, self._analyzer, self._words, **model_kwargs
        )

    def _write(self, folder: Path, report: FinetuneReport) -> None:
        ranker = replace(self._ranker, details=self._details(report))
        LightReranker(ranker, self._analyzer, self._words).write(folder)

    def _write_base(self, folder: Path, report: FinetuneReport) -> None:
        base = self._best.component(report.reason, self._analyzer, self._words)
        if isinstance(base, CalibratedReranker):
            base.write(folder)
        else:  # the app's own, which has no saved form of ours
            super()._write_base(folder, report)

    def _details(self, report: FinetuneReport) -> dict[str, Any]:
        return {
            "name": "tuned light re-ranker",
            "accepted": report.accepted,
            "reason": report.reason,
            "queries": report.data["queries"],
            "fingerprint": report.data["fingerprint"],
            "gains": {name: asdict(gain) for name, gain in report.gains.items()},
            "options": report.options,
            "versions": report.versions,
            "questions": self._learnt,
        }

    def _candidates(self, data: Given) -> RelevanceDataset:
        found, notes = candidate_lists(
            data,
            self.retriever,
            num_workers=self.num_workers,
            show_progress=self.show_progress,
        )
        self._moved += notes
        return found

    def _fitted(self, train: RelevanceDataset, lists: Sequence[FeatureList]) -> _Fitted:
        options = self.options
        start = default_ranker() if options.start == "default" else LinearRanker.fixed("zero")
        prior = standardised(lists, start.with_metadata(options.metadata_keys))
        fold = fold_numbers(separable_groups(train), options.folds, options.seed)
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
    ) -> FinetuneReport:
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
            queries=comparison.queries,
            slices=comparison.slices,
            base=comparison.base.name,
            before=comparison.before,
            data=data,
            options={**asdict(self.options), "loss": fitted.loss},
            seed=self.options.seed,
            notes=[
                *self._moved,
                *comparison.notes,
                *([] if val else tied_notes(train)),
                *data_notes(self.retriever, self._data[0], val or train, comparison.base),
            ],
        )


def check_learnable(dataset: RelevanceDataset) -> RelevanceDataset:
    """There must be something to learn, and something else to measure it on."""
    if not dataset.trainable():
        raise DatasetError(
            "there is nothing to learn: no query has both a relevant candidate and another one "
            "(negatives); let the retriever find more, or label some"
        )
    separable_groups(dataset)
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

    ranker: LinearRanker
    loss: Loss
    freedom: float
    fold: Ints
    rankers: Sequence[LinearRanker]

    def scores(self, _: RelevanceDataset, lists: Sequence[FeatureList]) -> list[Float64]:
        """Of lists that are not trained on."""
        return [self.ranker.scores(item.features) for item in lists]

    def out_of_fold(self, _: RelevanceDataset, lists: Sequence[FeatureList]) -> list[Float64]:
        """Of the training lists, at any depth."""
        return [
            self.rankers[fold].scores(item.features)
            for fold, item in zip(self.fold.tolist(), lists, strict=True)
        ]
