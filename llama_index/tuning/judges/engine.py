"""The engine that trains a judge."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from llama_index.tuning.base import BaseEvaluatorFinetuneEngine
from llama_index.tuning.datasets.judgments import JudgmentDataset
from llama_index.tuning.errors import JudgeRefusedError, NotFinetunedError
from llama_index.tuning.gate import Accept, check_accept
from llama_index.tuning.judges.options import JudgeOptions
from llama_index.tuning.judges.student import Student, student_of

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.evaluation import BaseEvaluator

    from llama_index.tuning.judges.data import JudgeData
    from llama_index.tuning.judges.light.features import FeatureMaker, Vectors
    from llama_index.tuning.judges.run import JudgeReport
    from llama_index.tuning.judges.student import EvaluatorModel, JudgeModel, TrainingData

logger = logging.getLogger(__name__)


class JudgeFinetuneEngine(BaseEvaluatorFinetuneEngine):
    """Distils an expensive evaluator's verdicts, or people's, into a judge that runs anywhere.

    The light student is a logistic regression on lengths, support by the contexts, overlaps and
    cosines; of a pair of responses on their difference, so that their order cannot matter.
    Penalty, calibration and threshold are chosen on verdicts that were held out, a query's
    verdicts together.

    Args:
        dataset: verdicts, at least 10; all with `second_response` (pairwise), or none.
        embed_model: the app's embedding model; adds how near the response's sentences are to the
            contexts' and to the query. None looks at words alone.
        student: who learns: `"light"`, or the options of another student: `EncoderStudent`,
            `LLMStudent`.
        val_dataset: verdicts to measure on, on other queries. Without them, cross-fitting scores
            each verdict by a judge that saw none of its query.
        options: how to train; see `JudgeOptions`.
        defer_to: the evaluator that uncertain answers go to; also what `get_finetuned_model()`
            returns where no gain was shown (for an `LLMStudent`, that only).
        accept: `"gain"` keeps the judge only where it beats the best shortcut (the most frequent
            verdict, length alone, overlap alone); `"always"` keeps it in any case.
        model_output_path: folder to save the judge to, where it is accepted.
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

    def __init__(
        self,
        dataset: JudgmentDataset,
        embed_model: BaseEmbedding | None = None,
        *,
        student: Literal["light"] | Student = "light",
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
        if options is not None and not isinstance(options, JudgeOptions):
            raise TypeError(f"options must be JudgeOptions, got {type(options).__name__}")
        self._student = student_of(student)
        if embed_model is not None and not self._student.embeds:
            raise ValueError(
                f"embed_model is of no use to the student {self._student.name!r}: leave it out"
            )
        self.dataset = dataset
        self.embed_model = embed_model
        self.student = student
        self.val_dataset = val_dataset
        self.options = options or JudgeOptions()
        self.defer_to = defer_to
        self.accept = accept
        self.model_output_path = model_output_path
        self.vector_cache = vector_cache
        self.num_workers = num_workers
        self.show_progress = show_progress
        self.report: JudgeReport | None = None
        self._judge: JudgeModel | EvaluatorModel | None = None

    def finetune(self) -> JudgeReport:
        """Check, embed, cross-fit, fit, measure, decide, save.

        Returns:
            The report; `print(report)` shows the table and the verdict.

        Raises:
            DatasetError: verdicts that cannot be learnt from, each named.
        """
        from llama_index.tuning import artifacts
        from llama_index.tuning.judges.data import check_held_out, check_trainable, judge_data_of
        from llama_index.tuning.judges.loading import check_models
        from llama_index.tuning.judges.run import details_of, shortcut_opinions, write_report
        from llama_index.tuning.vectors.stores import model_signature

        check_models(self.embed_model, self.defer_to)
        if self.model_output_path is not None:
            artifacts.check_writable(self.model_output_path)
        material = judge_data_of(self.dataset, self.options)
        check_trainable(material, self.options.folds)
        held_out = None
        if self.val_dataset is not None:
            held_out = judge_data_of(self.val_dataset, self.options, "val_dataset")
            check_held_out(material, held_out)
        self._student.check(material, held_out)
        started = time.perf_counter()
        lesson = self._lesson(material, held_out)
        seconds = {"features": time.perf_counter() - started}
        started = time.perf_counter()
        learnt = self._student.learn(lesson)
        shortcuts = {**shortcut_opinions(lesson, learnt.measured), **learnt.baselines}
        seconds["fit"] = time.perf_counter() - started
        report = write_report(
            lesson,
            learnt,
            shortcuts,
            self.val_dataset or self.dataset,
            student=self._student,
            accept=self.accept,
            seconds=seconds,
        )
        details = details_of(report)
        if self.embed_model is not None:
            details["signature"] = model_signature(self.embed_model)
        self._judge = replace(cast(Any, learnt.model), details=details)
        self.report = report
        logger.info("%s", report.reason)
        if self.model_output_path is not None and report.accepted:
            self._judge.save(self.model_output_path)
        return report

    def get_finetuned_model(self, **model_kwargs: Any) -> BaseEvaluator:
        """The tuned judge; `defer_to` where no gain was shown.

        Args:
            **model_kwargs: arguments of `TunedJudge`: `defer_to`, `threshold`. Of an `LLMStudent`,
                `defer_to` and what the LLM engine's `get_finetuned_model()` takes.

        Raises:
            NotFinetunedError: `finetune()` has not run.
            JudgeRefusedError: no gain was shown and there is no `defer_to`.
        """
        if self.report is None or self._judge is None:
            raise NotFinetunedError("call finetune() before get_finetuned_model()")
        model_kwargs.setdefault("defer_to", self.defer_to)
        if not self.report.accepted:
            advice = 'accept="always" would override'
            if model_kwargs["defer_to"] is None:
                raise JudgeRefusedError(
                    f"the judge is refused: {self.report.reason}; there is no defer_to to return "
                    f"in its place; {advice}"
                )
            logger.warning("defer_to is returned: %s; %s", self.report.reason, advice)
            evaluator: BaseEvaluator = model_kwargs["defer_to"]
            return evaluator
        if hasattr(self._judge, "serve"):
            del model_kwargs["defer_to"]  # it is for what is uncertain, and no verdict says so
            return self._judge.serve(**model_kwargs)
        from llama_index.tuning.judges.judge import TunedJudge

        return TunedJudge(self._judge, self.embed_model, **model_kwargs)

    def _lesson(self, material: JudgeData, held_out: JudgeData | None) -> TrainingData:
        from llama_index.tuning.judges.run import rows_of, topics_of
        from llama_index.tuning.judges.student import TrainingData
        from llama_index.tuning.vectors.stores import base_name

        maker = self._maker(material)
        vectors = self._vectors(maker, material)
        if vectors is not None and not material.pairwise:
            maker = replace(maker, topics=topics_of(vectors, material))
        table = maker.table(material.items, vectors)
        other = None
        if held_out is not None:
            other = maker.table(held_out.items, self._vectors(maker, held_out))
        return TrainingData(
            material=material,
            held_out=held_out,
            options=self.options,
            rows=rows_of(material, table, self.options, maker.columns),
            other=other,
            maker=maker,
            base_model="" if self.embed_model is None else base_name(self.embed_model),
            output=None if self.model_output_path is None else Path(self.model_output_path),
            show_progress=self.show_progress,
        )

    def _maker(self, material: JudgeData) -> FeatureMaker:
        from llama_index.tuning.judges.light.features import FeatureMaker, statistics_of
        from llama_index.tuning.text.words import Analyzer

        analyzer = Analyzer(self.options.language)
        return FeatureMaker(
            analyzer,
            statistics_of(material.items, analyzer),
            contexts=material.contexts,
            reference=material.reference,
            embedded=self.embed_model is not None,
            style=not material.pairwise,
        )

    def _vectors(self, maker: FeatureMaker, material: JudgeData) -> Vectors | None:
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
        return vectors_for(maker, material.items, embedder)
