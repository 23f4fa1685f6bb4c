"""Trains and measures a cross-encoder on the app's own candidates."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llama_index.tuning._processes import is_main_process
from llama_index.tuning.artifacts import CONFIG, check_writable
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
    retrieval_scores,
)
from llama_index.tuning.rerankers.cross_options import CrossEncoderOptions
from llama_index.tuning.rerankers.cross_training import train
from llama_index.tuning.rerankers.crossfit import fit_freely, fold_numbers, ndcg
from llama_index.tuning.rerankers.features import FloatArray
from llama_index.tuning.rerankers.fitting import FeatureList, calibrate, standardised, usual_loss
from llama_index.tuning.rerankers.light import LightReranker, default_ranker
from llama_index.tuning.rerankers.measuring import PRIMARY, Comparison, compare
from llama_index.tuning.rerankers.ranker import LightRanker
from llama_index.tuning.rerankers.tuned import TunedReranker, fuse, list_logits, load_cross_encoder

if TYPE_CHECKING:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

logger = logging.getLogger(__name__)

WEIGHTS = tuple(round(1 - 0.1 * i, 1) for i in range(11))
"""Shares of the other score."""
LIGHT_FOLDS = 5


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
        val_dataset: queries to measure on, instead of a part of `dataset`.
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
        model_id: str = "cross-encoder/ms-marco-MiniLM-L-12-v2",
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
        for name, value in (
            ("batch_size", batch_size),
            ("epochs", epochs),
            ("evaluation_steps", evaluation_steps),
        ):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        self.dataset, self.val_dataset, self.retriever = dataset, val_dataset, retriever
        self.model_id, self.model_output_path = model_id, model_output_path
        self.batch_size, self.epochs, self.evaluation_steps = batch_size, epochs, evaluation_steps
        self.loss, self.show_progress_bar = loss, show_progress_bar
        self.options = options or CrossEncoderOptions()
        self.base_reranker, self.accept = base_reranker, accept
        self._report: FinetuneReport | None = None
        self._comparison: Comparison | None = None
        self._tuned: TunedReranker | None = None

    def finetune(self) -> FinetuneReport:
        """Collect candidates, train, decide, measure and save."""
        check_writable(self.model_output_path)
        started = time.perf_counter()
        data = self._candidates(self.dataset)
        teach, decide_on, measured = self._parts(data)
        maker = self._maker(self.dataset, data)
        self._light = self._tuned_light(maker, teach)
        model = self._new_model()
        history = train(
            model,
            teach.lists,
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
        trained = time.perf_counter()
        weight, calibration = self._decided(model, maker, decide_on, data.highest_grade)
        val = self.val_dataset
        measuring = maker if val is None else self._maker(val, measured)
        comparison = self._compared(model, measuring, measured, weight, calibration)
        verdict = decide(PRIMARY, comparison.gains[PRIMARY], accept=self.accept)
        report = FinetuneReport(
            title=f"cross-encoder ({Path(self.model_id).name})",
            method="held-out queries" if self.val_dataset is None else "validation set",
            primary=PRIMARY,
            gains=comparison.gains,
            slices=comparison.slices,
            accepted=verdict.accepted,
            reason=f"{verdict.reason}; base: {comparison.base.name}",
            data={
                "training_queries": len(teach),
                "deciding_queries": len(decide_on),
                "fingerprint": teach.fingerprint(),
                "fusion_weight": weight,
            },
            options={**asdict(self.options), "epochs": self.epochs, "batch_size": self.batch_size},
            seed=self.options.seed,
            seconds={"training": trained - started, "measuring": time.perf_counter() - trained},
            history=history,
            notes=comparison.notes,
            versions=installed_versions("sentence-transformers", "transformers", "torch"),
        )
        self._comparison, self._report = comparison, report
        self._words = (maker.analyzer, counted_words(self.dataset, data, maker.analyzer))
        partner = self.options.partner == "light" and weight > 0
        self._tuned = TunedReranker(
            model,
            fusion_weight=weight,
            partner=LightReranker(self._light, *self._words) if partner else None,
            calibration=calibration,
            details=self._details(report),
        )
        if is_main_process():  # of several processes, one writes
            self._tuned.save(self.model_output_path)
            report.save_json(Path(self.model_output_path) / "report.json")
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
        if self._report is None or self._tuned is None or self._comparison is None:
            raise NotFinetunedError("call finetune() first; there is no tuned re-ranker yet")
        if self._report.accepted:
            tuned = self._tuned
            return TunedReranker(
                tuned.model,
                fusion_weight=tuned.fusion_weight,
                partner=tuned.partner,
                calibration=tuned._calibration,
                details=tuned.details,
                **model_kwargs,
            )
        base = self._comparison.base
        logger.warning(
            'the base is kept (%s): %s; accept="always" would override it',
            base.name,
            self._report.reason,
        )
        if base.reranker is not None:
            return base.reranker
        details = {"name": base.name, "accepted": False, "reason": self._report.reason}
        ranker = replace(base.ranker, details=details)
        return LightReranker(ranker, *self._words, **model_kwargs)

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
        self, data: RelevanceDataset
    ) -> tuple[RelevanceDataset, RelevanceDataset, RelevanceDataset]:
        """Queries to train on, to decide by, and to measure on."""
        share = self.options.held_out
        data, decide_on = split_lists(data, share, self.options.seed)
        if self.val_dataset is not None:
            return data, decide_on, self._candidates(self.val_dataset)
        data, measured = split_lists(data, share / (1 - share), self.options.seed + 1)
        return data, decide_on, measured

    def _candidates(self, data: Any) -> RelevanceDataset:
        if hasattr(data, "relevant_docs"):
            if self.retriever is None:
                raise ValueError("a RetrievalDataset needs retriever=, whose candidates are used")
            dataset = RetrievalDataset.coerce(data)
            data = RelevanceDataset.from_retriever(dataset, self.retriever)
        return RelevanceDataset.coerce(data)

    def _tuned_light(self, maker: FeatureMaker, teach: RelevanceDataset) -> LightRanker:
        """A light re-ranker of the same queries: a partner, and what has to be beaten."""
        lists = maker.lists(teach, self.options.depth)
        prior = standardised(lists, default_ranker())
        fold = fold_numbers(teach.groups(), LIGHT_FOLDS, self.options.seed)
        ranker, _ = fit_freely(lists, fold, prior, usual_loss(lists))
        return replace(ranker, details={"name": "light re-ranker of the same queries"})

    def _others(self, lists: Sequence[FeatureList], data: RelevanceDataset) -> list[FloatArray]:
        """The scores that the transformer's are mixed with."""
        if self.options.partner == "light":
            return [self._light.scores(item.features) for item in lists]
        return retrieval_scores(data)

    def _decided(
        self, model: Any, maker: FeatureMaker, dataset: RelevanceDataset, highest: float
    ) -> tuple[float, LightRanker]:
        """The fusion weight by nDCG@10, and the calibration, on the deciding queries."""
        cut = dataset.top(self.options.depth)
        lists = maker.lists(cut)
        logits, others = list_logits(model, cut.lists, 32), self._others(lists, cut)

        def fused(weight: float) -> list[FloatArray]:
            return [fuse(s, o, weight) for s, o in zip(logits, others, strict=True)]

        weight = cautious_weight({w: ndcg(lists, fused(w)) for w in WEIGHTS})
        light = [self._light.scores(i.features) for i in lists]
        self._light = _calibrated(self._light, light, lists, highest)
        plain = LightRanker.fixed("calibration")
        return weight, _calibrated(plain, fused(weight), lists, highest)

    def _maker(self, source: Any, candidates: RelevanceDataset) -> FeatureMaker:
        analyzer = analyzer_for(self.retriever, self.options.language)
        counted = counted_words(source, candidates, analyzer)
        return FeatureMaker(analyzer, deployed_statistics(self.retriever, counted))

    def _compared(
        self,
        model: Any,
        maker: FeatureMaker,
        measured: RelevanceDataset,
        weight: float,
        calibration: LightRanker,
    ) -> Comparison:
        depths = [self.options.depth, *self.options.depths]
        longest = max(len(item.candidates) for item in measured.lists)
        whole = measured.top(min(longest, max(depths)))
        logits = list_logits(model, whole.lists, 32)

        def scores(lists: Sequence[FeatureList]) -> list[FloatArray]:
            depth = max(len(item.relevance) for item in lists)
            others = self._others(lists, whole.top(depth))
            return [fuse(s[: len(o)], o, weight) for s, o in zip(logits, others, strict=True)]

        lines = [
            *base_lines(default_ranker(), self.base_reranker),
            Baseline(str(self._light.details["name"]), self._light),
        ]
        found = compare(whole, maker, scores, lines, self.options, tuned=calibration)
        alone = [f"{transformer_alone(whole, logits, d):.3f} at {d}" for d in sorted({*depths})]
        note = (
            f"the transformer alone has nDCG@10 of {', '.join(alone)} candidates; its share of the"
        )
        return replace(found, notes=[*found.notes, f"{note} score is {1 - weight:.1f}"])

    def _details(self, report: FinetuneReport) -> dict[str, Any]:
        return {
            "model_id": Path(self.model_id).name,
            "accepted": report.accepted,
            "reason": report.reason,
            "fingerprint": report.data["fingerprint"],
            "versions": report.versions,
        }


def transformer_alone(dataset: RelevanceDataset, logits: Sequence[FloatArray], depth: int) -> float:
    """nDCG@10 by the transformer's scores for the first `depth` candidates."""
    nothing = np.zeros((0, 0))
    lists = [
        FeatureList(
            nothing, np.array([c.score for c in item.candidates]), np.array([*item.missed.values()])
        )
        for item in dataset.top(depth).lists
    ]
    return float(ndcg(lists, [s[:depth] for s in logits]).mean())


def cautious_weight(scores: Mapping[float, FloatArray]) -> float:
    """The largest weight that is within one standard error of the best (Breiman et al. 1984).

    The best of eleven on some dozens of queries flatters the transformer; the other score costs
    nothing.

    Args:
        scores: weight → a metric of each query, in the same order.
    """
    best = max(scores.values(), key=lambda values: float(values.mean()))

    def close(values: FloatArray) -> bool:
        lost = best - values
        return bool(lost.mean() <= lost.std() / np.sqrt(len(lost)))

    return max(weight for weight, values in scores.items() if close(values))


def _calibrated(
    ranker: LightRanker,
    scores: Sequence[FloatArray],
    lists: Sequence[FeatureList],
    highest: float,
) -> LightRanker:
    scored = [(s, i.relevance) for s, i in zip(scores, lists, strict=True) if len(s)]
    return calibrate(ranker, scored, highest=highest) if scored else ranker


def split_lists(
    dataset: RelevanceDataset, share: float, seed: int
) -> tuple[RelevanceDataset, RelevanceDataset]:
    """Two parts without a shared query text or relevant node; `share` goes to the second."""
    groups = dataset.groups()
    if len(groups) < 2:
        raise DatasetError(
            f"all {len(dataset)} queries hang together through shared texts or relevant nodes; "
            "some must be held out"
        )
    np.random.default_rng(seed).shuffle(groups)
    held: list[int] = []
    for group in groups[:-1]:
        if len(held) >= share * len(dataset):
            break
        held += group
    ids = [item.query_id for item in dataset.lists]
    rest = [id_ for row, id_ in enumerate(ids) if row not in set(held)]
    return dataset.subset(rest), dataset.subset([ids[row] for row in sorted(held)])
