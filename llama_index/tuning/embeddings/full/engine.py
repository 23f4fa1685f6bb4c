"""The engine that tunes a sentence-transformers model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.tuning import artifacts
from llama_index.tuning._running import process_count
from llama_index.tuning.base import BaseEmbeddingFinetuneEngine
from llama_index.tuning.datasets import RetrievalDataset
from llama_index.tuning.datasets.relevance import RelevanceDataset
from llama_index.tuning.embeddings.adapter.data import Data, check_data
from llama_index.tuning.embeddings.full.data import split
from llama_index.tuning.embeddings.full.model import check_device, check_model_id, loading_bars
from llama_index.tuning.embeddings.full.options import SentenceTransformersOptions
from llama_index.tuning.embeddings.full.settings import (
    FROM_PAIRS,
    FROM_SCORES,
    Loss,
    Prompts,
    Schedule,
    Settings,
    check_loss,
    loss_name,
)
from llama_index.tuning.errors import NotFinetunedError, TuningError
from llama_index.tuning.gate import Accept, check_accept
from llama_index.tuning.hf.checkpoints import held
from llama_index.tuning.report import FinetuneReport

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.schema import BaseNode
    from transformers import TrainerCallback

logger = logging.getLogger(__name__)


class SentenceTransformersFinetuneEngine(BaseEmbeddingFinetuneEngine):
    """Tunes an embedding model's own weights: more gain than an adapter, for a re-indexing.

    Queries are split by relevant document: most are trained on, a tenth decides which checkpoint
    is kept (and how it is merged with the base), and the report is about others: `val_dataset`,
    or a part that is held out. With `options.refit`, the default without `val_dataset`, the model
    that is saved was trained once more on all of them.

    With `torchrun --nproc-per-node N script.py` the same script trains on N GPUs or processes:
    the same batches, one report, one saved model.

    Args:
        dataset: labelled queries. `None` learns from `unlabelled` alone.
        model_id: a sentence-transformers model or encoder, by Hugging Face name or folder.
        model_output_path: folder of the tuned model, replaced when the run succeeds; checkpoints
            lie beside it. Where the gate keeps the base, it holds the base, and the tuned model
            lies in its `candidate/`.
        batch_size: pairs in a step, of all processes together; each other pair's document is a
            negative.
        val_dataset: queries to measure on, none of them in `dataset`, over a corpus of their own.
        loss: by name (see `LossName`), as an object, or a function that makes one of the model;
            multiple negatives ranking by default.
        epochs: passes over the training pairs.
        show_progress_bar: show bars.
        evaluation_steps: steps between two looks at the deciding queries.
        use_all_docs: each relevant document of a query makes a pair, or the first alone.
        trust_remote_code: run code that a model brings along.
        device: where to train; a GPU where there is one by default.
        save_checkpoints: keep the checkpoints, in `<model_output_path>.checkpoints`.
        resume_from_checkpoint: go on from the last whole one there, if there is any.
        checkpoint_save_steps: with `save_checkpoints`, one more every so many steps.
        checkpoint_save_total_limit: with `save_checkpoints`, at most so many are kept; 0 is all.
        options: how to train; see `SentenceTransformersOptions`.
        unlabelled: documents of the corpus that the app searches (nodes, or a dictionary
            id → text). Their sentences teach too, without labels and without an LLM.
        scores: a teacher's scores (a cross-encoder's, an LLM's) of candidates for the training
            queries; `MarginMSELoss` and `DistillKLDivLoss` follow them, `CoSENTLoss` may.
        vector_cache: a file that keeps the base's vectors between runs.
        callbacks: of transformers' trainer; with a refit they see both trainings.
        accept: `"gain"` returns the tuned model only where its gain is shown; `"always"` does
            so whatever was measured.

    Raises:
        DatasetError, ArtifactError, ValueError, TypeError: at `finetune()`, before anything is
            trained.

    Example:
        >>> engine = SentenceTransformersFinetuneEngine(
        ...     dataset, "BAAI/bge-small-en-v1.5", "tuned_model", batch_size=16
        ... )  # doctest: +SKIP
        >>> print(engine.finetune())  # doctest: +SKIP
        >>> Settings.embed_model = engine.get_finetuned_model()  # doctest: +SKIP
    """

    def __init__(
        self,
        dataset: RetrievalDataset | Any | None,
        model_id: str = "BAAI/bge-small-en",
        model_output_path: str | PathLike[str] = "exp_finetune",
        batch_size: int = 10,
        val_dataset: RetrievalDataset | Any | None = None,
        loss: Loss | None = None,
        epochs: int = 2,
        show_progress_bar: bool = True,
        evaluation_steps: int = 50,
        use_all_docs: bool = True,
        trust_remote_code: bool = False,
        device: Any | None = None,
        save_checkpoints: bool = False,
        resume_from_checkpoint: bool = False,
        checkpoint_save_steps: int = 500,
        checkpoint_save_total_limit: int = 0,
        *,
        options: SentenceTransformersOptions | None = None,
        unlabelled: Mapping[str, str] | Sequence[BaseNode] | Sequence[str] | None = None,
        scores: RelevanceDataset | Any | None = None,
        vector_cache: str | PathLike[str] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        accept: Accept = "gain",
    ) -> None:
        self.dataset, self.val_dataset = dataset, val_dataset
        self.unlabelled, self.scores = unlabelled, scores
        self.model_id, self.model_output_path = model_id, Path(model_output_path)
        self.batch_size, self.epochs, self.loss = batch_size, epochs, loss
        self.show_progress_bar, self.evaluation_steps = show_progress_bar, evaluation_steps
        self.use_all_docs, self.trust_remote_code = use_all_docs, trust_remote_code
        self.device = device
        self.save_checkpoints, self.resume_from_checkpoint = (
            save_checkpoints,
            resume_from_checkpoint,
        )
        self.checkpoint_save_steps = checkpoint_save_steps
        self.checkpoint_save_total_limit = checkpoint_save_total_limit
        self.options = options or SentenceTransformersOptions()
        self.vector_cache, self.callbacks = vector_cache, callbacks
        self.accept: Accept = accept
        self.report: FinetuneReport | None = None
        self._prompts = Prompts("", "")

    def finetune(self) -> FinetuneReport:
        """Split, train, decide, measure, refit, save.

        Returns:
            The report; `print(report)` shows the table and the verdict.
        """
        data, settings = self._check(), self._settings()
        parts = split(data, self.options)
        from llama_index.tuning.embeddings.full.run import Tuning, together

        with (
            held(settings.checkpoints, keep=self.save_checkpoints),
            loading_bars(self.show_progress_bar),
        ):
            tuning = Tuning(settings, parts)
            tuning.train()
            tuning.merge()
            self.report = tuning.report()
            tuning.save(self.report)
        together()  # the others wait until the model is saved
        self._prompts = tuning.prompts
        logger.info("%s", self.report.reason)
        return self.report

    def get_finetuned_model(self, **model_kwargs: Any) -> BaseEmbedding:
        """The tuned model as a `HuggingFaceEmbedding`, or the base where the gate kept it.

        Args:
            **model_kwargs: arguments of `HuggingFaceEmbedding`, such as `embed_batch_size`.

        Raises:
            NotFinetunedError: `finetune()` has not run.
        """
        if self.report is None:
            raise NotFinetunedError("call finetune() before get_finetuned_model()")
        settings = self._settings()
        if self.report.accepted:
            return settings.embedding(str(self.model_output_path), self._prompts, **model_kwargs)
        logger.warning(
            'the base model is returned: %s; accept="always" would override', self.report.reason
        )
        return settings.embedding(self.model_id, self._prompts, **model_kwargs)

    def push_to_hub(
        self, repo_id: str, *, private: bool = True, token: str | None = None, **arguments: Any
    ) -> str:
        """Upload the tuned model with its card and report to the Hugging Face hub.

        Args:
            repo_id: `"user/name"`; made where it is not.
            private: whether a new repository is private.
            token: of the hub; the one that is logged in by default.
            **arguments: of `HfApi.upload_folder`, such as `revision` and `commit_message`.

        Returns:
            The commit's address.

        Raises:
            NotFinetunedError: `finetune()` has not run.
            TuningError: the gate kept the base, so there is nothing worth sharing.
        """
        from huggingface_hub import HfApi

        if self.report is None:
            raise NotFinetunedError("call finetune() before push_to_hub()")
        if not self.report.accepted:
            raise TuningError(f"nothing is uploaded, the base was kept: {self.report.reason}")
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        folder = str(self.model_output_path)
        done = api.upload_folder(repo_id=repo_id, folder_path=folder, **arguments)
        return str(done.commit_url)

    def _check(self) -> Data:
        """All that can be wrong before any work."""
        if not isinstance(self.options, SentenceTransformersOptions):
            raise TypeError(
                f"options must be a SentenceTransformersOptions, got {type(self.options).__name__}"
            )
        check_accept(self.accept)
        check_model_id(self.model_id)
        for name, least in (
            ("batch_size", 2),
            ("epochs", 1),
            ("evaluation_steps", 1),
            ("checkpoint_save_steps", 1),
            ("checkpoint_save_total_limit", 0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
        self._check_loss()
        artifacts.check_writable(self.model_output_path)
        check_device(self.device)
        if self.batch_size % process_count():
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of the {process_count()} "
                "processes that train together"
            )
        return check_data(self.dataset, self.unlabelled, self.val_dataset, self.options)

    def _check_loss(self) -> None:
        """The loss, and that the data it learns from is there."""
        check_loss(self.loss)
        name = loss_name(self.loss)
        if name in FROM_SCORES and self.scores is None:
            raise ValueError(f"loss {name} follows a teacher: pass scores=")
        if self.scores is not None and name in FROM_PAIRS:
            raise ValueError(f"loss {name} learns from pairs; scores= would not be used")
        if self.scores is not None and self.unlabelled is not None:
            raise ValueError("scores= says all that is learnt; unlabelled= would not be used")
        if name == "TripletLoss" and not self._settings().hard_negatives:
            raise ValueError("TripletLoss needs options.hard_negatives >= 1, or a MinedDataset")

    def _settings(self) -> Settings:
        return Settings(
            model_id=self.model_id,
            output=self.model_output_path,
            device=str(self.device) if self.device is not None else None,
            trust_remote_code=self.trust_remote_code,
            loss=self.loss,
            use_all_docs=self.use_all_docs,
            scores=None if self.scores is None else RelevanceDataset.coerce(self.scores),
            negatives=getattr(self.dataset, "negatives", None),
            vector_cache=self.vector_cache,
            callbacks=self.callbacks,
            accept=self.accept,
            options=self.options,
            schedule=Schedule(
                batch_size=self.batch_size,
                epochs=self.epochs,
                evaluation_steps=self.evaluation_steps,
                save_checkpoints=self.save_checkpoints,
                resume=self.resume_from_checkpoint,
                save_steps=self.checkpoint_save_steps,
                save_limit=self.checkpoint_save_total_limit,
                show_progress=self.show_progress_bar,
            ),
        )
