"""Trains and measures a cross-encoder on the app's own candidates."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor

from llama_index.tuning._checks import whole_number
from llama_index.tuning._running import is_main_process
from llama_index.tuning.artifacts import CONFIG, check_writable
from llama_index.tuning.base import BaseRerankerFinetuneEngine
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.errors import DatasetError, NotFinetunedError
from llama_index.tuning.gate import Accept, check_accept, decide
from llama_index.tuning.hf.cross_encoders import cross_encoder_class, load_cross_encoder
from llama_index.tuning.report import FinetuneReport, installed_versions
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
    deployed_statistics,
    split_lists,
    word_index,
)
from llama_index.tuning.rerankers.light.model import LightReranker
from llama_index.tuning.rerankers.measure import PRIMARY, Baseline, Comparison, base_lines

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever

logger = logging.getLogger(__name__)


class CrossEncoderFinetuneEngine(BaseRerankerFinetuneEngine):
    """Tunes a cross-encoder: slower and larger than the light re-ranker, so try that one first.

    Queries are split three ways, those about one node kept together: to train, to decide (early
    stopping by nDCG@10, fusion weight, calibration), and to measure. A light re-ranker is tuned
    on the same queries, in about a second: its score is mixed with the transformer's, and it is
    among what the two together have to beat.

    Args:
        dataset: a `RelevanceDataset`, the old package's samples, or a `RetrievalDataset` with
            `retriever`.
        model_id: a cross-encoder or encoder, by Hugging Face name or folder.
        model_output_path: folder of the tuned re-ranker; checkpoints lie beside it.
        batch_size: pairs a batch; for losses on lists an eighth as many lists.
        val_dataset: queries to measure on, none of which `dataset` has; else a part of that.
        loss: a loss object of sentence-transformers, instead of `options.loss`.
        epochs: passes over the training queries.
        show_progress_bar: show bars.
        evaluation_steps: steps between two looks at the deciding queries.
        retriever: finds the candidates of a `RetrievalDataset`, as deployed.
        options: how to train.
        base_reranker: what the app re-ranks with today.
        accept: `"gain"`, or `"always"` to take the tuned one whatever was measured.
    """

    def __init__(
        self,
        dataset: Any,
        model_id: str | Path = "cross-encoder/ms-marco-MiniLM-L-12-v2",
        model_output_path: str = "exp_finetune",
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
        accept: Accept = "gain",
    ) -> None:
        check_accept(accept)
        if options is not None and not isinstance(options, CrossEncoderOptions):
            raise TypeError(f"options must be CrossEncoderOptions, got {options!r}")
        if base_reranker is not None and not isinstance(base_reranker, BaseNodePostprocessor):
            raise TypeError(f"base_reranker must be a node postprocessor, got {base_reranker!r}")
        named: object = model_id
        if not isinstance(named, (str, Path)):
            kind = type(named).__name__
            raise TypeError(f"model_id must be a name or a folder, got {kind}; retriever= by name")
        if not epochs >= 1:
            raise ValueError(f"epochs must be >= 1, got {epochs}")
        self.dataset, self.val_dataset, self.retriever = dataset, val_dataset, retriever
        self.model_id, self.model_output_path = str(model_id), model_output_path
        self.batch_size = whole_number("batch_size", batch_size, 1)
        self.evaluation_steps = whole_number("evaluation_steps", evaluation_steps, 1)
        self.epochs, self.loss, self.show_progress_bar = epochs, loss, show_progress_bar
        self.options = options or CrossEncoderOptions()
        self.base_reranker, self.accept = base_reranker, accept
        self._report: FinetuneReport | None = None
        self._base: Baseline | None = None

    def finetune(self) -> FinetuneReport:
        """Collect candidates, train, decide, measure and save."""
        check_writable(self.model_output_path)
        dataset, val_dataset = checked_data(self.dataset, self.val_dataset, self.retriever)
        analyzer = analyzer_for(self.retriever, self.options.language)
        cross_encoder_class()  # may not be installed
        started = time.perf_counter()
        data = candidate_lists(dataset, self.retriever)
        teach, decide_on, measured = self._parts(data, val_dataset)
        rows = training_rows(graded_lists(teach.lists, self.options), self.options.loss)
        self._words = analyzer, counted_words(dataset, data, analyzer)
        maker = FeatureMaker(analyzer, deployed_statistics(self.retriever, self._words[1]))
        light = light_ranker(teach, maker, self.options)
        model = self._new_model()
        history = self._train(model, rows, teach, decide_on)
        trained = time.perf_counter()
        mixture = decided(model, light, decide_on, maker, self.options, data.highest_grade)
        lines = base_lines(self.base_reranker, word_index(self.retriever))
        comparison = compared(model, mixture, measured, maker, lines, self.options)
        report = self._described(
            comparison,
            {
                "training_queries": len(teach),
                "deciding_queries": len(decide_on),
                "fingerprint": teach.fingerprint(),
                "fusion_weight": mixture.weight,
            },
            {"training": trained - started, "measuring": time.perf_counter() - trained},
            history,
        )
        self._tuned = partial(
            TunedReranker,
            model,
            fusion_weight=mixture.weight,
            partner=LightReranker(mixture.light, *self._words) if mixture.uses_light else None,
            calibration=mixture.calibration,
            details=self._details(report),
        )
        if is_main_process():  # of several processes, one writes
            self._tuned().save(self.model_output_path)
            report.save_json(Path(self.model_output_path) / "report.json")
        self._base, self._report = comparison.base, report
        return report

    def push_to_hub(self, repo_id: str, *, private: bool | None = None) -> str:
        """Upload the tuned cross-encoder's folder to the Hugging Face Hub, as its login there.

        Args:
            repo_id: such as `"me/my-reranker"`; made where it does not exist.
            private: whether a new one is; the account's default without.

        Returns:
            The address.

        Raises:
            NotFinetunedError: `finetune()` did not run.
            ValueError: no `repo_id`, or the gate kept the base.
        """
        if not repo_id or not isinstance(repo_id, str):
            raise ValueError(f"repo_id must be a name such as 'me/my-reranker', got {repo_id!r}")
        if self._report is None:
            raise NotFinetunedError("call finetune() first; there is no tuned re-ranker yet")
        if not self._report.accepted:
            raise ValueError(
                f'the gate kept the base ({self._report.reason}); accept="always" would override it'
            )
        from huggingface_hub import HfApi

        hub = HfApi()
        address = hub.create_repo(repo_id, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repo_id, folder_path=self.model_output_path)
        return str(address)

    def get_finetuned_model(
        self, model_name: str | None = None, **model_kwargs: Any
    ) -> BaseNodePostprocessor:
        """The tuned re-ranker, or the best base where no gain was shown.

        Args:
            model_name: a cross-encoder to load instead, by Hugging Face name or folder, as the
                old package did; needs no `finetune()`.
            **model_kwargs: `top_n`, `min_score`, `keep_retrieval_score`; not for `base_reranker`,
                which is given back as it came.

        Raises:
            NotFinetunedError: `finetune()` did not run.
        """
        if model_name is not None:
            ours = (Path(model_name) / CONFIG).exists()
            return (TunedReranker.load if ours else TunedReranker)(model_name, **model_kwargs)
        if self._report is None or self._base is None:
            raise NotFinetunedError("call finetune() first; there is no tuned re-ranker yet")
        if self._report.accepted:
            return self._tuned(**model_kwargs)
        logger.warning(
            'the base is kept (%s): %s; accept="always" overrides',
            self._base.name,
            self._report.reason,
        )
        return self._base.component(self._report.reason, *self._words, **model_kwargs)

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

    def _parts(
        self, data: RelevanceDataset, val_dataset: Given | None
    ) -> tuple[RelevanceDataset, RelevanceDataset, RelevanceDataset]:
        """Queries to train on, to decide by, and to measure on."""
        share = self.options.held_out
        data, decide_on = split_lists(data, share, self.options.seed)
        if val_dataset is not None:
            measured = candidate_lists(val_dataset, self.retriever)
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
            Path(f"{self.model_output_path}.checkpoints"),
            self.options,
            batch_size=self.batch_size,
            epochs=self.epochs,
            evaluation_steps=self.evaluation_steps,
            identity={"model_id": self.model_id, "fingerprint": teach.fingerprint()},
            loss=self.loss,
            show_progress=self.show_progress_bar,
        )

    def _described(
        self,
        comparison: Comparison,
        data: dict[str, Any],
        seconds: dict[str, float],
        history: list[dict[str, float]],
    ) -> FinetuneReport:
        verdict = decide(PRIMARY, comparison.gains[PRIMARY], accept=self.accept)
        return FinetuneReport(
            title=f"cross-encoder ({Path(self.model_id).name})",
            method="held-out queries" if self.val_dataset is None else "validation set",
            primary=PRIMARY,
            gains=comparison.gains,
            slices=comparison.slices,
            accepted=verdict.accepted,
            reason=f"{verdict.reason}; base: {comparison.base.name}",
            data=data,
            options={**asdict(self.options), "epochs": self.epochs, "batch_size": self.batch_size},
            seed=self.options.seed,
            seconds=seconds,
            history=history,
            notes=comparison.notes,
            versions=installed_versions("sentence-transformers", "transformers", "torch"),
        )

    def _details(self, report: FinetuneReport) -> dict[str, Any]:
        return {
            "model_id": Path(self.model_id).name,
            "accepted": report.accepted,
            "reason": report.reason,
            "fingerprint": report.data["fingerprint"],
            "versions": report.versions,
        }
