"""Trains and measures a cross-encoder on the app's own candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor

from llama_index.tuning._checks import (
    callable_or_none,
    check_model_id,
    check_options,
    items_of,
    of_type,
    output_path,
    plain_arguments,
    whole_number,
)
from llama_index.tuning.artifacts import CONFIG
from llama_index.tuning.base import BaseRerankerFinetuneEngine, Clock, FinetuneEngine
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.datasets.tuned_parts import refuse_learnt_by
from llama_index.tuning.errors import DatasetError
from llama_index.tuning.gate import Accept, check_accept
from llama_index.tuning.hf.checkpoints import beside, held
from llama_index.tuning.hf.cross_encoders import cross_encoder_class, load_cross_encoder
from llama_index.tuning.hf.processes import join_processes, on_main, wait_for_all
from llama_index.tuning.hf.tracking import named_trackers, trainer_callbacks
from llama_index.tuning.report import FinetuneReport
from llama_index.tuning.rerankers.cross.mixture import compared, decided, light_ranker
from llama_index.tuning.rerankers.cross.model import TunedReranker
from llama_index.tuning.rerankers.cross.options import CrossEncoderOptions
from llama_index.tuning.rerankers.cross.train import graded_lists, train, training_rows
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
    split_lists,
)
from llama_index.tuning.rerankers.light.model import LightReranker
from llama_index.tuning.rerankers.loading import load_reranker
from llama_index.tuning.rerankers.measure import PRIMARY, Comparison, base_lines
from llama_index.tuning.rerankers.serving import CalibratedReranker

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from transformers import TrainerCallback


class CrossEncoderFinetuneEngine(FinetuneEngine, BaseRerankerFinetuneEngine):
    """Tunes a cross-encoder: slower and larger than the light re-ranker, so try that one first.

    Queries are split three ways, those about one node kept together: to train, to decide (early
    stopping by nDCG@10, fusion weight, calibration), and to measure. A light re-ranker is tuned
    on the same queries, in about a second: its score is mixed with the transformer's, and it is
    among what the two together have to beat.

    Args:
        dataset: a `RelevanceDataset`, the old package's samples, or a `RetrievalDataset` with
            `retriever`.
        model_id: a cross-encoder or encoder, by Hugging Face name or folder.
        model_output_path: folder of the re-ranker and its report; checkpoints lie beside it until
            the run succeeds. After a refusal it holds the base, and the cross-encoder lies in its
            `candidate/`. `None` writes nothing, and a run that was killed starts anew.
        batch_size: pairs a batch; for losses on lists an eighth as many lists.
        val_dataset: queries to measure on, none of which `dataset` has; else a part of that.
        loss: a loss object of sentence-transformers, or a function that makes one of the model,
            on rows as `options.loss` wants them.
        epochs: passes over the training queries.
        show_progress_bar: the old package's name of `show_progress`.
        evaluation_steps: steps between two looks at the deciding queries.
        retriever: finds the candidates of a `RetrievalDataset`, as deployed.
        options: how to train.
        base_reranker: what the app re-ranks with today.
        callbacks: of transformers' trainer.
        report_to: trackers of transformers that log the training, such as `"tensorboard"` (its
            files lie beside the output folder), `"mlflow"` or `"wandb"`.
        accept: `"gain"`, or `"always"` to take the tuned one whatever was measured.
        show_progress: show bars.
    """

    kept = "base re-ranker"
    libraries = ("sentence-transformers", "transformers", "torch")

    @plain_arguments
    def __init__(
        self,
        dataset: Any,
        model_id: str | Path = "cross-encoder/ms-marco-MiniLM-L-12-v2",
        model_output_path: str | PathLike[str] | None = "tuned_cross_encoder",
        batch_size: int = 10,
        val_dataset: Any = None,
        loss: Any = None,
        epochs: int = 2,
        show_progress_bar: bool = False,
        evaluation_steps: int = 50,
        *,
        retriever: BaseRetriever | None = None,
        options: CrossEncoderOptions | None = None,
        base_reranker: BaseNodePostprocessor | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        report_to: str | Sequence[str] = (),
        accept: Accept = "gain",
        show_progress: bool = False,
    ) -> None:
        check_accept(accept)
        if base_reranker is not None:
            of_type("base_reranker", base_reranker, BaseNodePostprocessor, "a node postprocessor")
        named: object = model_id
        if not isinstance(named, str | Path):
            kind = type(named).__name__
            raise TypeError(f"model_id must be a name or a folder, got {kind}; retriever= by name")
        callable_or_none("loss", loss)
        self.dataset, self.val_dataset, self.retriever = dataset, val_dataset, retriever
        self.model_id, self.loss = str(model_id), loss
        self.model_output_path = output_path(model_output_path)
        self.batch_size = whole_number("batch_size", batch_size, 1)
        self.epochs = whole_number("epochs", epochs, 1)
        self.evaluation_steps = whole_number("evaluation_steps", evaluation_steps, 1)
        self.options = check_options(options, CrossEncoderOptions)
        self.base_reranker, self.accept = base_reranker, accept
        self.callbacks = list(items_of("callbacks", callbacks, "callbacks"))
        self.report_to = named_trackers(report_to)
        self.show_progress = show_progress or show_progress_bar
        self._checkpoints = Path()  # each run says where
        if self.options.resume and self.model_output_path is None:
            raise ValueError("options.resume needs a model_output_path: checkpoints lie beside it")

    def get_finetuned_model(
        self, model_name: str | None = None, **model_kwargs: Any
    ) -> BaseNodePostprocessor:
        """The tuned re-ranker, or the best base if no gain was shown.

        Args:
            model_name: a cross-encoder to load instead, by Hugging Face name or folder, as the
                old package did; needs no `finetune()`.
            **model_kwargs: `top_n`, `min_score`, `keep_retrieval_score`; not for `base_reranker`,
                which is given back as it came.

        Raises:
            NotFinetunedError: `finetune()` has not run.
        """
        reranker: BaseNodePostprocessor
        if model_name is None:
            reranker = super().get_finetuned_model(**model_kwargs)
        elif (Path(model_name) / CONFIG).exists():
            reranker = load_reranker(model_name, **model_kwargs)  # after a refusal, the base
        else:
            reranker = TunedReranker(model_name, **model_kwargs)
        return reranker

    @contextmanager
    def _output_held(self) -> Iterator[None]:
        """Checkpoints stay until the output is written."""
        with super()._output_held(), beside(self.model_output_path, "cross_encoder.") as own:
            self._checkpoints = own
            if self.model_output_path is None:  # all processes take the first one's
                join_processes(self.options.device)
                self._checkpoints = on_main(lambda: own)
            with held(self._checkpoints, keep=False):
                yield
                wait_for_all()

    def _check(self) -> None:
        self._data, self._moved = checked_data(self.dataset, self.val_dataset, self.retriever)
        self._analyzer = analyzer_for(self.retriever, self.options.language)
        cross_encoder_class()  # may not be installed
        check_model_id(self.model_id)
        self._callbacks = trainer_callbacks(self.callbacks, self.report_to, self.model_output_path)

    def _tune(self, clock: Clock) -> FinetuneReport:
        dataset, val_dataset = self._data
        with clock.step("candidates"):
            data = self._candidates(dataset)
            teach, decide_on, measured = self._parts(data, val_dataset)
            refuse_learnt_by(self.model_id, [item.query for item in measured.lists])
            rows = training_rows(graded_lists(teach.lists, self.options), self.options.loss)
        with clock.step("training"):
            self._words = counted_words(dataset, data, self._analyzer)
            deployed = deployed_statistics(self.retriever, self._words)
            maker = FeatureMaker(self._analyzer, deployed)
            light = light_ranker(teach, maker, self.options)
            model = self._new_model()
            history = self._train(model, rows, teach, decide_on)
        with clock.step("measuring"):
            mixture = decided(model, light, decide_on, maker, self.options, data.highest_grade)
            lines = base_lines(self.base_reranker, self.retriever)
            comparison = compared(model, mixture, measured, maker, lines, self.options)
        self._model, self._mixture, self._best = model, mixture, comparison.base
        self._learnt = learned_lists(RelevanceDataset([*teach.lists, *decide_on.lists]))
        found = {
            "training_queries": len(teach),
            "deciding_queries": len(decide_on),
            "fingerprint": teach.fingerprint(),
            "fusion_weight": mixture.weight,
        }
        return self._described(comparison, measured, found, history)

    def _tuned(self, **model_kwargs: Any) -> TunedReranker:
        """Takes arguments of `TunedReranker`, such as `top_n`."""
        return self._reranker(self._finished(), **model_kwargs)

    def _base(self, **model_kwargs: Any) -> BaseNodePostprocessor:
        """Takes the same; `base_reranker` comes back as it was given."""
        return self._best.component(
            self._finished().reason, self._analyzer, self._words, **model_kwargs
        )

    def _write(self, folder: Path, report: FinetuneReport) -> None:
        self._reranker(report).write(folder)

    def _write_base(self, folder: Path, report: FinetuneReport) -> None:
        base = self._best.component(report.reason, self._analyzer, self._words)
        if isinstance(base, CalibratedReranker):
            base.write(folder)
        else:  # the app's own, which has no saved form of ours
            super()._write_base(folder, report)

    def _reranker(self, report: FinetuneReport, **arguments: Any) -> TunedReranker:
        """What was learnt, and how it came about."""
        mixture = self._mixture
        partner = None
        if mixture.uses_light:
            partner = LightReranker(mixture.light, self._analyzer, self._words)
        learnt = {
            "fusion_weight": mixture.weight,
            "partner": partner,
            "calibration": mixture.calibration,
            "details": self._details(report),
        }
        return TunedReranker(self._model, **{**learnt, **arguments})

    def _new_model(self) -> Any:
        from transformers import set_seed

        set_seed(self.options.seed)  # an encoder gets a new head
        model = load_cross_encoder(
            self.model_id,
            device=self.options.device,
            trust_remote_code=self.options.trust_remote_code,
        )
        if self.options.max_length is not None:
            model.max_seq_length = self.options.max_length
        return model

    def _candidates(self, data: Given) -> RelevanceDataset:
        found, notes = candidate_lists(data, self.retriever, show_progress=self.show_progress)
        self._moved += notes
        return found

    def _parts(
        self, data: RelevanceDataset, val_dataset: Given | None
    ) -> tuple[RelevanceDataset, RelevanceDataset, RelevanceDataset]:
        """Queries to train on, to decide by, and to measure on."""
        share = self.options.held_out
        data, decide_on = split_lists(data, share, self.options.seed)
        if val_dataset is not None:
            measured = self._candidates(val_dataset)
        else:
            data, measured = split_lists(data, share / (1 - share), self.options.seed + 1)
        for purpose, part in (("decide by", decide_on), ("measure on", measured)):
            if not any(c.score > 0 for item in part.lists for c in item.candidates):
                raise DatasetError(
                    f"none of the {len(part)} queries to {purpose} has a relevant candidate; let "
                    "the retriever find more, or label more queries"
                )
        return data, decide_on, measured

    def _train(
        self,
        model: Any,
        rows: Mapping[str, list[Any]],
        teach: RelevanceDataset,
        decide_on: RelevanceDataset,
    ) -> list[dict[str, float]]:
        return train(
            model,
            rows,
            decide_on.lists,
            self._checkpoints,
            self.options,
            batch_size=self.batch_size,
            epochs=self.epochs,
            evaluation_steps=self.evaluation_steps,
            identity={"model_id": self.model_id, "fingerprint": teach.fingerprint()},
            loss=self.loss,
            callbacks=self._callbacks,
            show_progress=self.show_progress,
        )

    def _described(
        self,
        comparison: Comparison,
        measured: RelevanceDataset,
        data: dict[str, Any],
        history: list[dict[str, float]],
    ) -> FinetuneReport:
        return FinetuneReport(
            title=f"cross-encoder ({Path(self.model_id).name})",
            method="held-out queries" if self.val_dataset is None else "validation set",
            model=Path(self.model_id).name,
            primary=PRIMARY,
            gains=comparison.gains,
            queries=comparison.queries,
            slices=comparison.slices,
            base=comparison.base.name,
            before=comparison.before,
            data=data,
            options={**asdict(self.options), "epochs": self.epochs, "batch_size": self.batch_size},
            seed=self.options.seed,
            history=history,
            notes=[
                *self._moved,
                *comparison.notes,
                *data_notes(self.retriever, self._data[0], measured, comparison.base),
            ],
        )

    def _details(self, report: FinetuneReport) -> dict[str, Any]:
        return {
            "model_id": Path(self.model_id).name,
            "accepted": report.accepted,
            "reason": report.reason,
            "fingerprint": report.data["fingerprint"],
            "versions": report.versions,
            "questions": self._learnt,
        }
