"""The engine that trains a judge."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llama_index.tuning._checks import (
    check_options,
    of_type,
    output_path,
    path_or_none,
    plain_arguments,
    whole_number,
)
from llama_index.tuning.base import (
    OVERRIDE,
    BaseEvaluatorFinetuneEngine,
    Clock,
    FinetuneEngine,
)
from llama_index.tuning.datasets.judgments import JudgmentDataset
from llama_index.tuning.datasets.tuned_parts import refuse_learnt
from llama_index.tuning.errors import JudgeRefusedError
from llama_index.tuning.gate import Accept, check_accept
from llama_index.tuning.judges.options import JudgeOptions

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.evaluation import BaseEvaluator

    from llama_index.tuning.judges.data import JudgeData
    from llama_index.tuning.judges.light.features import FeatureMaker, Vectors
    from llama_index.tuning.judges.light.model import LightJudge
    from llama_index.tuning.judges.run import JudgeReport
    from llama_index.tuning.judges.training import TrainingData
    from llama_index.tuning.report import FinetuneReport


class JudgeFinetuneEngine(FinetuneEngine, BaseEvaluatorFinetuneEngine):
    """Distils an expensive evaluator's verdicts, or people's, into a judge that runs anywhere.

    The judge is a logistic regression on lengths, support by the contexts, overlaps and
    cosines; of a pair of responses on their difference, so that their order cannot matter.
    Penalty, calibration and threshold are chosen on verdicts that were held out, a query's
    verdicts together.

    Args:
        dataset: verdicts, at least 10; all with `second_response` (pairwise), or none.
        embed_model: the app's embedding model; adds how near the response's sentences are to the
            contexts' and to the query. None looks at words alone.
        val_dataset: verdicts to measure on, on other queries. Without them, cross-fitting scores
            each verdict by a judge that saw none of its query.
        options: how to train; see `JudgeOptions`.
        defer_to: the evaluator that uncertain answers go to, and the base, which
            `get_finetuned_model()` returns if no gain is shown.
        accept: `"gain"` keeps the judge only if it beats the best shortcut (the most frequent
            verdict, length alone, overlap alone); `"always"` keeps it in any case.
        model_output_path: folder for the judge and its report; nothing is written by default. A
            refused judge lies in `candidate/` there.
        vector_cache: a file that keeps vectors between runs, keyed by model and text.
        num_workers: concurrent embedding calls, for models behind an API.
        show_progress: show progress bars.

    Example:
        >>> from llama_index.tuning import JudgmentDataset
        >>> rows = [
        ...     {
        ...         "query": f"Fee of plan {n}?",
        ...         "contexts": [f"Plan {n}: the fee is {n + 100} euros. Plan A is free."],
        ...         "response": f"{n + 100} euros." if n % 2 else f"{n + 500} dollars.",
        ...         "passing": bool(n % 2),
        ...     }
        ...     for n in range(100, 160)
        ... ]
        >>> engine = JudgeFinetuneEngine(JudgmentDataset.from_records(rows), accept="always")
        >>> engine.finetune().gains["balanced accuracy"].tuned
        1.0
        >>> judge = engine.get_finetuned_model()
        >>> judge.evaluate("Fee of B?", "170 euros.", ["Plan B: the fee is 170 euros."]).passing
        True
    """

    kept = "evaluator that was there before"
    report: JudgeReport | None

    @plain_arguments
    def __init__(
        self,
        dataset: JudgmentDataset,
        embed_model: BaseEmbedding | None = None,
        *,
        val_dataset: JudgmentDataset | None = None,
        options: JudgeOptions | None = None,
        defer_to: BaseEvaluator | None = None,
        accept: Accept = "gain",
        model_output_path: str | PathLike[str] | None = None,
        vector_cache: str | PathLike[str] | None = None,
        num_workers: int = 1,
        show_progress: bool = False,
    ) -> None:
        check_accept(accept)
        for name, value in (("dataset", dataset), ("val_dataset", val_dataset)):
            if name == "dataset" or value is not None:
                of_type(name, value, JudgmentDataset, "a JudgmentDataset")
        self.dataset = dataset
        self.embed_model = embed_model
        self.val_dataset = val_dataset
        self.options = check_options(options, JudgeOptions)
        self.defer_to = defer_to
        self.accept = accept
        self.model_output_path = output_path(model_output_path)
        self.vector_cache = path_or_none("vector_cache", vector_cache)
        self.num_workers = whole_number("num_workers", num_workers, 1)
        self.show_progress = show_progress
        self._model: LightJudge | None = None

    def finetune(self) -> JudgeReport:
        """Check, embed, cross-fit, fit, measure, decide, save.

        Returns:
            The report; `print(report)` shows the table and the verdict.

        Raises:
            DatasetError: verdicts that cannot be learnt from, each named.
            ArtifactError: something else lies at `model_output_path`, or another run writes there.
        """
        return cast("JudgeReport", super().finetune())

    def _check(self) -> None:
        from llama_index.tuning.judges.data import check_held_out, check_trainable, judge_data_of
        from llama_index.tuning.judges.serving import check_models

        check_models(self.embed_model, self.defer_to)
        train = judge_data_of(self.dataset, self.options)
        check_trainable(train, self.options.folds)
        held_out = None
        if self.val_dataset is not None:
            held_out = judge_data_of(self.val_dataset, self.options, "val_dataset")
            check_held_out(train, held_out)
        measured = self.val_dataset or self.dataset
        refuse_learnt(self.embed_model, [item.query or "" for item in measured.judgments])
        self._data = train, held_out

    def _tune(self, clock: Clock) -> JudgeReport:
        from llama_index.tuning.judges.light.fit import learn
        from llama_index.tuning.judges.run import shortcut_predictions, write_report
        from llama_index.tuning.vectors.identity import model_signature

        with clock.step("features"):
            data = self._training_data(*self._data)
        with clock.step("fit"):
            result = learn(data)
            shortcuts = shortcut_predictions(data)
        with clock.step("measuring"):
            report = write_report(data, result, shortcuts, self.val_dataset or self.dataset)
        self._model = result.model
        self._signature = (
            {} if self.embed_model is None else {"signature": model_signature(self.embed_model)}
        )
        return report

    def _tuned(self, **model_kwargs: Any) -> BaseEvaluator:
        """Takes `defer_to`, `threshold` and `refuse_unfamiliar`."""
        from llama_index.tuning.judges.judge import TunedJudge

        model_kwargs.setdefault("defer_to", self.defer_to)
        return TunedJudge(self._judge(self._finished()), self.embed_model, **model_kwargs)

    def _base(self, *, defer_to: BaseEvaluator | None = None, **model_kwargs: Any) -> BaseEvaluator:
        """`defer_to`; the rest is the judge's.

        Raises:
            JudgeRefusedError: there is none.
        """
        base = defer_to or self.defer_to
        if base is None:
            raise JudgeRefusedError(
                f"the judge is refused: {self._finished().reason}; there is no defer_to to return "
                f"in its place; {OVERRIDE}"
            )
        return base

    def _write(self, folder: Path, report: FinetuneReport) -> None:
        self._judge(report).write(folder)

    def _judge(self, report: FinetuneReport) -> LightJudge:
        """What was learnt, and how it came about."""
        from llama_index.tuning.judges.run import details_of

        details = {**details_of(cast("JudgeReport", report)), **self._signature}
        assert self._model is not None
        return replace(self._model, details=details)

    def _training_data(self, train: JudgeData, held_out: JudgeData | None) -> TrainingData:
        from llama_index.tuning.judges.light.features import table_as_new
        from llama_index.tuning.judges.run import rows_of, topics_of
        from llama_index.tuning.judges.training import TrainingData
        from llama_index.tuning.vectors.identity import base_name

        maker = self._maker(train)
        vectors = self._vectors(maker, train)
        if vectors is not None and not train.pairwise:
            maker = replace(maker, topics=topics_of(vectors, train))
        table = maker.table(train.items, vectors)
        rows = rows_of(train, table, self.options, maker.columns)
        other = None
        if held_out is not None:
            other = maker.table(held_out.items, self._vectors(maker, held_out))
        return TrainingData(
            data=train,
            held_out=held_out,
            options=self.options,
            rows=rows,
            as_new=partial(table_as_new, maker, train.items, vectors, rows.fold),
            other=other,
            maker=maker,
            base_model="" if self.embed_model is None else base_name(self.embed_model),
        )

    def _maker(self, train: JudgeData) -> FeatureMaker:
        from llama_index.tuning.judges.light.features import FeatureMaker, statistics_of
        from llama_index.tuning.text.words import Analyzer

        analyzer = Analyzer(self.options.language)
        return FeatureMaker(
            analyzer,
            statistics_of(train.items, analyzer),
            contexts=train.contexts,
            reference=train.reference,
            embedded=self.embed_model is not None,
            style=not train.pairwise,
        )

    def _vectors(self, maker: FeatureMaker, train: JudgeData) -> Vectors | None:
        if self.embed_model is None:
            return None
        from llama_index.tuning.judges.light.features import vectors_for
        from llama_index.tuning.vectors.embedder import Embedder

        embedder = Embedder(
            self.embed_model,
            cache=self.vector_cache,
            num_workers=self.num_workers,
            show_progress=self.show_progress,
        )
        return vectors_for(maker, train.items, embedder)
